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
#define BLOCK 16   /* rows of W */
#define AHEAD 2048 /* bytes fetched before they are unpacked; rows follow each other */

#define INLINE static inline __attribute__((always_inline))

/* Unpacks N weights (1 to 64) that start ELEMENT weights into the row at P. S holds the
 * scales of a block of 256 from its first weights to its last. */
typedef void unpack(__m512 w[4], const uint8_t *p, size_t element, size_t n, float *s);

/* What was written to memory has to be read from there: broadcasts and extensions of bytes
 * are part of a load, while the shuffles in their place would queue for one port. */
#define THROUGH_MEMORY(array) __asm__("" : "+m"(array))

INLINE void unpack_row(float *out, const uint8_t *p, size_t n, unpack *piece)
{
    float s[16] __attribute__((aligned(64)));

    for (size_t i = 0; i < n; i += 64) {
        const size_t left = n - i < 64 ? n - i : 64;
        __m512 w[4];

        piece(w, p, i, left, s);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            _mm512_mask_storeu_ps(out + i + 16 * v, lanes_after(left, 16 * v), w[v]);
    }
}

/* The sums of 64 weights from element AT on, or the LEFT that remain, with R rows of x. */
INLINE void piece_dots(__m512 sum[MOST][4], const float *x, const size_t R,
                       const uint8_t *p, size_t n, size_t at, const size_t left,
                       unpack *piece, float *s)
{
    __m512 w[4];

    piece(w, p, at, left, s);
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++) {
        const __mmask16 m = lanes_after(left, 16 * v);

        if (left < 64)
            w[v] = _mm512_maskz_mov_ps(m, w[v]);
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++)
            sum[r][v] = _mm512_fmadd_ps(
                w[v], _mm512_maskz_loadu_ps(m, x + r * n + at + 16 * v), sum[r][v]);
    }
}

/* One row of W with R rows of x, constants wherever this is inlined, as is ELEMS, the weights
 * of a block: those of 256 are unrolled, so that a place in one is a constant too. The lanes
 * of each sum are left in TOTAL. */
INLINE void row_dots(__m512 *total, const float *x, const size_t R, const uint8_t *p,
                     size_t n, unpack *piece, const size_t elems, const size_t bytes)
{
    float s[16] __attribute__((aligned(64)));
    __m512 sum[MOST][4];
    size_t i = 0;

#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            sum[r][v] = _mm512_setzero_ps();
    for (; elems == 256 && i < n; i += 256)
#pragma GCC unroll 4
        for (size_t j = 0; j < 256; j += 64) {
            _mm_prefetch((const char *)p + i / 256 * bytes + j + AHEAD, _MM_HINT_T0);
            piece_dots(sum, x, R, p, n, i + j, 64, piece, s);
        }
    for (; elems < 256 && i + 64 <= n; i += 64) {
        _mm_prefetch((const char *)p + i / elems * bytes + AHEAD, _MM_HINT_T0);
        piece_dots(sum, x, R, p, n, i, 64, piece, s);
    }
    if (elems < 256 && i < n)
        piece_dots(sum, x, R, p, n, i, n - i, piece, s);
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
        total[r] = _mm512_add_ps(_mm512_add_ps(sum[r][0], sum[r][1]),
                                 _mm512_add_ps(sum[r][2], sum[r][3]));
}

/* N_ROWS rows of W with R rows of x; the first output of each is Y[r][AT]. */
INLINE void block_dots(float *const *y, size_t at, const float *x, const size_t R,
                       const uint8_t *row, size_t n_rows, size_t n, unpack *piece,
                       const size_t elems, const size_t bytes)
{
    const size_t row_bytes = n / elems * bytes, group = R == 1 ? 4 : 1;
    __m512 total[4] = {0};
    float sum[4];

    for (size_t i = 0; i < n_rows; i += group) {
        const size_t rows = n_rows - i < group ? n_rows - i : group;

#pragma GCC unroll 1
        for (size_t k = 0; k < rows; k++)
            row_dots(total + k, x, R, row + (i + k) * row_bytes, n, piece, elems,
                     bytes);
        _mm_storeu_ps(sum, sums_of_4(total));
        for (size_t k = 0; k < (R == 1 ? rows : R); k++)
            y[R == 1 ? 0 : k][at + i + (R == 1 ? k : 0)] = sum[k];
    }
}

