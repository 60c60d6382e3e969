/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of weights unpacked in registers: into memory (dequant), or straight
 * into the sums of a product (matvec). The values are those of dequant_ref.c to
 * the bit, the sums those of dot().
 *
 * A format is one function that unpacks 64 weights (two blocks of 32, a quarter
 * of a block of 256) into four vectors. Nibbles pick their value out of a table
 * of 16 in a register, already scaled, which is one instruction for 16 weights. A half
 * times a scale of 6 bits times a quant of 5 is exact in float, so that fusing it with
 * the sum that follows changes nothing.
 */
#include "math/dequant_sets.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <assert.h>
#include <string.h>

#include "math/kernels_avx512.h"
#include "math/kernels_sets.h"

#define MOST  4    /* rows of x that a row of W meets in registers */
#define AHEAD 1024 /* bytes fetched before they are unpacked; rows follow each other */

#define INLINE static inline __attribute__((always_inline))

/* Unpacks N weights (1 to 64) that start ELEMENT weights into the row at P. */
typedef void unpack(__m512 w[4], const uint8_t *p, size_t element, size_t n);

INLINE void unpack_row(float *out, const uint8_t *p, size_t n, unpack *piece)
{
    for (size_t i = 0; i < n; i += 64) {
        const size_t left = n - i < 64 ? n - i : 64;
        __m512 w[4];

        piece(w, p, i, left);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            _mm512_mask_storeu_ps(out + i + 16 * v, lanes_after(left, 16 * v), w[v]);
    }
}

/* One row of W with R rows of x: R is a constant wherever this is inlined. DENSITY: the
 * bytes of 64 weights. */
