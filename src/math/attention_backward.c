/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backward of causal attention, by blocks of B queries of one head. With
 * P = softmax(S), S = q k^T / sqrt(d), built again from LSE:
 *
 *     d_v += P^T d_o
 *     d_S  = P (d_o v^T - <d_o, o>)
 *     d_q += d_S k / sqrt(d)
 *     d_k += d_S^T q / sqrt(d)
 *
 * A group of heads belongs to one thread, which adds into d_k and d_v in the order
 * of heads and queries: the sums do not depend on the number of threads.
 */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "math/attention_parts.h"
#include "math/gemm.h"
#include "math/kernels.h"

#define BLOCK 32 /* B */

struct backward {
    float *d_q, *d_k, *d_v;
    const float *d_o, *q, *k, *v, *o, *lse;
    size_t T;
    const struct attention_shape *a;
};

struct block_scratch {
    float *k_panels, *v_panels; /* of one group: attention_width(T) * d */
    float *p, *d_s;             /* (B, width) */
    float *q, *d_o, *d_q;       /* (B, d) */
};

size_t attention_backward_floats(const struct attention_shape *a, size_t T)
{
    const size_t width = attention_width(T), d = a->head_dim;

    return 2 * width * d + 2 * BLOCK * width + 3 * BLOCK * d;
}

static struct block_scratch laid_out(float *scratch, size_t width, size_t d)
{
    struct block_scratch s;

    s.k_panels = scratch;
    s.v_panels = s.k_panels + width * d;
    s.p = s.v_panels + width * d;
    s.d_s = s.p + BLOCK * width;
    s.q = s.d_s + BLOCK * width;
    s.d_o = s.q + BLOCK * d;
    s.d_q = s.d_o + BLOCK * d;
    return s;
}

/* P and d_S of N queries from T0 on; zero where a key is masked. */
static void slopes(const struct backward *b, const struct block_scratch *s, size_t h,
                   size_t t0, size_t n)
{
    const struct kernels *ker = kernels();
    const size_t H = b->a->n_heads, d = b->a->head_dim, n_keys = t0 + n;
    const size_t width = attention_width(n_keys), at = (t0 * H + h) * d;
    struct gemm_tile t = {.c = s->p,
                          .a = s->q,
                          .b = s->k_panels,
                          .c_row = width,
                          .a_row = d,
                          .a_step = 1,
                          .k = d,
                          .fresh = true};

    attention_scaled(s->q, b->q + at, H * d, n, d);
    for (size_t i = 0; i < n; i++)
        memcpy(s->d_o + i * d, b->d_o + at + i * H * d, d * sizeof(float));
    gemm_panels(&t, n, n_keys, b->T);
    t.c = s->d_s;
    t.a = s->d_o;
    t.b = s->v_panels;
    gemm_panels(&t, n, n_keys, b->T);
    for (size_t i = 0; i < n; i++) {
        const size_t own = t0 + i + 1, rest = (n_keys - own) * sizeof(float);
        const float along = ker->dot(s->d_o + i * d, b->o + at + i * H * d, d);
        float *p = s->p + i * width, *d_s = s->d_s + i * width;

        ker->exp_sum(p, b->lse[(t0 + i) * H + h], own);
        ker->softmax_backward(d_s, p, along, own);
        memset(p + own, 0, rest);
        memset(d_s + own, 0, rest);
    }
}

static void block(const struct backward *b, const struct block_scratch *s, size_t h,
                  size_t t0, size_t n)
{
    const size_t H = b->a->n_heads, G = b->a->n_kv_heads, d = b->a->head_dim;
    const size_t g = h / (H / G), n_keys = t0 + n, width = attention_width(n_keys);
    const float scale = 1.0f / sqrtf((float)d);
    struct gemm_tile t;

    slopes(b, s, h, t0, n);
    t = (struct gemm_tile){.c = s->d_q,
                           .a = s->d_s,
                           .b = b->k + g * d,
                           .c_row = d,
                           .a_row = width,
                           .a_step = 1,
                           .b_step = G * d,
                           .k = n_keys,
                           .fresh = true};
    gemm_tiles(&t, n, d);
    for (size_t i = 0; i < n; i++)
        kernels()->axpy(b->d_q + ((t0 + i) * H + h) * d, scale, s->d_q + i * d, d);
    t = (struct gemm_tile){.c = b->d_k + g * d,
                           .a = s->d_s,
                           .b = s->q,
                           .c_row = G * d,
                           .a_row = 1,
                           .a_step = width,
                           .b_step = d,
                           .k = n,
                           .fresh = false};
    gemm_tiles(&t, n_keys, d);
    t.c = b->d_v + g * d;
    t.a = s->p;
    t.b = s->d_o;
    gemm_tiles(&t, n_keys, d);
}

static void group(const struct backward *b, size_t g, float *scratch)
{
    const size_t H = b->a->n_heads, G = b->a->n_kv_heads, d = b->a->head_dim;
    const struct block_scratch s = laid_out(scratch, attention_width(b->T), d);

    attention_panels(s.k_panels, b->k + g * d, G * d, b->T, d);
    attention_panels(s.v_panels, b->v + g * d, G * d, b->T, d);
    for (size_t h = g * (H / G); h < (g + 1) * (H / G); h++)
        for (size_t t0 = 0; t0 < b->T; t0 += BLOCK)
            block(b, &s, h, t0, b->T - t0 < BLOCK ? b->T - t0 : BLOCK);
}

void attention_backward(float *d_q, float *d_k, float *d_v, const float *d_o,
                        const float *q, const float *k, const float *v, const float *o,
                        const float *lse, size_t T, const struct attention_shape *a,
                        float *scratch)
{
    const struct backward b = {d_q, d_k, d_v, d_o, q, k, v, o, lse, T, a};
    const size_t G = a->n_kv_heads;

    assert(a->n_heads % G == 0);
    if (omp_in_parallel() || T * T * a->n_heads * a->head_dim < ATTENTION_SHARED_MIN) {
        for (size_t g = 0; g < G; g++)
            group(&b, g, scratch);
        return;
    }
#pragma omp parallel for schedule(dynamic)
    for (size_t g = 0; g < G; g++)
        group(&b, g,
              scratch + (size_t)omp_get_thread_num() * attention_backward_floats(a, T));
}
