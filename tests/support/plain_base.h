/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a frozen layer of the toy base is made of (toy_decoder.h), row by row with plain loops
 * in double, for references that share nothing with the engine but its weights.
 */
#ifndef ARTEL_TESTS_PLAIN_BASE_H
#define ARTEL_TESTS_PLAIN_BASE_H

#include "support/toy_decoder.h"

#define PLAIN_TOKENS 16 /* of a sequence at most */

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
    double score[PLAIN_TOKENS], sum = 0.0;

    for (size_t t = 0; t <= T; t++) {
        score[t] = 0.0;
        for (size_t j = 0; j < TOY_HEAD; j++)
            score[t] += q[j] * k[t][at + j] / sqrt((double)TOY_HEAD);
        sum += score[t] = exp(score[t]);
    }
    for (size_t j = 0; j < TOY_HEAD; j++) {
        out[j] = 0.0;
        for (size_t t = 0; t <= T; t++)
            out[j] += score[t] / sum * v[t][at + j];
    }
}

/* Of all heads of row T: OUT (H d). */
static inline void plain_heads(double *out, const double *q, double k[][TOY_DIM],
                               double v[][TOY_DIM], size_t T)
{
    for (size_t h = 0; h < TOY_HEADS; h++)
        plain_head(out + h * TOY_HEAD, q + h * TOY_HEAD, k, v, T,
                   h / (TOY_HEADS / TOY_KV) * TOY_HEAD);
}

/* -log softmax(LOGITS)[ID]. */
static inline double plain_nll(const double *logits, int32_t id)
{
    double sum = 0.0;

    for (size_t v = 0; v < TOY_VOCAB; v++)
        sum += exp(logits[v]);
    return log(sum) - logits[id];
}

#endif
