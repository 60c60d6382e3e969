/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With r = 1 / rms(x):
 *
 *     y_i    = x_i gain_i r
 *     d_x_i += r gain_i d_y_i - x_i (r^3 / D) sum_j d_y_j gain_j x_j
 *
 * T rows of D.
 */
#include "math/rmsnorm.h"

#include <math.h>

#include "math/kernels.h"

void rmsnorm_forward(float *y, float *inv_rms, const float *x, const float *gain,
                     float eps, size_t T, size_t D)
{
    const struct kernels *k = kernels();

    for (size_t t = 0; t < T; t++) {
        const float mean = k->sum_squares(x + t * D, D) / (float)D;
        const float r = 1.0f / sqrtf(mean + eps);

        k->scale_mul(y + t * D, x + t * D, gain, r, D);
        if (inv_rms)
            inv_rms[t] = r;
    }
}

void rmsnorm_backward(float *d_x, const float *d_y, const float *x, const float *gain,
                      const float *inv_rms, size_t T, size_t D)
{
    const struct kernels *k = kernels();

    for (size_t t = 0; t < T; t++) {
        const float r = inv_rms[t];
        const float along = k->dot3(d_y + t * D, gain, x + t * D, D);

        k->norm_backward(d_x + t * D, d_y + t * D, gain, x + t * D, r,
                         -r * r * r * along / (float)D, D);
    }
}
