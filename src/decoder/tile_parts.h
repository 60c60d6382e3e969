/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What forward and backward on tiles share.
 */
#ifndef ARTEL_DECODER_TILE_PARTS_H
#define ARTEL_DECODER_TILE_PARTS_H

#include "decoder/pass.h"

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
/* Do routers read the input of group G? */
bool tile_routed(const struct decoder_pass *p, size_t layer, enum tile_group g);
/* Let them read it, X, all rows, and where routers decide find their gates. */
void tile_route(struct decoder_pass *p, size_t layer, enum tile_group g,
                struct tiles x);
/* Their gradients, once the slopes of their gates are complete, and what rides in the
 * product for the gradient of X, or NULL. */
const struct tile_low *tile_routers_backward(struct decoder_pass *p,
                                             struct mixture_grads *grads, size_t layer,
                                             enum tile_group g, struct tiles x,
                                             bool wants_d_x);
/* A layer's forward again for its backward, all but its last product. */
void tile_layer_again(struct decoder_pass *p, size_t layer);
/* Zero rows FROM .. TO of BLOCKS column blocks. */
void tile_clear(struct tiles t, size_t blocks, size_t from, size_t to);

#endif
