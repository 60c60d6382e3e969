/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routers of the bf16 step: what router.h does, read from activations in tiles.
 *
 *     logits = x W^T       d_x += d_logits W       dW += d_logits^T x
 *
 * Routers that read the same input stand side by side in blocks of 32 logits. Where rows
 * decide, x meets their W in one thin product; where sequences decide, only pooled rows
 * are read. The way back is a block of low rank that rides in the product for d_x: a
 * sequence's slopes lie in the rows of its pool.
 *
 * W is packed each time: it is read once anyway, and no copy can be out of date.
 */
#ifndef ARTEL_EXPERTS_ROUTER_TILES_H
#define ARTEL_EXPERTS_ROUTER_TILES_H

#include "experts/router.h"
#include "tiles/tile_ranks.h"

#define ROUTERS_MOST 3 /* of q, k and v */

/* Routers of the same number of experts that read the same input. */
struct tile_routers {
    size_t n;
    const struct router *router[ROUTERS_MOST];
    struct gates *gates[ROUTERS_MOST];
    float *d_w[ROUTERS_MOST], *d_b[ROUTERS_MOST]; /* backward; NULL: not wanted */
    const struct tile_map *map;                   /* of their input */
};

/* One thread's room. */
struct routers_room {
    size_t max_rows;
    size_t most_blocks; /* of 32 logits */
    float *logits;      /* (max_rows, blocks * 32), then their slopes */
    float *zeros;       /* (widest) W of a gap */
    uint16_t *down;     /* [block][in block][PACK_ELEMS] */
    uint16_t *turned;   /* [in panel][block][PACK_ELEMS] */
    uint16_t *d_logits; /* tiles (max_rows, blocks) */
    uint16_t *left;     /* the same as left sides of a product */
    float *d_units;     /* (max_units, E) */
    struct rank_block *blocks;
    struct rank_target *targets;  /* (blocks, ROUTERS_MOST) */
    struct tile_stacked *stacked; /* (blocks) */
    struct tile_share share;
    struct tile_low low;
    void *scratch;
};

/* Room for mixture M, whose routers read any input of SHAPE. */
void routers_room_carve(struct routers_room *r, struct arena *a,
                        const struct mixture *m, const struct tile_shape *shape,
                        size_t max_rows, size_t max_units, bool backward);

/* gates_read of all of them, from X of ROWS rows (a multiple of 32). */
void routers_read(struct routers_room *r, const struct tile_routers *rs,
                  enum router_pool pool, const struct pool *pools, struct tiles x,
                  size_t rows);

/* pool_read from rows of tiles, places in MAP. */
void routers_pool(float *z, const struct pool *pool, enum router_pool kind,
                  struct tiles x, const struct tile_map *map, size_t dim);

/* gates_backward of all of them. What rides in the product for d_x, valid until the next
 * call; NULL where not WANTS_D_X. */
const struct tile_low *routers_backward(struct routers_room *r,
                                        const struct tile_routers *rs,
                                        const struct gates_slope *slope, struct tiles x,
                                        bool wants_d_x, size_t rows);

#endif
