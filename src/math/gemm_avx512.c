/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of 8 x 48: 24 sums, three vectors of B and one broadcast of A fill the
 * 32 registers, and the widths of the common models are multiples of both.
 */
#include "math/gemm.h"

#if defined(__AVX512F__)
#include <immintrin.h>

#define ROWS  8
#define VECS  3
#define AHEAD 8 /* rows of B fetched before they are copied */

/* One k of R rows and V vectors, which are constants wherever this is inlined. A4 is
 * A's fifth row: an address reaches four rows. */
static inline __attribute__((always_inline)) void
step(__m512 sum[ROWS][VECS], const float *a, const float *a4, size_t a_row,
     const float *b, const size_t R, const size_t V, __mmask16 last)
{
    __m512 col[VECS];

#pragma GCC unroll 3
    for (size_t v = 0; v < V; v++)
        col[v] = v + 1 < V ? _mm512_loadu_ps(b + 16 * v)
                           : _mm512_maskz_loadu_ps(last, b + 16 * v);
#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++) {
        const __m512 x = _mm512_set1_ps(r < 4 ? a[r * a_row] : a4[(r - 4) * a_row]);

#pragma GCC unroll 3
        for (size_t v = 0; v < V; v++)
            sum[r][v] = _mm512_fmadd_ps(x, col[v], sum[r][v]);
    }
}

static inline __attribute__((always_inline)) void
tile_of(const struct gemm_tile *t, const size_t R, const size_t V, __mmask16 last)
{
    const size_t a_row = t->a_row, a_step = t->a_step, b_step = t->b_step;
    const float *a = t->a, *a4 = R > 4 ? t->a + 4 * a_row : t->a, *b = t->b;
    __m512 sum[ROWS][VECS];

#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < V; v++)
            sum[r][v] =
                t->fresh ? _mm512_setzero_ps()
                         : _mm512_maskz_loadu_ps(v + 1 < V ? (__mmask16)0xffff : last,
                                                 t->c + r * t->c_row + 16 * v);
    for (size_t k = t->k; k; k--) {
        step(sum, a, a4, a_row, b, R, V, last);
        a += a_step;
        a4 += a_step;
        b += b_step;
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < V; v++)
            _mm512_mask_storeu_ps(t->c + r * t->c_row + 16 * v,
                                  v + 1 < V ? (__mmask16)0xffff : last, sum[r][v]);
}

/*
 * The whole tile with A's k lying together and B packed, where nearly all time goes.
 * Fetches come one at a time between the products: a burst of them would hold up the
 * lines of B on their way from L2.
 */
static void whole(const struct gemm_tile *t)
{
    const size_t a_row = t->a_row;
    const float *a = t->a, *a4 = t->a + 4 * a_row, *b = t->b;
    const char *ahead = (const char *)t->ahead;
    __m512 sum[ROWS][VECS];
    size_t k = 0;

#pragma GCC unroll 8
    for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < VECS; v++)
            sum[r][v] = t->fresh ? _mm512_setzero_ps()
                                 : _mm512_loadu_ps(t->c + r * t->c_row + 16 * v);
    for (; k + GEMM_STRIDE <= t->k; k += GEMM_STRIDE) {
        if (k / GEMM_STRIDE < t->n_ahead) {
            _mm_prefetch(ahead, _MM_HINT_T1);
            ahead += 64;
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < GEMM_STRIDE; i++, a++, a4++, b += 16 * VECS)
            step(sum, a, a4, a_row, b, ROWS, VECS, 0xffff);
    }
    for (; k < t->k; k++, a++, a4++, b += 16 * VECS)
        step(sum, a, a4, a_row, b, ROWS, VECS, 0xffff);
#pragma GCC unroll 8
    for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < VECS; v++)
            _mm512_storeu_ps(t->c + r * t->c_row + 16 * v, sum[r][v]);
}

