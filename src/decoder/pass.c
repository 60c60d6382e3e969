/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying a pass out, and the small questions others ask of it.
 */
#include "decoder/pass.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Rows of the head at a time. */
#define HEAD_ROWS 256

bool pass_routes(const struct decoder_pass *p)
{
    return p->mixture && p->mixture->n_routers &&
           (p->options.routing == ROUTE_ROUTER || p->options.want_probs ||
            p->options.router_ce != 0.0f);
}

struct gates *pass_gates(struct decoder_pass *p, size_t layer, enum site s)
{
    int router;

    if (!p->mixture || !p->mixture->n_experts)
        return NULL;
    if (p->options.routing == ROUTE_GIVEN)
        return &p->given;
    router = mixture_router_of(p->mixture, layer, s);
    return router < 0 ? NULL : &p->gates[router];
}

static void acts_carve(struct layer_acts *l, struct arena *a,
                       const struct decoder_pass *p, size_t T)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t kept =
        p->mixture && p->options.backward ? apply_kept_floats(p->mixture, T) : 0;
    const size_t heads = c->n_heads * c->head_dim, groups = c->n_kv_heads * c->head_dim;

    l->x_in = p->options.staged ? NULL : arena_f32(a, T * c->dim);
    l->inv_rms_attn = arena_f32(a, T);
    l->q = arena_f32(a, T * heads);
    l->k = arena_f32(a, T * groups);
    l->v = arena_f32(a, T * groups);
    l->attn = arena_f32(a, T * heads);
    l->lse = arena_f32(a, T * c->n_heads);
    l->x_mid = arena_f32(a, T * c->dim);
    l->inv_rms_ffn = arena_f32(a, T);
    l->gate = arena_f32(a, T * c->ffn_dim);
    l->up = arena_f32(a, T * c->ffn_dim);
    for (size_t s = 0; s < N_SITES; s++)
        l->h[s] = kept && !(s == SITE_DOWN && p->options.recompute)
                      ? arena_f32(a, kept)
                      : NULL; /* a forward run anew stops before down */
}

/* Without a backward every layer writes where the one before it did; only the residual
 * stream needs two places in turn, or one a layer where the rest is computed anew. */
static void all_acts_carve(struct decoder_pass *p, struct arena *a,
                           const struct model_config *c, size_t T)
{
    const bool backward = p->options.backward, recompute = p->options.recompute;
    const bool staged = p->options.staged;
    struct layer_acts shared = {0};
    float *other = NULL;

    p->acts = arena_take(a, (c->n_layers + 1) * sizeof(*p->acts));
    if (!backward || recompute)
        acts_carve(&shared, a, p, T);
    if (!backward && !staged)
        other = arena_f32(a, T * c->dim);
    for (size_t l = 0; l <= c->n_layers; l++) {
        struct layer_acts acts = shared;

        if (staged)
            acts.x_in = NULL; /* each block's own */
        else if (!backward)
            acts.x_in = l % 2 ? other : shared.x_in;
        else if (recompute)
            acts.x_in = l ? arena_f32(a, T * c->dim) : shared.x_in;
        else if (l < c->n_layers)
            acts_carve(&acts, a, p, T);
        else
            acts.x_in = arena_f32(a, T * c->dim);
        if (p->acts)
            p->acts[l] = acts;
    }
}

struct gates *pass_gates_carve(struct gates *given, struct arena *a,
                               const struct mixture *m, size_t n_rows, size_t n_seqs,
                               bool backward)
{
    const bool by_sequence = m && m->rule.decides == DECIDE_SEQUENCE;
    struct gates *gates;

    if (!m)
        return NULL;
    gates_carve(given, a, n_rows, n_seqs, m->n_experts, 0, false);
    gates = arena_take(a, m->n_routers * sizeof(*gates));
    for (size_t r = 0; r < m->n_routers; r++) {
        struct gates g = {0};

        gates_carve(&g, a, n_rows, by_sequence ? n_seqs : n_rows, m->n_experts,
                    by_sequence ? m->routers[r].dim : 0, backward);
        if (gates)
            gates[r] = g;
    }
    return gates;
}

