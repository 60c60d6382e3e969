/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What experts add to one frozen linear, forward and backward, for every kind
 * of gate. The rows of a block that an expert serves are found once a router
 * (struct gates); then each expert runs its two low-rank products on those.
 *
 *     Y[rows] += (s gate . (X[rows] A^T)) B^T
 *
 *   T rows   E experts   R rank   N inputs   M outputs   U units that share a
 *   decision: sequences or rows
 */
#ifndef ARTEL_EXPERTS_APPLY_H
#define ARTEL_EXPERTS_APPLY_H

#include "experts/mixture.h"

/* Gradients of a mixture, in the layout of its parameters. */
struct mixture_grads {
    size_t n_experts;
    float **expert; /* (E) (n_params), NULL: this expert is frozen */
    float *routers; /* (n_router_params), NULL: the routers are frozen */
    bool *touched;  /* (E) something was added since the last zeroing */
};

/* Where one expert's rows are. */
struct expert_rows {
    size_t n;           /* rows served */
    size_t n_runs;      /* as ranges of adjacent rows ... */
    uint32_t *run_first, *run_n;
    uint32_t *row;      /* ... or, where not CONTIGUOUS, (n) a list of rows */
    float *gate;        /* (n) gate of each served row, in row order */
    float *d_gate;      /* (n) */
    bool runs;          /* RUN_* is used rather than ROW */
};

struct gates {
    size_t n_rows, n_units, n_experts; /* T, U, E */
    const uint32_t *unit_of_row;       /* (T) */
    float *logits, *probs;             /* (U, E) */
    float *gate;                       /* (U, E) what multiplies an expert; 0: not served */
    float *d_gate;                     /* (U, E) */
    struct expert_rows *rows;          /* (E) */
};

#endif
