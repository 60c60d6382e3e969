/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying out a pass on tiles, and what its forward and backward share.
 */
#include "decoder/tile_pass.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "decoder/tile_parts.h"

#define LOSS_ROWS 256 /* rows with loss that the head takes at a time */

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

static void backward_carve(struct tile_pass *t, struct arena *a, bool staged)
{
    const struct tile_shape *s = &t->model->shape;
    const size_t rows = t->max_rows;

    if (!staged) {
        t->d_x = arena_f32(a, rows * t->pitch);
        t->d_xb = tiles_carve(a, rows, t->pitch / 32);
    }
    t->y = arena_f32(a, rows * t->pitch);
    t->d_gate_up = tiles_carve(a, rows, s->out[TILE_GATE_UP].blocks);
    t->d_qkv = tiles_carve(a, rows, s->out[TILE_QKV].blocks);
    t->d_o = tiles_carve(a, rows, s->in[TILE_O].blocks);
}

static void head_carve(struct tile_pass *t, struct arena *a, bool backward)
{
    t->chunk = t->max_rows < LOSS_ROWS ? t->max_rows : LOSS_ROWS;
    t->head_x = tiles_carve(a, t->chunk, t->pitch / 32);
    t->head_in = arena_f32(a, t->chunk * t->pitch);
    t->head_inv = arena_f32(a, t->chunk);
    t->head_scale = arena_f32(a, t->chunk);
    t->head_target = arena_take(a, t->chunk * sizeof(*t->head_target));
    t->head_nll = arena_take(a, t->chunk * sizeof(*t->head_nll));
    t->head_scratch =
        arena_take(a, tile_set()->head_scratch(&t->model->head, t->chunk, backward));
    if (backward) {
        t->head_d = arena_f32(a, t->chunk * t->pitch);
        t->head_dx = arena_f32(a, t->chunk * t->pitch);
    }
}

static void threads_carve(struct tile_pass *t, struct arena *a,
                          const struct pass_options *o, size_t n_keys)
{
    const struct tile_shape *s = &t->model->shape;
    const struct tile_heads heads = {s->n_heads, s->n_kv_heads, s->qk_blocks,
                                     s->v_blocks, 1.0f};

    t->n_threads = o->shared ? (size_t)omp_get_max_threads() : 1;
    t->room = arena_take(a, t->n_threads * sizeof(*t->room));
    t->attention = arena_take(a, t->n_threads * sizeof(*t->attention));
    for (size_t i = 0; i < t->n_threads; i++) {
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

/* The residual stream, and as it was before each of N_KEPT layers. */
static void stream_carve(struct tile_pass *t, struct arena *a, size_t n_kept)
{
    if (n_kept)
        t->x_in = arena_take(a, (n_kept + 1) * sizeof(*t->x_in));
    for (size_t l = 0; l <= n_kept; l++) {
        t->x = arena_f32(a, t->max_rows * t->pitch);
        if (t->x_in)
            t->x_in[l] = t->x;
    }
}

void tile_pass_carve(struct tile_pass *t, struct arena *a,
                     const struct tile_model *model, const struct expert_stack *stack,
                     const struct mixture *mixture, const struct pass_options *o,
                     size_t n_layers, size_t n_keys)
{
    const struct tile_shape *s = &model->shape;
    struct tile_acts shared = {0};

    *t = (struct tile_pass){.model = model,
                            .stack = stack,
                            .pitch = s->in[TILE_QKV].blocks * 32,
                            .max_rows = tile_round(o->max_rows)};
    t->one_layer = !o->backward || o->recompute;
    t->acts = arena_take(a, n_layers * sizeof(*t->acts));
    if (t->one_layer)
        shared = acts_carve(a, s, t->max_rows);
    for (size_t l = 0; l < n_layers; l++) {
        const struct tile_acts acts =
            t->one_layer ? shared : acts_carve(a, s, t->max_rows);

        if (t->acts)
            t->acts[l] = acts;
    }
    if (!o->staged)
        stream_carve(t, a, o->recompute ? n_layers : 0);
    t->act = tiles_carve(a, t->max_rows, s->in[TILE_DOWN].blocks);
    if (mixture && mixture->n_routers)
        routers_room_carve(&t->routers, a, mixture, s, t->max_rows, o->max_seqs,
                           o->backward);
    threads_carve(t, a, o, n_keys > t->max_rows ? n_keys : t->max_rows);
    head_carve(t, a, o->backward);
    if (o->backward)
        backward_carve(t, a, o->staged);
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

struct tile_product tile_forward_product(const struct tile_pass *t, size_t layer,
                                         enum tile_group g, struct tiles x)
{
    const size_t k = t->model->shape.in[g].blocks;

    return (struct tile_product){.a = x,
                                 .k = k,
                                 .b = t->model->layers[layer].forward[g],
                                 .b_pitch = k * PACK_ELEMS,
                                 .panels = t->model->shape.out[g].blocks,
                                 .rows = t->rows};
}

struct tile_product tile_backward_product(const struct tile_pass *t, size_t layer,
                                          enum tile_group g, struct tiles d_y)
{
    const size_t k = t->model->shape.out[g].blocks;

    return (struct tile_product){.a = d_y,
                                 .k = k,
                                 .b = t->model->layers[layer].backward[g],
                                 .b_pitch = k * PACK_ELEMS,
                                 .panels = t->model->shape.in[g].blocks,
                                 .rows = t->rows};
}

struct tile_attention tile_attention_of(const struct decoder_pass *p,
                                        struct tile_acts *a, void *scratch)
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
        .scratch = scratch,
    };
}

void tile_clear(struct tiles t, size_t blocks, size_t from, size_t to)
{
    for (size_t r = from; r < to; r++)
        for (size_t b = 0; b < blocks; b++)
            memset(tile_at(t, r, b), 0, TILE_COLS * sizeof(uint16_t));
}

static bool finite_floats(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static bool finite_tiles(struct tiles t, size_t blocks, size_t rows)
{
    for (size_t i = 0; i < tile_round(rows) / TILE_ROWS * blocks * TILE_ELEMS; i++)
        if ((t.at[i] & 0x7f80) == 0x7f80)
            return false;
    return true;
}

size_t tile_nonfinite_layer(const struct decoder_pass *p)
{
    const struct tile_pass *t = p->tiles;
    const size_t L = p->model->weights->config.n_layers;

    for (size_t l = 0; l < L && t->x_in; l++)
        if (!finite_floats(t->x_in[l + 1], t->rows * t->pitch))
            return l;
    for (size_t l = 0; l < L && !t->x_in; l++)
        if (!finite_tiles(t->acts[l].qkv, t->acts[l].qkv.pitch, t->rows) ||
            !finite_tiles(t->acts[l].gate_up, t->acts[l].gate_up.pitch, t->rows))
            return l;
    return L;
}
