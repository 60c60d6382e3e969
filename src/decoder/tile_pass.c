/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying out what the operations on tiles need, and what they share.
 */
#include "decoder/tile_pass.h"

#include <math.h>
#include <string.h>

static struct tiles tiles_carve(struct arena *a, size_t rows, size_t blocks)
{
    return (struct tiles){arena_take(a, tile_elems(rows, blocks) * sizeof(uint16_t)),
                          blocks};
}

static struct tile_acts acts_carve(struct arena *a, const struct tile_shape *s,
                                   size_t rows)
{
    const size_t D = s->in[TILE_QKV].blocks;
    struct tile_acts t;

    t.xn_attn = tiles_carve(a, rows, D);
    t.qkv = tiles_carve(a, rows, s->out[TILE_QKV].blocks);
    t.o = tiles_carve(a, rows, s->in[TILE_O].blocks);
    t.xn_ffn = tiles_carve(a, rows, D);
    t.gate_up = tiles_carve(a, rows, s->out[TILE_GATE_UP].blocks);
    t.inv_attn = arena_f32(a, rows);
    t.inv_ffn = arena_f32(a, rows);
    t.lse = arena_f32(a, s->n_heads * rows);
    return t;
}

static void backward_carve(struct tile_pass *t, struct arena *a, size_t pitch)
{
    const struct tile_shape *s = &t->model->shape;
    const size_t rows = t->max_rows;

    t->d_xb = tiles_carve(a, rows, pitch / TILE_COLS);
    t->y = arena_f32(a, rows * pitch);
    t->d_gate_up = tiles_carve(a, rows, s->out[TILE_GATE_UP].blocks);
    t->d_qkv = tiles_carve(a, rows, s->out[TILE_QKV].blocks);
    t->d_o = tiles_carve(a, rows, s->in[TILE_O].blocks);
}

static void head_carve(struct tile_pass *t, struct arena *a,
                       const struct decoder_pass *p)
{
    const bool backward = p->options.backward;

    t->head_xn = tiles_carve(a, p->chunk, p->pitch / TILE_COLS);
    t->head_inv = arena_f32(a, p->chunk);
    t->head_scale = arena_f32(a, p->chunk);
    t->head_target = arena_take(a, p->chunk * sizeof(*t->head_target));
    t->head_scratch =
        arena_take(a, tile_set()->head_scratch(&t->model->head, p->chunk, backward));
    if (backward)
        t->head_d_xn = arena_f32(a, p->chunk * p->pitch);
}

static void threads_carve(struct tile_pass *t, struct arena *a,
                          const struct decoder_pass *p)
{
    const struct tile_shape *s = &t->model->shape;
    const struct pass_options *o = &p->options;
    const size_t far = p->model->n_positions;
    const size_t n_keys = far > t->max_rows ? far : t->max_rows;
    const struct tile_heads heads = {s->n_heads, s->n_kv_heads, s->qk_blocks,
                                     s->v_blocks, 1.0f};

    t->room = arena_take(a, p->n_threads * sizeof(*t->room));
    t->attention = arena_take(a, p->n_threads * sizeof(*t->attention));
    for (size_t i = 0; i < p->n_threads; i++) {
        struct stacked_room room = {0};
        void *scratch =
            arena_take(a, tile_set()->attention_scratch(&heads, t->max_rows, n_keys));

        if (t->stack)
            stacked_room_carve(&room, a, t->stack, t->max_rows, o->backward,
                               o->dropout);
        if (t->room) {
            t->room[i] = room;
            t->attention[i] = scratch;
        }
    }
}

/* Everything but what the mixture has packed. */
static void room_carve(struct tile_pass *t, struct arena *a,
                       const struct decoder_pass *p)
{
    const struct mixture *m = p->mixture;
    const struct tile_shape *s = &t->model->shape;
    const size_t n_acts = p->one_layer ? 1 : p->model->weights->config.n_layers;

    t->acts = arena_take(a, n_acts * sizeof(*t->acts));
    for (size_t l = 0; l < n_acts; l++) {
        const struct tile_acts acts = acts_carve(a, s, t->max_rows);

        if (t->acts)
            t->acts[l] = acts;
    }
    t->act = tiles_carve(a, t->max_rows, s->in[TILE_DOWN].blocks);
    if (m && m->n_routers)
        routers_room_carve(&t->routers, a, m, s, t->max_rows, p->options.max_seqs,
                           p->options.backward);
    threads_carve(t, a, p);
    head_carve(t, a, p);
    if (p->options.backward)
        backward_carve(t, a, p->pitch);
}

