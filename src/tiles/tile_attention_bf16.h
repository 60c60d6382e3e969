/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What attention's two directions share: rows of a sequence brought into tiles that
 * begin with the sequence, in the four forms that products ask for, and products of
 * 2 x 2 tiles.
 *
 *     rows          left side,  x       [16 rows][32 columns]
 *     turned        right side, x^T     [16 pairs of columns][16 rows]
 *     pairs         right side, x       [16 pairs of rows][16 columns]
 *     pairs turned  left side,  x^T     [16 columns][32 rows]
 */
#ifndef ARTEL_TILES_TILE_ATTENTION_BF16_H
#define ARTEL_TILES_TILE_ATTENTION_BF16_H

#include "tiles/tile_avx512bf16.h"
#include "tiles/tile_quad_bf16.h"

#define CHUNK 8 /* blocks of 32 whose scores are held at a time */

/* N rows of a column block, 32 at most, from ROW on; what is missing is zero. */
struct piece {
    struct tiles t;
    size_t row, n, block;
};

/* 16 of its rows from FIRST on. */
static inline void piece_load(__m512i r[16], const struct piece *p, size_t first)
{
    const size_t row = p->row + first, edge = 16 - row % 16;
    const size_t jump = (p->t.pitch - 1) * TILE_ELEMS; /* into the next row block */
    const uint16_t *at = tile_at(p->t, row, p->block);

    if (p->n >= first + 16 && edge == 16) {
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++)
            r[i] = _mm512_loadu_si512(at + i * TILE_COLS);
        return;
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        r[i] = first + i < p->n
                   ? _mm512_loadu_si512(at + (i < edge ? 0 : jump) + i * TILE_COLS)
                   : _mm512_setzero_si512();
}

static inline void tile_put(uint16_t *out, const __m512i r[16])
{
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        _mm512_store_si512(out + i * TILE_COLS, r[i]);
}

/* Two tiles, STEP apart. */
static inline void piece_rows(uint16_t *out, size_t step, const struct piece *p)
{
    __m512i r[16];

    for (size_t half = 0; half < 2; half++) {
        piece_load(r, p, half * 16);
        tile_put(out + half * step, r);
    }
}

static inline void piece_turned(uint16_t *out, const struct piece *p)
{
    __m512i r[16];

    for (size_t half = 0; half < 2; half++) {
        piece_load(r, p, half * 16);
        tile_transpose(r);
        tile_put(out + half * TILE_ELEMS, r);
    }
}

/* 16 rows as the upper (HALF 0) or lower 8 rows of two packed tiles. */
static inline void put_pairs(uint16_t *out, size_t half, const __m512i r[16])
{
    __m512i low, high;

#pragma GCC unroll 16
    for (size_t i = 0; i < 8; i++) {
        tile_interleave(r[2 * i], r[2 * i + 1], &low, &high);
        _mm512_store_si512(out + (half * 8 + i) * 32, low);
        _mm512_store_si512(out + TILE_ELEMS + (half * 8 + i) * 32, high);
    }
}

static inline void piece_pairs(uint16_t *out, const struct piece *p)
{
    __m512i r[16];

    for (size_t half = 0; half < 2; half++) {
        piece_load(r, p, half * 16);
        put_pairs(out, half, r);
    }
}

/* Both right sides of one reading. */
static inline void piece_right_sides(uint16_t *turned, uint16_t *pairs,
                                     const struct piece *p)
{
    __m512i r[16];

    for (size_t half = 0; half < 2; half++) {
        piece_load(r, p, half * 16);
        put_pairs(pairs, half, r);
        tile_transpose(r);
        tile_put(turned + half * TILE_ELEMS, r);
    }
}

/* Two tiles, STEP apart, from those that piece_pairs wrote. */
static inline void pairs_turned(uint16_t *out, size_t step, const uint16_t *pairs)
{
    __m512i r[16];

    for (size_t half = 0; half < 2; half++) {
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++)
            r[i] = _mm512_load_si512(pairs + half * TILE_ELEMS + i * 32);
        tile_transpose(r);
        tile_put(out + half * step, r);
    }
}

/* C += A B over K blocks: A's upper and lower tiles follow one another, B's pairs too. */
static inline void quad_add(const struct quad *c, const uint16_t *upper,
                            const uint16_t *lower, const uint16_t *b, size_t k)
{
    quad_fence();
    for (size_t i = 0; i < k; i++)
        quad_step(c, upper + i * TILE_ELEMS, lower + i * TILE_ELEMS, b + i * PACK_ELEMS,
                  b + i * PACK_ELEMS + TILE_ELEMS);
}

/* Each of 16 rows to one number: its largest, or its sum. */
__attribute__((always_inline)) static inline __m512 fold_rows(const float (*part)[16],
                                                              bool largest)
{
    __m512i r[16];
    __m512 x[16];

#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        r[i] = _mm512_load_si512(part[i]);
    tile_transpose(r);
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        x[i] = _mm512_castsi512_ps(r[i]);
#pragma GCC unroll 4
    for (size_t n = 8; n > 0; n /= 2)
#pragma GCC unroll 8
        for (size_t i = 0; i < n; i++)
            x[i] =
                largest ? _mm512_max_ps(x[i], x[i + n]) : _mm512_add_ps(x[i], x[i + n]);
    return x[0];
}

static inline __m512 sum_rows(const float (*part)[16])
{
    return fold_rows(part, false);
}

static inline __m512 largest_of_rows(const float (*part)[16])
{
    return fold_rows(part, true);
}

/* The first N of 32. */
static inline uint32_t first_bits(size_t n)
{
    return n >= 32 ? 0xffffffffu : (1u << n) - 1;
}

#endif
