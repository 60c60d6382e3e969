/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward, for a few rows at a time (a tile's): their scores with all keys up
 * to the last of them, softmax of each row over its own keys, then the mixed
 * values. Keys lie transposed in panels, once for all rows and heads of a group.
 *
 * Rows are queries of one head, each seeing one key more than the row before;
 * or, when a single query is asked (decode), the heads that share a group. What a
 * row sums, and in which order, depends on its own keys alone: the values of the
 * keys that all rows see come in one product, the rest is added row by row, which
 * gemm.h allows without moving a bit. Masked scores may be computed, never used.
 */
#include "math/attention.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "math/attention_parts.h"
#include "math/gemm.h"
#include "math/kernels.h"

#define ROWS 8 /* most rows of a tile in any set */

struct rows {
    float *o, *lse; /* of the first row; LSE may be NULL */
    const float *q;
    size_t n, apart; /* rows, floats between them in Q and O */
    size_t lse_apart;
    size_t n_keys,
        grow; /* keys of the first row, and how many more each next one has */
};

static size_t row_floats(const struct attention_shape *a, size_t S)
{
    return ROWS * (attention_width(S) + a->head_dim);
}

size_t attention_scratch(const struct attention_shape *a, size_t T, size_t S)
{
    const size_t threads = omp_in_parallel() ? 1 : (size_t)omp_get_max_threads();
    const size_t forward =
        a->n_kv_heads * attention_width(S) * a->head_dim + threads * row_floats(a, S);
    const size_t backward = threads * attention_backward_floats(a, T);

    return forward > backward ? forward : backward;
}

void attention_panels(float *out, const float *x, size_t stride, size_t n, size_t d)
{
    const struct gemm_set *s = gemm_set();

    for (size_t j = 0; j < n; j += s->cols)
        s->transpose(out + j * d, x + j * stride, stride,
                     n - j < s->cols ? n - j : s->cols, d);
}

void attention_scaled(float *out, const float *q, size_t apart, size_t n, size_t d)
{
    const float scale = 1.0f / sqrtf((float)d);

    for (size_t r = 0; r < n; r++) {
        memcpy(out + r * d, q + r * apart, d * sizeof(float));
        kernels()->scale(out + r * d, scale, d);
    }
}

/* PANELS are the N_PACKED keys of the rows' group, V the values of the first key. */
static void some_rows(const struct rows *r, const float *panels, size_t n_packed,
                      const float *v, size_t v_apart, size_t d, float *scratch)
{
    const struct kernels *ker = kernels();
    const size_t last = r->n_keys + (r->n - 1) * r->grow, width = attention_width(last);
    float *p = scratch, *q = scratch + ROWS * width, inverse[ROWS];
    struct gemm_tile t = {.c = p,
                          .a = q,
                          .b = panels,
                          .c_row = width,
                          .a_row = d,
                          .a_step = 1,
                          .k = d,
                          .fresh = true};

    attention_scaled(q, r->q, r->apart, r->n, d);
    gemm_panels(&t, r->n, last, n_packed);
    for (size_t i = 0; i < r->n; i++) {
        const size_t n = r->n_keys + i * r->grow;
        const float most = ker->max(p + i * width, n);
        const float sum = ker->exp_sum(p + i * width, most, n);

        inverse[i] = 1.0f / sum;
        if (r->lse)
            r->lse[i * r->lse_apart] = most + logf(sum);
    }
    t = (struct gemm_tile){.c = r->o,
                           .a = p,
                           .b = v,
                           .c_row = r->apart,
                           .a_row = width,
                           .a_step = 1,
                           .b_step = v_apart,
                           .k = r->n_keys,
                           .fresh = true};
    gemm_tiles(&t, r->n, d);
    for (size_t i = 0; i < r->n; i++) {
        if (i && r->grow) {
            t.c = r->o + i * r->apart;
            t.a = p + i * width + r->n_keys;
            t.b = v + r->n_keys * v_apart;
            t.k = i * r->grow;
            t.fresh = false;
            gemm_tiles(&t, 1, d);
        }
        ker->scale(r->o + i * r->apart, inverse[i], d);
    }
}

struct job {
    float *o, *lse;
    const float *q, *k, *v;
    size_t T, S;
    const struct attention_shape *a;
    float *panels;  /* (G) of attention_width(S) * d */
    float *scratch; /* (threads) of row_floats() */
};

static void pack_keys(const struct job *j, size_t g)
{
    const size_t d = j->a->head_dim;

    attention_panels(j->panels + g * attention_width(j->S) * d, j->k + g * d,
                     j->a->n_kv_heads * d, j->S, d);
}

/* Item I: queries from I / H' ROWS on of head I mod H', or all heads of a group. */
static void item(const struct job *j, size_t i, float *scratch)
{
    const size_t H = j->a->n_heads, G = j->a->n_kv_heads, d = j->a->head_dim,
                 per = H / G;
    const size_t rows = gemm_set()->rows;
    const bool one = j->T == 1;
    const size_t h = one ? i * per : i % H, t0 = one ? 0 : i / H * rows, g = h / per;

    for (size_t h0 = h; h0 < h + (one ? per : 1); h0 += rows) {
        const size_t left = one ? h + per - h0 : j->T - t0;
        const struct rows r = {
            .o = j->o + (t0 * H + h0) * d,
            .lse = j->lse ? j->lse + t0 * H + h0 : NULL,
            .q = j->q + (t0 * H + h0) * d,
            .n = left < rows ? left : rows,
            .apart = one ? d : H * d,
            .lse_apart = one ? 1 : H,
            .n_keys = j->S - j->T + t0 + 1,
            .grow = !one,
        };

        some_rows(&r, j->panels + g * attention_width(j->S) * d, j->S, j->v + g * d,
                  G * d, d, scratch);
    }
}

void attention_forward(float *o, float *lse, const float *q, const float *k,
                       const float *v, size_t T, size_t S,
                       const struct attention_shape *a, float *scratch)
{
    const size_t H = a->n_heads, G = a->n_kv_heads, rows = gemm_set()->rows;
    const size_t n_items = T == 1 ? G : (T + rows - 1) / rows * H;
    const struct job j = {
        o, lse, q, k,       v,
        T, S,   a, scratch, scratch + G * attention_width(S) * a->head_dim};

    assert(S >= T && H % G == 0 && rows <= ROWS);
    if (!T)
        return;
    if (omp_in_parallel() || T * S * H * a->head_dim < ATTENTION_SHARED_MIN) {
        for (size_t g = 0; g < G; g++)
            pack_keys(&j, g);
        for (size_t i = 0; i < n_items; i++)
            item(&j, i, j.scratch);
        return;
    }
#pragma omp parallel
    {
        float *own = j.scratch + (size_t)omp_get_thread_num() * row_floats(a, S);

#pragma omp for schedule(static)
        for (size_t g = 0; g < G; g++)
            pack_keys(&j, g);
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < n_items; i++)
            item(&j, n_items - 1 - i, own); /* the longest rows first */
    }
}
