/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products of the AMX set; what they do is said in tiles.h.
 */
#ifndef ARTEL_TILES_TILE_PRODUCTS_H
#define ARTEL_TILES_TILE_PRODUCTS_H

#include "tiles/tile_built.h"
#include "tiles/tiles.h"

void TILE(product_tiles)(const struct tile_product *p, struct tiles out);
void TILE(product_rope)(const struct tile_product *p, struct tiles out, size_t turned,
                        size_t head_blocks, const struct tile_rope *rope);
void TILE(product_float)(const struct tile_product *p, float *out, size_t pitch);
void TILE(product_add)(const struct tile_product *p, float *x, size_t pitch);
void TILE(product_swiglu)(const struct tile_product *p, struct tiles gate_up,
                          struct tiles act);
void TILE(product_swiglu_backward)(const struct tile_product *p, struct tiles d_gate_up,
                                   struct tiles gate_up);

void bf16_pack_forward(uint16_t *out, const float *w, size_t pitch);
void bf16_pack_backward(uint16_t *out, const float *w, size_t pitch);

#endif
