/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How sure a difference is: a paired bootstrap. Rows are drawn with replacement, the
 * same for both sides, and the difference is computed anew, a thousand times; the
 * interval holds the middle 95 % of what came out.
 */
#ifndef ARTEL_EVAL_BOOTSTRAP_H
#define ARTEL_EVAL_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;

#define BOOTSTRAP_RESAMPLES 1000

struct change {
    double value, low, high;
};

/*
 * Change from BEFORE (n) to AFTER (n_after, n) rows, those of several experts being
 * drawn together and their mean compared. Of shares: the difference of means; with
 * PERPLEXITY: of exp(sum / sum of WEIGHT (n)). Rows whose weight is 0 are left out. Equal
 * seeds give equal numbers.
 */
int bootstrap_change(struct change *out, const double *after, size_t n_after,
                     const double *before, const double *weight, size_t n,
                     bool perplexity, uint64_t seed, struct artel_error *err);

#endif
