/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense row-major matrix products in float.
 *
 *     gemm_nn   C (m,n) = beta * C + A (m,k)   B (k,n)
 *     gemm_nt   C (m,n) = beta * C + A (m,k)   B (n,k)^T
 *     gemm_tn   C (m,n) = beta * C + A (k,m)^T B (k,n)
 *
 * BETA is 0 or 1; with 0, C may hold anything, NaN included. In gemm_nn and
 * gemm_nt a row of C depends on its row of A alone, to the bit: not on m, not on
 * threads. Inside a parallel region a product runs on the calling thread;
 * outside it is shared by all threads. The strided forms take leading dimensions.
 */
#ifndef ARTEL_MATH_MATMUL_H
#define ARTEL_MATH_MATMUL_H

#include <stddef.h>

void gemm_nn(float *c, float beta, const float *a, const float *b, size_t m, size_t n,
             size_t k);
void gemm_nt(float *c, float beta, const float *a, const float *b, size_t m, size_t n,
             size_t k);
void gemm_tn(float *c, float beta, const float *a, const float *b, size_t m, size_t n,
             size_t k);

/* Leading dimensions: floats from one row to the next. */
struct strides {
    size_t c, a, b;
};
void gemm_nn_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld);
void gemm_nt_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld);
void gemm_tn_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld);

#endif