static void experts_carve(struct decoder_pass *p, struct arena *a,
                          const struct model_config *c, size_t T, size_t S,
                          size_t in_float)
{
    const struct mixture *m = p->mixture;
    size_t widest = c->dim;

    if (!m)
        return;
    apply_scratch_carve(&p->apply, a, m, c, in_float);
    for (size_t r = 0; r < m->n_routers; r++)
        widest = m->routers[r].dim > widest ? m->routers[r].dim : widest;
    if (p->options.backward)
        p->router_scratch = arena_f32(a, (m->rule.decides == DECIDE_SEQUENCE ? S : T) *
                                             (m->n_experts + widest));
}

static void backward_carve(struct decoder_pass *p, struct arena *a,
                           const struct model_config *c, size_t T)
{
    const size_t heads = c->n_heads * c->head_dim, groups = c->n_kv_heads * c->head_dim;

    p->d_x = p->options.staged ? NULL : arena_f32(a, T * c->dim);
    p->d_xn = arena_f32(a, T * c->dim);
    p->d_q = arena_f32(a, T * heads);
    p->d_k = arena_f32(a, T * groups);
    p->d_v = arena_f32(a, T * groups);
    p->d_attn = arena_f32(a, T * heads);
    p->d_act = arena_f32(a, T * c->ffn_dim);
    p->d_gate = arena_f32(a, T * c->ffn_dim);
    p->d_up = arena_f32(a, T * c->ffn_dim);
}

/* The float step's own room. */
static void float_carve(struct decoder_pass *p, struct arena *a,
                        const struct model_config *c, size_t T)
{
    const size_t widest = c->ffn_dim > c->dim ? c->ffn_dim : c->dim;

    all_acts_carve(p, a, c, T);
    p->xn = arena_f32(a, T * c->dim);
    p->act = arena_f32(a, T * c->ffn_dim);
    p->step = arena_f32(a, PASS_DECODE_ROWS * widest);
    p->attention = arena_f32(a, attention_scratch(&p->heads, T, p->model->n_positions));
    if (p->options.backward)
        backward_carve(p, a, c, T);
    p->chunk = T < HEAD_ROWS ? T : HEAD_ROWS;
    p->head_rows = arena_take(a, p->chunk * sizeof(*p->head_rows));
    p->logits = arena_f32(a, p->chunk * PASS_HEAD_COLS);
    p->head_x = arena_f32(a, p->chunk * c->dim);
    p->head_xn = arena_f32(a, p->chunk * c->dim);
    p->head_d = arena_f32(a, p->chunk * c->dim);
    p->head_inv = arena_f32(a, p->chunk);
}

static void tiles_carve(struct decoder_pass *p, struct arena *a)
{
    const struct artel_model *model = p->model;
    const struct expert_stack *stack = p->mixture ? p->mixture->stack : NULL;
    struct tile_pass *tiles = arena_take(a, sizeof(*tiles)), measured;
    struct expert_stack planned;
    struct arena other = {0};

    if (!stack && p->mixture && p->mixture->n_experts) {
        /* only measured: pass_open has it packed first */
        expert_stack_init(&planned, &other, p->mixture, &model->tiles.shape,
                          p->options.backward);
        stack = &planned;
    }
    tile_pass_carve(tiles ? tiles : &measured, a, &model->tiles, stack, p->mixture,
                    &p->options, model->weights->config.n_layers, model->n_positions);
    p->tiles = tiles;
}

static void carve(struct decoder_pass *p, struct arena *a)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t T = p->options.max_rows, S = p->options.max_seqs;
    const bool in_tiles = p->model->has_tiles;
    /* Beside tiles, floats serve the few rows of a session's decode alone. */
    const size_t in_float = in_tiles && T > PASS_DECODE_ROWS ? PASS_DECODE_ROWS : T;

    if (!p->options.staged) {
        p->ids = arena_take(a, T * sizeof(*p->ids));
        p->pos = arena_take(a, tile_round(T) * sizeof(*p->pos));
        p->seq_of_row = arena_take(a, T * sizeof(*p->seq_of_row));
        p->pools = arena_take(a, S * sizeof(*p->pools));
        p->labels = arena_take(a, S * sizeof(*p->labels));
        p->gates =
            pass_gates_carve(&p->given, a, p->mixture, T, S, p->options.backward);
    }
    p->row_self = arena_take(a, T * sizeof(*p->row_self));
    experts_carve(p, a, c, T, S, in_float);
    p->loss_rows = arena_take(a, T * sizeof(*p->loss_rows));
    float_carve(p, a, c, in_float);
    if (in_tiles)
        tiles_carve(p, a);
}

