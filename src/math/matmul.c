/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense products in float, by oneDNN's sgemm.
 */
#include "math/matmul.h"

#include <assert.h>

#include <dnnl.h>

static void multiply(char ta, char tb, float *c, float beta, const float *a,
                     const float *b, size_t m, size_t n, size_t k, struct strides ld)
{
    if (!m || !n)
        return;
    assert(beta == 0.0f || beta == 1.0f);
    dnnl_sgemm(ta, tb, (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0f, a,
               (dnnl_dim_t)ld.a, b, (dnnl_dim_t)ld.b, beta, c, (dnnl_dim_t)ld.c);
}

void gemm_nn_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld)
{
    multiply('N', 'N', c, beta, a, b, m, n, k, ld);
}

void gemm_nt_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld)
{
    multiply('N', 'T', c, beta, a, b, m, n, k, ld);
}

void gemm_tn_strided(float *c, float beta, const float *a, const float *b, size_t m,
                     size_t n, size_t k, struct strides ld)
{
    multiply('T', 'N', c, beta, a, b, m, n, k, ld);
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
