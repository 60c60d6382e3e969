/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations of struct tile_set (tiles/tiles.h, where each is described) by AMX: the
 * head with its loss, and what works row by row. For the table in math/; everything
 * else calls tile_set().
 */
#ifndef ARTEL_TILES_TILE_HEAD_H
#define ARTEL_TILES_TILE_HEAD_H

#include "tiles/tile_built.h"
#include "tiles/tiles.h"

size_t TILE(head_bytes)(size_t blocks, size_t n_vocab, bool backward);
void TILE(head_pack)(const struct tile_head *h, const float *w, size_t dim,
                     size_t first, size_t n);
size_t TILE(head_scratch)(const struct tile_head *h, size_t rows, bool backward);
void TILE(head_loss)(const struct tile_head *h, const struct tile_loss *loss);

void bf16_norm(struct tiles out, float *inv_rms, const float *x, const float *gain,
               float eps, size_t dim, size_t blocks, size_t row, size_t rows);
void bf16_norm_backward(struct tiles out, float *d_x, const float *d_xn,
                        struct tiles xn, const float *inv_rms, const float *gain,
                        size_t dim, size_t blocks, size_t row, size_t rows);
void bf16_to_tiles(struct tiles out, const float *x, size_t pitch, size_t blocks,
                   size_t row, size_t rows);
void bf16_spread(float *x, size_t pitch, struct tiles t, size_t blocks,
                 const int32_t *index, size_t row, size_t rows);
void bf16_sum_rows(float *sum, struct tiles t, size_t row, size_t n);
void bf16_swiglu(struct tiles act, struct tiles gate_up, size_t blocks, size_t row,
                 size_t rows);

#endif
