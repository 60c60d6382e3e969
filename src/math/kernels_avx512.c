/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops of kernels.h in vectors of 16. A sum keeps its lanes in a fixed
 * place (element i in lane i mod 16 of sum i / 16 mod 4), and the last piece is
 * masked, so that a row's result depends on nothing but the row.
 */
#include "math/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#include <math.h>

#include "math/dequant_sets.h"
#include "math/kernels_avx512.h"

static float sum_squares(const float *x, size_t n)
{
    return dot_avx512(x, x, n);
}

static float dot3(const float *x, const float *y, const float *z, size_t n)
{
    __m512 a = _mm512_setzero_ps(), b = a;

    for (size_t i = 0; i < n; i += 32) {
        const __mmask16 m0 = lanes_left(n - i),
                        m1 = n - i > 16 ? lanes_left(n - i - 16) : 0;

        a = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m0, x + i),
                                          _mm512_maskz_loadu_ps(m0, y + i)),
                            _mm512_maskz_loadu_ps(m0, z + i), a);
        b = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m1, x + i + 16),
                                          _mm512_maskz_loadu_ps(m1, y + i + 16)),
                            _mm512_maskz_loadu_ps(m1, z + i + 16), b);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(a, b));
}

static void scale_mul(float *y, const float *x, const float *gain, float s, size_t n)
{
    const __m512 by = _mm512_set1_ps(s);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 xg = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i),
                                        _mm512_maskz_loadu_ps(m, gain + i));

        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(xg, by));
    }
}

static void scale(float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);

        _mm512_mask_storeu_ps(
            x + i, m,
            _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_set1_ps(s)));
    }
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    const __m512 by = _mm512_set1_ps(a);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);

        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_fmadd_ps(by, _mm512_maskz_loadu_ps(m, x + i),
                                              _mm512_maskz_loadu_ps(m, y + i)));
    }
}

static void norm_backward(float *d_x, const float *d_y, const float *gain,
                          const float *x, float a, float b, size_t n)
{
    const __m512 va = _mm512_set1_ps(a), vb = _mm512_set1_ps(b);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 dg = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, d_y + i),
                                        _mm512_maskz_loadu_ps(m, gain + i));
        const __m512 bx = _mm512_fmadd_ps(vb, _mm512_maskz_loadu_ps(m, x + i),
                                          _mm512_maskz_loadu_ps(m, d_x + i));

        _mm512_mask_storeu_ps(d_x + i, m, _mm512_fmadd_ps(va, dg, bx));
    }
}

static float max(const float *x, size_t n)
{
    __m512 most = _mm512_set1_ps(-INFINITY);

    /* The second operand comes back when either is NaN: NaN is skipped. */
    for (size_t i = 0; i < n; i += 16)
        most = _mm512_max_ps(
            _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), lanes_left(n - i), x + i),
            most);
    return _mm512_reduce_max_ps(most);
}

static float exp_sum(float *x, float shift, size_t n)
{
    const __m512 by = _mm512_set1_ps(shift);
    __m512 sum = _mm512_setzero_ps();

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 e = exp_16(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), by));

        _mm512_mask_storeu_ps(x + i, m, e);
        sum = _mm512_mask_add_ps(sum, m, sum, e);
    }
    return _mm512_reduce_add_ps(sum);
}

static void softmax_backward(float *d_s, const float *p, float own, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 off =
            _mm512_sub_ps(_mm512_maskz_loadu_ps(m, d_s + i), _mm512_set1_ps(own));

        _mm512_mask_storeu_ps(d_s + i, m,
                              _mm512_mul_ps(_mm512_maskz_loadu_ps(m, p + i), off));
    }
}

/* 1 / (1 + exp(-g)) */
static inline __m512 sigmoid(__m512 g)
{
    const __m512 one = _mm512_set1_ps(1.0f);

    return _mm512_div_ps(one, _mm512_add_ps(one, exp_16(negated(g))));
}

