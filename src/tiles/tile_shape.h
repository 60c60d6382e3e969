/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a model's vectors are laid over blocks of 32 columns for the bf16 step.
 *
 * A vector's elements may stand in another order there, and gaps are filled with
 * zeros: the maps below name the natural element of each place. Orders are chosen
 * so that what an epilogue combines lies in one block:
 *
 *     q, k      a block holds 16 first and 16 second halves of rope's pairs
 *     v, heads  natural order, each head padded to whole blocks
 *     gate, up  a block holds 16 of gate and the same 16 of up
 */
#ifndef ARTEL_TILES_TILE_SHAPE_H
#define ARTEL_TILES_TILE_SHAPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "model/weights.h"

/* Linears that read the same input make one product. */
enum tile_group { TILE_QKV, TILE_O, TILE_GATE_UP, TILE_DOWN, N_TILE_GROUPS };

/* What stands in each place of a group's input or output. */
struct tile_map {
    size_t blocks;  /* of 32 places */
    int32_t *index; /* (blocks * 32) natural element, -1: a gap */
    uint8_t *site;  /* (blocks * 32) enum site of an output; NULL for inputs */
};

struct tile_shape {
    size_t dim, ffn_dim, n_vocab;         /* D, F, V */
    size_t n_heads, n_kv_heads, head_dim; /* H, G, d */
    size_t qk_blocks, v_blocks;           /* blocks of a head */
    struct tile_map in[N_TILE_GROUPS];    /* D, heads, D, F */
    struct tile_map out[N_TILE_GROUPS];   /* q|k|v, D, gate+up, D */
};

/* Laid in ARENA, or measured. */
void tile_shape_init(struct tile_shape *s, struct arena *arena,
                     const struct model_config *c);

/* The group of a site. */
enum tile_group tile_group_of(enum site s);

#endif
