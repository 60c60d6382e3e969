/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops of kernels.h in vectors of 8. A sum keeps its lanes in a fixed
 * place (element i in lane i mod 8 of sum i / 8 mod 4), and the last piece is
 * masked, so that a row's result depends on nothing but the row.
 */
#include "math/kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#include <math.h>

#include "math/dequant_sets.h"
#include "math/kernels_avx2.h"

static float sum_squares(const float *x, size_t n)
{
    return dot_avx2(x, x, n);
}

static float dot3(const float *x, const float *y, const float *z, size_t n)
{
    __m256 a = _mm256_setzero_ps(), b = a;

    for (size_t i = 0; i < n; i += 16) {
        const __m256i m0 = lanes_left(n - i), m1 = lanes_after(n - i, 8);
        const __m256 xy0 =
            _mm256_mul_ps(_mm256_maskload_ps(x + i, m0), _mm256_maskload_ps(y + i, m0));
        const __m256 xy1 = _mm256_mul_ps(_mm256_maskload_ps(x + i + 8, m1),
                                         _mm256_maskload_ps(y + i + 8, m1));

        a = _mm256_fmadd_ps(xy0, _mm256_maskload_ps(z + i, m0), a);
        b = _mm256_fmadd_ps(xy1, _mm256_maskload_ps(z + i + 8, m1), b);
    }
    return sum_8(_mm256_add_ps(a, b));
}

static void scale_mul(float *y, const float *x, const float *gain, float s, size_t n)
{
    const __m256 by = _mm256_set1_ps(s);

    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 xg = _mm256_mul_ps(_mm256_maskload_ps(x + i, m),
                                        _mm256_maskload_ps(gain + i, m));

        _mm256_maskstore_ps(y + i, m, _mm256_mul_ps(xg, by));
    }
}

static void scale(float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);

        _mm256_maskstore_ps(
            x + i, m, _mm256_mul_ps(_mm256_maskload_ps(x + i, m), _mm256_set1_ps(s)));
    }
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    const __m256 by = _mm256_set1_ps(a);

    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);

        _mm256_maskstore_ps(y + i, m,
                            _mm256_fmadd_ps(by, _mm256_maskload_ps(x + i, m),
                                            _mm256_maskload_ps(y + i, m)));
    }
}

static void norm_backward(float *d_x, const float *d_y, const float *gain,
                          const float *x, float a, float b, size_t n)
{
    const __m256 va = _mm256_set1_ps(a), vb = _mm256_set1_ps(b);

    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 dg = _mm256_mul_ps(_mm256_maskload_ps(d_y + i, m),
                                        _mm256_maskload_ps(gain + i, m));
        const __m256 bx = _mm256_fmadd_ps(vb, _mm256_maskload_ps(x + i, m),
                                          _mm256_maskload_ps(d_x + i, m));

        _mm256_maskstore_ps(d_x + i, m, _mm256_fmadd_ps(va, dg, bx));
    }
}

static float max(const float *x, size_t n)
{
    const __m256 least = _mm256_set1_ps(-INFINITY);
    __m256 most = least;
    float lane[8], best = -INFINITY;

    /* The second operand comes back when either is NaN: NaN is skipped. */
    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);

        most = _mm256_max_ps(_mm256_blendv_ps(least, _mm256_maskload_ps(x + i, m),
                                              _mm256_castsi256_ps(m)),
                             most);
    }
    _mm256_storeu_ps(lane, most);
    for (size_t i = 0; i < 8; i++)
        best = lane[i] > best ? lane[i] : best;
    return best;
}

static float exp_sum(float *x, float shift, size_t n)
{
    const __m256 by = _mm256_set1_ps(shift);
    __m256 sum = _mm256_setzero_ps();

    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 e = exp_8(_mm256_sub_ps(_mm256_maskload_ps(x + i, m), by));

        _mm256_maskstore_ps(x + i, m, e);
        sum = _mm256_add_ps(sum, _mm256_and_ps(e, _mm256_castsi256_ps(m)));
    }
    return sum_8(sum);
}

static void softmax_backward(float *d_s, const float *p, float own, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 off =
            _mm256_sub_ps(_mm256_maskload_ps(d_s + i, m), _mm256_set1_ps(own));

        _mm256_maskstore_ps(d_s + i, m,
                            _mm256_mul_ps(_mm256_maskload_ps(p + i, m), off));
    }
}

/* 1 / (1 + exp(-g)) */
static inline __m256 sigmoid(__m256 g)
{
    const __m256 one = _mm256_set1_ps(1.0f);

    return _mm256_div_ps(one, _mm256_add_ps(one, exp_8(negated(g))));
}

