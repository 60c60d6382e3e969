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
#define PLAIN_WIDEST  48
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
    double *prob = p->prob[router][unit], *read = p->read[router][unit], sum = 0.0;
    size_t *chosen = &p->chosen[router][unit];

    if (!p->held || !p->detached)
        memcpy(read, z, r->dim * sizeof(*read));
    for (size_t e = 0; e < r->n_experts; e++) {
        double logit = r->b ? (double)r->b[e] : 0.0;

        for (size_t d = 0; d < r->dim; d++)
            logit += (double)r->w[e * r->dim + d] * read[d];
        sum += prob[e] = exp(logit);
    }
    for (size_t e = 0; e < r->n_experts; e++)
        prob[e] /= sum;
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

/* GATE of all linears of a layer, or NULL: each asks its own router, for ROW of the block. */
static inline void plain_linear(double *y, struct plain *p, size_t layer, enum site s,
                                const double *x, size_t row, const double *gate)
{
    const struct mixture *m = p->mixture;
    double own[PLAIN_EXPERTS];

    if (!gate)
        plain_gate(own, p, (size_t)mixture_router_of(m, layer, s), row, x, -1);
    plain_product(y, &p->model->weights->layers[layer].site[s], x);
    for (size_t e = 0; e < m->n_experts; e++) {
        const struct lora *l = expert_lora(&m->experts[e], layer, s);

        for (size_t r = 0; r < l->rank; r++) {
            double h = 0.0;

            for (size_t j = 0; j < l->n_in; j++)
                h += (double)l->a[r * l->n_in + j] * x[j];
            for (size_t i = 0; i < l->n_out; i++)
                y[i] += (gate ? gate : own)[e] * (double)l->scale *
                        (double)l->b[i * l->rank + r] * h;
        }
    }
}

/* What a router of a whole layer reads of sequence Q: U (n, D) at its pool. */
static inline void plain_pool(double *z, const struct plain *p,
                              const struct sequence *q, double u[][TOY_DIM])
{
    const size_t end = q->pool_first + q->pool_n;
    const size_t n = p->mixture->rule.pool == POOL_LAST ? 1 : q->pool_n;

    memset(z, 0, TOY_DIM * sizeof(*z));
    for (size_t t = end - n; t < end; t++)
        for (size_t d = 0; d < TOY_DIM; d++)
            z[d] += u[t][d] / (double)n;
}

/* X (D) += the FFN. */
static inline void plain_ffn(double *x, struct plain *p, size_t layer, size_t row,
                             const double *gate)
{
    double u[TOY_DIM], a[TOY_FFN], b[TOY_FFN], out[TOY_DIM];

    plain_norm(u, x, &p->model->weights->layers[layer].ffn_norm);
    plain_linear(a, p, layer, SITE_GATE, u, row, gate);
    plain_linear(b, p, layer, SITE_UP, u, row, gate);
    for (size_t j = 0; j < TOY_FFN; j++)
        a[j] *= b[j] / (1.0 + exp(-a[j]));
    plain_linear(out, p, layer, SITE_DOWN, a, row, gate);
    for (size_t d = 0; d < TOY_DIM; d++)
        x[d] += out[d];
}

/* X (n, D) of sequence S, whose first row is ROW of the block. */
static inline void plain_layer(double x[][TOY_DIM], struct plain *p, size_t layer,
                               size_t s, size_t row)
{
    const struct sequence *seq = &p->block->seqs[s];
    const bool whole = p->mixture->rule.place == ROUTER_LAYER;
    double u[PLAIN_TOKENS][TOY_DIM], q[PLAIN_TOKENS][TOY_DIM], k[PLAIN_TOKENS][TOY_DIM],
        v[PLAIN_TOKENS][TOY_DIM], z[TOY_DIM], gates[PLAIN_EXPERTS];
    const double *gate = whole ? gates : NULL;

    for (size_t t = 0; t < seq->n; t++)
        plain_norm(u[t], x[t], &p->model->weights->layers[layer].attn_norm);
    if (whole) {
        plain_pool(z, p, seq, u);
        plain_gate(gates, p, layer, s, z, seq->expert);
    }
    for (size_t t = 0; t < seq->n; t++) {
        plain_linear(q[t], p, layer, SITE_Q, u[t], row + t, gate);
        plain_linear(k[t], p, layer, SITE_K, u[t], row + t, gate);
        plain_linear(v[t], p, layer, SITE_V, u[t], row + t, gate);
        plain_turn(q[t], TOY_HEADS, t);
        plain_turn(k[t], TOY_KV, t);
    }
    for (size_t t = 0; t < seq->n; t++) {
        double heads[TOY_DIM], out[TOY_DIM];

        plain_heads(heads, q[t], k, v, t);
        plain_linear(out, p, layer, SITE_O, heads, row + t, gate);
        for (size_t d = 0; d < TOY_DIM; d++)
            x[t][d] += out[d];
        plain_ffn(x[t], p, layer, row + t, gate);
    }
}

/* LOGITS of sequence S. */
static inline void plain_sequence(struct plain *p, size_t s, size_t row)
{
    const struct sequence *seq = &p->block->seqs[s];
    const struct weights *w = p->model->weights;
    const float *embed = w->embed.data;
    double x[PLAIN_TOKENS][TOY_DIM], u[TOY_DIM];

    for (size_t t = 0; t < seq->n; t++)
        for (size_t d = 0; d < TOY_DIM; d++)
            x[t][d] = (double)embed[(size_t)seq->ids[t] * TOY_DIM + d];
    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        plain_layer(x, p, layer, s, row);
    for (size_t t = 0; t < seq->n; t++) {
        plain_norm(u, x[t], &w->final_norm);
        plain_product(p->logits[row + t], &w->head, u);
    }
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
        for (size_t t = 1; t < seq->n; t++)
            if (seq->loss[t]) {
                p->nll += plain_nll(p->logits[row + t - 1], seq->ids[t]);
                n_loss++;
            }
        for (size_t r = 0; m->rule.place == ROUTER_LAYER && r < m->n_routers; r++)
            p->ce -= log(p->prob[r][s][seq->expert]);
        row += seq->n;
    }
    p->nll /= (double)n_loss;
    p->ce /= (double)(p->block->n_seqs * m->n_routers);
    return p->nll + eta * p->ce;
}

#endif
