/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The toy base under SLIM as docs/METHODS.md writes it, sequence by sequence and row by row
 * with plain loops in double: nothing of the engine but its numbers and which places a mask
 * drew.
 *
 *     yield        y = max(d / d_run - 1, 0), d between what a question showed and clusters
 *     logits       r + beta y of identities, r - beta y of LoRAs
 *     gates        softmax, the two largest kept and renormalised, identities among them
 *     gate, up, down   W0 x + sum over kept LoRAs of w s B' A' x
 *
 *   E experts   D width   M outputs, N inputs of a linear   R rank
 */
#ifndef ARTEL_TESTS_SLIM_PLAIN_H
#define ARTEL_TESTS_SLIM_PLAIN_H

#include "slim_case.h"
#include "support/plain_base.h"
#include "support/plain_clusters.h"

#define PLAIN_SEQS    ROWS
#define PLAIN_EXPERTS 8

struct plain {
    const struct artel_model *model;
    const struct mixture *mixture; /* shapes, scales, kinds and clusters */
    double *learnt[PLAIN_EXPERTS]; /* every A and B as in an expert's params, */
    double
        *factor[PLAIN_EXPERTS]; /* and what a mask makes of each: 0, 1 or its weight */
    double *routers;            /* as in router_params */
    bool training;              /* d_run counts a distance before that is used */
    bool held;                  /* yields stay as they are */
    double yield[TOY_LAYERS][PLAIN_SEQS];
    int kept[TOY_LAYERS][PLAIN_SEQS][PLAIN_TOKENS][2]; /* the two experts of each row */
};

/* By how much a sequence yields whose question showed SEEN (D) to the router of LAYER. */
static inline double plain_yield(const struct plain *p, size_t layer,
                                 const double *seen)
{
    struct clusters c;
    double d, run;

    mixture_clusters(&c, p->mixture, layer);
    if (c.counts[1] < 64.0f)
        return 0.0;
    d = plain_distance(c.center, c.variance, (size_t)c.counts[0], TOY_DIM, seen,
                       p->mixture->rule.clusters.distance == DISTANCE_MAX);
    run = (double)c.counts[2];
    run = p->training ? 0.99 * run + 0.01 * d : run;
    return fmax(d / run - 1.0, 0.0);
}

/* GATE (E) of a row that reads U and yields by Y; which two are kept. */
static inline void plain_gates(double *gate, int kept[2], const struct plain *p,
                               size_t layer, const double *u, double y)
{
    const struct mixture *m = p->mixture;
    const size_t E = m->n_experts;
    const double beta = (double)m->rule.clusters.beta;
    const double *w = p->routers + (m->routers[layer].w - m->router_params);
    double prob[PLAIN_EXPERTS];

    for (size_t e = 0; e < E; e++) {
        prob[e] = m->experts[e].kind == EXPERT_IDENTITY ? beta * y : -beta * y;
        for (size_t j = 0; j < TOY_DIM; j++)
            prob[e] += w[e * TOY_DIM + j] * u[j];
        gate[e] = 0.0;
    }
    plain_softmax(prob, E);
    kept[0] = kept[1] = -1;
    for (int k = 0; k < 2; k++)
        for (int e = 0; e < (int)E; e++)
            if (e != kept[0] && (kept[k] < 0 || prob[e] > prob[kept[k]]))
                kept[k] = e;
    for (int k = 0; k < 2; k++)
        gate[kept[k]] = prob[kept[k]] / (prob[kept[0]] + prob[kept[1]]);
}

/* N numbers of expert E from FIRST on as a mask leaves them: OUT (N). */
static inline const double *plain_masked(double out[PLAIN_FACTOR],
                                         const struct plain *p, size_t e,
                                         const float *first, size_t n)
{
    const size_t at = (size_t)(first - p->mixture->experts[e].params);

    assert_true(n <= PLAIN_FACTOR);
    for (size_t i = 0; i < n; i++)
        out[i] = p->learnt[e][at + i] * p->factor[e][at + i];
    return out;
}

/* y = W0 x + sum of w s B' A' x at one linear; without GATE, as in attention, W0 x. */
static inline void plain_linear(double *y, const struct plain_at *at, enum site s,
                                const double *x, size_t row)
{
    const struct plain *p = at->of;
    const struct mixture *m = p->mixture;
    const double *gate = at->gate;

    (void)row;
    plain_product(y, &p->model->weights->layers[at->layer].site[s], x);
    for (size_t e = 0; gate && e < m->n_experts; e++) {
        const struct lora *l = expert_lora(&m->experts[e], at->layer, s);
        double a[PLAIN_FACTOR], b[PLAIN_FACTOR];

        if (l->rank && gate[e] > 0.0)
            plain_lora(y, l, plain_masked(a, p, e, l->a, l->rank * l->n_in),
                       plain_masked(b, p, e, l->b, l->rank * l->n_out), x,
                       gate[e] * (double)l->scale);
    }
}

/* X (n, D) through one layer; Q is sequence S. */
static inline void plain_layer(double x[][TOY_DIM], struct plain *p, size_t layer,
                               const struct sequence *q, size_t s)
{
    const struct layer_weights *w = &p->model->weights->layers[layer];
    struct plain_at at = {plain_linear, p, layer, NULL};
    double u[PLAIN_TOKENS][TOY_DIM], seen[TOY_DIM], gate[PLAIN_EXPERTS];

    for (size_t t = 0; t < q->n; t++)
        plain_norm(u[t], x[t], &w->attn_norm);
    plain_attention(x, u, &at, q->n, 0);
    at.gate = gate;
    for (size_t t = 0; t < q->n; t++)
        plain_norm(u[t], x[t], &w->ffn_norm);
    plain_mean(seen, u, q->pool_first, q->pool_n);
    if (!p->held)
        p->yield[layer][s] =
            p->mixture->cluster_state ? plain_yield(p, layer, seen) : 0.0;
    for (size_t t = 0; t < q->n; t++) {
        plain_gates(gate, p->kept[layer][s][t], p, layer, u[t], p->yield[layer][s]);
        plain_ffn(x[t], u[t], &at, t);
    }
}

