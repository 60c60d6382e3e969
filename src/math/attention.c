/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row by row: scores of a query's own keys, softmax, the mixed values. The
 * backward builds the probabilities again from LSE; with P = softmax,
 *
 *     d_v += P^T d_o    d_s = P (d_o v^T - <d_o, o>)    d_q += d_s k    d_k += d_s^T q
 *
 * where d_s carries the factor 1 / sqrt(d).
 */
#include "math/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "math/kernels.h"

size_t attention_scratch(const struct attention_shape *a, size_t T, size_t S)
{
    (void)a;
    (void)T;
    return 2 * S;
}

static void scores(float *p, const float *q, const float *k, size_t n, size_t stride,
                   size_t d)
{
    const struct kernels *ker = kernels();
    const float scale = 1.0f / sqrtf((float)d);

    for (size_t s = 0; s < n; s++)
        p[s] = scale * ker->dot(q, k + s * stride, d);
}

void attention_forward(float *o, float *lse, const float *q, const float *k,
                       const float *v, size_t T, size_t S,
                       const struct attention_shape *a, float *scratch)
{
    const struct kernels *ker = kernels();
    const size_t H = a->n_heads, G = a->n_kv_heads, d = a->head_dim;

    assert(S >= T && H % G == 0);
    for (size_t t = 0; t < T; t++) {
        const size_t n = S - T + t + 1;

        for (size_t h = 0; h < H; h++) {
            const size_t g = h / (H / G);
            float *out = o + (t * H + h) * d, most, sum;

            scores(scratch, q + (t * H + h) * d, k + g * d, n, G * d, d);
            most = ker->max(scratch, n);
            sum = ker->exp_sum(scratch, most, n);
            memset(out, 0, d * sizeof(float));
            for (size_t s = 0; s < n; s++)
                ker->axpy(out, scratch[s] / sum, v + (s * G + g) * d, d);
            if (lse)
                lse[t * H + h] = most + logf(sum);
        }
    }
}

void attention_backward(float *d_q, float *d_k, float *d_v, const float *d_o,
                        const float *q, const float *k, const float *v, const float *o,
                        const float *lse, size_t T, const struct attention_shape *a,
                        float *scratch)
{
    const struct kernels *ker = kernels();
    const size_t H = a->n_heads, G = a->n_kv_heads, d = a->head_dim;
    const float scale = 1.0f / sqrtf((float)d);

    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < H; h++) {
            const size_t g = h / (H / G), at = (t * H + h) * d;
            const float own = ker->dot(d_o + at, o + at, d);

            scores(scratch, q + at, k + g * d, t + 1, G * d, d);
            ker->exp_sum(scratch, lse[t * H + h], t + 1);
            for (size_t s = 0; s <= t; s++) {
                const size_t key = (s * G + g) * d;
                const float p = scratch[s];
                const float d_s = scale * p * (ker->dot(d_o + at, v + key, d) - own);

                ker->axpy(d_v + key, p, d_o + at, d);
                ker->axpy(d_q + at, d_s, k + key, d);
                ker->axpy(d_k + key, d_s, q + at, d);
            }
        }
}