static void swiglu(float *act, const float *gate, const float *up, size_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
        const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, exp_16(negated(g))));

        _mm512_mask_storeu_ps(act + i, m,
                              _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static void swiglu_backward(float *d_gate, float *d_up, const float *d_act,
                            const float *gate, const float *up, size_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
        const __m512 u = _mm512_maskz_loadu_ps(m, up + i);
        const __m512 d = _mm512_maskz_loadu_ps(m, d_act + i);
        const __m512 share = sigmoid(g);
        const __m512 slope = _mm512_fmadd_ps(g, _mm512_sub_ps(one, share), one);

        _mm512_mask_storeu_ps(
            d_gate + i, m,
            _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(d, u), share), slope));
        _mm512_mask_storeu_ps(d_up + i, m, _mm512_mul_ps(_mm512_mul_ps(d, g), share));
    }
}

static void rotate_halves(float *a, float *b, const float *cos, const float *sin,
                          size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = lanes_left(n - i);
        const __m512 x = _mm512_maskz_loadu_ps(m, a + i),
                     y = _mm512_maskz_loadu_ps(m, b + i);
        const __m512 c = _mm512_maskz_loadu_ps(m, cos + i);
        const __m512 s = _mm512_maskz_loadu_ps(m, sin + i);

        _mm512_mask_storeu_ps(a + i, m, _mm512_fmsub_ps(x, c, _mm512_mul_ps(y, s)));
        _mm512_mask_storeu_ps(b + i, m, _mm512_fmadd_ps(y, c, _mm512_mul_ps(x, s)));
    }
}

static void rotate_pairs(float *x, const float *cos, const float *sin, size_t n)
{
    const __m512i twice =
        _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);

    for (size_t i = 0; i < n; i += 8) {
        const size_t left = n - i < 8 ? n - i : 8;
        const __mmask16 m = lanes_left(2 * left), half = lanes_left(left);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + 2 * i);
        const __m512 c =
            _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, cos + i));
        const __m512 s =
            _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(half, sin + i));
        const __m512 other = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);

        _mm512_mask_storeu_ps(x + 2 * i, m, _mm512_fmaddsub_ps(v, c, other));
    }
}

static void adamw(float *p, float *m, float *v, const float *g, size_t n, float rate,
                  float beta1, float beta2, float eps, float decay, float correct1,
                  float correct2, float clip)
{
    const __m512 b1 = _mm512_set1_ps(beta1), b2 = _mm512_set1_ps(beta2);
    const __m512 a1 = _mm512_set1_ps(1.0f - beta1), a2 = _mm512_set1_ps(1.0f - beta2);
    const __m512 shrink = _mm512_set1_ps(rate * decay), step = _mm512_set1_ps(rate);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 k = lanes_left(n - i);
        const __m512 grad =
            _mm512_mul_ps(_mm512_maskz_loadu_ps(k, g + i), _mm512_set1_ps(clip));
        const __m512 vm = _mm512_fmadd_ps(b1, _mm512_maskz_loadu_ps(k, m + i),
                                          _mm512_mul_ps(a1, grad));
        const __m512 vv = _mm512_fmadd_ps(b2, _mm512_maskz_loadu_ps(k, v + i),
                                          _mm512_mul_ps(a2, _mm512_mul_ps(grad, grad)));
        const __m512 root = _mm512_sqrt_ps(_mm512_mul_ps(vv, _mm512_set1_ps(correct2)));
        const __m512 move = _mm512_div_ps(_mm512_mul_ps(vm, _mm512_set1_ps(correct1)),
                                          _mm512_add_ps(root, _mm512_set1_ps(eps)));
        __m512 vp = _mm512_maskz_loadu_ps(k, p + i);

        vp = _mm512_fnmadd_ps(shrink, vp, vp);
        _mm512_mask_storeu_ps(m + i, k, vm);
        _mm512_mask_storeu_ps(v + i, k, vv);
        _mm512_mask_storeu_ps(p + i, k, _mm512_fnmadd_ps(step, move, vp));
    }
}

