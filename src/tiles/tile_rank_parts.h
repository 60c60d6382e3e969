/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members of struct tile_rank_set (tiles/tile_ranks.h) that lie in files of their own,
 * and what these share. Everything else calls tile_rank_set().
 */
#ifndef ARTEL_TILES_TILE_RANK_PARTS_H
#define ARTEL_TILES_TILE_RANK_PARTS_H

#include "tiles/tile_built.h"
#include "tiles/tile_ranks.h"

/* Of each set. */
void TILE(rank_product)(float *out, size_t pitch, const struct rank_product *p,
                        uint32_t places);
void TILE(rank_turn)(uint16_t *turned, struct tiles h, size_t row, size_t rows);
void TILE(rank_gradients)(const struct rank_block *blocks, size_t n_blocks,
                          struct tiles x, size_t x_blocks, const struct tile_map *map,
                          size_t row, size_t rows, void *mixed);
size_t TILE(rank_mixed)(size_t rows);

/* Of both. */
void bf16_pack_rows(uint16_t *down, uint16_t *turned, size_t pitch,
                    const struct rank_rows *a, const struct tile_map *map);
void bf16_pack_columns(uint16_t *up, size_t pitch, uint16_t *turned,
                       const struct rank_columns *parts, size_t n_parts,
                       const struct tile_map *map, size_t panel, size_t n_panels);
void bf16_draw_kept(uint64_t *kept, uint64_t seed, uint64_t stream, uint32_t limit,
                    size_t n);
void bf16_thin(struct tiles out, struct tiles x, const struct tile_map *map,
               const uint64_t *kept, size_t pitch, size_t row, size_t rows);

/* 32 bits from bit FIRST of a row on; what is behind its words is 0. */
static inline uint32_t kept_at(const uint64_t *kept, size_t pitch, size_t first)
{
    const size_t word = first / 64, by = first % 64;
    const uint64_t low = kept[word] >> by;
    const uint64_t high = by && word + 1 < pitch ? kept[word + 1] << (64 - by) : 0;

    return (uint32_t)(low | high);
}

#endif
