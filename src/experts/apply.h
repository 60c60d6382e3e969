/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the experts add to one frozen linear, forward and backward, for every
 * kind of gate. Each expert runs its two low-rank products on the rows that it
 * serves: adjacent rows in place, scattered ones gathered first. Experts that all
 * serve every row are stacked into one.
 *
 *     h = X[rows] A^T        Y[rows] += (s gate . phi(h)) B^T
 *
 *   T rows   N inputs   M outputs   R rank, of all experts of a stack
 */
#ifndef ARTEL_EXPERTS_APPLY_H
#define ARTEL_EXPERTS_APPLY_H

#include "base/relay.h"
#include "experts/router.h"

/* Gradients of a mixture, in the layout of its parameters; of an expert that reads the
 * universal one those of what it is folded into (fold.h). Where blocks under way share
 * them (RELAY), a block adds in its turn, which ends with each group of linears. */
struct mixture_grads {
    size_t n_experts;
    float **expert; /* (E) (n_grads), NULL: this expert is frozen */
    float *routers; /* (n_router_params), NULL: the routers are frozen */
    bool *touched;  /* (E) something was added since the last zeroing */

    struct relay *relay; /* NULL: nobody else adds here */
    size_t item;         /* the block's place in the order */
    float *router_sums;  /* with RELAY: what all blocks share; ROUTERS are a thread's */
};

/* One thread's room for one linear at a time. */
struct apply_scratch {
    float *h, *d_h; /* (T, max R) */
    float *x, *y;   /* (T, max N or M) gathered rows */
    float *a, *b;   /* (max R, N), (M, max R) of a stack; or NULL: nothing is stacked */
    float *turned;  /* (max R, M) the gradient of B, transposed */
    size_t *member; /* (E) experts of a stack */
    size_t max_rank;
};

void apply_scratch_carve(struct apply_scratch *s, struct arena *a,
                         const struct mixture *m, const struct model_config *c,
                         size_t n_rows);
/* Floats of h worth keeping from a forward over N_ROWS, at any linear; 0: none. */
size_t apply_kept_floats(const struct mixture *m, size_t n_rows);

/* Where in the model, and whether the input of A is thinned out. */
struct apply_place {
    const struct mixture *mixture;
    size_t layer;
    enum site site;
    const struct gates *gates;
    bool dropout;
    uint64_t dropout_seed;
    float *kept; /* h, left by the forward for the backward; NULL: computed anew */
};

/* Adds into Y (T, M). */
void experts_forward(float *y, const struct apply_place *at, const float *x,
                     struct apply_scratch *s);

/* Adds into GRADS, D_X (T, N) unless NULL, and D_GATE of the gates unless NULL. */
void experts_backward(float *d_x, struct mixture_grads *grads,
                      const struct apply_place *at, const float *d_y, const float *x,
                      struct apply_scratch *s);

#endif
