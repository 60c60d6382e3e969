/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of bf16 and of floats: what both sets share, by AVX-512 with its BF16 part.
 */
#ifndef ARTEL_TILES_TILE_AVX512BF16_H
#define ARTEL_TILES_TILE_AVX512BF16_H

#include <immintrin.h>

#include "tiles/tiles.h"

/* 32 floats to bf16: LOW in places 0 to 15, HIGH in 16 to 31. */
static inline __m512i bf16_pair(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static inline __m256i bf16_half(__m512 x)
{
    return (__m256i)_mm512_cvtneps_pbh(x);
}

static inline __m512 bf16_widen(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

static inline __m512 bf16_load(const uint16_t *p) /* 16 of them */
{
    return bf16_widen(_mm256_loadu_si256((const __m256i *)p));
}

/* 16 x 16 words of 32 bits, in registers. */
__attribute__((always_inline)) static inline void tile_transpose(__m512i r[16])
{
    __m512i t[16];

    /* unrolled, or the 16 rows would pass through memory at each step */
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Places of two rows of 32 side by side: (x0 y0 x1 y1 ...), the first 16 pairs in *LOW,
 * the rest in *HIGH. */
static inline void tile_interleave(__m512i x, __m512i y, __m512i *low, __m512i *high)
{
    const __m512i first =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
                         39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i last =
        _mm512_add_epi16(first, _mm512_set1_epi16(16)); /* 16 places on in both */

    *low = _mm512_permutex2var_epi16(x, first, y);
    *high = _mm512_permutex2var_epi16(x, last, y);
}

/* 2^x, error below 2e-7 relative; x below -126 gives 2^-126, NaN gives NaN. */
static inline __m512 exp2_fast(__m512 x)
{
    /* where one is NaN, max gives the second */
    const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    const __m512 whole = _mm512_roundscale_ps(bounded, 8);
    const __m512 f = _mm512_sub_ps(bounded, whole);
    __m512 p = _mm512_set1_ps(1.32647272e-3f); /* the best of degree 5 with 2^0 = 1 */

    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.67151264e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55073374e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40222421e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93146978e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

#define LOG2_E 1.44269504f

/* 1 / (1 + e^-x) */
static inline __m512 sigmoid_fast(__m512 x)
{
    const __m512 s = _mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E));
    /* bounded: the Newton step of 1 / inf is no number */
    const __m512 e = exp2_fast(_mm512_min_ps(s, _mm512_set1_ps(126.0f)));
    const __m512 d = _mm512_add_ps(_mm512_set1_ps(1.0f), e);
    const __m512 r = _mm512_rcp14_ps(d);

    /* one Newton step: 14 bits to 24 */
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2.0f)));
}

#endif
