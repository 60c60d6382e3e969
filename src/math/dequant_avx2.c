/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of weights unpacked in registers: into memory (dequant), or straight
 * into the sums of a product (matvec). The values are those of dequant_ref.c to
 * the bit, the sums those of dot(). A format is one function that unpacks 32
 * weights, a block or an eighth of one, into four vectors.
 */
#include "math/dequant_sets.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <assert.h>
#include <string.h>

#include "math/kernels_avx2.h"
#include "math/kernels_sets.h"

#define MOST  2    /* rows of x that a row of W meets in registers */
#define AHEAD 1024 /* bytes fetched before they are unpacked; rows follow each other */

#define INLINE static inline __attribute__((always_inline))

/* Unpacks N weights (1 to 32) that start ELEMENT weights into the row at P. */
typedef void unpack(__m256 w[4], const uint8_t *p, size_t element, size_t n);

INLINE void unpack_row(float *out, const uint8_t *p, size_t n, unpack *piece)
{
    size_t i = 0;
    __m256 w[4];

    for (; i + 32 <= n; i += 32) {
        piece(w, p, i, 32);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            _mm256_storeu_ps(out + i + 8 * v, w[v]);
    }
    if (i < n) {
        piece(w, p, i, n - i);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            _mm256_maskstore_ps(out + i + 8 * v, lanes_after(n - i, 8 * v), w[v]);
    }
}

/* One row of W with R rows of x: R is a constant wherever this is inlined. DENSITY: the
 * bytes of 32 weights. */
INLINE void row_dots(float *const *y, size_t at, const float *x, const size_t R,
                     const uint8_t *p, size_t n, unpack *piece, size_t density)
{
    __m256 sum[MOST][4], w[4];
    size_t i = 0;

#pragma GCC unroll 2
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            sum[r][v] = _mm256_setzero_ps();
    for (; i + 32 <= n; i += 32) {
        piece(w, p, i, 32);
        _mm_prefetch((const char *)p + i / 32 * density + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
#pragma GCC unroll 2
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm256_fmadd_ps(
                    w[v], _mm256_loadu_ps(x + r * n + i + 8 * v), sum[r][v]);
    }
    if (i < n) {
        piece(w, p, i, n - i);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __m256i m = lanes_after(n - i, 8 * v);

#pragma GCC unroll 2
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm256_fmadd_ps(
                    w[v], _mm256_maskload_ps(x + r * n + i + 8 * v, m), sum[r][v]);
        }
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < R; r++)
        y[r][at] = sum_of(sum[r]);
}

#define FORMAT(format, type)                                                           \
    void dequant_##format##_avx2(float *out, const void *in, size_t n)                 \
    {                                                                                  \
        assert(n % dtype_block_elems(type) == 0);                                      \
        unpack_row(out, in, n, unpack_##format);                                       \
    }                                                                                  \
    void matvec_##format##_avx2(float *const *y, const float *x, size_t T,             \
                                const void *rows, size_t n_rows, size_t n_in)          \
    {                                                                                  \
        const size_t bytes = n_in / dtype_block_elems(type) * dtype_block_bytes(type); \
        const uint8_t *row = rows;                                                     \
                                                                                       \
        if (T > MOST) {                                                                \
            matvec_plain(y, x, T, rows, n_rows, n_in, kernels_avx2(), type);           \
            return;                                                                    \
        }                                                                              \
        for (size_t i = 0; i < n_rows; i++, row += bytes)                              \
            if (T == 1)                                                                \
                row_dots(y, i, x, 1, row, n_in, unpack_##format, 32 * bytes / n_in);   \
            else                                                                       \
                row_dots(y, i, x, 2, row, n_in, unpack_##format, 32 * bytes / n_in);   \
    }

/* What lies beyond N is zero in the vectors of the plain formats. */
INLINE void unpack_f32(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    const uint8_t *q = p + 4 * at;

#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = n == 32 ? _mm256_loadu_ps((const float *)(q + 32 * v))
                       : _mm256_maskload_ps((const float *)(q + 32 * v),
                                            lanes_after(n, 8 * v));
}

/* 8 numbers of 2 bytes, those beyond N as zero. */
INLINE __m128i words_at(const uint8_t *p, size_t v, size_t n)
{
    uint8_t part[16] = {0};

    if (n >= 8 * v + 8)
        return _mm_loadu_si128((const __m128i *)(p + 16 * v));
    if (n > 8 * v)
        memcpy(part, p + 16 * v, 2 * (n - 8 * v));
    return _mm_loadu_si128((const __m128i *)part);
}

INLINE void unpack_f16(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm256_cvtph_ps(words_at(p + 2 * at, v, n));
}

INLINE void unpack_bf16(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(words_at(p + 2 * at, v, n)), 16));
}

