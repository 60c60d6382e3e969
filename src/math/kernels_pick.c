/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of a kernel set, and the loop over rows that any set can use.
 */
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

void matvec_plain(float *y, const float *x, const void *rows, size_t n_rows,
                  size_t n_in, const struct kernels *set, enum dtype type)
{
    const size_t elems = dtype_block_elems(type), bytes = dtype_block_bytes(type);
    const char *row = rows;
    float piece[ROW_PIECE];

    for (size_t i = 0; i < n_rows; i++, row += n_in / elems * bytes) {
        float sums[DOT_LANES] = {0};

        for (size_t j = 0; j < n_in; j += ROW_PIECE) {
            const size_t n = n_in - j < ROW_PIECE ? n_in - j : ROW_PIECE;

            set->dequant[type](piece, row + j / elems * bytes, n);
            set->dots(sums, piece, x + j, 0, 1, n);
        }
        y[i] = set->dots_end(sums);
    }
}
