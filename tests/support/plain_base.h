/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The toy base (toy_decoder.h) and LoRAs beside it, row by row with plain loops in double,
 * for references that share nothing with the engine but its numbers. What a reference puts
 * at each linear, and for whom, is its own (struct plain_at).
 *
 *   D width   M outputs, N inputs of a linear   R rank   n rows of a sequence
 */
#ifndef ARTEL_TESTS_PLAIN_BASE_H
#define ARTEL_TESTS_PLAIN_BASE_H

#include "support/toy_decoder.h"

#define PLAIN_TOKENS 16                 /* of a sequence at most */
#define PLAIN_WIDEST TOY_FFN            /* of a linear's inputs and outputs */
#define PLAIN_FACTOR (8 * PLAIN_WIDEST) /* numbers of an A or a B */

/* A layer as a reference has it. */
struct plain_at {
    /* y = W0 x and what experts add, for ROW of the block. */
    void (*linear)(double *y, const struct plain_at *at, enum site s, const double *x,
                   size_t row);
    struct plain *of; /* the reference's own */
    size_t layer;
    const double *gate; /* of the layer's experts, or NULL where no router has spoken */
};

/* y = W x. */
static inline void plain_product(double *y, const struct tensor *w, const double *x)
{
    const float *a = w->data;
    const size_t M = w->shape[0], N = w->shape[1];

    for (size_t i = 0; i < M; i++) {
        y[i] = 0.0;
        for (size_t j = 0; j < N; j++)
            y[i] += (double)a[i * N + j] * x[j];
    }
}

/* y += BY B A x, of the shape of L; A (R, N), B (M, R). */
static inline void plain_lora(double *y, const struct lora *l, const double *a,
                              const double *b, const double *x, double by)
{
    for (size_t r = 0; r < l->rank; r++) {
        double h = 0.0;

        for (size_t j = 0; j < l->n_in; j++)
            h += a[r * l->n_in + j] * x[j];
        for (size_t i = 0; i < l->n_out; i++)
            y[i] += by * b[i * l->rank + r] * h;
    }
}

static inline void plain_softmax(double *x, size_t n)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++)
        sum += x[i] = exp(x[i]);
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

static inline void plain_norm(double *y, const double *x, const struct tensor *gain)
{
    const float *by = gain->data;
    double squares = 0.0;

    for (size_t j = 0; j < TOY_DIM; j++)
        squares += x[j] * x[j];
    for (size_t j = 0; j < TOY_DIM; j++)
        y[j] = x[j] * (double)by[j] / sqrt(squares / TOY_DIM + (double)1e-5f);
}

/* Rope of N heads at position POS: pairs (i, i + d / 2). */
static inline void plain_turn(double *x, size_t n, size_t pos)
{
    const size_t half = TOY_HEAD / 2;

    for (size_t h = 0; h < n; h++)
        for (size_t i = 0; i < half; i++) {
            const double by =
                (double)pos * pow(10000.0, -2.0 * (double)i / (double)TOY_HEAD);
            double *a = &x[h * TOY_HEAD + i], *b = a + half;
            const double was = *a;

            *a = was * cos(by) - *b * sin(by);
            *b = was * sin(by) + *b * cos(by);
        }
}

/* Attention of the head at Q over rows 0 .. T, whose keys and values stand AT: OUT (d). */
static inline void plain_head(double *out, const double *q, double k[][TOY_DIM],
                              double v[][TOY_DIM], size_t T, size_t at)
{
    double score[PLAIN_TOKENS];

    for (size_t t = 0; t <= T; t++) {
        score[t] = 0.0;
        for (size_t j = 0; j < TOY_HEAD; j++)
            score[t] += q[j] * k[t][at + j] / sqrt((double)TOY_HEAD);
    }
    plain_softmax(score, T + 1);
    for (size_t j = 0; j < TOY_HEAD; j++) {
        out[j] = 0.0;
        for (size_t t = 0; t <= T; t++)
            out[j] += score[t] * v[t][at + j];
    }
}

