/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Low-rank factors to the packed right sides of their four products, and dropout of
 * what goes into the first.
 *
 *     down          h = x A^T        K: inputs    columns: ranks
 *     down turned   d_x = d_h A      K: ranks     columns: inputs
 *     up            y = h B^T        K: ranks     columns: outputs
 *     up turned     d_h = d_y B      K: outputs   columns: ranks
 *
 * Gaps of a block are zero from the start: only what is there is written.
 */
#include "tiles/tile_rank_parts.h"

#if defined(__AVX512BF16__)
#include <assert.h>

#include "tiles/tile_avx512bf16.h"

static inline __mmask16 first_lanes(size_t n)
{
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

/* 32 floats at P, of which N are there, as bf16. */
static inline __m512i row_32(const float *p, size_t n)
{
    return bf16_pair(_mm512_maskz_loadu_ps(first_lanes(n), p),
                     n > 16 ? _mm512_maskz_loadu_ps(first_lanes(n - 16), p + 16)
                            : _mm512_setzero_ps());
}

/* Inputs stand in order in a block; gaps follow. */
static size_t run_length(const int32_t *index)
{
    size_t n = 0;

    while (n < 32 && index[n] >= 0)
        n++;
    return n;
}

void bf16_pack_rows(uint16_t *down, uint16_t *turned, size_t pitch,
                    const struct rank_rows *a, const struct tile_map *map)
{
    bool there[16];

    for (size_t i = 0; i < 16; i++)
        there[i] = a->row[2 * i] || a->row[2 * i + 1];
    for (size_t block = 0; block < map->blocks; block++) {
        const int32_t *index = map->index + block * 32;
        const size_t n = run_length(index);
        __m512i r[2][16];

        for (size_t i = 0; i < 32; i++)
            r[i / 16][i % 16] =
                a->row[i] ? row_32(a->row[i] + index[0], n) : _mm512_setzero_si512();
        for (size_t i = 0; turned && i < 16; i++) {
            uint16_t *to = turned + block * pitch + i * 32;
            __m512i low, high;

            if (!there[i])
                continue;
            tile_interleave(r[i / 8][i % 8 * 2], r[i / 8][i % 8 * 2 + 1], &low, &high);
            _mm512_store_si512(to, low);
            _mm512_store_si512(to + TILE_ELEMS, high);
        }
        for (size_t half = 0; half < 2; half++) {
            uint16_t *to = down + block * PACK_ELEMS + half * TILE_ELEMS;
            bool any = false;

            for (size_t i = 0; i < 8; i++)
                any |= there[half * 8 + i];
            if (!any)
                continue;
            tile_transpose(r[half]);
            for (size_t i = 0; i < 16; i++)
                _mm512_store_si512(to + i * 32, r[half][i]);
        }
    }
}

/* The ranks of one output: a row of each B that has this site. */
static inline __m512i ranks_of(const struct rank_columns *parts, size_t n_parts,
                               int32_t index, uint8_t site)
{
    __m512 low = _mm512_setzero_ps(), high = low;

    for (size_t i = 0; index >= 0 && i < n_parts; i++) {
        const struct rank_columns *c = &parts[i];
        const uint32_t at = (uint32_t)(((1ull << c->n) - 1) << c->first);
        const float *b = c->b + (ptrdiff_t)((size_t)index * c->pitch) - c->first;

        if (c->site != site)
            continue;
        low = _mm512_mask_loadu_ps(low, (__mmask16)at, b);
        high = _mm512_mask_loadu_ps(high, (__mmask16)(at >> 16), b + 16);
    }
    return bf16_pair(low, high);
}

/* Places of the parts that have outputs in a panel. */
static uint32_t places_in(const struct rank_columns *parts, size_t n_parts,
                          const struct tile_map *map, size_t panel)
{
    uint32_t places = 0;

    for (size_t i = 0; i < n_parts; i++)
        for (size_t j = panel * 32; j < panel * 32 + 32; j++)
            if (map->index[j] >= 0 && map->site[j] == parts[i].site) {
                places |= (uint32_t)(((1ull << parts[i].n) - 1) << parts[i].first);
                break;
            }
    return places;
}

/* R: a row of ranks for each of 16 outputs. */
static void store_up(uint16_t *up, __m512i r[16], uint32_t places)
{
    tile_transpose(r);
    for (size_t i = 0; i < 16; i++)
        if (places >> (2 * i) & 3)
            _mm512_store_si512(up + i * 32, r[i]);
}

static void store_turned(uint16_t *turned, const __m512i r[16], uint32_t places)
{
    for (size_t i = 0; i < 8; i++) {
        __m512i low, high;

        tile_interleave(r[2 * i], r[2 * i + 1], &low, &high);
        if (places & 0xffff)
            _mm512_store_si512(turned + i * 32, low);
        if (places >> 16)
            _mm512_store_si512(turned + TILE_ELEMS + i * 32, high);
    }
}

void bf16_pack_columns(uint16_t *up, size_t pitch, uint16_t *turned,
                       const struct rank_columns *parts, size_t n_parts,
                       const struct tile_map *map, size_t panel, size_t n_panels)
{
    for (size_t p = panel; p < panel + n_panels; p++) {
        const uint32_t places = places_in(parts, n_parts, map, p);

        for (size_t half = 0; places && half < 2; half++) {
            const size_t at = p * 32 + half * 16;
            __m512i r[16];

            for (size_t i = 0; i < 16; i++)
                r[i] = ranks_of(parts, n_parts, map->index[at + i], map->site[at + i]);
            if (turned)
                store_turned(turned + (p - panel) * PACK_ELEMS + half * 256, r, places);
            store_up(up + p * pitch + half * TILE_ELEMS, r, places);
        }
    }
}

/*
 * PCG32's states are a linear sequence: 16 of them in a row, each then moved on by 16.
 */
#define PCG_MULTIPLIER 6364136223846793005ull

/* The 32-bit number that a state gives. */
static inline __m256i pcg_output(__m512i s)
{
    const __m512i mixed =
        _mm512_srli_epi64(_mm512_xor_si512(_mm512_srli_epi64(s, 18), s), 27);

    return _mm256_rorv_epi32(_mm512_cvtepi64_epi32(mixed),
                             _mm512_cvtepi64_epi32(_mm512_srli_epi64(s, 59)));
}

void bf16_draw_kept(uint64_t *kept, uint64_t seed, uint64_t stream, uint32_t limit,
                    size_t n)
{
    const uint64_t step = stream << 1 | 1;
    const __m256i least = _mm256_set1_epi32((int)limit);
    uint64_t state[16] __attribute__((aligned(64)));
    uint64_t jump = 1, drift = 0;
    __m512i a, b, by, plus;

    /* the two steps of rng_init */
    state[0] = (step + seed) * PCG_MULTIPLIER + step;
    for (size_t i = 1; i < 16; i++)
        state[i] = state[i - 1] * PCG_MULTIPLIER + step;
    for (size_t i = 0; i < 16; i++) {
        drift = drift * PCG_MULTIPLIER + step;
        jump *= PCG_MULTIPLIER;
    }
    a = _mm512_load_si512(state);
    b = _mm512_load_si512(state + 8);
    by = _mm512_set1_epi64((long long)jump);
    plus = _mm512_set1_epi64((long long)drift);
    for (size_t i = 0; i < (n + 63) / 64; i++) {
        uint64_t word = 0;

        for (unsigned k = 0; k < 64; k += 16) {
            const uint64_t low = _mm256_cmpge_epu32_mask(pcg_output(a), least),
                           high = _mm256_cmpge_epu32_mask(pcg_output(b), least);

            word |= (low | high << 8) << k;
            a = _mm512_add_epi64(_mm512_mullo_epi64(a, by), plus);
            b = _mm512_add_epi64(_mm512_mullo_epi64(b, by), plus);
        }
        kept[i] = word;
    }
}

void bf16_thin(struct tiles out, struct tiles x, const struct tile_map *map,
               const uint64_t *kept, size_t pitch, size_t row, size_t rows)
{
    for (size_t r = row; r < row + rows; r++)
        for (size_t block = 0; block < map->blocks; block++) {
            const int32_t first = map->index[block * 32];

            _mm512_store_si512(
                tile_at(out, r, block),
                _mm512_maskz_mov_epi16(kept_at(kept + r * pitch, pitch, (size_t)first),
                                       _mm512_load_si512(tile_at(x, r, block))));
        }
}
#endif
