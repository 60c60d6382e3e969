/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AdamW (Loshchilov and Hutter 2019) over groups of flat parameters.
 *
 *     g' = g * clip
 *     m = b1 m + (1 - b1) g'      v = b2 v + (1 - b2) g'^2
 *     p = p (1 - rate decay) - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
 *
 * A group that got no gradient in a step is left as it is, its t included: an
 * expert whose domain was not in the batch does not drift on old momentum.
 */
#ifndef ARTEL_TRAIN_ADAMW_H
#define ARTEL_TRAIN_ADAMW_H

#include <stdbool.h>
#include <stddef.h>

struct adamw_group {
    const char *name; /* borrowed */
    float *p;         /* (n) parameters; borrowed */
    float *g;         /* (n) gradient of the step */
    float *m, *v;     /* (n) moments */
    size_t n;
    float *steps; /* (1) t, updates that this group has had */
    float rate;   /* base learning rate */
    bool touched; /* it got a gradient in this step */
};

struct adamw {
    float beta1, beta2, eps, decay;
    float max_norm; /* 0: no clipping */
};

/* L2 norm over the gradients of all touched groups, summed in a fixed order. */
double adamw_norm(const struct adamw_group *groups, size_t n_groups);
/* One update of each touched group at its rate times FACTOR, with gradients scaled down
 * where NORM exceeds the bound. The gradients are zero afterwards. */
void adamw_step(const struct adamw *o, struct adamw_group *groups, size_t n_groups,
                float factor, double norm);

#endif
