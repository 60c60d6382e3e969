/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the AVX-512 files share. Included by them alone.
 */
#ifndef ARTEL_MATH_KERNELS_AVX512_H
#define ARTEL_MATH_KERNELS_AVX512_H

#include <immintrin.h>
#include <stddef.h>

/* The lanes of a vector that begins LEFT floats before the end. */
static inline __mmask16 lanes_left(size_t left)
{
    return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
}

/* The same for the vector AT floats further on. */
static inline __mmask16 lanes_after(size_t left, size_t at)
{
    return left > at ? lanes_left(left - at) : (__mmask16)0;
}

static inline __m512 negated(__m512 x)
{
    return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f));
}

static inline float sum_of(const __m512 sum[4])
{
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

/* The sums of 4 vectors, in order, each added up as by _mm512_reduce_add_ps. */
static inline __m128 sums_of_4(const __m512 v[4])
{
    const __m512 a = _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44),
                                   _mm512_shuffle_f32x4(v[0], v[1], 0xee));
    const __m512 b = _mm512_add_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44),
                                   _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88),
                             _mm512_shuffle_f32x4(a, b, 0xdd));

    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), s));
}

/* The sums of 16 vectors, in order. */
static inline __m512 sums_of_16(const __m512 v[16])
{
    __m512 s[8];

#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++)
        s[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(s[2 * i]),
                      b = _mm512_castps_pd(s[2 * i + 1]);

        s[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (size_t n = 2; n; n /= 2)
#pragma GCC unroll 2
        for (size_t i = 0; i < n; i++)
            s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0x88),
                                 _mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0xdd));
    return s[0];
}

/*
 * exp(x) = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; e^r is 1 + r + r^2 P(r) with P
 * fitted to a relative error of 3e-9. Under 1 ulp where normal; scalef rounds once more
 * where the result is subnormal. NaN passes the clamps as their second operand.
 */
static inline __m512 exp_16(__m512 x)
{
    const __m512 in =
        _mm512_max_ps(_mm512_set1_ps(-105.0f), _mm512_min_ps(_mm512_set1_ps(89.0f), x));
    const __m512 n = _mm512_roundscale_ps(
        _mm512_mul_ps(in, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693147182464599609375f), in);
    __m512 p = _mm512_set1_ps(0.00138145988f);

    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-1.90465430e-9f), r);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00836871658f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0416683890f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.166665211f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.499999940f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

/* Element i in lane i mod 16 of sum i / 16 mod 4: the order of dot(), dots(), matvec. */
static inline float dot_avx512(const float *x, const float *y, size_t n)
{
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                     _mm512_setzero_ps()};

    for (size_t i = 0; i < n; i += 64)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __mmask16 m = n - i >= 64 ? 0xffff : lanes_after(n - i, 16 * v);

            sum[v] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, x + i + 16 * v),
                                     _mm512_maskz_loadu_ps(m, y + i + 16 * v), sum[v]);
        }
    return sum_of(sum);
}

#endif
