/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of tiles by the instructions of the set that is being built.
 *
 * A quad is four sums of 16 x 16 floats. Between quad_zero or quad_load and quad_store
 * nothing else reads or writes their memory: they may be there or in registers. Left
 * sides are tiles of 16 rows x 32 of K, right sides tiles of 16 pairs of K x 16 columns.
 *
 *     quad_step     sums 0 to 3 += a0 b0, a0 b1, a1 b0, a1 b1
 *     quad_column   sums 0 to N - 1 += a0 b, a1 b, ..., the left sides DOWN apart; N 2 or 4
 *     quad_row      sums 0 to 3 += a b0, a b1, a b2, a b3
 *
 * quad_fence stands between stores to operands and the steps that read them.
 */
#ifndef ARTEL_TILES_TILE_QUAD_BF16_H
#define ARTEL_TILES_TILE_QUAD_BF16_H

#if defined(TILES_BY_AMX)
#include "tiles/tile_quad_amx.h"
#else
#include "tiles/tile_quad_avx512bf16.h"
#endif

#endif