static void swiglu(float *act, const float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);

    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 g = _mm256_maskload_ps(gate + i, m);
        const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, exp_8(negated(g))));

        _mm256_maskstore_ps(act + i, m,
                            _mm256_mul_ps(silu, _mm256_maskload_ps(up + i, m)));
    }
}

static void swiglu_backward(float *d_gate, float *d_up, const float *d_act,
                            const float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);

    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 g = _mm256_maskload_ps(gate + i, m);
        const __m256 u = _mm256_maskload_ps(up + i, m);
        const __m256 d = _mm256_maskload_ps(d_act + i, m);
        const __m256 share = sigmoid(g);
        const __m256 slope = _mm256_fmadd_ps(g, _mm256_sub_ps(one, share), one);

        _mm256_maskstore_ps(
            d_gate + i, m,
            _mm256_mul_ps(_mm256_mul_ps(_mm256_mul_ps(d, u), share), slope));
        _mm256_maskstore_ps(d_up + i, m, _mm256_mul_ps(_mm256_mul_ps(d, g), share));
    }
}

static void rotate_halves(float *a, float *b, const float *cos, const float *sin,
                          size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        const __m256i m = lanes_left(n - i);
        const __m256 x = _mm256_maskload_ps(a + i, m), y = _mm256_maskload_ps(b + i, m);
        const __m256 c = _mm256_maskload_ps(cos + i, m);
        const __m256 s = _mm256_maskload_ps(sin + i, m);

        _mm256_maskstore_ps(a + i, m, _mm256_fmsub_ps(x, c, _mm256_mul_ps(y, s)));
        _mm256_maskstore_ps(b + i, m, _mm256_fmadd_ps(y, c, _mm256_mul_ps(x, s)));
    }
}

static void rotate_pairs(float *x, const float *cos, const float *sin, size_t n)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);

    for (size_t i = 0; i < n; i += 4) {
        const size_t left = n - i < 4 ? n - i : 4;
        const __m256i m = lanes_left(2 * left);
        const __m128i half = _mm256_castsi256_si128(lanes_left(left));
        const __m256 c = _mm256_permutevar8x32_ps(
            _mm256_castps128_ps256(_mm_maskload_ps(cos + i, half)), twice);
        const __m256 s = _mm256_permutevar8x32_ps(
            _mm256_castps128_ps256(_mm_maskload_ps(sin + i, half)), twice);
        const __m256 v = _mm256_maskload_ps(x + 2 * i, m);
        const __m256 other = _mm256_mul_ps(_mm256_permute_ps(v, 0xb1), s);

        _mm256_maskstore_ps(x + 2 * i, m, _mm256_fmaddsub_ps(v, c, other));
    }
}

static void adamw(float *p, float *m, float *v, const float *g, size_t n, float rate,
                  float beta1, float beta2, float eps, float decay, float correct1,
                  float correct2, float clip)
{
    const __m256 b1 = _mm256_set1_ps(beta1), b2 = _mm256_set1_ps(beta2);
    const __m256 a1 = _mm256_set1_ps(1.0f - beta1), a2 = _mm256_set1_ps(1.0f - beta2);
    const __m256 shrink = _mm256_set1_ps(rate * decay), step = _mm256_set1_ps(rate);

    for (size_t i = 0; i < n; i += 8) {
        const __m256i k = lanes_left(n - i);
        const __m256 grad =
            _mm256_mul_ps(_mm256_maskload_ps(g + i, k), _mm256_set1_ps(clip));
        const __m256 vm =
            _mm256_fmadd_ps(b1, _mm256_maskload_ps(m + i, k), _mm256_mul_ps(a1, grad));
        const __m256 vv = _mm256_fmadd_ps(b2, _mm256_maskload_ps(v + i, k),
                                          _mm256_mul_ps(a2, _mm256_mul_ps(grad, grad)));
        const __m256 root = _mm256_sqrt_ps(_mm256_mul_ps(vv, _mm256_set1_ps(correct2)));
        const __m256 move = _mm256_div_ps(_mm256_mul_ps(vm, _mm256_set1_ps(correct1)),
                                          _mm256_add_ps(root, _mm256_set1_ps(eps)));
        __m256 vp = _mm256_maskload_ps(p + i, k);

        vp = _mm256_fnmadd_ps(shrink, vp, vp);
        _mm256_maskstore_ps(m + i, k, vm);
        _mm256_maskstore_ps(v + i, k, vv);
        _mm256_maskstore_ps(p + i, k, _mm256_fnmadd_ps(step, move, vp));
    }
}