static void describe(struct decoder_pass *p, const struct artel_model *model,
                     const struct mixture *mixture, const struct pass_options *o)
{
    const struct model_config *c = &model->weights->config;

    *p = (struct decoder_pass){.model = model, .mixture = mixture, .options = *o};
    p->laid_for_backward = o->backward;
    p->dropout_asked = o->dropout;
    p->heads = (struct attention_shape){c->n_heads, c->n_kv_heads, c->head_dim};
}

size_t pass_bytes(const struct artel_model *model, const struct mixture *mixture,
                  const struct pass_options *o)
{
    struct decoder_pass p;
    struct arena measure = {0};

    describe(&p, model, mixture, o);
    carve(&p, &measure);
    return measure.used;
}

/* The experts packed for tiles belong to the mixture; the first pass over it packs them,
 * the first that trains packs them for training. */
static int stack_experts(const struct artel_model *model, const struct mixture *mixture,
                         bool training, struct artel_error *err)
{
    int rc = 0;

    if (!model->has_tiles || !mixture || !mixture->n_experts)
        return 0;
#pragma omp critical
    if (!mixture->stack || (training && !mixture->stack->training))
        rc = mixture_stack((struct mixture *)(uintptr_t)mixture, &model->tiles.shape,
                           training, err);
    return rc;
}

int pass_open(struct decoder_pass **out, const struct artel_model *model,
              const struct mixture *mixture, const struct pass_options *o,
              struct artel_error *err)
{
    struct decoder_pass *p = malloc(sizeof(*p));
    int rc;

    *out = NULL;
    if (!p)
        return error_nomem(err, sizeof(*p));
    assert(!(model->use & MATRIX_STAGED) == !o->staged);
    describe(p, model, mixture, o);
    rc = stack_experts(model, mixture, o->backward, err);
    if (rc == 0)
        rc = arena_init(&p->arena, pass_bytes(model, mixture, o), err);
    if (rc < 0) {
        free(p);
        return rc;
    }
    carve(p, &p->arena);
    for (size_t t = 0; t < o->max_rows; t++)
        p->row_self[t] = (uint32_t)t;
    *out = p;
    return 0;
}

void pass_close(struct decoder_pass *p)
{
    if (!p)
        return;
    arena_release(&p->arena);
    free(p);
}

void pass_set_dropout_seed(struct decoder_pass *p, uint64_t seed)
{
    p->options.dropout_seed = seed;
}

void pass_set_router_ce(struct decoder_pass *p, float weight)
{
    p->options.router_ce = weight;
}

void pass_set_routing(struct decoder_pass *p, enum routing_mode routing)
{
    p->options.routing = routing;
}

void pass_set_training(struct decoder_pass *p, bool on)
{
    p->options.backward = on && p->laid_for_backward;
    p->options.dropout = on && p->dropout_asked;
}

size_t pass_nonfinite_layer(const struct decoder_pass *p)
{
    const struct model_config *c = &p->model->weights->config;

    if (p->in_tiles)
        return p->laid_for_backward ? tile_nonfinite_layer(p) : c->n_layers;
    for (size_t l = 0; l < c->n_layers && p->laid_for_backward; l++) {
        const float *x = p->acts[l + 1].x_in;

        for (size_t i = 0; i < p->T * c->dim; i++)
            if (!isfinite(x[i]))
                return l;
    }
    return c->n_layers;
}

const float *pass_hidden(const struct decoder_pass *p, size_t row)
{
    const struct model_config *c = &p->model->weights->config;

    if (p->in_tiles)
        return p->tiles->x + row * p->tiles->pitch;
    return p->acts[c->n_layers].x_in + row * c->dim;
}