/* A whole block of 16 rows, or the LEFT that remain: a row's sum is the same. */
static inline __attribute__((always_inline)) void
rows_block(float *y, bool add, const float *x, const float *w, size_t stride,
           const size_t left, size_t n)
{
    const __mmask16 some = lanes_left(left);
    __m512 sum[16], y16;

#pragma GCC unroll 16
    for (size_t r = 0; r < 16; r++)
        sum[r] = _mm512_setzero_ps();
    for (size_t j = 0; j < n; j += 16) {
        const __mmask16 m = lanes_left(n - j);
        const __m512 xx = _mm512_maskz_loadu_ps(m, x + j);

#pragma GCC unroll 16
        for (size_t r = 0; r < 16; r++)
            if (r < left)
                sum[r] = _mm512_fmadd_ps(
                    xx, _mm512_maskz_loadu_ps(m, w + r * stride + j), sum[r]);
    }
    y16 = sums_of_16(sum);
    if (add)
        y16 = _mm512_add_ps(y16, _mm512_maskz_loadu_ps(some, y));
    _mm512_mask_storeu_ps(y, some, y16);
}

static void rows(float *y, bool add, const float *x, const float *w, size_t stride,
                 size_t n_rows, size_t n)
{
    size_t i = 0;

    for (; i + 16 <= n_rows; i += 16)
        rows_block(y + i, add, x, w + i * stride, stride, 16, n);
    if (i < n_rows)
        rows_block(y + i, add, x, w + i * stride, stride, n_rows - i, n);
}

static void mix(float *y, bool add, const float *p, const float *v, size_t stride,
                size_t n_rows, size_t n)
{
    for (size_t k = 0; k < n; k += 64) {
        __m512 sum[4];

        for (size_t u = 0; u < 4; u++)
            sum[u] =
                add ? _mm512_maskz_loadu_ps(lanes_after(n - k, 16 * u), y + k + 16 * u)
                    : _mm512_setzero_ps();
        for (size_t i = 0; i < n_rows; i++) {
            const __m512 by = _mm512_set1_ps(p[i]);

#pragma GCC unroll 4
            for (size_t u = 0; u < 4; u++)
                sum[u] =
                    _mm512_fmadd_ps(by,
                                    _mm512_maskz_loadu_ps(lanes_after(n - k, 16 * u),
                                                          v + i * stride + k + 16 * u),
                                    sum[u]);
        }
        for (size_t u = 0; u < 4; u++)
            _mm512_mask_storeu_ps(y + k + 16 * u, lanes_after(n - k, 16 * u), sum[u]);
    }
}

/* R rows of x at once: R is a constant wherever this is inlined. */
static inline __attribute__((always_inline)) void dots_of(float *sums, const float *w,
                                                          const float *x, size_t stride,
                                                          const size_t R, size_t n)
{
    __m512 sum[4][4];

#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            sum[r][v] = _mm512_loadu_ps(sums + r * DOT_LANES + 16 * v);
    for (size_t i = 0; i < n; i += 64) {
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __mmask16 m = n - i >= 64 ? 0xffff : lanes_after(n - i, 16 * v);
            const __m512 ww = _mm512_maskz_loadu_ps(m, w + i + 16 * v);

#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm512_fmadd_ps(
                    ww, _mm512_maskz_loadu_ps(m, x + r * stride + i + 16 * v),
                    sum[r][v]);
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            _mm512_storeu_ps(sums + r * DOT_LANES + 16 * v, sum[r][v]);
}

static void dots(float *sums, const float *w, const float *x, size_t stride, size_t T,
                 size_t n)
{
    for (; T >= 4; T -= 4, sums += 4 * DOT_LANES, x += 4 * stride)
        dots_of(sums, w, x, stride, 4, n);
    for (; T; T--, sums += DOT_LANES, x += stride)
        dots_of(sums, w, x, stride, 1, n);
}

static float dots_end(const float *sums)
{
    __m512 sum[4];

    for (size_t v = 0; v < 4; v++)
        sum[v] = _mm512_loadu_ps(sums + 16 * v);
    return sum_of(sum);
}

static const struct kernels set = {
    .name = "avx512",
    .sum_squares = sum_squares,
    .dot = dot_avx512,
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
    .dequant = DEQUANT_TABLE(avx512),
    .matvec = MATVEC_TABLE(avx512),
};

const struct kernels *kernels_avx512(void)
{
    return &set;
}
#elif defined(__x86_64__)
const struct kernels *kernels_avx512(void)
{
    return NULL;
}
#endif