static void carve(struct decoder_pass *p, struct arena *a)
{
    const struct mixture *m = p->mixture;
    struct tile_pass *room = arena_take(a, sizeof(*room));
    struct tile_pass t = {.model = &p->model->tiles,
                          .stack = m ? m->stack : NULL,
                          .max_rows = tile_round(p->options.max_rows)};
    struct expert_stack planned;
    struct arena other = {0};

    if (!t.stack && m && m->n_experts) {
        /* only measured: PREPARE has it packed first */
        expert_stack_init(&planned, &other, m, &t.model->shape, p->options.backward);
        t.stack = &planned;
    }
    room_carve(&t, a, p);
    if (room)
        *room = t;
    p->tiles = room;
}

/* The experts packed for tiles belong to the mixture; the first pass over it packs them,
 * the first that trains packs them for training. */
static int stack_experts(const struct artel_model *m, const struct mixture *mixture,
                         bool training, struct artel_error *err)
{
    int rc = mixture ? rule_check_tiles(&mixture->rule, mixture->method, err) : 0;

    if (rc < 0 || !mixture || !mixture->n_experts)
        return rc;
#pragma omp critical
    if (!mixture->stack || (training && !mixture->stack->training))
        rc = mixture_stack((struct mixture *)(uintptr_t)mixture, &m->tiles.shape,
                           training, err);
    return rc;
}

static size_t pitch(const struct artel_model *m)
{
    return m->tiles.shape.in[TILE_QKV].blocks * TILE_COLS;
}

struct tile_acts *tile_acts_of(const struct decoder_pass *p, size_t layer)
{
    return &p->tiles->acts[p->one_layer ? 0 : layer];
}

struct stacked_place tile_place(struct decoder_pass *p, size_t layer, enum tile_group g)
{
    struct stacked_place at = {.layer = layer,
                               .group = g,
                               .dropout = p->options.dropout,
                               .dropout_seed = p->options.dropout_seed,
                               .wants_d_x = true};

    for (int s = 0; s < N_SITES; s++)
        at.gates[s] = tile_group_of((enum site)s) == g
                          ? pass_gates(p, layer, (enum site)s)
                          : NULL;
    return at;
}

struct tile_routers tile_routers_of(const struct decoder_pass *p,
                                    const struct step_routers *rs, enum tile_group g)
{
    struct tile_routers out = {.n = rs->n, .map = &p->tiles->model->shape.in[g]};

    for (size_t i = 0; i < rs->n; i++) {
        out.router[i] = rs->router[i];
        out.gates[i] = rs->gates[i];
        out.d_w[i] = rs->d_w[i];
        out.d_b[i] = rs->d_b[i];
    }
    return out;
}

struct tile_attention tile_attention_of(const struct decoder_pass *p,
                                        const struct tile_acts *a, size_t thread)
{
    const struct tile_shape *s = &p->tiles->model->shape;

    return (struct tile_attention){
        .heads = {s->n_heads, s->n_kv_heads, s->qk_blocks, s->v_blocks,
                  1.0f / sqrtf((float)s->head_dim)},
        .qkv = a->qkv,
        .o = a->o,
        .lse = p->laid_for_backward ? a->lse : NULL,
        .lse_pitch = p->tiles->max_rows,
        .n_parts = 1,
        .scratch = p->tiles->attention[thread],
    };
}

void tile_clear_behind(const struct decoder_pass *p, struct tiles t)
{
    for (size_t r = p->T; r < p->rows; r++)
        for (size_t b = 0; b < t.pitch; b++)
            memset(tile_at(t, r, b), 0, TILE_COLS * sizeof(uint16_t));
}

const struct step_ops tile_ops = {
    .row_step = PAIR_ROWS,
    .in_parts = true,
    .reads_inputs = false,
    .pitch = pitch,
    .prepare = stack_experts,
    .carve = carve,
    .norm = tile_norm,
    .qkv = tile_qkv,
    .attend = tile_attend,
    .output = tile_output,
    .gate_up = tile_gate_up,
    .down = tile_down,
    .read_routers = tile_read_routers,
    .read_pools = tile_read_pools,
    .down_backward = tile_down_backward,
    .gate_up_backward = tile_gate_up_backward,
    .output_backward = tile_output_backward,
    .attend_backward = tile_attend_backward,
    .qkv_backward = tile_qkv_backward,
    .norm_backward = tile_norm_backward,
    .loss = tile_loss,
};
