/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tile_quad_bf16.h by AVX-512-BF16: the sums stay in memory, which is the first cache,
 * and come into registers for the 32 of K of a step.
 */
#ifndef ARTEL_TILES_TILE_QUAD_AVX512BF16_H
#define ARTEL_TILES_TILE_QUAD_AVX512BF16_H

#include <immintrin.h>

#include "tiles/tile_quad.h"

static inline void tiles_begin(void)
{
}

static inline void tiles_end(void)
{
}

static inline void quad_fence(void)
{
}

static inline void quad_zero(const struct quad *q)
{
    for (size_t i = 0; i < 4; i++)
        for (size_t r = 0; r < 16; r++)
            _mm512_store_ps(q->at[i] + r * q->pitch, _mm512_setzero_ps());
}

static inline void quad_load(const struct quad *q)
{
    (void)q;
}

static inline void quad_store(const struct quad *q)
{
    (void)q;
}

static inline void quad_step(const struct quad *q, const uint16_t *a0,
                             const uint16_t *a1, const uint16_t *b0, const uint16_t *b1)
{
    quad_step_avx512bf16(q, a0, a1, b0, b1);
}

/* LINES cache lines of AHEAD are fetched. */
static inline void quad_step_ahead(const struct quad *q, const uint16_t *a0,
                                   const uint16_t *a1, const uint16_t *b0,
                                   const uint16_t *b1, const char *ahead,
                                   const int lines)
{
    for (int i = 0; i < lines; i++)
        _mm_prefetch(ahead + 64 * i, _MM_HINT_T1);
    quad_step_avx512bf16(q, a0, a1, b0, b1);
}

static inline void quad_column(const struct quad *q, const uint16_t *a, size_t down,
                               const uint16_t *b, size_t n)
{
    quad_column_avx512bf16(q, a, down, b, n);
}

static inline void quad_row(const struct quad *q, const uint16_t *a, const uint16_t *b0,
                            const uint16_t *b1, const uint16_t *b2, const uint16_t *b3)
{
    const uint16_t *const b[4] = {b0, b1, b2, b3};

    quad_row_avx512bf16(q, a, b);
}

#endif
