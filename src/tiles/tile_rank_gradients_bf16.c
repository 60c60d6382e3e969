/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients of low-rank factors on bf16 tiles: H^T X over the rows of a block.
 *
 *     left    H^T in tiles of 16 ranks x 32 rows, made once for all columns of X
 *     right   32 rows x 32 columns of X as two tiles of pairs of rows, made once for
 *             all blocks of ranks
 *
 * Pairs of rows are mixed within lanes of 128 bits, which is the cheap way to mix them:
 * of 32 columns the even groups of four come into the left tile, the odd ones into the
 * right. What takes the sums to where they belong puts them in order again. Where gate
 * and up share the columns, 16 and 16, each has a tile of its own instead, and blocks of
 * ranks of the one leave the tiles of the other out.
 */
#include "tiles/tile_rank_parts.h"

#if defined(TILE_BUILT)
#include <assert.h>

#include "tiles/tile_avx512bf16.h"
#include "tiles/tile_quad_bf16.h"

#define ALWAYS static inline __attribute__((always_inline))
#define AHEAD  ((size_t)2)   /* pairs that are mixed before they are needed */
#define CHUNK  ((size_t)256) /* rows whose X of 64 columns stays in L1 */

/* [half of the ranks][column block][tile of 16 columns][16][16] */
struct rank_sums {
    float at[2][2][2][256] __attribute__((aligned(64)));
};

size_t TILE(rank_mixed)(size_t rows)
{
    const size_t all = tile_round(rows);

    return 2 * (all < CHUNK ? all : CHUNK) * TILE_COLS * sizeof(uint16_t);
}

void TILE(rank_turn)(uint16_t *turned, struct tiles h, size_t row, size_t rows)
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

/* Columns of X that wait to be mixed; X NULL: they are. */
struct source {
    const uint16_t *x;
    size_t pitch;
    size_t ring; /* bits of a pair's number that tell its place in what is mixed */
    bool sided;  /* left tile: columns 0 to 15; else the even groups of four */
};

/* One pair of row blocks of a column block. */
ALWAYS void mix(uint16_t *mixed, const struct source *s, size_t pair)
{
    const size_t down = s->pitch * TILE_ELEMS;
    const uint16_t *x = s->x + pair * 2 * down;
    const bool sided = s->sided;

    mixed += (pair & s->ring) * 2 * TILE_ELEMS;
    for (size_t i = 0; i < 16; i++, mixed += 32) {
        const uint16_t *two = x + i / 8 * down + i % 8 * 64;
        const __m512i a = _mm512_load_si512(two), b = _mm512_load_si512(two + 32);
        const __m512i even = _mm512_unpacklo_epi16(a, b),
                      odd = _mm512_unpackhi_epi16(a, b);

        if (sided) {
            _mm512_store_si512(mixed, _mm512_shuffle_i64x2(even, odd, 0x44));
            _mm512_store_si512(mixed + TILE_ELEMS,
                               _mm512_shuffle_i64x2(even, odd, 0xee));
        } else {
            _mm512_store_si512(mixed, even);
            _mm512_store_si512(mixed + TILE_ELEMS, odd);
        }
    }
}

/* 32 ranks times one column block, mixed on the way where SOURCE says so. */
ALWAYS void sum_all(struct rank_sums *out, size_t column, const uint16_t *turned,
                    uint16_t *mixed, size_t pairs, const struct source *source)
{
    const struct quad s = {{out->at[0][column][0], out->at[0][column][1],
                            out->at[1][column][0], out->at[1][column][1]},
                           16};

    for (size_t p = 0; source && p < AHEAD && p < pairs; p++)
        mix(mixed, source, p);
    quad_zero(&s);
    for (size_t p = 0; p < pairs; p++) {
        const uint16_t *left = turned + p * 2 * TILE_ELEMS,
                       *right =
                           mixed + (source ? p & source->ring : p) * 2 * TILE_ELEMS;

        if (source && p + AHEAD < pairs)
            mix(mixed, source, p + AHEAD);
        quad_fence();
        quad_step(&s, left, left + TILE_ELEMS, right, right + TILE_ELEMS);
    }
    quad_store(&s);
}

