/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The innermost loops, one row at a time, chosen once for this CPU.
 *
 * kernels_ref() is the definition of each loop; every other set must agree
 * with it within the tolerance that tests/kernels/ states for that loop. A set
 * takes any N, reads nothing past it, needs no alignment, and gives the same
 * bits for the same input whatever else runs.
 */
#ifndef ARTEL_MATH_KERNELS_H
#define ARTEL_MATH_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "files/dtype.h"

struct kernels {
    const char *name; /* "ref", "avx2", "avx512" */

    float (*sum_squares)(const float *x, size_t n);
    float (*dot)(const float *x, const float *y, size_t n);
    /* y = x * gain * s */
    void (*scale_mul)(float *y, const float *x, const float *gain, float s, size_t n);
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a x */
    float (*max)(const float *x, size_t n);
    /* x = exp(x - shift), returns the sum; error of exp at most 2 ulp */
    float (*exp_sum)(float *x, float shift, size_t n);
    /* act = silu(gate) * up */
    void (*swiglu)(float *act, const float *gate, const float *up, size_t n);
    /* d_gate and d_up OVERWRITTEN from d_act; they may be d_act, gate or up themselves */
    void (*swiglu_backward)(float *d_gate, float *d_up, const float *d_act,
                            const float *gate, const float *up, size_t n);
    /* AdamW on one tensor: see train/adamw.h. m and v are updated in place. */
    void (*adamw)(float *p, float *m, float *v, const float *g, size_t n, float rate,
                  float beta1, float beta2, float eps, float decay, float correct1,
                  float correct2, float clip);

    void (*dequant[N_WEIGHT_DTYPES])(float *out, const void *in, size_t n);
    /* y[i] = <x, row i of W> for N_ROWS rows of N_IN weights each, as they lie on disk;
     * activations stay float. Each y[i] depends on its row and x alone. */
    void (*matvec[N_WEIGHT_DTYPES])(float *y, const float *x, const void *rows,
                                    size_t n_rows, size_t n_in);
};

const struct kernels *kernels_ref(void);
const struct kernels *kernels_avx2(void);   /* NULL when not built in */
const struct kernels *kernels_avx512(void); /* NULL when not built in */

/* The set that cpu_isa() allows. Chosen once. */
const struct kernels *kernels(void);

#endif
