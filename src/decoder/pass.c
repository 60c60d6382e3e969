/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Laying a pass out, and the small questions others ask of it.
 */
#include "decoder/pass.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Rows with loss that the head takes at a time. */
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
    if (router < 0) /* no router is asked here, and what is fixed needs none */
        return p->mixture->rule.n_fixed ? &p->given : NULL;
    return &p->gates[router];
}

const struct step_ops *pass_ops(const struct artel_model *model,
                                const struct pass_options *o)
{
    return model->has_tiles && !o->few ? &tile_ops : &float_ops;
}

/* Layers of which each keeps its own input; 0: the stream is in one place. */
static size_t kept_inputs(const struct artel_model *model, const struct pass_options *o)
{
    const bool again = o->recompute || pass_ops(model, o)->reads_inputs;

    return o->backward && again ? model->weights->config.n_layers : 0;
}

float *pass_d_stream_carve(struct arena *a, const struct artel_model *model,
                           const struct pass_options *o, size_t n_rows)
{
    const struct step_ops *ops = pass_ops(model, o);

    return arena_f32(a, pass_round(ops, n_rows) * ops->pitch(model));
}

float **pass_stream_carve(struct arena *a, const struct artel_model *model,
                          const struct pass_options *o, size_t n_rows)
{
    const size_t L = model->weights->config.n_layers, kept = kept_inputs(model, o);
    float **x = arena_take(a, (L + 1) * sizeof(*x)), *place = NULL;

    for (size_t l = 0; l <= L; l++) {
        if (l <= kept)
            place = pass_d_stream_carve(a, model, o, n_rows);
        if (x)
            x[l] = place;
    }
    return x;
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
    given->n_fixed = m->rule.n_fixed;
    given->silent = m->rule.silent;
    gates = arena_take(a, m->n_routers * sizeof(*gates));
    for (size_t r = 0; r < m->n_routers; r++) {
        struct gates g = {0};

        gates_carve(&g, a, n_rows, by_sequence ? n_seqs : n_rows, m->n_experts,
                    by_sequence && m->rule.place != ROUTER_TEXT ? m->routers[r].dim : 0,
                    backward);
        g.n_fixed = m->rule.n_fixed;
        g.silent = m->rule.silent;
        if (m->rule.n_clusters)
            gates_carve_yield(&g, a, n_rows, n_seqs, m->routers[r].dim);
        if (gates)
            gates[r] = g;
    }
    return gates;
}

static void carve(struct decoder_pass *p, struct arena *a)
{
    const struct pass_options *o = &p->options;
    const size_t T = o->max_rows, S = o->max_seqs;
    const size_t head = p->chunk * p->pitch;

    if (!o->staged) {
        p->x = pass_stream_carve(a, p->model, o, T);
        if (o->backward)
            p->d_x = pass_d_stream_carve(a, p->model, o, T);
        p->ids = arena_take(a, T * sizeof(*p->ids));
        p->pos = arena_take(a, pass_round(p->ops, T) * sizeof(*p->pos));
        p->seq_of_row = arena_take(a, T * sizeof(*p->seq_of_row));
        p->pools = arena_take(a, S * sizeof(*p->pools));
        p->labels = arena_take(a, S * sizeof(*p->labels));
        p->gates = pass_gates_carve(&p->given, a, p->mixture, T, S, o->backward);
    }
    if (p->mixture && p->mixture->rule.place == ROUTER_TEXT)
        ngrams_carve(&p->ngrams, a, &p->mixture->rule.ngrams);
    joined_carve(p, a);
    p->row_self = arena_take(a, T * sizeof(*p->row_self));
    p->loss_rows = arena_take(a, T * sizeof(*p->loss_rows));
    p->head_x = arena_f32(a, head);
    p->head_d = o->backward ? arena_f32(a, head) : NULL;
    p->head_nll = arena_take(a, p->chunk * sizeof(*p->head_nll));
    p->logits_x = arena_f32(a, PASS_FEW_ROWS * p->model->weights->config.dim);
    p->ops->carve(p, a);
}

static void describe(struct decoder_pass *p, const struct artel_model *model,
                     const struct mixture *mixture, const struct pass_options *o)
{
    const struct step_ops *ops = pass_ops(model, o);

    assert(!o->few || o->max_rows <= PASS_FEW_ROWS);
    assert(!o->continued || (!o->backward && !o->shared));
    *p = (struct decoder_pass){
        .model = model,
        .mixture = mixture,
        .ops = ops,
        .options = *o,
        .laid_for_backward = o->backward,
        .dropout_asked = o->dropout,
        .one_layer = !o->backward || o->recompute,
        .pitch = ops->pitch(model),
        .n_threads = o->shared && ops->in_parts ? (size_t)omp_get_max_threads() : 1,
        .chunk = pass_round(ops, o->max_rows < HEAD_ROWS ? o->max_rows : HEAD_ROWS),
    };
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

int pass_open(struct decoder_pass **out, const struct artel_model *model,
              const struct mixture *mixture, const struct pass_options *o,
              struct artel_error *err)
{
    struct decoder_pass *p = malloc(sizeof(*p));
    int rc = 0;

    *out = NULL;
    if (!p)
        return error_nomem(err, sizeof(*p));
    assert(!(model->use & MATRIX_STAGED) == !o->staged);
    describe(p, model, mixture, o);
    if (p->ops->prepare)
        rc = p->ops->prepare(model, mixture, o->backward, err);
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

void pass_set_balance(struct decoder_pass *p, float weight)
{
    p->options.balance = weight;
}

void pass_set_routing(struct decoder_pass *p, enum routing_mode routing)
{
    p->options.routing = routing;
}

void pass_set_weights(struct decoder_pass *p, const struct artel_model *model,
                      const struct mixture *mixture)
{
    p->model = model;
    p->mixture = mixture;
}

void pass_set_training(struct decoder_pass *p, bool on)
{
    p->options.backward = on && p->laid_for_backward;
    p->options.dropout = on && p->dropout_asked;
}

static bool finite_floats(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Where layers add to one stream, the forward is run again to look at each output. */
size_t pass_nonfinite_layer(struct decoder_pass *p)
{
    const size_t L = p->model->weights->config.n_layers;
    const bool anew = p->x[0] == p->x[L];

    assert(p->laid_for_backward);
    if (anew)
        decoder_embed(p);
    for (size_t l = 0; l < L; l++) {
        if (anew)
            layer_forward(p, l);
        if (!finite_floats(p->x[l + 1], p->rows * p->pitch))
            return l;
    }
    return L;
}

const float *pass_hidden(const struct decoder_pass *p, size_t row)
{
    return p->x[p->model->weights->config.n_layers] + row * p->pitch;
}
