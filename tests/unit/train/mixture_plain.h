/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The toy base under a mixture of LoRAs as docs/METHODS.md writes it, sequence by sequence
 * with plain loops in double. No slope is computed here: a loss of doubles is exact enough
 * for differences.
 *
 *     y = W0 x + sum over experts of g_e s_e B_e A_e x      p = softmax(W z + b)
 *
 *     given      g = 1 of the sequence's own expert
 *     soft       g = p, z = x of that linear
 *     straight   g = p / stop(p) at the largest p, z the pool of the layer's input
 *
 *     loss = mean over answer tokens of nll
 *            + eta mean over layers and sequences of -log p[label]
 */
#ifndef ARTEL_TESTS_MIXTURE_PLAIN_H
#define ARTEL_TESTS_MIXTURE_PLAIN_H

#include "support/plain_base.h"

#define PLAIN_ROWS    32
#define PLAIN_EXPERTS 3
#define PLAIN_ROUTERS (TOY_LAYERS * N_SITES)

enum plain_gates { PLAIN_GIVEN, PLAIN_SOFT, PLAIN_STRAIGHT };

struct plain {
    const struct artel_model *model;
    const struct mixture *mixture; /* its numbers are read anew in every call */
    const struct block *block;
    enum plain_gates gates;
    bool held; /* what a stop() holds is that of the last call where this was false */
    bool detached; /* and, while HELD, so is what routers read */
    /* Of every router and unit, a row or a sequence: */
    double read[PLAIN_ROUTERS][PLAIN_ROWS][PLAIN_WIDEST];
    double prob[PLAIN_ROUTERS][PLAIN_ROWS][PLAIN_EXPERTS];
    double stopped[PLAIN_ROUTERS][PLAIN_ROWS];
    size_t chosen[PLAIN_ROUTERS][PLAIN_ROWS];
    /* What a call leaves: */
    double logits[PLAIN_ROWS][TOY_VOCAB];
    double nll, ce; /* means */
};

/* GATE (E) by ROUTER, which reads Z. */
static inline void plain_gate(double *gate, struct plain *p, size_t router, size_t unit,
                              const double *z, int given)
{
    const struct router *r = &p->mixture->routers[router];
    double *prob = p->prob[router][unit], *read = p->read[router][unit];
    size_t *chosen = &p->chosen[router][unit];

    if (!p->held || !p->detached)
        memcpy(read, z, r->dim * sizeof(*read));
    for (size_t e = 0; e < r->n_experts; e++) {
        prob[e] = r->b ? (double)r->b[e] : 0.0;
        for (size_t d = 0; d < r->dim; d++)
            prob[e] += (double)r->w[e * r->dim + d] * read[d];
    }
    plain_softmax(prob, r->n_experts);
    if (!p->held) {
        *chosen = 0;
        for (size_t e = 1; e < r->n_experts; e++)
            *chosen = prob[e] > prob[*chosen] ? e : *chosen;
        p->stopped[router][unit] = prob[*chosen];
    }
    for (size_t e = 0; e < r->n_experts; e++)
        gate[e] = p->gates == PLAIN_GIVEN  ? (int)e == given
                  : p->gates == PLAIN_SOFT ? prob[e]
                  : e == *chosen           ? prob[e] / p->stopped[router][unit]
                                           : 0.0;
}

/* P (N) in double: OUT (N). */
static inline const double *plain_numbers(double out[PLAIN_FACTOR], const float *p,
                                          size_t n)
{
    assert_true(n <= PLAIN_FACTOR);
    for (size_t i = 0; i < n; i++)
        out[i] = (double)p[i];
    return out;
}

/* GATE of all linears of a layer, or NULL: each asks its own router, for ROW of the block. */
static inline void plain_linear(double *y, const struct plain_at *at, enum site s,
                                const double *x, size_t row)
{
    struct plain *p = at->of;
    const struct mixture *m = p->mixture;
    double own[PLAIN_EXPERTS];

    if (!at->gate)
        plain_gate(own, p, (size_t)mixture_router_of(m, at->layer, s), row, x, -1);
    plain_product(y, &p->model->weights->layers[at->layer].site[s], x);
    for (size_t e = 0; e < m->n_experts; e++) {
        const struct lora *l = expert_lora(&m->experts[e], at->layer, s);
        double a[PLAIN_FACTOR], b[PLAIN_FACTOR];

        plain_lora(y, l, plain_numbers(a, l->a, l->rank * l->n_in),
                   plain_numbers(b, l->b, l->rank * l->n_out), x,
                   (at->gate ? at->gate : own)[e] * (double)l->scale);
    }
}

/* X (n, D) of sequence S, whose first row is ROW of the block. */
static inline void plain_layer(double x[][TOY_DIM], struct plain *p, size_t layer,
                               size_t s, size_t row)
{
    const struct sequence *q = &p->block->seqs[s];
    const struct layer_weights *w = &p->model->weights->layers[layer];
    double u[PLAIN_TOKENS][TOY_DIM], gate[PLAIN_EXPERTS];
    struct plain_at at = {plain_linear, p, layer, NULL};

    for (size_t t = 0; t < q->n; t++)
        plain_norm(u[t], x[t], &w->attn_norm);
    if (p->mixture->rule.place == ROUTER_LAYER) {
        const size_t n = p->mixture->rule.pool == POOL_LAST ? 1 : q->pool_n;
        double z[TOY_DIM];

        plain_mean(z, u, q->pool_first + q->pool_n - n, n);
        plain_gate(gate, p, layer, s, z, q->expert);
        at.gate = gate;
    }
    plain_attention(x, u, &at, q->n, row);
    for (size_t t = 0; t < q->n; t++) {
        plain_norm(u[t], x[t], &w->ffn_norm);
        plain_ffn(x[t], u[t], &at, row + t);
    }
}

/* LOGITS of sequence S. */
static inline void plain_sequence(struct plain *p, size_t s, size_t row)
{
    const struct sequence *q = &p->block->seqs[s];
    double x[PLAIN_TOKENS][TOY_DIM];

    plain_embed(x, p->model->weights, q);
    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        plain_layer(x, p, layer, s, row);
    plain_out(p->logits + row, p->model->weights, x, q->n);
}

/* The loss over all sequences, whose experts are their labels. */
static inline double plain_loss(struct plain *p, double eta)
{
    const struct mixture *m = p->mixture;
    size_t row = 0, n_loss = 0;

    p->nll = p->ce = 0.0;
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const struct sequence *seq = &p->block->seqs[s];

        plain_sequence(p, s, row);
        p->nll += plain_nll(p->logits + row, seq, &n_loss);
        for (size_t r = 0; m->rule.place == ROUTER_LAYER && r < m->n_routers; r++)
            p->ce -= log(p->prob[r][s][seq->expert]);
        row += seq->n;
    }
    p->nll /= (double)n_loss;
    p->ce /= (double)(p->block->n_seqs * m->n_routers);
    return p->nll + eta * p->ce;
}

#endif