INLINE void row_dots(float *const *y, size_t at, const float *x, const size_t R,
                     const uint8_t *p, size_t n, unpack *piece, size_t density)
{
    __m512 sum[MOST][4], w[4];
    size_t i = 0;

#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            sum[r][v] = _mm512_setzero_ps();
    for (; i + 64 <= n; i += 64) {
        piece(w, p, i, 64);
        _mm_prefetch((const char *)p + i / 64 * density + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm512_fmadd_ps(
                    w[v], _mm512_loadu_ps(x + r * n + i + 16 * v), sum[r][v]);
    }
    if (i < n) {
        piece(w, p, i, n - i);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __mmask16 m = lanes_after(n - i, 16 * v);

            w[v] = _mm512_maskz_mov_ps(m, w[v]);
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm512_fmadd_ps(
                    w[v], _mm512_maskz_loadu_ps(m, x + r * n + i + 16 * v), sum[r][v]);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
        y[r][at] = sum_of(sum[r]);
}

#define FORMAT(format, type)                                                           \
    void dequant_##format##_avx512(float *out, const void *in, size_t n)               \
    {                                                                                  \
        assert(n % dtype_block_elems(type) == 0);                                      \
        unpack_row(out, in, n, unpack_##format);                                       \
    }                                                                                  \
    void matvec_##format##_avx512(float *const *y, const float *x, size_t T,           \
                                  const void *rows, size_t n_rows, size_t n_in)        \
    {                                                                                  \
        const size_t bytes = n_in / dtype_block_elems(type) * dtype_block_bytes(type); \
        const uint8_t *row = rows;                                                     \
                                                                                       \
        if (T > MOST) {                                                                \
            matvec_plain(y, x, T, rows, n_rows, n_in, kernels_avx512(), type);         \
            return;                                                                    \
        }                                                                              \
        for (size_t i = 0; i < n_rows; i++, row += bytes)                              \
            if (T == 1)                                                                \
                row_dots(y, i, x, 1, row, n_in, unpack_##format, 64 * bytes / n_in);   \
            else if (T == 2)                                                           \
                row_dots(y, i, x, 2, row, n_in, unpack_##format, 64 * bytes / n_in);   \
            else if (T == 3)                                                           \
                row_dots(y, i, x, 3, row, n_in, unpack_##format, 64 * bytes / n_in);   \
            else                                                                       \
                row_dots(y, i, x, 4, row, n_in, unpack_##format, 64 * bytes / n_in);   \
    }

INLINE void unpack_f32(__m512 w[4], const uint8_t *p, size_t at, size_t n)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm512_maskz_loadu_ps(lanes_after(n, 16 * v), p + 4 * (at + 16 * v));
}

INLINE void unpack_f16(__m512 w[4], const uint8_t *p, size_t at, size_t n)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm512_cvtph_ps(
            _mm256_maskz_loadu_epi16(lanes_after(n, 16 * v), p + 2 * (at + 16 * v)));
}

INLINE void unpack_bf16(__m512 w[4], const uint8_t *p, size_t at, size_t n)
{
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __m256i half =
            _mm256_maskz_loadu_epi16(lanes_after(n, 16 * v), p + 2 * (at + 16 * v));

        w[v] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
}

/* 16 bytes as 16 integers. */
INLINE __m512i bytes_at(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/* The first two halves (d and, where there is one, m) of two blocks, as d m d m. They go
 * through memory, since a load broadcasts for nothing and a register does not. */
INLINE void scales(float out[4], const uint8_t *p, const uint8_t *q)
{
    int one, two;

    memcpy(&one, p, sizeof(one));
    memcpy(&two, q, sizeof(two));
    _mm_storeu_ps(out, _mm_cvtph_ps(_mm_insert_epi32(_mm_cvtsi32_si128(one), two, 1)));
    __asm__("" : "+m"(*(float(*)[4])out)); /* or the compiler shuffles instead */
}

INLINE __m512 count_up(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* Low nibbles to W[0], high ones to W[1]; only 4 bits of an index count. */
INLINE void look_up(__m512 w[2], __m512i q, __m512 table)
{
    w[0] = _mm512_permutexvar_ps(q, table);
    w[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table);
}

INLINE void block_q8_0(__m512 w[2], const uint8_t *p, const float *s)
{
    const __m512 d = _mm512_set1_ps(s[0]);

    for (size_t v = 0; v < 2; v++) {
        const __m128i q = _mm_loadu_si128((const __m128i *)(p + 2 + 16 * v));

        w[v] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), d);
    }
}

INLINE void block_q4_0(__m512 w[2], const uint8_t *p, const float *s)
{
    const __m512 d = _mm512_set1_ps(s[0]);

    look_up(w, bytes_at(p + 2),
            _mm512_mul_ps(_mm512_sub_ps(count_up(), _mm512_set1_ps(8.0f)), d));
}

INLINE void block_q4_1(__m512 w[2], const uint8_t *p, const float *s)
{
    look_up(w, bytes_at(p + 4),
            _mm512_fmadd_ps(count_up(), _mm512_set1_ps(s[0]), _mm512_set1_ps(s[1])));
}

INLINE void block_iq4_nl(__m512 w[2], const uint8_t *p, const float *s)
{
    const __m512 d = _mm512_set1_ps(s[0]);

    look_up(w, bytes_at(p + 2), _mm512_mul_ps(_mm512_loadu_ps(iq4_nl_values), d));
}

/* Fifth bits as the format has them, nibbles 4 bytes on: 0 .. 31 in float. */
INLINE void five_bits(__m512 w[2], const uint8_t *p)
{
    const __m512i q = bytes_at(p + 4), low = _mm512_set1_epi32(15);
    const __m512i sixteen = _mm512_set1_epi32(16);
    __m512i even = _mm512_and_epi32(q, low), odd = _mm512_srli_epi32(q, 4);
    uint32_t high;

    memcpy(&high, p, sizeof(high));
    even = _mm512_mask_or_epi32(even, (__mmask16)high, even, sixteen);
    odd = _mm512_mask_or_epi32(odd, (__mmask16)(high >> 16), odd, sixteen);
    w[0] = _mm512_cvtepi32_ps(even);
    w[1] = _mm512_cvtepi32_ps(odd);
}

INLINE void block_q5_0(__m512 w[2], const uint8_t *p, const float *s)
{
    const __m512 d = _mm512_set1_ps(s[0]);

    five_bits(w, p + 2);
    for (size_t v = 0; v < 2; v++)
        w[v] = _mm512_mul_ps(_mm512_sub_ps(w[v], _mm512_set1_ps(16.0f)), d);
}

INLINE void block_q5_1(__m512 w[2], const uint8_t *p, const float *s)
{
    five_bits(w, p + 4);
    for (size_t v = 0; v < 2; v++)
        w[v] = _mm512_fmadd_ps(w[v], _mm512_set1_ps(s[0]), _mm512_set1_ps(s[1]));
}

/* Two blocks of 32, or the one that is left. */
#define BLOCKS_OF_32(format, size)                                                     \
    INLINE void unpack_##format(__m512 w[4], const uint8_t *p, size_t at, size_t n)    \
    {                                                                                  \
        const uint8_t *q = n > 32 ? p + at / 32 * (size) + (size) : p;                 \
        float s[4];                                                                    \
                                                                                       \
        p += at / 32 * (size);                                                         \
        scales(s, p, q);                                                               \
        block_##format(w, p, s);                                                       \
        block_##format(w + 2, q, s + 2); /* not looked at when there is none */        \
    }
BLOCKS_OF_32(q8_0, 34)
BLOCKS_OF_32(q4_0, 18)
BLOCKS_OF_32(q4_1, 20)
BLOCKS_OF_32(q5_0, 22)
BLOCKS_OF_32(q5_1, 24)
BLOCKS_OF_32(iq4_nl, 18)

/* Scales and minima of sub-blocks J and J + 1 of Q4_K and Q5_K, times d and dmin. */
INLINE void k_scales(float s[2], float m[2], const uint8_t *p, int j)
{
    float d[4];

    scales(d, p, p);
    for (int i = 0; i < 2; i++) {
        uint8_t scale, min;

        k_scale_min(p + 4, j + i, &scale, &min);
        s[i] = d[0] * (float)scale;
        m[i] = d[1] * (float)min;
    }
}

INLINE void unpack_q4_k(__m512 w[4], const uint8_t *p, size_t at, size_t n)
{
    const size_t group = at % 256 / 64;
    float s[2], m[2];
    __m512 table[2], even[2], odd[2];

    (void)n;
    p += at / 256 * 144;
    k_scales(s, m, p, (int)(2 * group));
    for (size_t i = 0; i < 2; i++)
        table[i] =
            _mm512_fmsub_ps(_mm512_set1_ps(s[i]), count_up(), _mm512_set1_ps(m[i]));
    for (size_t i = 0; i < 2; i++) {
        const __m512i q = bytes_at(p + 16 + 32 * group + 16 * i);

        even[i] = _mm512_permutexvar_ps(q, table[0]);
        odd[i] = _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table[1]);
    }
    w[0] = even[0];
    w[1] = even[1];
    w[2] = odd[0];
    w[3] = odd[1];
}

INLINE void unpack_q5_k(__m512 w[4], const uint8_t *p, size_t at, size_t n)
{
    const size_t group = at % 256 / 64;
    float s[2], m[2];

    (void)n;
    p += at / 256 * 176;
    k_scales(s, m, p, (int)(2 * group));
    for (size_t i = 0; i < 2; i++) {
        const __m512i q = bytes_at(p + 48 + 32 * group + 16 * i);
        const __m512i high = bytes_at(p + 16 + 16 * i);

        for (size_t j = 0; j < 2; j++) { /* low and high nibbles */
            const __m512i nibble = j ? _mm512_srli_epi32(q, 4)
                                     : _mm512_and_epi32(q, _mm512_set1_epi32(15));
            const __mmask16 fifth =
                _mm512_test_epi32_mask(high, _mm512_set1_epi32(1 << (2 * group + j)));
            const __m512 f = _mm512_cvtepi32_ps(
                _mm512_mask_or_epi32(nibble, fifth, nibble, _mm512_set1_epi32(16)));

            w[2 * j + i] =
                _mm512_fmsub_ps(_mm512_set1_ps(s[j]), f, _mm512_set1_ps(m[j]));
        }
    }
}

INLINE void unpack_q6_k(__m512 w[4], const uint8_t *p, size_t at, size_t n)
{
    const size_t half = at % 256 / 128, odd = at % 128 / 64; /* c is 2 odd, 2 odd + 1 */
    float d;

    (void)n;
    p += at / 256 * 210;
    d = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(p[208] | p[209] << 8)));
    for (size_t v = 0; v < 4; v++) {
        const size_t c = 2 * odd + v / 2, l0 = v % 2 * 16;
        const __m512i low = bytes_at(p + 64 * half + 32 * (c & 1) + l0);
        const __m512i high = bytes_at(p + 128 + 32 * half + l0);
        const __m512i nibble = _mm512_and_epi32(_mm512_srli_epi32(low, odd ? 4 : 0),
                                                _mm512_set1_epi32(15));
        const __m512i two = _mm512_and_epi32(_mm512_srli_epi32(high, (unsigned)(2 * c)),
                                             _mm512_set1_epi32(3));
        const __m512i q = _mm512_or_epi32(nibble, _mm512_slli_epi32(two, 4));
        const float s = d * (float)(int8_t)p[192 + 8 * half + 2 * c + v % 2];

        w[v] = _mm512_mul_ps(
            _mm512_cvtepi32_ps(_mm512_sub_epi32(q, _mm512_set1_epi32(32))),
            _mm512_set1_ps(s));
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
