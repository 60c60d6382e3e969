/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients of low-rank factors on AMX tiles: H^T X over the rows of a block.
 *
 *     left    H^T in tiles of 16 ranks x 32 rows, made once for all columns of X
 *     right   32 rows x 32 columns of X as two tiles of pairs of rows, made once for
 *             all blocks of ranks
 *
 * Pairs of rows are mixed within lanes of 128 bits, which is the cheap way to mix them:
 * of 32 columns the even groups of four come into the left tile, the odd ones into the
 * right. What takes the sums to where they belong puts them in order again.
 */
#include "math/tile_ranks.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <assert.h>

#include "math/tile_amx.h"

#define CHUNK ((size_t)512) /* rows whose X of 32 columns stays in L1 */

struct rank_sums {
    float at[2][2][256] __attribute__((aligned(64))); /* [half][even, odd][16][16] */
};

size_t amx_rank_mixed(size_t rows)
{
    const size_t all = tile_round(rows);

    return (all < CHUNK ? all : CHUNK) * TILE_COLS * sizeof(uint16_t);
}

void amx_rank_turn(uint16_t *turned, struct tiles h, size_t row, size_t rows)
{
    for (size_t r = row; r < row + rows; r += PAIR_ROWS, turned += 2 * TILE_ELEMS) {
        __m512i low[16], high[16];

        for (size_t i = 0; i < 16; i++) {
            const uint16_t *two = tile_at(h, r + 2 * i, 0);

            tile_interleave(_mm512_load_si512(two), _mm512_load_si512(two + TILE_COLS),
                            &low[i], &high[i]);
        }
        tile_transpose(low);
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(turned + i * 32, low[i]);
        tile_transpose(high);
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(turned + TILE_ELEMS + i * 32, high[i]);
    }
}

/* One column block of X: [pair][even, odd][TILE]. */
static void mix(uint16_t *mixed, const uint16_t *x, size_t pitch, size_t pairs)
{
    for (size_t p = 0; p < pairs; p++, mixed += 2 * TILE_ELEMS)
        for (size_t half = 0; half < 2; half++, x += pitch * TILE_ELEMS)
            for (size_t i = 0; i < 8; i++) {
                const __m512i a = _mm512_load_si512(x + i * 64),
                              b = _mm512_load_si512(x + i * 64 + 32);
                uint16_t *to = mixed + half * 256 + i * 32;

                _mm512_store_si512(to, _mm512_unpacklo_epi16(a, b));
                _mm512_store_si512(to + TILE_ELEMS, _mm512_unpackhi_epi16(a, b));
            }
}

static void sum(struct rank_sums *out, const uint16_t *turned, const uint16_t *mixed,
                size_t pairs, unsigned halves)
{
    const uint16_t *one = turned + (halves == 2 ? TILE_ELEMS : 0);

    TILE_FENCE();
    _tile_zero(0);
    _tile_zero(1);
    if (halves != 3) {
        for (size_t p = 0; p < pairs; p++) {
            _tile_loadd(4, one + p * 2 * TILE_ELEMS, 64);
            _tile_loadd(6, mixed + p * 2 * TILE_ELEMS, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, mixed + (p * 2 + 1) * TILE_ELEMS, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, out->at[halves == 2][0], 64);
        _tile_stored(1, out->at[halves == 2][1], 64);
        TILE_FENCE();
        return;
    }
    _tile_zero(2);
    _tile_zero(3);
    for (size_t p = 0; p < pairs; p++) {
        _tile_loadd(4, turned + p * 2 * TILE_ELEMS, 64);
        _tile_loadd(6, mixed + p * 2 * TILE_ELEMS, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, mixed + (p * 2 + 1) * TILE_ELEMS, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, turned + (p * 2 + 1) * TILE_ELEMS, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out->at[0][0], 64);
    _tile_stored(1, out->at[0][1], 64);
    _tile_stored(2, out->at[1][0], 64);
    _tile_stored(3, out->at[1][1], 64);
    TILE_FENCE();
}

/* 32 columns as they lie in a block: those from FIRST on in order, N of them there. */
struct run {
    size_t first, n;
};

static struct run run_of(const struct tile_map *map, size_t block)
{
    struct run run = {block * 32, 32};

    if (!map)
        return run;
    run.first = (size_t)map->index[block * 32];
    for (run.n = 0; run.n < 32 && map->index[block * 32 + run.n] >= 0; run.n++)
        assert(map->index[block * 32 + run.n] == (int32_t)(run.first + run.n));
    return run;
}

static uint32_t bits(size_t first, size_t n)
{
    return (uint32_t)(((1ull << n) - 1) << first);
}

static inline void add(float *to, __mmask16 there, __m512 x)
{
    _mm512_mask_storeu_ps(to, there,
                          _mm512_add_ps(_mm512_maskz_loadu_ps(there, to), x));
}

/* Rows of ranks to A (R, N). */
static void add_to_rows(const struct rank_sums *s, const struct rank_block *b,
                        struct run run)
{
    const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3,
                                         2, 1, 0),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const uint32_t there = bits(0, run.n);

    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *t = &b->targets[i];

        for (size_t r = 0; r < t->n; r++) {
            const size_t place = t->first + r;
            const float *at = s->at[place / 16][0] + place % 16 * 16;
            const __m512 even = _mm512_load_ps(at), odd = _mm512_load_ps(at + 256);
            float *to = t->to + r * t->pitch + run.first;

            add(to, (__mmask16)there, _mm512_permutex2var_ps(even, low, odd));
            add(to + 16, (__mmask16)(there >> 16),
                _mm512_permutex2var_ps(even, high, odd));
        }
    }
}