/* X (n, D) += o of the heads over U (n, D), its norm; the first row is ROW of the block. */
static inline void plain_attention(double x[][TOY_DIM], double u[][TOY_DIM],
                                   const struct plain_at *at, size_t n, size_t row)
{
    double q[PLAIN_TOKENS][TOY_DIM], k[PLAIN_TOKENS][TOY_DIM], v[PLAIN_TOKENS][TOY_DIM];

    for (size_t t = 0; t < n; t++) {
        at->linear(q[t], at, SITE_Q, u[t], row + t);
        at->linear(k[t], at, SITE_K, u[t], row + t);
        at->linear(v[t], at, SITE_V, u[t], row + t);
        plain_turn(q[t], TOY_HEADS, t);
        plain_turn(k[t], TOY_KV, t);
    }
    for (size_t t = 0; t < n; t++) {
        double heads[TOY_DIM], out[TOY_DIM];

        for (size_t h = 0; h < TOY_HEADS; h++)
            plain_head(heads + h * TOY_HEAD, q[t] + h * TOY_HEAD, k, v, t,
                       h / (TOY_HEADS / TOY_KV) * TOY_HEAD);
        at->linear(out, at, SITE_O, heads, row + t);
        for (size_t j = 0; j < TOY_DIM; j++)
            x[t][j] += out[j];
    }
}

/* X (D) += the FFN over U (D), its norm. */
static inline void plain_ffn(double *x, const double *u, const struct plain_at *at,
                             size_t row)
{
    double open[TOY_FFN], up[TOY_FFN], out[TOY_DIM];

    at->linear(open, at, SITE_GATE, u, row);
    at->linear(up, at, SITE_UP, u, row);
    for (size_t i = 0; i < TOY_FFN; i++)
        up[i] *= open[i] / (1.0 + exp(-open[i]));
    at->linear(out, at, SITE_DOWN, up, row);
    for (size_t j = 0; j < TOY_DIM; j++)
        x[j] += out[j];
}

/* Mean of N rows of U from FIRST on: OUT (D). */
static inline void plain_mean(double *out, double u[][TOY_DIM], size_t first, size_t n)
{
    for (size_t j = 0; j < TOY_DIM; j++) {
        out[j] = 0.0;
        for (size_t t = first; t < first + n; t++)
            out[j] += u[t][j] / (double)n;
    }
}

/* X (n, D): what goes into the first layer of Q. */
static inline void plain_embed(double x[][TOY_DIM], const struct weights *w,
                               const struct sequence *q)
{
    const float *embed = w->embed.data;

    assert_true(q->n <= PLAIN_TOKENS);
    for (size_t t = 0; t < q->n; t++)
        for (size_t j = 0; j < TOY_DIM; j++)
            x[t][j] = (double)embed[(size_t)q->ids[t] * TOY_DIM + j];
}

/* LOGITS (n, V) of X (n, D), which left the last layer. */
static inline void plain_out(double logits[][TOY_VOCAB], const struct weights *w,
                             double x[][TOY_DIM], size_t n)
{
    for (size_t t = 0; t < n; t++) {
        double u[TOY_DIM];

        plain_norm(u, x[t], &w->final_norm);
        plain_product(logits[t], &w->head, u);
    }
}

/* Sum of -log softmax(LOGITS)[id] over Q's tokens with loss, which N_LOSS counts. */
static inline double plain_nll(double logits[][TOY_VOCAB], const struct sequence *q,
                               size_t *n_loss)
{
    double total = 0.0;

    for (size_t t = 1; t < q->n; t++) {
        double sum = 0.0;

        if (!q->loss[t])
            continue;
        for (size_t v = 0; v < TOY_VOCAB; v++)
            sum += exp(logits[t - 1][v]);
        total += log(sum) - logits[t - 1][q->ids[t]];
        ++*n_loss;
    }
    return total;
}

#endif
