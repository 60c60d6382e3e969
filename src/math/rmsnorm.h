/* SPDX-License-Identifier: Apache-2.0 */
/*
 * y = x * gain / rms(x), rms = sqrt(mean(x^2) + eps), row by row.   T rows of D
 */
#ifndef ARTEL_MATH_RMSNORM_H
#define ARTEL_MATH_RMSNORM_H

#include <stddef.h>

/* Y (T, D) and INV_RMS (T) are overwritten; INV_RMS may be NULL. */
void rmsnorm_forward(float *y, float *inv_rms, const float *x, const float *gain,
                     float eps, size_t T, size_t D);
/* Adds into D_X (T, D). */
void rmsnorm_backward(float *d_x, const float *d_y, const float *x, const float *gain,
                      const float *inv_rms, size_t T, size_t D);

#endif
