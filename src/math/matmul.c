/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense float products, blocked round the tiles of gemm.h.
 *
 *     for blocks of N_BLOCK columns        shared by the threads, if alone
 *       for blocks of K_BLOCK along k      B's block packed for the tile: 288 KiB, L2
 *         for rows of a tile               A is read where it lies: a tile's rows stay in L1
 *           for tiles of the block
 *
 * B is read where it lies too when it serves so few rows, or is so shallow, that
 * packing would cost more than it saves. None of this moves a bit: gemm.h says why.
 */
#include "math/matmul.h"

#include <assert.h>
#include <omp.h>

#include "math/gemm.h"

/* 384 x 192 reached 93 to 97 % of oneDNN 2.6.3 on W's shapes (bench_math). */
#define K_BLOCK   384
#define N_BLOCK   192        /* a multiple of every set's columns */
#define SHALLOW   16         /* k up to which packing does not pay */
#define ALONE_MIN (1u << 18) /* products below which waking threads does not pay */

struct product {
    float *c;
    const float *a, *b;
    size_t m, n, k;
    struct strides ld;
    size_t a_row, a_step;    /* floats to A's next row, to its next k */
    bool b_rows_are_columns; /* B is (n, k) */
    bool fresh;              /* beta is 0 */
};

/* The block's B, one panel of a tile's columns after another. */
static void pack(const struct gemm_set *s, float *out, const struct product *p,
                 size_t j0, size_t n, size_t k0, size_t k)
{
    for (size_t j = 0; j < n; j += s->cols) {
        const size_t wide = n - j < s->cols ? n - j : s->cols;

        if (p->b_rows_are_columns)
            s->transpose(out + j * k, p->b + (j0 + j) * p->ld.b + k0, p->ld.b, wide, k);
        else
            s->copy(out + j * k, p->b + k0 * p->ld.b + j0 + j, p->ld.b, wide, k);
    }
}

/* Columns J0 .. J0 + N of C, N at most N_BLOCK. */
static void columns(const struct product *p, size_t j0, size_t n)
{
    const struct gemm_set *s = gemm_set();
    const bool in_place =
        !p->b_rows_are_columns && (p->m <= 2 * s->rows || p->k <= SHALLOW);
    float packed[K_BLOCK * N_BLOCK] __attribute__((aligned(64)));

    for (size_t k0 = 0; k0 == 0 || k0 < p->k; k0 += K_BLOCK) {
        const size_t k = p->k - k0 < K_BLOCK ? p->k - k0 : K_BLOCK;
        struct gemm_tile t = {.c_row = p->ld.c,
                              .a_row = p->a_row,
                              .a_step = p->a_step,
                              .k = k,
                              .fresh = p->fresh && !k0};

        t.c = p->c + j0;
        t.a = p->a + k0 * p->a_step;
        if (in_place) {
            t.b = p->b + k0 * p->ld.b + j0;
            t.b_step = p->ld.b;
            gemm_tiles(&t, p->m, n);
        } else {
            pack(s, packed, p, j0, n, k0, k);
            t.b = packed;
            gemm_panels(&t, p->m, n, n);
        }
    }
}

/* Columns are shared first, because each thread then packs its own part of B; rows
 * are when there are too few columns. */
static void shared(const struct product *p)
{
    const size_t threads = (size_t)omp_get_max_threads(), cols = gemm_set()->cols;
    const size_t per = (p->n + threads - 1) / threads;
    const size_t wide = per >= N_BLOCK ? N_BLOCK : (per + cols - 1) / cols * cols;
    const size_t n_wide = (p->n + wide - 1) / wide;
    const size_t parts = n_wide >= threads ? 1 : (threads + n_wide - 1) / n_wide;
    const size_t rows = gemm_set()->rows;
    const size_t tall = ((p->m + parts - 1) / parts + rows - 1) / rows * rows;
    const size_t n_tall = (p->m + tall - 1) / tall;

#pragma omp parallel for schedule(dynamic)
    for (size_t w = 0; w < n_wide * n_tall; w++) {
        const size_t i = w % n_tall * tall, j = w / n_tall * wide;
        struct product part = *p;

        part.m = p->m - i < tall ? p->m - i : tall;
        part.c += i * p->ld.c;
        part.a += i * p->a_row;
        columns(&part, j, p->n - j < wide ? p->n - j : wide);
    }
}

static void multiply(const struct product *p, float beta)
{
    assert(beta == 0.0f || beta == 1.0f);
    if (!p->m || !p->n)
        return;
    if (!omp_in_parallel() && omp_get_max_threads() > 1 &&
        p->m * p->n * p->k >= ALONE_MIN) {
        shared(p);
        return;
    }
    for (size_t j = 0; j < p->n; j += N_BLOCK)
        columns(p, j, p->n - j < N_BLOCK ? p->n - j : N_BLOCK);
}

void gemm_nn_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld)
{
    const struct product p = {c, a, b, m, n, k, ld, ld.a, 1, false, beta == 0.0f};

    multiply(&p, beta);
}

void gemm_nt_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld)
{
    const struct product p = {c, a, b, m, n, k, ld, ld.a, 1, true, beta == 0.0f};

    multiply(&p, beta);
}

void gemm_tn_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld)
{
    const struct product p = {c, a, b, m, n, k, ld, 1, ld.a, false, beta == 0.0f};

    multiply(&p, beta);
}

void gemm_nn(float *c, float beta, const float *a, const float *b, size_t m, size_t n,
             size_t k)
{
    gemm_nn_strided(c, beta, a, b, m, n, k, (struct strides){n, k, n});
}

void gemm_nt(float *c, float beta, const float *a, const float *b, size_t m, size_t n,
             size_t k)
{
    gemm_nt_strided(c, beta, a, b, m, n, k, (struct strides){n, k, k});
}

void gemm_tn(float *c, float beta, const float *a, const float *b, size_t m, size_t n,
             size_t k)
{
    gemm_tn_strided(c, beta, a, b, m, n, k, (struct strides){n, m, n});
}
