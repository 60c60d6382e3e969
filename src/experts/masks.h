/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Masked low-rank experts (SLIM, arXiv 2410.07739): whole columns of A and whole rows of B
 * are dropped, so that B' A' is never formed and the kept share of its elements is 1 - p.
 *
 *     A (R, N): round(N sqrt(1 - p)) columns stay     B (M, R): round(M sqrt(1 - p)) rows
 *
 * A mask is a function of seed, step, layer, linear and expert: it is drawn again where it
 * is needed again, never stored.
 */
#ifndef ARTEL_EXPERTS_MASKS_H
#define ARTEL_EXPERTS_MASKS_H

#include "experts/expert.h"

/* At inference; training draws a fresh mask a step. */
enum mask_kind {
    MASK_FIXED,    /* one seeded mask */
    MASK_EXPECTED, /* nothing dropped, B' A' weighed by 1 - p */
    MASK_NONE      /* nothing dropped */
};

struct mask_rule {
    float drop;          /* p, 0 to below 1; 0: no masks */
    bool rescale;        /* what is kept is weighed by 1 / (1 - p) */
    enum mask_kind kind; /* at inference */
    uint64_t seed;
};

struct mask {
    float drop;   /* p, 0 to below 1 */
    bool rescale; /* what is kept is weighed by 1 / (1 - p) */
    uint64_t seed, step;
};

#define MASK_INFERENCE UINT64_MAX /* the step of the fixed mask */

/* Of N places, how many stay. */
size_t mask_kept(size_t n, float drop);

/* One thread's room for an expert of whatever shape in a base of config C. */
size_t mask_scratch(const struct model_config *c);

/*
 * TO = FROM, both (n_params) as the parameters of E lie, which is expert INDEX of its
 * mixture, with dropped columns and rows zero. TO may be FROM. SCRATCH: mask_scratch()
 * bytes.
 */
void mask_params(float *to, const float *from, const struct expert *e, size_t index,
                 const struct mask *m, void *scratch);
/* The slopes of TO, GRAD (n_params), become those of FROM. */
void mask_slopes(float *grad, const struct expert *e, size_t index,
                 const struct mask *m, void *scratch);
/* TO = FROM with each B weighed by 1 - p. */
void mask_expected(float *to, const float *from, const struct expert *e,
                   const struct mask *m);

#endif
