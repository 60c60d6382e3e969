/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of 4 x 24: 12 sums, three vectors of B and one broadcast of A fill the
 * 16 registers.
 */
#include "math/gemm.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#define ROWS  4
#define VECS  3
#define AHEAD 8 /* rows of B fetched before they are copied */

/* The first N of 8 lanes. */
static __m256i lanes_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __attribute__((always_inline)) __m256 load(const float *p, bool part,
                                                         __m256i mask)
{
    return part ? _mm256_maskload_ps(p, mask) : _mm256_loadu_ps(p);
}

/* R rows, V vectors and whether the last is only PARTly there are constants wherever
 * this is inlined. */
static inline __attribute__((always_inline)) void tile_of(const struct gemm_tile *t,
                                                          const size_t R,
                                                          const size_t V,
                                                          const bool part, __m256i mask)
{
    const size_t a_row = t->a_row, a_step = t->a_step, b_step = t->b_step;
    const float *a = t->a, *b = t->b;
    const char *ahead = (const char *)t->ahead;
    const bool fetches = R == ROWS && V == VECS && !part && ahead;
    size_t lines = t->n_ahead;
    __m256 sum[ROWS][VECS];

#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < V; v++)
            sum[r][v] =
                t->fresh ? _mm256_setzero_ps()
                         : load(t->c + r * t->c_row + 8 * v, part && v + 1 == V, mask);
    for (size_t k = t->k; k; k--) {
        __m256 col[VECS];

        if (fetches && k % GEMM_STRIDE == 0 && lines) {
            _mm_prefetch(ahead, _MM_HINT_T1);
            ahead += 64;
            lines--;
        }

#pragma GCC unroll 3
        for (size_t v = 0; v < V; v++)
            col[v] = load(b + 8 * v, part && v + 1 == V, mask);
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++) {
            const __m256 x = _mm256_broadcast_ss(a + r * a_row);

#pragma GCC unroll 3
            for (size_t v = 0; v < V; v++)
                sum[r][v] = _mm256_fmadd_ps(x, col[v], sum[r][v]);
        }
        a += a_step;
        b += b_step;
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 3
        for (size_t v = 0; v < V; v++) {
            float *c = t->c + r * t->c_row + 8 * v;

            if (part && v + 1 == V)
                _mm256_maskstore_ps(c, mask, sum[r][v]);
            else
                _mm256_storeu_ps(c, sum[r][v]);
        }
}

#define TILES_OF(R)                                                                    \
    static void tile_##R(const struct gemm_tile *t, size_t vecs, bool part,            \
                         __m256i mask)                                                 \
    {                                                                                  \
        if (vecs == 3 && !part)                                                        \
            tile_of(t, R, 3, false, mask);                                             \
        else if (vecs == 3)                                                            \
            tile_of(t, R, 3, true, mask);                                              \
        else if (vecs == 2)                                                            \
            tile_of(t, R, 2, true, mask);                                              \
        else                                                                           \
            tile_of(t, R, 1, true, mask);                                              \
    }
TILES_OF(1)
TILES_OF(2)
TILES_OF(3)
TILES_OF(4)

static void tile(const struct gemm_tile *t, size_t rows, size_t cols)
{
    static void (*const of_rows[])(const struct gemm_tile *, size_t, bool,
                                   __m256i) = {tile_1, tile_2, tile_3, tile_4};
    const size_t vecs = (cols + 7) / 8;

    of_rows[rows - 1](t, vecs, cols % 8 != 0, lanes_mask(cols - 8 * (vecs - 1)));
}

/* 8 x 8, held in registers. */
static inline __attribute__((always_inline)) void transpose_8(__m256 r[8])
{
    __m256 t[8], u[8];

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
        r[4 + i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
    }
}

static void transpose(float *out, const float *b, size_t row, size_t n, size_t k)
{
    const size_t to = (n + 7) / 8 * 8;

    for (size_t j = 0; j < n; j += 8) {
        const size_t wide = n - j < 8 ? n - j : 8;

        for (size_t i = 0; i < k; i += 8) {
            const size_t deep = k - i < 8 ? k - i : 8;
            const __m256i mask = lanes_mask(deep);
            __m256 r[8];

#pragma GCC unroll 8
            for (size_t l = 0; l < 8; l++)
                r[l] = l < wide ? _mm256_maskload_ps(b + (j + l) * row + i, mask)
                                : _mm256_setzero_ps();
            transpose_8(r);
#pragma GCC unroll 8
            for (size_t l = 0; l < 8; l++)
                if (l < deep)
                    _mm256_storeu_ps(out + (i + l) * to + j, r[l]);
        }
    }
}

static void copy(float *out, const float *b, size_t row, size_t n, size_t k)
{
    const size_t vecs = (n + 7) / 8;
    const __m256i last = lanes_mask(n - 8 * (vecs - 1));

    for (size_t i = 0; i < k; i++, b += row) {
        for (size_t v = 0; v + 1 < vecs; v++, out += 8)
            _mm256_storeu_ps(out, _mm256_loadu_ps(b + 8 * v));
        _mm256_storeu_ps(out, _mm256_maskload_ps(b + 8 * (vecs - 1), last));
        out += 8;
        /* A row of B is a page away from the next: the CPU does not see it coming. */
        for (size_t v = 0; v < vecs; v += 2)
            _mm_prefetch((const char *)(b + AHEAD * row + 8 * v), _MM_HINT_T0);
    }
}

static const struct gemm_set set = {.name = "avx2",
                                    .rows = ROWS,
                                    .cols = 8 * VECS,
                                    .lanes = 8,
                                    .tile = tile,
                                    .copy = copy,
                                    .transpose = transpose};

const struct gemm_set *gemm_avx2(void)
{
    return &set;
}
#elif defined(__x86_64__)
const struct gemm_set *gemm_avx2(void)
{
    return NULL;
}
#endif
