/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AMX set of block operations, gathered from the files tile_*_amx.c.
 */
#include "tiles/tiles.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include "tiles/tile_attention.h"
#include "tiles/tile_head.h"
#include "tiles/tile_products.h"
#include "tiles/tile_ranks.h"

static const struct tile_set set = {
    .name = "amx",
    .pack_forward = amx_pack_forward,
    .pack_backward = amx_pack_backward,
    .norm = amx_norm,
    .norm_backward = amx_norm_backward,
    .sum_rows = amx_sum_rows,
    .to_tiles = amx_to_tiles,
    .from_tiles = amx_from_tiles,
    .spread = amx_spread,
    .product_tiles = amx_product_tiles,
    .product_rope = amx_product_rope,
    .product_float = amx_product_float,
    .product_add = amx_product_add,
    .product_swiglu = amx_product_swiglu,
    .product_swiglu_backward = amx_product_swiglu_backward,
    .swiglu = amx_swiglu,
    .attention_scratch = amx_attention_scratch,
    .attention = amx_attention,
    .attention_backward = amx_attention_backward,
    .head_bytes = amx_head_bytes,
    .head_pack = amx_head_pack,
    .head_scratch = amx_head_scratch,
    .head_loss = amx_head_loss,
};

const struct tile_set *tile_set_amx(void)
{
    return &set;
}
#else
const struct tile_set *tile_set_amx(void)
{
    return NULL;
}
#endif