/* 8 bytes as 8 integers. */
INLINE __m256i bytes_at(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

/* The half at P, and the one after it. */
INLINE __m128 halves_at(const uint8_t *p)
{
    int bits;

    memcpy(&bits, p, sizeof(bits));
    return _mm_cvtph_ps(_mm_cvtsi32_si128(bits));
}

INLINE __m256 first(__m128 v)
{
    return _mm256_broadcastss_ps(v);
}

INLINE __m256 second(__m128 v)
{
    return _mm256_broadcastss_ps(_mm_movehdup_ps(v));
}

/* The nibbles of 16 bytes as floats less OFFSET: low ones first. */
INLINE void nibbles(__m256 w[4], const uint8_t *p, int offset)
{
    const __m128i q = _mm_loadu_si128((const __m128i *)p), low = _mm_set1_epi8(15);
    const __m128i less = _mm_set1_epi8((char)offset);
    const __m128i even = _mm_sub_epi8(_mm_and_si128(q, low), less);
    const __m128i odd = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16(q, 4), low), less);

    w[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(even));
    w[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(even, 8)));
    w[2] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(odd));
    w[3] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(odd, 8)));
}

INLINE void times(__m256 w[4], __m256 d)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm256_mul_ps(w[v], d);
}

/* A half times a scale of 6 bits times a quant of 5 is exact: fusing changes nothing. */
INLINE void times_plus(__m256 w[4], __m256 d, __m256 m)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm256_fmadd_ps(w[v], d, m);
}

INLINE void unpack_q8_0(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    (void)n;
    p += at / 32 * 34;
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm256_cvtepi32_ps(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 2 + 8 * v))));
    times(w, first(halves_at(p)));
}

INLINE void unpack_q4_0(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    (void)n;
    p += at / 32 * 18;
    nibbles(w, p + 2, 8);
    times(w, first(halves_at(p)));
}

INLINE void unpack_q4_1(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    __m128 dm;

    (void)n;
    p += at / 32 * 20;
    dm = halves_at(p);
    nibbles(w, p + 4, 0);
    times_plus(w, first(dm), second(dm));
}

INLINE void unpack_iq4_nl(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    const __m128i table = _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13,
                                        25, 38, 53, 69, 89, 113);
    const __m128i low = _mm_set1_epi8(15);
    __m128i q, even, odd;

    (void)n;
    p += at / 32 * 18;
    q = _mm_loadu_si128((const __m128i *)(p + 2));
    even = _mm_shuffle_epi8(table, _mm_and_si128(q, low));
    odd = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(q, 4), low));
    w[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(even));
    w[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(even, 8)));
    w[2] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(odd));
    w[3] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(odd, 8)));
    times(w, first(halves_at(p)));
}

/* 4 bytes of fifth bits in order of the elements, then the nibbles: 0 .. 31. */
INLINE void five_bits(__m256 w[4], const uint8_t *p)
{
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256 sixteen = _mm256_set1_ps(16.0f);
    int high;

    memcpy(&high, p, sizeof(high));
    nibbles(w, p + 4, 0);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        const __m256i bit = _mm256_slli_epi32(lane, 8 * v);
        const __m256i set =
            _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(high), bit), bit);

        w[v] = _mm256_add_ps(w[v], _mm256_and_ps(_mm256_castsi256_ps(set), sixteen));
    }
}

