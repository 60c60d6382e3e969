/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What forward and backward on tiles share.
 */
#ifndef ARTEL_DECODER_TILE_PARTS_H
#define ARTEL_DECODER_TILE_PARTS_H

#include "decoder/pass.h"

/* Does the router of site S read the input of its group at PLACE? */
static inline bool tile_reads(enum router_place place, enum site s)
{
    return place == ROUTER_LINEAR || (place == ROUTER_LAYER && s == SITE_Q) ||
           (place == ROUTER_FFN && s == SITE_GATE);
}

/* Where the experts of a group stand, and the gates that weigh them. */
struct stacked_place tile_place(struct decoder_pass *p, size_t layer,
                                enum tile_group g);
/* The frozen part of a group's product; rows are all of the block's. */
struct tile_product tile_forward_product(const struct tile_pass *t, size_t layer,
                                         enum tile_group g, struct tiles x);
struct tile_product tile_backward_product(const struct tile_pass *t, size_t layer,
                                          enum tile_group g, struct tiles d_y);
struct tile_attention tile_attention_of(const struct decoder_pass *p,
                                        struct tile_acts *a, void *scratch);
/* The input X of group G as floats (T, its natural width), in TO. */
const float *tile_natural(const struct tile_pass *t, float *to, struct tiles x,
                          enum tile_group g);
/* A layer's forward again for its backward, all but its last product. */
void tile_layer_again(struct decoder_pass *p, size_t layer);
/* Zero rows FROM .. TO of BLOCKS column blocks. */
void tile_clear(struct tiles t, size_t blocks, size_t from, size_t to);

#endif
