/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The definition of every loop of kernels.h: plain, in ascending order, one
 * rounding an operation. Nothing here is tuned; the other sets are measured
 * against it.
 *
 * Subnormal numbers are kept (no set turns on flush-to-zero), so that all sets
 * and all compilers agree near zero.
 */
#include "math/kernels.h"

#include <math.h>

#include "math/dequant_sets.h"
#include "math/kernels_sets.h"

static float sum_squares(const float *x, size_t n)
{
    float sum = 0.0f;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

static float dot(const float *x, const float *y, size_t n)
{
    float sum = 0.0f;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static float dot3(const float *x, const float *y, const float *z, size_t n)
{
    float sum = 0.0f;

    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i] * z[i];
    return sum;
}

static void scale_mul(float *y, const float *x, const float *gain, float s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * gain[i] * s;
}

static void scale(float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= s;
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void norm_backward(float *d_x, const float *d_y, const float *gain,
                          const float *x, float a, float b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        d_x[i] += a * d_y[i] * gain[i] + b * x[i];
}

static float max(const float *x, size_t n)
{
    float most = -INFINITY;

    for (size_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

static float exp_sum(float *x, float shift, size_t n)
{
    float sum = 0.0f;

    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - shift);
        sum += x[i];
    }
    return sum;
}

static void softmax_backward(float *d_s, const float *p, float own, size_t n)
{
    for (size_t i = 0; i < n; i++)
        d_s[i] = p[i] * (d_s[i] - own);
}

static void swiglu(float *act, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        act[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void swiglu_backward(float *d_gate, float *d_up, const float *d_act,
                            const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float g = gate[i], u = up[i], d = d_act[i];
        const float share = 1.0f / (1.0f + expf(-g)); /* sigmoid */

        d_gate[i] = d * u * share * (1.0f + g * (1.0f - share));
        d_up[i] = d * g * share;
    }
}

static void rotate_halves(float *a, float *b, const float *cos, const float *sin,
                          size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float a0 = a[i], b0 = b[i];

        a[i] = a0 * cos[i] - b0 * sin[i];
        b[i] = b0 * cos[i] + a0 * sin[i];
    }
}

static void rotate_pairs(float *x, const float *cos, const float *sin, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

static void adamw(float *p, float *m, float *v, const float *g, size_t n, float rate,
                  float beta1, float beta2, float eps, float decay, float correct1,
                  float correct2, float clip)
{
    for (size_t i = 0; i < n; i++) {
        const float grad = g[i] * clip;

        m[i] = beta1 * m[i] + (1.0f - beta1) * grad;
        v[i] = beta2 * v[i] + (1.0f - beta2) * (grad * grad);
        p[i] -= rate * decay * p[i];
        p[i] -= rate * (m[i] * correct1 / (sqrtf(v[i] * correct2) + eps));
    }
}

static void rows(float *y, bool add, const float *x, const float *w, size_t stride,
                 size_t n_rows, size_t n)
{
    for (size_t i = 0; i < n_rows; i++)
        y[i] = (add ? y[i] : 0.0f) + dot(x, w + i * stride, n);
}

static void mix(float *y, bool add, const float *p, const float *v, size_t stride,
                size_t n_rows, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        float sum = add ? y[k] : 0.0f;

        for (size_t i = 0; i < n_rows; i++)
            sum += p[i] * v[i * stride + k];
        y[k] = sum;
    }
}

/* One sum a row of x, kept in the first of its DOT_LANES. */
static void dots(float *sums, const float *w, const float *x, size_t stride, size_t T,
                 size_t n)
{
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < n; i++)
            sums[t * DOT_LANES] += w[i] * x[t * stride + i];
}

static float dots_end(const float *sums)
{
    return sums[0];
}

#define MATVEC(format, type)                                                           \
    void matvec_##format##_ref(float *const *y, const float *x, size_t T,              \
                               const void *rows, size_t n_rows, size_t n_in)           \
    {                                                                                  \
        matvec_plain(y, x, T, rows, n_rows, n_in, kernels_ref(), type);                \
    }
MATVEC(f32, DTYPE_F32)
MATVEC(f16, DTYPE_F16)
MATVEC(bf16, DTYPE_BF16)
MATVEC(q8_0, DTYPE_Q8_0)
MATVEC(q4_0, DTYPE_Q4_0)
MATVEC(q4_1, DTYPE_Q4_1)
MATVEC(q5_0, DTYPE_Q5_0)
MATVEC(q5_1, DTYPE_Q5_1)
MATVEC(q4_k, DTYPE_Q4_K)
MATVEC(q5_k, DTYPE_Q5_K)
MATVEC(q6_k, DTYPE_Q6_K)
MATVEC(iq4_nl, DTYPE_IQ4_NL)

static const struct kernels ref = {
    .name = "ref",
    .sum_squares = sum_squares,
    .dot = dot,
    .dot3 = dot3,
    .scale_mul = scale_mul,
    .scale = scale,
    .axpy = axpy,
    .norm_backward = norm_backward,
    .max = max,
    .exp_sum = exp_sum,
    .softmax_backward = softmax_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .rotate_halves = rotate_halves,
    .rotate_pairs = rotate_pairs,
    .adamw = adamw,
    .rows = rows,
    .mix = mix,
    .dots = dots,
    .dots_end = dots_end,
    .dequant = DEQUANT_TABLE(ref),
    .matvec = MATVEC_TABLE(ref),
};

const struct kernels *kernels_ref(void)
{
    return &ref;
}
