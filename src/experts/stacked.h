/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the experts add to a group of linears, forward and backward, as blocks of low
 * rank that ride in the frozen product: y = [x, h~] [W^T ; B^T], d_x = [d_y, d_h] [W ; A].
 *
 * The sums are those of apply.h, whose float code is the reference; x, h~, d_y and d_h
 * are rounded to bf16. Only blocks of experts that serve a row here are looked at.
 */
#ifndef ARTEL_EXPERTS_STACKED_H
#define ARTEL_EXPERTS_STACKED_H

#include "experts/apply.h"
#include "experts/stack.h"

struct stacked_place {
    size_t layer;
    enum tile_group group;
    const struct gates *gates[N_SITES]; /* NULL: nothing is added to that linear */
    bool dropout;
    uint64_t dropout_seed;
    bool wants_d_x; /* backward */
};

struct stacked_active; /* a block that serves some row */

/* One thread's room. */
struct stacked_room {
    const struct expert_stack *stack; /* borrowed */
    size_t max_rows;
    struct stacked_active *active; /* (most_blocks) */
    size_t n_active;
    uint16_t *h, *d_h;            /* tiles (max_rows, n_active) */
    uint16_t *turned;             /* the same as left sides of a product */
    struct rank_block *blocks;    /* (most_blocks) */
    struct rank_target *targets;  /* (most_blocks, RANK_PARTS) */
    struct tile_stacked *stacked; /* (STACK_RANGES, most_blocks) */
    struct tile_share shares[STACK_RANGES];
    struct tile_low low;
    void *scratch;
    /* dropout: */
    float *given, *plus;    /* h (max_rows, 32); d_x (max_rows, widest input) */
    uint16_t *thin, *alone; /* thinned x and some places of d_h, in tiles */
    uint64_t *kept;         /* (max_rows, kept_pitch) */
    size_t kept_pitch;
    int kept_expert; /* whose KEPT and THIN are, -1: nobody's */
    enum site kept_site;
};

/* BACKWARD: stacked_backward will be called. DROPOUT: places may ask for it. */
void stacked_room_carve(struct stacked_room *r, struct arena *a,
                        const struct expert_stack *s, size_t max_rows, bool backward,
                        bool dropout);

/* Rows ROW .. ROW + ROWS, multiples of 32, of X. What rides in the group's product, valid
 * until the next call, or NULL where nothing is added. */
const struct tile_low *stacked_forward(struct stacked_room *r,
                                       const struct stacked_place *at, struct tiles x,
                                       size_t row, size_t rows);

/* What joins the product D_Y W. */
struct stacked_slopes {
    const struct tile_low *low; /* or NULL */
    const float *plus;          /* or NULL */
    size_t plus_pitch;
};

/* Adds into GRADS (or NULL) and into D_GATE of the gates. */
struct stacked_slopes stacked_backward(struct stacked_room *r,
                                       const struct stacked_place *at, struct tiles x,
                                       struct tiles d_y, struct mixture_grads *grads,
                                       size_t row, size_t rows);

#endif
