/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one sequence in bf16 tiles: members of struct tile_set (tiles/tiles.h).
 *
 * Numbers are expected finite. A row that is not gives itself and those that see it
 * NaN, and may give NaN to the rows before it in its block of 32.
 */
#ifndef ARTEL_TILES_TILE_ATTENTION_H
#define ARTEL_TILES_TILE_ATTENTION_H

#include "tiles/tile_built.h"
#include "tiles/tiles.h"

size_t TILE(attention_scratch)(const struct tile_heads *h, size_t n_queries,
                               size_t n_keys);
void TILE(attention)(const struct tile_attention *a);
/* CACHE is NULL there, and PART is not looked at. */
void TILE(attention_backward)(const struct tile_attention *a,
                              const struct tile_attention_slopes *s);

/* What each direction takes of the scratch. */
size_t TILE(attention_forward_bytes)(const struct tile_heads *h, size_t n_keys);
size_t TILE(attention_backward_bytes)(const struct tile_heads *h, size_t n);

#endif
