/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     for blocks of N_BLOCK columns      their part of C stays in L2
 *       for blocks of K_BLOCK along k
 *         for panels of the block        a piece of B: 54 KiB, from L2 or partly L1
 *           for rows of a tile           A's rows of this k stay in L2
 */
#include "math/gemm_packed.h"

#include <omp.h>

#include "math/gemm.h"

#define K_BLOCK   288
#define N_BLOCK   192        /* a multiple of every set's columns */
#define LINE      16         /* floats of a cache line */
#define ALONE_MIN (1u << 18) /* products below which waking threads does not pay */

static size_t rounded(size_t n)
{
    const size_t lanes = gemm_set()->lanes;

    return (n + lanes - 1) / lanes * lanes;
}

size_t packed_floats(size_t n, size_t k)
{
    return rounded(n) * k;
}

size_t packed_cols(void)
{
    return gemm_set()->cols;
}

void packed_transpose(float *b, const float *piece, size_t row, size_t i, size_t j,
                      size_t n_rows, size_t n, size_t n_in)
{
    const struct gemm_set *s = gemm_set();

    for (size_t r = 0; r < n_rows; r += s->cols) {
        const size_t wide = n_rows - r < s->cols ? n_rows - r : s->cols;

        s->transpose(b + (i + r) * n_in + j * rounded(wide), piece + r * row, row, wide,
                     n);
    }
}

void packed_copy(float *b, const float *piece, size_t row, size_t i, size_t j,
                 size_t n_rows, size_t n, size_t n_out)
{
    const struct gemm_set *s = gemm_set();

    for (size_t c = 0; c < n; c += s->cols) {
        const size_t wide = n - c < s->cols ? n - c : s->cols;

        s->copy(b + (j + c) * n_out + i * rounded(wide), piece + c, row, wide, n_rows);
    }
}

/* A panel's part along k, and what comes after it. */
struct piece {
    size_t j, wide, k0, k; /* columns from J, rows from K0 of the product */
};

/* Depth of a block: k in equal parts. */
static size_t depth(const struct packed_product *p)
{
    const size_t parts = (p->k + K_BLOCK - 1) / K_BLOCK;

    return (p->k + parts - 1) / parts;
}

static struct piece piece_at(const struct packed_product *p, size_t j, size_t k0)
{
    const size_t cols = gemm_set()->cols, deep = depth(p);

    return (struct piece){.j = j,
                          .wide = p->n - j < cols ? p->n - j : cols,
                          .k0 = k0,
                          .k = p->k - k0 < deep ? p->k - k0 : deep};
}

/* The piece after P0 in the order of the loops; false after the last. */
static bool next_piece(struct piece *at, const struct packed_product *p)
{
    const size_t cols = gemm_set()->cols, block = at->j / N_BLOCK * N_BLOCK;
    const size_t end = block + N_BLOCK < p->n ? block + N_BLOCK : p->n;
    size_t j = at->j + cols, k0 = at->k0;

    if (j >= end) {
        j = block;
        k0 += at->k;
    }
    if (k0 >= p->k) {
        j = end;
        k0 = 0;
    }
    if (j >= p->n)
        return false;
    *at = piece_at(p, j, k0);
    return true;
}

/* Floats from a k to the next in the panel of column J. */
static size_t panel_width(const struct packed_product *p, size_t j)
{
    const size_t left = p->b_n - p->j0 - j, cols = gemm_set()->cols;

    return left < cols ? rounded(left) : cols;
}

static const float *place(const struct packed_product *p, const struct piece *at)
{
    return p->b + (p->j0 + at->j) * p->b_k + (p->k0 + at->k0) * panel_width(p, at->j);
}

/* What a product of the part of B that lies behind this one begins with. */
static bool piece_behind(struct piece *at, const struct packed_product *p)
{
    const size_t deep = depth(p);

    if (p->j0 + p->n < p->b_n)
        *at = (struct piece){.j = p->n, .k = deep};
    else if (p->k0 + p->k < p->b_k)
        *at = (struct piece){.k0 = p->k, .k = p->b_k - p->k0 - p->k};
    else
        return false;
    at->k = at->k < deep ? at->k : deep;
    return true;
}

static void multiply_piece(const struct packed_product *p, const struct piece *at,
                           const struct piece *next)
{
    const struct gemm_set *s = gemm_set();
    const size_t n_tiles = (p->m + s->rows - 1) / s->rows;
    const size_t lines = next ? next->k * panel_width(p, next->j) / LINE : 0;
    struct gemm_tile t = {.c = p->c + at->j,
                          .a = p->a + at->k0,
                          .b = place(p, at),
                          .c_row = p->c_row,
                          .a_row = p->a_row,
                          .a_step = 1,
                          .b_step = panel_width(p, at->j),
                          .k = at->k,
                          .fresh = p->fresh && !at->k0,
                          .ahead = next ? place(p, next) : NULL,
                          .n_ahead = (lines + n_tiles - 1) / n_tiles};

    for (size_t i = 0; i < p->m; i += s->rows) {
        s->tile(&t, p->m - i < s->rows ? p->m - i : s->rows, at->wide);
        t.a += s->rows * p->a_row;
        t.c += s->rows * p->c_row;
        if (next)
            t.ahead += t.n_ahead * LINE;
    }
}

static void alone(const struct packed_product *p)
{
    struct piece at = piece_at(p, 0, 0);
    bool more = true;

    while (more) {
        struct piece next = at;

        more = next_piece(&next, p);
        multiply_piece(p, &at, more || piece_behind(&next, p) ? &next : NULL);
        at = next;
    }
}

/* Columns are shared first, since each thread then reads its own part of B. */
static void shared(const struct packed_product *p)
{
    const struct gemm_set *s = gemm_set();
    const size_t threads = (size_t)omp_get_max_threads();
    const size_t per = (p->n + threads - 1) / threads;
    const size_t wide =
        per >= N_BLOCK ? N_BLOCK : (per + s->cols - 1) / s->cols * s->cols;
    const size_t n_wide = (p->n + wide - 1) / wide;
    const size_t parts = n_wide >= threads ? 1 : (threads + n_wide - 1) / n_wide;
    const size_t tall = ((p->m + parts - 1) / parts + s->rows - 1) / s->rows * s->rows;
    const size_t n_tall = (p->m + tall - 1) / tall;

#pragma omp parallel for schedule(dynamic)
    for (size_t w = 0; w < n_wide * n_tall; w++) {
        const size_t i = w % n_tall * tall, j = w / n_tall * wide;
        struct packed_product part = *p;

        part.m = p->m - i < tall ? p->m - i : tall;
        part.n = p->n - j < wide ? p->n - j : wide;
        part.j0 += j;
        part.c += i * p->c_row + j;
        part.a += i * p->a_row;
        alone(&part);
    }
}

void packed_multiply(const struct packed_product *p)
{
    if (!p->m || !p->n)
        return;
    if (!omp_in_parallel() && omp_get_max_threads() > 1 &&
        p->m * p->n * p->k >= ALONE_MIN)
        shared(p);
    else
        alone(p);
}