#define TILES_OF(R)                                                                    \
    static void tile_##R(const struct gemm_tile *t, size_t vecs, __mmask16 last)       \
    {                                                                                  \
        if (vecs == 3)                                                                 \
            tile_of(t, R, 3, last);                                                    \
        else if (vecs == 2)                                                            \
            tile_of(t, R, 2, last);                                                    \
        else                                                                           \
            tile_of(t, R, 1, last);                                                    \
    }
TILES_OF(1)
TILES_OF(2)
TILES_OF(3)
TILES_OF(4)
TILES_OF(5)
TILES_OF(6)
TILES_OF(7)
TILES_OF(8)

static void tile(const struct gemm_tile *t, size_t rows, size_t cols)
{
    static void (*const of_rows[])(const struct gemm_tile *, size_t, __mmask16) = {
        tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8};
    const size_t vecs = (cols + 15) / 16;

    if (rows == ROWS && cols == 16 * VECS && t->a_step == 1 && t->b_step == cols) {
        whole(t);
        return;
    }
    of_rows[rows - 1](t, vecs, (__mmask16)(0xffffu >> (16 * vecs - cols)));
}

/* 16 x 16, held in registers. */
static inline __attribute__((always_inline)) void transpose_16(__m512 r[16])
{
    __m512 t[16];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512 *u = t + 4 * i;

        r[4 * i] = _mm512_shuffle_ps(u[0], u[2], 0x44);
        r[4 * i + 1] = _mm512_shuffle_ps(u[0], u[2], 0xee);
        r[4 * i + 2] = _mm512_shuffle_ps(u[1], u[3], 0x44);
        r[4 * i + 3] = _mm512_shuffle_ps(u[1], u[3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

static void transpose(float *out, const float *b, size_t row, size_t n, size_t k)
{
    const size_t to = (n + 15) / 16 * 16;

    for (size_t j = 0; j < n; j += 16) {
        const size_t wide = n - j < 16 ? n - j : 16;

        for (size_t i = 0; i < k; i += 16) {
            const size_t deep = k - i < 16 ? k - i : 16;
            const __mmask16 mask = (__mmask16)(0xffffu >> (16 - deep));
            __m512 r[16];

#pragma GCC unroll 16
            for (size_t l = 0; l < 16; l++)
                r[l] = l < wide ? _mm512_maskz_loadu_ps(mask, b + (j + l) * row + i)
                                : _mm512_setzero_ps();
            transpose_16(r);
#pragma GCC unroll 16
            for (size_t l = 0; l < 16; l++)
                if (l < deep)
                    _mm512_storeu_ps(out + (i + l) * to + j, r[l]);
        }
    }
}

static void copy(float *out, const float *b, size_t row, size_t n, size_t k)
{
    const size_t vecs = (n + 15) / 16;
    const __mmask16 last = (__mmask16)(0xffffu >> (16 * vecs - n));

    for (size_t i = 0; i < k; i++, b += row) {
        for (size_t v = 0; v + 1 < vecs; v++, out += 16)
            _mm512_storeu_ps(out, _mm512_loadu_ps(b + 16 * v));
        _mm512_storeu_ps(out, _mm512_maskz_loadu_ps(last, b + 16 * (vecs - 1)));
        out += 16;
        /* A row of B is a page away from the next: the CPU does not see it coming. */
        for (size_t v = 0; v < vecs; v++)
            _mm_prefetch((const char *)(b + AHEAD * row + 16 * v), _MM_HINT_T0);
    }
}

static const struct gemm_set set = {.name = "avx512",
                                    .rows = ROWS,
                                    .cols = 16 * VECS,
                                    .lanes = 16,
                                    .tile = tile,
                                    .copy = copy,
                                    .transpose = transpose};

const struct gemm_set *gemm_avx512(void)
{
    return &set;
}
#elif defined(__x86_64__)
const struct gemm_set *gemm_avx512(void)
{
    return NULL;
}
#endif
