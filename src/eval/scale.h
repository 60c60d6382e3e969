/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An axis: where a value stands, in percent of its length, and where ticks are.
 */
#ifndef ARTEL_EVAL_SCALE_H
#define ARTEL_EVAL_SCALE_H

#include <stdbool.h>
#include <stddef.h>

#define SCALE_TICKS 12

struct scale {
    double low, high; /* of the axis; logarithms where LOGARITHMIC */
    bool logarithmic;
    double tick[SCALE_TICKS]; /* values */
    size_t n_ticks;           /* at most N */
};

/* An axis that holds LOW to HIGH with about N ticks at round values. */
void scale_fit(struct scale *s, double low, double high, bool logarithmic, size_t n);
double scale_at(const struct scale *s, double value); /* 0 to 100 */

#endif
