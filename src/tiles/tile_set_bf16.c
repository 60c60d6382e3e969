/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of block operations, gathered from its files.
 */
#include "tiles/tile_built.h"
#include "tiles/tiles.h"

#if defined(TILE_BUILT)
#include "tiles/tile_attention.h"
#include "tiles/tile_head.h"
#include "tiles/tile_products.h"
#include "tiles/tile_ranks.h"

static const struct tile_set set = {
    .name = TILE_NAME,
    .pack_forward = bf16_pack_forward,
    .pack_backward = bf16_pack_backward,
    .norm = bf16_norm,
    .norm_backward = bf16_norm_backward,
    .sum_rows = bf16_sum_rows,
    .to_tiles = bf16_to_tiles,
    .spread = bf16_spread,
    .product_tiles = TILE(product_tiles),
    .product_rope = TILE(product_rope),
    .product_float = TILE(product_float),
    .product_add = TILE(product_add),
    .product_swiglu = TILE(product_swiglu),
    .product_swiglu_backward = TILE(product_swiglu_backward),
    .swiglu = bf16_swiglu,
    .attention_scratch = TILE(attention_scratch),
    .attention = TILE(attention),
    .attention_backward = TILE(attention_backward),
    .head_bytes = TILE(head_bytes),
    .head_pack = TILE(head_pack),
    .head_scratch = TILE(head_scratch),
    .head_loss = TILE(head_loss),
};

const struct tile_set *TILE(tile_set)(void)
{
    return &set;
}
#else
const struct tile_set *TILE(tile_set)(void)
{
    return NULL;
}
#endif
