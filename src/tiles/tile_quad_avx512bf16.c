/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of tiles by AVX-512-BF16: a pair of K of one row, in all lanes, times the 16
 * columns of a right side's row, which holds such pairs.
 *
 * 16 sums are in registers for the 32 of K of a tile, which hides the latency of one
 * product, and each operand that is loaded serves several.
 */
#include "tiles/tile_built.h"
#include "tiles/tile_quad.h"

#if defined(TILE_BUILT)
#include "tiles/tile_quad_avx512bf16.h"

#define ALWAYS static inline __attribute__((always_inline))
#define K      32 /* of a tile */

/* Or the sums would not stay in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define EACH_SUM                                                                       \
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t j = 0; j < columns; j++)

/* A left side's pair K of row R, in all lanes. */
ALWAYS __m512bh pair_of(const uint16_t *a, size_t r, size_t k)
{
    int32_t pair;

    memcpy(&pair, a + r * TILE_COLS + 2 * k, sizeof(pair));
    return (__m512bh)_mm512_set1_epi32(pair);
}

/* ROWS rows of A times COLUMNS tiles B. */
ALWAYS void dots(float *const *sums, size_t pitch, const uint16_t *a,
                 const uint16_t *const *b, const size_t rows, const size_t columns)
{
    __m512 c[16];

    EACH_SUM c[r * columns + j] = _mm512_load_ps(sums[j] + r * pitch);
    for (size_t k = 0; k < K / 2; k++) {
        __m512bh right[4];

        UNROLL
        for (size_t j = 0; j < columns; j++)
            right[j] = (__m512bh)_mm512_load_si512(b[j] + k * 32);
        UNROLL
        for (size_t r = 0; r < rows; r++) {
            const __m512bh left = pair_of(a, r, k);

            UNROLL
            for (size_t j = 0; j < columns; j++)
                c[r * columns + j] =
                    _mm512_dpbf16_ps(c[r * columns + j], left, right[j]);
        }
    }
    EACH_SUM _mm512_store_ps(sums[j] + r * pitch, c[r * columns + j]);
}

void quad_step_avx512bf16(const struct quad *q, const uint16_t *a0, const uint16_t *a1,
                          const uint16_t *b0, const uint16_t *b1)
{
    const uint16_t *const b[2] = {b0, b1};

    for (size_t r = 0; r < 32; r += 8) {
        const size_t down = r % 16;
        float *const *at = q->at + r / 16 * 2;
        float *const sums[2] = {at[0] + down * q->pitch, at[1] + down * q->pitch};

        dots(sums, q->pitch, (r < 16 ? a0 : a1) + down * TILE_COLS, b, 8, 2);
    }
}

void quad_column_avx512bf16(const struct quad *q, const uint16_t *a, size_t down,
                            const uint16_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dots(&q->at[i], q->pitch, a + i * down, &b, 16, 1);
}

void quad_row_avx512bf16(const struct quad *q, const uint16_t *a,
                         const uint16_t *const *b)
{
    for (size_t r = 0; r < 16; r += 4) {
        float *const sums[4] = {q->at[0] + r * q->pitch, q->at[1] + r * q->pitch,
                                q->at[2] + r * q->pitch, q->at[3] + r * q->pitch};

        dots(sums, q->pitch, a + r * TILE_COLS, b, 4, 4);
    }
}
#endif
