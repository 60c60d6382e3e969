/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel sets share: a row's product in pieces, and details of the
 * blocks on disk.
 */
#ifndef ARTEL_MATH_KERNELS_SETS_H
#define ARTEL_MATH_KERNELS_SETS_H

#include <stdint.h>

#include "math/kernels.h"

/* Weights that a row is unpacked by at a time: a multiple of every block. */
#define ROW_PIECE 1024

/* matvec[TYPE] for any number of rows of x: each row of W unpacked once, piece by piece, by
 * SET's own loops. */
void matvec_plain(float *const *y, const float *x, size_t T, const void *rows,
                  size_t n_rows, size_t n_in, const struct kernels *set,
                  enum dtype type);

float half_to_float(uint16_t h);

/* The 16 values of an IQ4_NL nibble, and a nibble's own value. */
extern const float iq4_nl_values[16];

/* Scale and minimum of sub-block J (0 .. 7) of Q4_K and Q5_K, out of their 12 bytes. */
static inline void k_scale_min(const uint8_t *packed, int j, uint8_t *scale,
                               uint8_t *min)
{
    if (j < 4) {
        *scale = packed[j] & 63;
        *min = packed[j + 4] & 63;
    } else {
        *scale = (uint8_t)((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4));
        *min = (uint8_t)((packed[j + 4] >> 4) | ((packed[j] >> 6) << 4));
    }
}

#endif