/* Which of a block's 32 outputs are there and of SITE. */
static uint32_t outputs_of(const struct tile_map *map, size_t block, uint8_t site)
{
    const __m256i sites = _mm256_loadu_si256((const __m256i *)(map->site + block * 32));
    const int32_t *index = map->index + block * 32;
    const __mmask16 low = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(index),
                                                  _mm512_setzero_si512()),
                    high = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(index + 16),
                                                   _mm512_setzero_si512());

    return _mm256_cmpeq_epi8_mask(sites, _mm256_set1_epi8((char)site)) &
           (low | (uint32_t)high << 16);
}

/* Half HALF of the ranks to the columns of B (M, R): turned, an output a row. */
static void add_to_columns(const struct rank_sums *s, const struct rank_block *b,
                           size_t half, const struct tile_map *map, size_t block)
{
    float turned[2][16][16] __attribute__((aligned(64)));

    for (size_t c = 0; c < 2; c++) {
        __m512i t[16];

        for (size_t i = 0; i < 16; i++)
            t[i] = _mm512_load_si512(s->at[half][c] + i * 16);
        tile_transpose(t);
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(turned[c][i], t[i]);
    }
    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *t = &b->targets[i];
        const __mmask16 ranks = (__mmask16)(bits(t->first, t->n) >> (16 * half));
        uint32_t outputs = ranks ? outputs_of(map, block, t->site) : 0;

        for (; outputs; outputs &= outputs - 1) {
            const size_t j = (size_t)__builtin_ctz(outputs);
            const ptrdiff_t at =
                (ptrdiff_t)((size_t)map->index[block * 32 + j] * t->pitch) +
                (ptrdiff_t)(16 * half) - t->first;

            add(t->to + at, ranks,
                _mm512_load_ps(turned[j / 4 % 2][j / 8 * 4 + j % 4]));
        }
    }
}

/* Halves of the ranks that have something to give to a column block. */
static unsigned halves_for(const struct rank_block *b, const struct tile_map *map,
                           size_t block)
{
    unsigned halves = 0;

    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *t = &b->targets[i];
        const uint32_t places = bits(t->first, t->n);

        if (!map || !map->site || outputs_of(map, block, t->site))
            halves |= (places & 0xffff ? 1u : 0u) | (places >> 16 ? 2u : 0u);
    }
    return halves;
}

/* Rows ROW .. ROW + ROWS, whose X of column block BLOCK is MIXED. */
static void block_gradient(const struct rank_block *b, const uint16_t *mixed,
                           const struct tile_map *map, size_t block, size_t row,
                           size_t rows)
{
    const size_t from = b->row > row ? b->row : row;
    const size_t end = b->row + b->rows < row + rows ? b->row + b->rows : row + rows;
    const unsigned halves = from < end ? halves_for(b, map, block) : 0;
    struct rank_sums sums;

    if (!halves)
        return;
    sum(&sums, b->turned + (from - b->row) * TILE_COLS,
        mixed + (from - row) * TILE_COLS, (end - from) / PAIR_ROWS, halves);
    if (!map || !map->site) {
        add_to_rows(&sums, b, run_of(map, block));
        return;
    }
    if (halves & 1)
        add_to_columns(&sums, b, 0, map, block);
    if (halves & 2)
        add_to_columns(&sums, b, 1, map, block);
}

static bool wanted(const struct rank_block *blocks, size_t n_blocks,
                   const struct tile_map *map, size_t block)
{
    for (size_t i = 0; i < n_blocks; i++)
        if (halves_for(&blocks[i], map, block))
            return true;
    return false;
}

void amx_rank_gradients(const struct rank_block *blocks, size_t n_blocks,
                        struct tiles x, size_t x_blocks, const struct tile_map *map,
                        size_t row, size_t rows, void *mixed)
{
    tiles_begin();
    for (size_t r = row; r < row + rows; r += CHUNK) {
        const size_t n = row + rows - r < CHUNK ? row + rows - r : CHUNK;

        for (size_t block = 0; block < x_blocks; block++) {
            if (!wanted(blocks, n_blocks, map, block))
                continue;
            mix(mixed, tile_at(x, r, block), x.pitch, n / PAIR_ROWS);
            for (size_t i = 0; i < n_blocks; i++)
                block_gradient(&blocks[i], mixed, map, block, r, n);
        }
    }
    tiles_end();
}

size_t amx_rank_scratch(size_t rows)
{
    return tile_round(rows) * TILE_COLS * sizeof(uint16_t) + amx_rank_mixed(rows);
}

void amx_rank_gradient(float *g, size_t pitch, struct tiles h, struct tiles x,
                       size_t blocks, size_t row, size_t rows, void *scratch)
{
    const struct rank_target all = {.to = g, .pitch = pitch, .n = 32};
    const struct rank_block block = {scratch, row, rows, &all, 1};

    amx_rank_turn(scratch, h, row, rows);
    amx_rank_gradients(&block, 1, x, blocks, NULL, row, rows,
                       (uint16_t *)scratch + rows * TILE_COLS);
}
#endif
