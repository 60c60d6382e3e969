/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What attention forward and backward share.
 */
#ifndef ARTEL_MATH_ATTENTION_PARTS_H
#define ARTEL_MATH_ATTENTION_PARTS_H

#include <stddef.h>

#include "math/attention.h"

/* Products below which waking threads does not pay. */
#define ATTENTION_SHARED_MIN ((size_t)1 << 17)

/* Keys rounded up to whole vectors of any set, a row of scores. */
static inline size_t attention_width(size_t n_keys)
{
    return (n_keys + 15) / 16 * 16;
}

/* X (n, d) with STRIDE floats a row, transposed into the panels of gemm_panels():
 * attention_width(n) * d floats. */
void attention_panels(float *out, const float *x, size_t stride, size_t n, size_t d);

/* OUT (n, d) = Q / sqrt(d), rows of Q APART floats apart. */
void attention_scaled(float *out, const float *q, size_t apart, size_t n, size_t d);

/* Scratch of one thread. */
size_t attention_backward_floats(const struct attention_shape *a, size_t T);

#endif