/* A block of rows of W stays in the first cache for all rows of x. */
#define FORMAT(format, type, elems, bytes)                                             \
    void dequant_##format##_avx512(float *out, const void *in, size_t n)               \
    {                                                                                  \
        assert(dtype_block_elems(type) == (elems) && n % (elems) == 0);                \
        unpack_row(out, in, n, unpack_##format);                                       \
    }                                                                                  \
    void matvec_##format##_avx512(float *const *y, const float *x, size_t T,           \
                                  const void *rows, size_t n_rows, size_t n)           \
    {                                                                                  \
        const size_t row_bytes = n / (elems) * (bytes);                                \
        size_t R;                                                                      \
                                                                                       \
        assert(dtype_block_bytes(type) == (bytes) && n % (elems) == 0);                \
        for (size_t i = 0; i < n_rows; i += BLOCK)                                     \
            for (size_t t = 0; t < T; t += R) {                                        \
                const uint8_t *row = (const uint8_t *)rows + i * row_bytes;            \
                const size_t m = n_rows - i < BLOCK ? n_rows - i : BLOCK;              \
                const float *xt = x + t * n;                                           \
                                                                                       \
                R = T - t >= 4 ? 4 : T - t >= 2 ? 2 : 1;                               \
                if (R == 4)                                                            \
                    block_dots(y + t, i, xt, 4, row, m, n, unpack_##format, elems,     \
                               bytes);                                                 \
                else if (R == 2)                                                       \
                    block_dots(y + t, i, xt, 2, row, m, n, unpack_##format, elems,     \
                               bytes);                                                 \
                else                                                                   \
                    block_dots(y + t, i, xt, 1, row, m, n, unpack_##format, elems,     \
                               bytes);                                                 \
            }                                                                          \
    }

INLINE void unpack_f32(__m512 w[4], const uint8_t *p, size_t at, size_t n, float *s)
{
    (void)s;
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm512_maskz_loadu_ps(lanes_after(n, 16 * v), p + 4 * (at + 16 * v));
}

INLINE void unpack_f16(__m512 w[4], const uint8_t *p, size_t at, size_t n, float *s)
{
    (void)s;
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm512_cvtph_ps(
            _mm256_maskz_loadu_epi16(lanes_after(n, 16 * v), p + 2 * (at + 16 * v)));
}