/* 16 ranks times two column blocks. */
ALWAYS void sum_half(struct rank_sums *out, size_t half, const uint16_t *turned,
                     uint16_t *const mixed[2], size_t pairs,
                     const struct source *source)
{
    const uint16_t *one = turned + half * TILE_ELEMS;
    const struct quad s = {{out->at[half][0][0], out->at[half][0][1],
                            out->at[half][1][0], out->at[half][1][1]},
                           16};

    for (size_t p = 0; source && p < AHEAD && p < pairs; p++)
        for (size_t c = 0; c < 2; c++)
            mix(mixed[c], &source[c], p);
    quad_zero(&s);
    for (size_t p = 0; p < pairs; p++) {
        const size_t at = (source ? p & source->ring : p) * 2 * TILE_ELEMS;

        for (size_t c = 0; source && p + AHEAD < pairs && c < 2; c++)
            mix(mixed[c], &source[c], p + AHEAD);
        quad_fence();
        quad_row(&s, one + p * 2 * TILE_ELEMS, mixed[0] + at,
                 mixed[0] + at + TILE_ELEMS, mixed[1] + at, mixed[1] + at + TILE_ELEMS);
    }
    quad_store(&s);
}

/* 32 ranks times the same 16 columns of two column blocks. */
ALWAYS void sum_side(struct rank_sums *out, size_t side, const uint16_t *turned,
                     uint16_t *const mixed[2], size_t pairs,
                     const struct source *source)
{
    const struct quad s = {{out->at[0][0][side], out->at[0][1][side],
                            out->at[1][0][side], out->at[1][1][side]},
                           16};

    for (size_t p = 0; source && p < AHEAD && p < pairs; p++)
        for (size_t c = 0; c < 2; c++)
            mix(mixed[c], &source[c], p);
    quad_zero(&s);
    for (size_t p = 0; p < pairs; p++) {
        const size_t at = ((source ? p & source->ring : p) * 2 + side) * TILE_ELEMS;
        const uint16_t *left = turned + p * 2 * TILE_ELEMS;

        for (size_t c = 0; source && p + AHEAD < pairs && c < 2; c++)
            mix(mixed[c], &source[c], p + AHEAD);
        quad_fence();
        quad_step(&s, left, left + TILE_ELEMS, mixed[0] + at, mixed[1] + at);
    }
    quad_store(&s);
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
static void add_to_rows(const struct rank_sums *s, size_t column,
                        const struct rank_block *b, struct run run)
{
    const __m512i low = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3,
                                         2, 1, 0),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const uint32_t there = bits(0, run.n);

    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *t = &b->targets[i];

        for (size_t r = 0; r < t->n; r++) {
            const size_t place = t->first + r;
            const float *at = s->at[place / 16][column][0] + place % 16 * 16;
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

/* Place in a column block of column L of a tile. */
ALWAYS size_t place_of(size_t l, size_t tile, bool sided)
{
    return sided ? tile * 16 + l / 4 % 2 * 8 + l / 8 * 4 + l % 4
                 : tile * 4 + l / 4 * 8 + l % 4;
}

/* T, an output a register, to the rows of B from which RANKS are asked for. All are read
 * before the first is written: a row's end is near the next one's beginning. */
ALWAYS void add_outputs(float *to, size_t pitch, __mmask16 ranks, const __m512i t[16],
                        const int32_t *index, uint32_t outputs, size_t tile, bool sided)
{
    __m512 sum[16];

    for (size_t l = 0; l < 16; l++) {
        const size_t j = place_of(l, tile, sided);

        if (outputs >> j & 1)
            sum[l] = _mm512_add_ps(
                _mm512_castsi512_ps(t[l]),
                _mm512_maskz_loadu_ps(ranks, to + (size_t)index[j] * pitch));
    }
    for (size_t l = 0; l < 16; l++) {
        const size_t j = place_of(l, tile, sided);

        if (outputs >> j & 1)
            _mm512_mask_storeu_ps(to + (size_t)index[j] * pitch, ranks, sum[l]);
    }
}

/* Half HALF of the ranks to the columns of B (M, R): turned, an output a row. */
ALWAYS void add_tile(const struct rank_sums *s, size_t column,
                     const struct rank_block *b, size_t half,
                     const struct tile_map *map, size_t block, size_t tile, bool sided)
{
    const uint32_t there = sided ? 0xffffu << (16 * tile) : 0x0f0f0f0fu << (4 * tile);
    uint32_t outputs[RANK_PARTS], all = 0;
    __m512i t[16];

    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *g = &b->targets[i];

        outputs[i] = bits(g->first, g->n) >> (16 * half) & 0xffff
                         ? outputs_of(map, block, g->site) & there
                         : 0;
        all |= outputs[i];
    }
    if (!all)
        return;
    for (size_t i = 0; i < 16; i++)
        t[i] = _mm512_load_si512(s->at[half][column][tile] + i * 16);
    tile_transpose(t);
    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *g = &b->targets[i];

        if (outputs[i])
            add_outputs(g->to + (ptrdiff_t)(16 * half) - g->first, g->pitch,
                        (__mmask16)(bits(g->first, g->n) >> (16 * half)), t,
                        map->index + block * 32, outputs[i], tile, sided);
    }
}

