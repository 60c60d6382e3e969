/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floats to the number formats of weights on disk, by the schemes that the formats'
 * reference rounds with, where it has a plain one.
 */
#ifndef ARTEL_MATH_QUANTISE_H
#define ARTEL_MATH_QUANTISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files/dtype.h"

/* Nearest, ties to even; beyond the largest half: infinity. */
uint16_t half_of(float x);

/* Can floats be written as T? */
bool quantise_knows(enum dtype t);
/* N floats, a multiple of T's block, into OUT. False where a value or a block's scale
 * does not fit the format (too large, or not finite). */
bool quantise(void *out, enum dtype t, const float *x, size_t n);

#endif