INLINE void unpack_bf16(__m512 w[4], const uint8_t *p, size_t at, size_t n, float *s)
{
    (void)s;
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

/* The half at P and the next three, as floats: a load converts what would need a shuffle in a
 * register. Every block has 8 bytes. */
INLINE __m128 halves_at(const uint8_t *p)
{
    __m128 v;

    __asm__("vcvtph2ps %1, %0" : "=v"(v) : "m"(*(const uint64_t *)(const void *)p));
    return v;
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

#pragma GCC unroll 2
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

INLINE __m512 widened(__m128i signed_bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(signed_bytes));
}

/* 64 signed bytes as floats. */
INLINE void widen(__m512 w[4], __m512i b)
{
    w[0] = widened(_mm512_castsi512_si128(b));
    w[1] = widened(_mm512_extracti32x4_epi32(b, 1));
    w[2] = widened(_mm512_extracti32x4_epi32(b, 2));
    w[3] = widened(_mm512_extracti32x4_epi32(b, 3));
}

/* The nibbles of 16 bytes, low ones first, less 16 where LESS has a bit. */
INLINE void five_bits(__m512 w[2], const uint8_t *p, uint32_t less)
{
    const __m256i twice =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
    const __m256i shift = _mm256_set_m128i(_mm_set1_epi16(4), _mm_setzero_si128());
    const __m256i q =
        _mm256_and_si256(_mm256_srlv_epi16(twice, shift), _mm256_set1_epi8(15));
    const __m256i b = _mm256_mask_sub_epi8(q, less, q, _mm256_set1_epi8(16));

    w[0] = widened(_mm256_castsi256_si128(b));
    w[1] = widened(_mm256_extracti128_si256(b, 1));
}

INLINE void block_q5_0(__m512 w[2], const uint8_t *p, const float *s)
{
    uint32_t high;

    memcpy(&high, p + 2, sizeof(high));
    five_bits(w, p + 6, ~high);
#pragma GCC unroll 2
    for (size_t v = 0; v < 2; v++)
        w[v] = _mm512_mul_ps(w[v], _mm512_set1_ps(s[0]));
}

INLINE void block_q5_1(__m512 w[2], const uint8_t *p, const float *s)
{
    uint32_t high;

    memcpy(&high, p + 4, sizeof(high));
    five_bits(w, p + 8, ~high); /* 16 too little, all of them */
#pragma GCC unroll 2
    for (size_t v = 0; v < 2; v++)
        w[v] = _mm512_fmadd_ps(_mm512_add_ps(w[v], _mm512_set1_ps(16.0f)),
                               _mm512_set1_ps(s[0]), _mm512_set1_ps(s[1]));
}

/* Two blocks of 32, or the one that is left. */
#define BLOCKS_OF_32(format, size)                                                     \
    INLINE void unpack_##format(__m512 w[4], const uint8_t *p, size_t at, size_t n,    \
                                float *s)                                              \
    {                                                                                  \
        const uint8_t *q = n > 32 ? p + at / 32 * (size) + (size) : p;                 \
        float d[8];                                                                    \
                                                                                       \
        (void)s;                                                                       \
        p += at / 32 * (size);                                                         \
        _mm_storeu_ps(d, halves_at(p));                                                \
        _mm_storeu_ps(d + 4, halves_at(q));                                            \
        THROUGH_MEMORY(d);                                                             \
        block_##format(w, p, d);                                                       \
        block_##format(w + 2, q, d + 4); /* not looked at when there is none */        \
    }
BLOCKS_OF_32(q8_0, 34)
BLOCKS_OF_32(q4_0, 18)
BLOCKS_OF_32(q4_1, 20)
BLOCKS_OF_32(q5_0, 22)
BLOCKS_OF_32(q5_1, 24)
BLOCKS_OF_32(iq4_nl, 18)

/* The 8 scales, then the 8 minima of the block of Q4_K or Q5_K at P, times d and dmin. */
INLINE void k_scales(float *s, const uint8_t *p)
{
    const __m512i which =
        _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512 d = _mm512_permutexvar_ps(which, _mm512_castps128_ps512(halves_at(p)));
    const uint32_t four = 0x0f0f0f0fu, six = 0x3f3f3f3fu, two = 0x30303030u;
    uint32_t b[3];
    __m128i bytes;

    memcpy(b, p + 4, sizeof(b));
    bytes = _mm_setr_epi32((int)(b[0] & six), (int)((b[2] & four) | (b[0] >> 2 & two)),
                           (int)(b[1] & six),
                           (int)((b[2] >> 4 & four) | (b[1] >> 2 & two)));
    _mm512_store_ps(s,
                    _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))));
    THROUGH_MEMORY(*(float(*)[16])s);
}

INLINE void unpack_q4_k(__m512 w[4], const uint8_t *p, size_t at, size_t n, float *s)
{
    const size_t group = at % 256 / 64;
    __m512 table[2];

    (void)n;
    p += at / 256 * 144;
    if (!group)
        k_scales(s, p);
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++)
        table[i] = _mm512_fmsub_ps(count_up(), _mm512_set1_ps(s[2 * group + i]),
                                   _mm512_set1_ps(s[8 + 2 * group + i]));
