/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the AVX2 files share. Included by them alone.
 */
#ifndef ARTEL_MATH_KERNELS_AVX2_H
#define ARTEL_MATH_KERNELS_AVX2_H

#include <immintrin.h>
#include <stddef.h>

/* The lanes of a vector that begins LEFT floats before the end. */
static inline __m256i lanes_left(size_t left)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? (int)left : 8),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256i lanes_after(size_t left, size_t at)
{
    return lanes_left(left > at ? left - at : 0);
}

static inline __m256 negated(__m256 x)
{
    return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
}

static inline float sum_8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float sum_of(const __m256 sum[4])
{
    return sum_8(
        _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

/* The sums of 8 vectors, in order. */
static inline __m256 sums_of_8(const __m256 v[8])
{
    __m256 s[4];

#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        s[i] = _mm256_add_ps(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        const __m256d a = _mm256_castps_pd(s[2 * i]),
                      b = _mm256_castps_pd(s[2 * i + 1]);

        s[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                             _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return _mm256_add_ps(_mm256_permute2f128_ps(s[0], s[1], 0x20),
                         _mm256_permute2f128_ps(s[0], s[1], 0x31));
}

/*
 * exp(x) = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; e^r is 1 + r + r^2 P(r) with P
 * fitted to a relative error of 3e-9. 2^n is multiplied in two halves, since it may
 * itself be out of range where the result is not. NaN passes the clamps as their
 * second operand.
 */
static inline __m256 exp_8(__m256 x)
{
    const __m256 in =
        _mm256_max_ps(_mm256_set1_ps(-105.0f), _mm256_min_ps(_mm256_set1_ps(89.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(in, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256 two_a =
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 two_b = _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693147182464599609375f), in);
    __m256 p = _mm256_set1_ps(0.00138145988f);

    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-1.90465430e-9f), r);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.00836871658f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.0416683890f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.166665211f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.499999940f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
    return _mm256_mul_ps(_mm256_mul_ps(p, two_a), two_b);
}

/* Element i in lane i mod 8 of sum i / 8 mod 4: the order of dot(), dots(), matvec. */
static inline float dot_avx2(const float *x, const float *y, size_t n)
{
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    size_t i = 0;

    for (; i + 32 <= n; i += 32)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            sum[v] = _mm256_fmadd_ps(_mm256_loadu_ps(x + i + 8 * v),
                                     _mm256_loadu_ps(y + i + 8 * v), sum[v]);
    if (i < n)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __m256i m = lanes_after(n - i, 8 * v);

            sum[v] = _mm256_fmadd_ps(_mm256_maskload_ps(x + i + 8 * v, m),
                                     _mm256_maskload_ps(y + i + 8 * v, m), sum[v]);
        }
    return sum_of(sum);
}

#endif
