/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of a set of tiles, and products of any size made of them.
 */
#include "base/cpu.h"
#include "math/gemm.h"

#if !defined(__x86_64__)
const struct gemm_set *gemm_avx2(void)
{
    return NULL;
}

const struct gemm_set *gemm_avx512(void)
{
    return NULL;
}
#endif

const struct gemm_set *gemm_set(void)
{
    const enum cpu_isa isa = cpu_isa();

    if (isa >= CPU_AVX512 && gemm_avx512())
        return gemm_avx512();
    if (isa >= CPU_AVX2 && gemm_avx2())
        return gemm_avx2();
    return gemm_ref();
}

/* PACKED is 0 where B lies plain. */
static void carry(const struct gemm_tile *base, size_t rows, size_t cols, size_t packed)
{
    const struct gemm_set *s = gemm_set();
    struct gemm_tile t = *base;

    for (size_t i = 0; i < rows; i += s->rows) {
        const size_t tall = rows - i < s->rows ? rows - i : s->rows;

        t.a = base->a + i * t.a_row;
        for (size_t j = 0; j < cols; j += s->cols) {
            const size_t wide = cols - j < s->cols ? cols - j : s->cols;

            t.c = base->c + i * t.c_row + j;
            t.b = base->b + (packed ? j * t.k : j);
            if (packed) {
                const size_t there = packed - j < s->cols ? packed - j : s->cols;

                t.b_step = (there + s->lanes - 1) / s->lanes * s->lanes;
            }
            s->tile(&t, tall, wide);
        }
    }
}

void gemm_tiles(const struct gemm_tile *t, size_t rows, size_t cols)
{
    carry(t, rows, cols, 0);
}

void gemm_panels(const struct gemm_tile *t, size_t rows, size_t cols, size_t packed)
{
    carry(t, rows, cols, packed);
}