INLINE void unpack_q5_0(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    (void)n;
    p += at / 32 * 22;
    five_bits(w, p + 2);
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm256_sub_ps(w[v], _mm256_set1_ps(16.0f));
    times(w, first(halves_at(p)));
}

INLINE void unpack_q5_1(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    __m128 dm;

    (void)n;
    p += at / 32 * 24;
    dm = halves_at(p);
    five_bits(w, p + 4);
    times_plus(w, first(dm), second(dm));
}

/* Scale and negated minimum of the sub-block at AT of Q4_K or Q5_K. */
INLINE void k_finish(__m256 w[4], const uint8_t *p, size_t at)
{
    const __m128 d = halves_at(p);
    uint8_t scale, min;

    k_scale_min(p + 4, (int)(at % 256 / 32), &scale, &min);
    times_plus(w, _mm256_set1_ps(_mm_cvtss_f32(d) * (float)scale),
               _mm256_set1_ps(-(_mm_cvtss_f32(_mm_movehdup_ps(d)) * (float)min)));
}

INLINE void unpack_q4_k(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    const size_t j = at % 256 / 32;

    (void)n;
    p += at / 256 * 144;
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __m256i q = bytes_at(p + 16 + 32 * (j / 2) + 8 * v);

        w[v] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(q, j % 2 ? 4 : 0),
                                                   _mm256_set1_epi32(15)));
    }
    k_finish(w, p, at);
}

INLINE void unpack_q5_k(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    const size_t j = at % 256 / 32;

    (void)n;
    p += at / 256 * 176;
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __m256i q = bytes_at(p + 48 + 32 * (j / 2) + 8 * v);
        const __m256i high = _mm256_srli_epi32(bytes_at(p + 16 + 8 * v), (int)j);
        const __m256i fifth =
            _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(1)), 4);
        const __m256i nibble = _mm256_and_si256(_mm256_srli_epi32(q, j % 2 ? 4 : 0),
                                                _mm256_set1_epi32(15));

        w[v] = _mm256_cvtepi32_ps(_mm256_or_si256(nibble, fifth));
    }
    k_finish(w, p, at);
}

INLINE void unpack_q6_k(__m256 w[4], const uint8_t *p, size_t at, size_t n)
{
    const size_t half = at % 256 / 128, c = at % 128 / 32;
    float d;

    (void)n;
    p += at / 256 * 210;
    d = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(p[208] | p[209] << 8)));
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __m256i low = bytes_at(p + 64 * half + 32 * (c & 1) + 8 * v);
        const __m256i high =
            _mm256_srli_epi32(bytes_at(p + 128 + 32 * half + 8 * v), (int)(2 * c));
        const __m256i nibble = _mm256_and_si256(_mm256_srli_epi32(low, c / 2 ? 4 : 0),
                                                _mm256_set1_epi32(15));
        const __m256i q = _mm256_or_si256(
            nibble, _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
        const float s = d * (float)(int8_t)p[192 + 8 * half + 2 * c + v / 2];

        w[v] = _mm256_mul_ps(
            _mm256_cvtepi32_ps(_mm256_sub_epi32(q, _mm256_set1_epi32(32))),
            _mm256_set1_ps(s));
    }
}

FORMAT(f32, DTYPE_F32)
FORMAT(f16, DTYPE_F16)
FORMAT(bf16, DTYPE_BF16)
FORMAT(q8_0, DTYPE_Q8_0)
FORMAT(q4_0, DTYPE_Q4_0)
FORMAT(q4_1, DTYPE_Q4_1)
FORMAT(q5_0, DTYPE_Q5_0)
FORMAT(q5_1, DTYPE_Q5_1)
FORMAT(q4_k, DTYPE_Q4_K)
FORMAT(q5_k, DTYPE_Q5_K)
FORMAT(q6_k, DTYPE_Q6_K)
FORMAT(iq4_nl, DTYPE_IQ4_NL)
#endif
