/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles in plain loops.
 */
#include "math/gemm.h"

#include <string.h>

static void tile(const struct gemm_tile *t, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++) {
        float *c = t->c + r * t->c_row;

        if (t->fresh)
            memset(c, 0, cols * sizeof(float));
        for (size_t k = 0; k < t->k; k++) {
            const float a = t->a[r * t->a_row + k * t->a_step];

            for (size_t j = 0; j < cols; j++)
                c[j] += a * t->b[k * t->b_step + j];
        }
    }
}

static void copy(float *out, const float *b, size_t row, size_t n, size_t k)
{
    for (size_t i = 0; i < k; i++)
        memcpy(out + i * n, b + i * row, n * sizeof(float));
}

static void transpose(float *out, const float *b, size_t row, size_t n, size_t k)
{
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < k; i++)
            out[i * n + j] = b[j * row + i];
}

static const struct gemm_set ref = {.name = "ref",
                                    .rows = 4,
                                    .cols = 32,
                                    .lanes = 1,
                                    .tile = tile,
                                    .copy = copy,
                                    .transpose = transpose};

const struct gemm_set *gemm_ref(void)
{
    return &ref;
}
