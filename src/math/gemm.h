/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The innermost step of a float product: one tile of C, held in registers.
 *
 *     C (rows, cols) = beta C + A (rows, k) B (k, cols)
 *
 * An element of C starts at beta C and takes the products of k = 0, 1, ... one
 * after another, each fused with its sum. That order does not depend on the tile
 * that the element lies in, nor on how k is cut into calls, so a product can be
 * blocked, shared and packed in any way without moving a bit; and the sets that
 * fuse (all but ref) agree with each other to the bit.
 */
#ifndef ARTEL_MATH_GEMM_H
#define ARTEL_MATH_GEMM_H

#include <stdbool.h>
#include <stddef.h>

struct gemm_tile {
    float *c;
    const float *a, *b;
    size_t c_row;         /* floats from a row of C to the next */
    size_t a_row, a_step; /* floats from a row of A to the next, from a k to the next */
    size_t b_step; /* floats from a k of B to the next; its columns lie together */
    size_t k;
    bool fresh; /* beta is 0 */
    /* What the next tiles will read, fetched on the way, a line of 64 bytes for every
     * GEMM_STRIDE of k at most; NULL: nothing. Only whole tiles do so. */
    const float *ahead;
    size_t n_ahead; /* lines */
};

#define GEMM_STRIDE 8

struct gemm_set {
    const char *name;
    size_t rows, cols; /* of the largest tile */
    size_t lanes;      /* floats in a vector; a divisor of COLS */
    /* ROWS and COLS from 1 to the largest. Nothing outside the tile is touched. */
    void (*tile)(const struct gemm_tile *t, size_t rows, size_t cols);
    /* OUT (k, to) = B of (k, n) resp. (n, k)^T with ROW floats a row; TO is N rounded up
     * to whole vectors, and what lies beyond N is zero. */
    void (*copy)(float *out, const float *b, size_t row, size_t n, size_t k);
    void (*transpose)(float *out, const float *b, size_t row, size_t n, size_t k);
};

const struct gemm_set *gemm_ref(void);
const struct gemm_set *gemm_avx2(void);   /* NULL when not built in */
const struct gemm_set *gemm_avx512(void); /* NULL when not built in */

/* The set that cpu_isa() allows. */
const struct gemm_set *gemm_set(void);

/* The tile T carried over ROWS and COLS of any size, B where it lies. */
void gemm_tiles(const struct gemm_tile *t, size_t rows, size_t cols);
/* The same with B packed, PACKED columns of it: panels of the set's columns one after
 * another, each k deep and as wide as its columns rounded up to vectors. T's b_step is
 * not looked at. COLS of the columns are multiplied. */
void gemm_panels(const struct gemm_tile *t, size_t rows, size_t cols, size_t packed);

#endif