#pragma GCC unroll 2
    for (size_t v = 0; v < 2; v++) {
        const __m512i q = bytes_at(p + 16 + 32 * group + 16 * v);

        w[v] = _mm512_permutexvar_ps(q, table[0]);
        w[2 + v] = _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table[1]);
    }
}

/* 32 bytes in both halves. */
INLINE __m512i twice_at(const uint8_t *p)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));
}

INLINE __m512i halves(int lower, int upper)
{
    return _mm512_inserti64x4(_mm512_set1_epi32(lower), _mm256_set1_epi32(upper), 1);
}

INLINE void unpack_q5_k(__m512 w[4], const uint8_t *p, size_t at, size_t n, float *s)
{
    const size_t group = at % 256 / 64;
    const int to_fifth = 4 - 2 * (int)group; /* left, for the first sub-block */
    __m512i q, high;

    (void)n;
    p += at / 256 * 176;
    if (!group)
        k_scales(s, p);
    q = _mm512_srlv_epi32(twice_at(p + 48 + 32 * group), halves(0, 4));
    high =
        _mm512_rolv_epi32(twice_at(p + 16), halves(to_fifth & 31, (to_fifth - 1) & 31));
    widen(w, _mm512_or_si512(_mm512_and_si512(q, _mm512_set1_epi8(15)),
                             _mm512_and_si512(high, _mm512_set1_epi8(16))));
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm512_fmsub_ps(w[v], _mm512_set1_ps(s[2 * group + v / 2]),
                               _mm512_set1_ps(s[8 + 2 * group + v / 2]));
}

/* The 16 scales of the block at P, times d. */
INLINE void q6_scales(float *s, const uint8_t *p)
{
    const __m512i scales =
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + 192)));
    const __m128i d = _mm_cvtsi32_si128(p[208] | p[209] << 8);

    _mm512_store_ps(s, _mm512_mul_ps(_mm512_broadcastss_ps(_mm_cvtph_ps(d)),
                                     _mm512_cvtepi32_ps(scales)));
    THROUGH_MEMORY(*(float(*)[16])s);
}

INLINE void unpack_q6_k(__m512 w[4], const uint8_t *p, size_t at, size_t n, float *s)
{
    const size_t half = at % 256 / 128, odd = at % 128 / 64;
    __m512i low, high;

    (void)n;
    p += at / 256 * 210;
    if (at % 256 == 0)
        q6_scales(s, p);
    low = _mm512_srli_epi32(_mm512_loadu_si512(p + 64 * half), odd ? 4 : 0);
    high = _mm512_rolv_epi32(twice_at(p + 128 + 32 * half),
                             odd ? halves(0, 30) : halves(4, 2));
    low = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)),
                          _mm512_and_si512(high, _mm512_set1_epi8(48)));
    widen(w, _mm512_sub_epi8(low, _mm512_set1_epi8(32)));
#pragma GCC unroll 4
    for (size_t v = 0; v < 4; v++)
        w[v] = _mm512_mul_ps(w[v], _mm512_set1_ps(s[8 * half + 4 * odd + v]));
}

FORMAT(f32, DTYPE_F32, 1, 4)
FORMAT(f16, DTYPE_F16, 1, 2)
FORMAT(bf16, DTYPE_BF16, 1, 2)
FORMAT(q8_0, DTYPE_Q8_0, 32, 34)
FORMAT(q4_0, DTYPE_Q4_0, 32, 18)
FORMAT(q4_1, DTYPE_Q4_1, 32, 20)
FORMAT(q5_0, DTYPE_Q5_0, 32, 22)
FORMAT(q5_1, DTYPE_Q5_1, 32, 24)
FORMAT(q4_k, DTYPE_Q4_K, 256, 144)
FORMAT(q5_k, DTYPE_Q5_K, 256, 176)
FORMAT(q6_k, DTYPE_Q6_K, 256, 210)
FORMAT(iq4_nl, DTYPE_IQ4_NL, 32, 18)
#endif