/* LOGITS (n, V) of sequence Q, which is number S. */
static inline void plain_logits(double logits[][TOY_VOCAB], struct plain *p,
                                const struct sequence *q, size_t s)
{
    double x[PLAIN_TOKENS][TOY_DIM];

    assert_true(s < PLAIN_SEQS && q->pool_n > 0);
    plain_embed(x, p->model->weights, q);
    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        plain_layer(x, p, layer, q, s);
    plain_out(logits, p->model->weights, x, q->n);
}

/* Mean over the tokens with loss of N sequences. */
static inline double plain_loss(struct plain *p, const struct sequence *seqs, size_t n)
{
    double total = 0.0;
    size_t n_loss = 0;

    for (size_t s = 0; s < n; s++) {
        double logits[PLAIN_TOKENS][TOY_VOCAB];

        plain_logits(logits, p, &seqs[s], s);
        total += plain_nll(logits, &seqs[s], &n_loss);
    }
    return total / (double)n_loss;
}

/* What the masks of STEP make of expert E: whole columns of A and rows of B, as many as the
 * root says, one draw for each linear. */
static inline void plain_mask(struct plain *p, size_t e, uint64_t step)
{
    const struct mask_rule *rule = &p->mixture->rule.masks;
    const struct expert *x = &p->mixture->experts[e];
    const struct mask m = {rule->drop, rule->rescale, rule->seed, step};
    const double share = 1.0 - (double)rule->drop;
    float *ones = malloc((x->n_params + 1) * sizeof(*ones));
    void *room = malloc(mask_scratch(&p->model->weights->config));

    for (size_t i = 0; i < x->n_params; i++)
        ones[i] = 1.0f;
    mask_params(ones, ones, x, e, &m, room);
    for (size_t i = 0; i < x->n_layers * N_SITES; i++) {
        const struct lora *l = &x->lora[i];
        const size_t a = l->rank ? (size_t)(l->a - x->params) : 0;
        const size_t b = l->rank ? (size_t)(l->b - x->params) : 0;
        size_t columns = 0, rows = 0;

        for (size_t j = 0; l->rank && j < l->n_in; j++) {
            columns += ones[a + j] != 0.0f;
            for (size_t r = 0; r < l->rank; r++)
                p->factor[e][a + r * l->n_in + j] = ones[a + j] != 0.0f;
        }
        for (size_t j = 0; l->rank && j < l->n_out; j++) {
            rows += ones[b + j * l->rank] != 0.0f;
            for (size_t r = 0; r < l->rank; r++)
                p->factor[e][b + j * l->rank + r] = ones[b + j * l->rank] == 0.0f ? 0.0
                                                    : rule->rescale ? 1.0 / share
                                                                    : 1.0;
        }
        assert_int_equal(columns,
                         l->rank ? (size_t)((double)l->n_in * sqrt(share) + 0.5) : 0);
        assert_int_equal(rows,
                         l->rank ? (size_t)((double)l->n_out * sqrt(share) + 0.5) : 0);
    }
    free(ones);
    free(room);
}

/* Every B weighed by BY. */
static inline void plain_expect(struct plain *p, size_t e, double by)
{
    const struct expert *x = &p->mixture->experts[e];

    for (size_t i = 0; i < x->n_layers * N_SITES; i++)
        for (size_t j = 0; j < x->lora[i].rank * x->lora[i].n_out; j++)
            p->factor[e][(size_t)(x->lora[i].b - x->params) + j] = by;
}

/* As F computes in STEP of training, or for use (MASK_INFERENCE). */
static inline void plain_open(struct plain *p, const struct fixture *f, uint64_t step)
{
    const struct mixture *m = &f->mixture;
    const struct mask_rule *rule = &m->rule.masks;
    const enum mask_kind kind = step == MASK_INFERENCE ? rule->kind : MASK_FIXED;

    *p = (struct plain){.model = f->model,
                        .mixture = m,
                        .training = step != MASK_INFERENCE,
                        .routers = malloc(m->n_router_params * sizeof(double))};
    assert_true(m->n_experts <= PLAIN_EXPERTS && m->n_routers == TOY_LAYERS);
    for (size_t i = 0; i < m->n_router_params; i++)
        p->routers[i] = (double)m->router_params[i];
    for (size_t e = 0; e < m->n_experts; e++) {
        const size_t n = m->experts[e].n_params;
        const float *params = m->bare ? m->bare[e] : m->experts[e].params;

        p->learnt[e] = malloc((n + 1) * sizeof(double));
        p->factor[e] = malloc((n + 1) * sizeof(double));
        for (size_t i = 0; i < n; i++) {
            p->learnt[e][i] = (double)params[i];
            p->factor[e][i] = 1.0;
        }
        if (rule->drop > 0.0f && kind == MASK_FIXED)
            plain_mask(p, e, step);
        else if (kind == MASK_EXPECTED)
            plain_expect(p, e, rule->rescale ? 1.0 : 1.0 - (double)rule->drop);
    }
}

static inline void plain_close(struct plain *p)
{
    for (size_t e = 0; e < p->mixture->n_experts; e++) {
        free(p->learnt[e]);
        free(p->factor[e]);
    }
    free(p->routers);
}

#endif