static void add_to_columns(const struct rank_sums *s, size_t column,
                           const struct rank_block *b, size_t half,
                           const struct tile_map *map, size_t block, bool sided)
{
    for (size_t tile = 0; tile < 2; tile++)
        if (sided)
            add_tile(s, column, b, half, map, block, tile, true);
        else
            add_tile(s, column, b, half, map, block, tile, false);
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

/* Two column blocks of X; where there is only one, it stands twice. */
struct columns {
    const struct tile_map *map;
    size_t block[2], n;
    size_t row, rows;
    struct source source[2];
    uint16_t *mixed[2]; /* [pair][2][TILE] */
};

static void add_sums(const struct rank_sums *s, const struct rank_block *b,
                     const struct columns *c, unsigned halves)
{
    for (size_t i = 0; i < c->n; i++) {
        if (!c->map || !c->map->site) {
            add_to_rows(s, i, b, run_of(c->map, c->block[i]));
            continue;
        }
        for (size_t half = 0; half < 2; half++)
            if (halves >> half & 1)
                add_to_columns(s, i, b, half, c->map, c->block[i], c->source[i].sided);
    }
}

/* Which 16 of the columns of either block have something to get. */
static unsigned sides_for(const struct rank_block *b, const struct columns *c)
{
    uint32_t outputs = 0;

    for (size_t i = 0; i < b->n_targets; i++)
        for (size_t k = 0; k < 2; k++)
            outputs |= outputs_of(c->map, c->block[k], b->targets[i].site);
    return (outputs & 0xffff ? 1u : 0u) | (outputs >> 16 ? 2u : 0u);
}

/* Two linears share each block of columns: gate and up. */
static bool is_sided(const struct tile_map *map)
{
    return map && map->site && map->site[0] != map->site[TILE_COLS / 2] &&
           map->index[TILE_COLS / 2] >= 0;
}

/* What the sums will be added to is on its way while they are found. */
static void fetch_targets(const struct rank_block *b, const struct columns *c)
{
    for (size_t i = 0; i < b->n_targets; i++) {
        const struct rank_target *t = &b->targets[i];

        for (size_t k = 0; k < c->n; k++) {
            if (!c->map || !c->map->site) {
                const float *to = t->to + run_of(c->map, c->block[k]).first;

                for (size_t r = 0; r < t->n; r++) {
                    _mm_prefetch((const char *)(to + r * t->pitch), _MM_HINT_T0);
                    _mm_prefetch((const char *)(to + r * t->pitch + 16), _MM_HINT_T0);
                }
            } else {
                const int32_t *index = c->map->index + c->block[k] * 32;
                uint32_t outputs = outputs_of(c->map, c->block[k], t->site);

                if (t->pitch <= 8)
                    outputs &= 0x55555555u; /* two in a cache line */
                for (; outputs; outputs &= outputs - 1)
                    _mm_prefetch(
                        (const char *)(t->to + (size_t)index[__builtin_ctz(outputs)] *
                                                   t->pitch),
                        _MM_HINT_T0);
            }
        }
    }
}

/* What is not mixed yet will be, by this block's sums or before them. */
static void columns_gradient(const struct rank_block *b, struct columns *c)
{
    const size_t from = b->row > c->row ? b->row : c->row;
    const size_t end =
        b->row + b->rows < c->row + c->rows ? b->row + b->rows : c->row + c->rows;
    const unsigned halves = from < end ? halves_for(b, c->map, c->block[0]) |
                                             halves_for(b, c->map, c->block[1])
                                       : 0;
    const uint16_t *turned = b->turned + (from - b->row) * TILE_COLS;
    const size_t pairs = (end - from) / PAIR_ROWS,
                 skipped = (from - c->row) * TILE_COLS;
    const bool whole = from == c->row && end == c->row + c->rows;
    uint16_t *const mixed[2] = {c->mixed[0] + skipped, c->mixed[1] + skipped};
    const unsigned sides = c->source[0].sided ? sides_for(b, c) : 3;
    const size_t side = sides == 3 ? 2 : sides >> 1;
    struct rank_sums sums;

    if (!halves)
        return;
    for (size_t i = 0; !whole && i < 2; i++)
        c->source[i].ring = SIZE_MAX;
    if (c->source[0].x && !whole)
        for (size_t p = 0; p < c->rows / PAIR_ROWS; p++)
            for (size_t i = 0; i < 2; i++)
                mix(c->mixed[i], &c->source[i], p);
    fetch_targets(b, c);
    if (side < 2 && halves == 3)
        sum_side(&sums, side, turned, mixed, pairs,
                 c->source[0].x && whole ? c->source : NULL);
    else if (c->source[0].x && whole && halves == 3)
        for (size_t i = 0; i < 2; i++)
            sum_all(&sums, i, turned, mixed[i], pairs, &c->source[i]);
    else if (c->source[0].x && whole)
        sum_half(&sums, halves >> 1, turned, mixed, pairs, c->source);
    else if (halves == 3)
        for (size_t i = 0; i < 2; i++)
            sum_all(&sums, i, turned, mixed[i], pairs, NULL);
    else
        sum_half(&sums, halves >> 1, turned, mixed, pairs, NULL);
    c->source[0].x = NULL;
    add_sums(&sums, b, c, halves);
}

void TILE(rank_gradients)(const struct rank_block *blocks, size_t n_blocks,
                          struct tiles x, size_t x_blocks, const struct tile_map *map,
                          size_t row, size_t rows, void *mixed)
{
    const bool sided = is_sided(map);

    tiles_begin();
    for (size_t r = row; r < row + rows; r += CHUNK) {
        struct columns c = {.map = map,
                            .row = r,
                            .rows = row + rows - r < CHUNK ? row + rows - r : CHUNK};

        c.mixed[0] = mixed;
        c.mixed[1] = c.mixed[0] + c.rows * TILE_COLS;
        for (size_t block = 0; block < x_blocks; block += 2) {
            c.n = block + 1 < x_blocks ? 2 : 1;
            for (size_t i = 0; i < 2; i++) {
                c.block[i] = block + (i < c.n ? i : 0);
                c.source[i] = (struct source){tile_at(x, r, c.block[i]), x.pitch,
                                              n_blocks == 1 ? 3 : SIZE_MAX, sided};
            }
            for (size_t i = 0; i < n_blocks; i++)
                columns_gradient(&blocks[i], &c);
        }
    }
    tiles_end();
}
#endif
