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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files/dtype.h"

/* Floats of running sums that dots() keeps for one row of x. */
#define DOT_LANES 64

/*
 * NaN and infinity pass through as in the plain loops, except that max() skips
 * NaN (the exp that follows brings it back); max() of nothing is -infinity.
 * Subnormal numbers are kept in every set.
 */
struct kernels {
    const char *name; /* "ref", "avx2", "avx512" */

    float (*sum_squares)(const float *x, size_t n);
    float (*dot)(const float *x, const float *y, size_t n);
    float (*dot3)(const float *x, const float *y, const float *z,
                  size_t n); /* sum xyz */
    /* y = x * gain * s */
    void (*scale_mul)(float *y, const float *x, const float *gain, float s, size_t n);
    void (*scale)(float *x, float s, size_t n);                /* x = x * s */
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a x */
    /* d_x += a * d_y * gain + b * x */
    void (*norm_backward)(float *d_x, const float *d_y, const float *gain,
                          const float *x, float a, float b, size_t n);
    float (*max)(const float *x, size_t n);
    /* x = exp(x - shift), returns the sum; error of exp at most 2 ulp */
    float (*exp_sum)(float *x, float shift, size_t n);
    /* d_s = p * (d_s - own), own = <p, d_s>: the slope of softmax */
    void (*softmax_backward)(float *d_s, const float *p, float own, size_t n);
    /* act = silu(gate) * up */
    void (*swiglu)(float *act, const float *gate, const float *up, size_t n);
    /* d_gate and d_up OVERWRITTEN from d_act; they may be d_act, gate or up themselves */
    void (*swiglu_backward)(float *d_gate, float *d_up, const float *d_act,
                            const float *gate, const float *up, size_t n);
    /* (a, b) turned by the angle of (cos, sin): n pairs a[i], b[i] or x[2i], x[2i+1] */
    void (*rotate_halves)(float *a, float *b, const float *cos, const float *sin,
                          size_t n);
    void (*rotate_pairs)(float *x, const float *cos, const float *sin, size_t n);
    /* AdamW on one tensor: see train/adamw.h. m and v are updated in place. */
    void (*adamw)(float *p, float *m, float *v, const float *g, size_t n, float rate,
                  float beta1, float beta2, float eps, float decay, float correct1,
                  float correct2, float clip);

    /* y[i] = <x, row i of W>, or added to y[i] where ADD, for N_ROWS short rows of N
     * floats, STRIDE floats apart: the scores of keys, the outputs of a LoRA. */
    void (*rows)(float *y, bool add, const float *x, const float *w, size_t stride,
                 size_t n_rows, size_t n);
    /* y = sum_i p[i] * row i of V, or the sum that y holds carried on where ADD, i
     * ascending: N_ROWS rows of N, STRIDE floats apart. Cut anywhere, it is the same sum. */
    void (*mix)(float *y, bool add, const float *p, const float *v, size_t stride,
                size_t n_rows, size_t n);

    /*
     * dot() of one row of weights W with T rows of X (STRIDE floats apart), in pieces:
     * SUMS (T, DOT_LANES) starts at zero and takes pieces of N weights, N a multiple of
     * DOT_LANES for all but the last; dots_end() of a row of SUMS is dot(), to the bit.
     */
    void (*dots)(float *sums, const float *w, const float *x, size_t stride, size_t T,
                 size_t n);
    float (*dots_end)(const float *sums);

    /* N weights, a multiple of the format's block. The same bits in every set. */
    void (*dequant[N_WEIGHT_DTYPES])(float *out, const void *in, size_t n);
    /* Y[t][i] = <row t of X (T, N_IN), row i of W> for N_ROWS rows of W as they lie on
     * disk; activations stay float. Each is dot() of x and the dequantised row, to the
     * bit. A row of W is read once for all rows of X. */
    void (*matvec[N_WEIGHT_DTYPES])(float *const *y, const float *x, size_t T,
                                    const void *rows, size_t n_rows, size_t n_in);
};

const struct kernels *kernels_ref(void);
const struct kernels *kernels_avx2(void);   /* NULL when not built in */
const struct kernels *kernels_avx512(void); /* NULL when not built in */

/* The set that cpu_isa() allows. Chosen once. */
const struct kernels *kernels(void);

#endif