/* A whole block of 8 rows, or the LEFT that remain: a row's sum is the same. */
static inline __attribute__((always_inline)) void
rows_block(float *y, bool add, const float *x, const float *w, size_t stride,
           const size_t left, size_t n)
{
    const __m256i some = lanes_left(left);
    __m256 sum[8], y8;

#pragma GCC unroll 8
    for (size_t r = 0; r < 8; r++)
        sum[r] = _mm256_setzero_ps();
    for (size_t j = 0; j < n; j += 8) {
        const __m256i m = lanes_left(n - j);
        const __m256 xx = _mm256_maskload_ps(x + j, m);

#pragma GCC unroll 8
        for (size_t r = 0; r < 8; r++)
            if (r < left)
                sum[r] = _mm256_fmadd_ps(xx, _mm256_maskload_ps(w + r * stride + j, m),
                                         sum[r]);
    }
    y8 = sums_of_8(sum);
    if (add)
        y8 = _mm256_add_ps(y8, _mm256_maskload_ps(y, some));
    _mm256_maskstore_ps(y, some, y8);
}

static void rows(float *y, bool add, const float *x, const float *w, size_t stride,
                 size_t n_rows, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n_rows; i += 8)
        rows_block(y + i, add, x, w + i * stride, stride, 8, n);
    if (i < n_rows)
        rows_block(y + i, add, x, w + i * stride, stride, n_rows - i, n);
}

static void mix(float *y, bool add, const float *p, const float *v, size_t stride,
                size_t n_rows, size_t n)
{
    for (size_t k = 0; k < n; k += 64) {
        __m256 sum[8];

        for (size_t u = 0; u < 8; u++)
            sum[u] = add ? _mm256_maskload_ps(y + k + 8 * u, lanes_after(n - k, 8 * u))
                         : _mm256_setzero_ps();
        for (size_t i = 0; i < n_rows; i++) {
            const __m256 by = _mm256_set1_ps(p[i]);

#pragma GCC unroll 8
            for (size_t u = 0; u < 8; u++)
                sum[u] = _mm256_fmadd_ps(by,
                                         _mm256_maskload_ps(v + i * stride + k + 8 * u,
                                                            lanes_after(n - k, 8 * u)),
                                         sum[u]);
        }
        for (size_t u = 0; u < 8; u++)
            _mm256_maskstore_ps(y + k + 8 * u, lanes_after(n - k, 8 * u), sum[u]);
    }
}

/* R rows of x at once: R is a constant wherever this is inlined. */
static inline __attribute__((always_inline)) void dots_of(float *sums, const float *w,
                                                          const float *x, size_t stride,
                                                          const size_t R, size_t n)
{
    __m256 sum[2][4];
    size_t i = 0;

#pragma GCC unroll 2
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            sum[r][v] = _mm256_loadu_ps(sums + r * DOT_LANES + 8 * v);
    for (; i + 32 <= n; i += 32)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __m256 ww = _mm256_loadu_ps(w + i + 8 * v);

#pragma GCC unroll 2
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm256_fmadd_ps(
                    ww, _mm256_loadu_ps(x + r * stride + i + 8 * v), sum[r][v]);
        }
    if (i < n)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            const __m256i m = lanes_after(n - i, 8 * v);
            const __m256 ww = _mm256_maskload_ps(w + i + 8 * v, m);

#pragma GCC unroll 2
            for (size_t r = 0; r < R; r++)
                sum[r][v] = _mm256_fmadd_ps(
                    ww, _mm256_maskload_ps(x + r * stride + i + 8 * v, m), sum[r][v]);
        }
#pragma GCC unroll 2
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++)
            _mm256_storeu_ps(sums + r * DOT_LANES + 8 * v, sum[r][v]);
}

static void dots(float *sums, const float *w, const float *x, size_t stride, size_t T,
                 size_t n)
{
    for (; T >= 2; T -= 2, sums += 2 * DOT_LANES, x += 2 * stride)
        dots_of(sums, w, x, stride, 2, n);
    if (T)
        dots_of(sums, w, x, stride, 1, n);
}

static float dots_end(const float *sums)
{
    __m256 sum[4];

    for (size_t v = 0; v < 4; v++)
        sum[v] = _mm256_loadu_ps(sums + 8 * v);
    return sum_of(sum);
}

static const struct kernels set = {
    .name = "avx2",
    .sum_squares = sum_squares,
    .dot = dot_avx2,
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
    .dequant = DEQUANT_TABLE(avx2),
    .matvec = MATVEC_TABLE(avx2),
};

const struct kernels *kernels_avx2(void)
{
    return &set;
}
#elif defined(__x86_64__)
const struct kernels *kernels_avx2(void)
{
    return NULL;
}
#endif
