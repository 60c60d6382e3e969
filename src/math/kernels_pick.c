/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of a kernel set, and the loop over rows that any set can use.
 */
#include <string.h>

#include "base/cpu.h"
#include "math/kernels_sets.h"

/* A stand-in until a set exists on this processor family. */
#if !defined(__x86_64__)
const struct kernels *kernels_avx2(void)
{
    return NULL;
}

const struct kernels *kernels_avx512(void)
{
    return NULL;
}
#endif

const struct kernels *kernels(void)
{
    const enum cpu_isa isa = cpu_isa();

    if (isa >= CPU_AVX512 && kernels_avx512())
        return kernels_avx512();
    if (isa >= CPU_AVX2 && kernels_avx2())
        return kernels_avx2();
    return kernels_ref();
}

#define MAX_ROWS 32 /* of x that share one pass over the weights */

/* Row I of W with T rows of x. */
static void plain_row(float *const *y, size_t i, const float *x, size_t T,
                      const char *row, size_t n_in, const struct kernels *set,
                      enum dtype type)
{
    const size_t elems = dtype_block_elems(type), bytes = dtype_block_bytes(type);
    float piece[ROW_PIECE], sums[MAX_ROWS * DOT_LANES];

    memset(sums, 0, T * DOT_LANES * sizeof(*sums));
    for (size_t j = 0; j < n_in; j += ROW_PIECE) {
        const size_t n = n_in - j < ROW_PIECE ? n_in - j : ROW_PIECE;

        set->dequant[type](piece, row + j / elems * bytes, n);
        set->dots(sums, piece, x + j, n_in, T, n);
    }
    for (size_t t = 0; t < T; t++)
        y[t][i] = set->dots_end(sums + t * DOT_LANES);
}

void matvec_plain(float *const *y, const float *x, size_t T, const void *rows,
                  size_t n_rows, size_t n_in, const struct kernels *set,
                  enum dtype type)
{
    const size_t bytes = n_in / dtype_block_elems(type) * dtype_block_bytes(type);
    const char *row = rows;

    for (size_t i = 0; i < n_rows; i++, row += bytes)
        for (size_t t = 0; t < T; t += MAX_ROWS)
            plain_row(y + t, i, x + t * n_in, T - t < MAX_ROWS ? T - t : MAX_ROWS, row,
                      n_in, set, type);
}
