/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the bf16 step does row by row beside its products: the norm and its backward,
 * SwiGLU's product once more, and rows of floats from and to tiles.
 *
 *     norm   y = g x / rms(x)              rms(x)^2 = sum x^2 / D + eps
 *            d_x = (g d_y - y / g  (sum d_y y) / D) / rms(x)
 *
 * y / g stands for x / rms(x), so x need not be kept. Gaps are zeros and stay zeros.
 */
#include "tiles/tile_head.h"

#if defined(__AVX512BF16__)
#include <assert.h>
#include <math.h>

#include "tiles/tile_avx512bf16.h"

/* Of 16 places from AT on those that are below DIM. */
static inline __mmask16 inside(size_t at, size_t dim)
{
    return at + 16 <= dim ? 0xffff
           : at >= dim    ? 0
                          : (__mmask16)((1u << (dim - at)) - 1);
}

void bf16_norm(struct tiles out, float *inv_rms, const float *x, const float *gain,
               float eps, size_t dim, size_t blocks, size_t row, size_t rows)
{
    for (size_t r = row; r < row + rows; r++) {
        const float *from = x + r * blocks * 32;
        __m512 even = _mm512_setzero_ps(), odd = even, inv;

        for (size_t i = 0; i < blocks * 32; i += 32) {
            const __m512 low = _mm512_loadu_ps(from + i);
            const __m512 high = _mm512_loadu_ps(from + i + 16);

            even = _mm512_fmadd_ps(low, low, even);
            odd = _mm512_fmadd_ps(high, high, odd);
        }
        inv_rms[r] =
            1.0f /
            sqrtf(_mm512_reduce_add_ps(_mm512_add_ps(even, odd)) / (float)dim + eps);
        inv = _mm512_set1_ps(inv_rms[r]);
        for (size_t b = 0; b < blocks; b++) {
            const size_t i = b * 32;
            const __m512 low = _mm512_maskz_loadu_ps(inside(i, dim), gain + i);
            const __m512 high =
                _mm512_maskz_loadu_ps(inside(i + 16, dim), gain + i + 16);

            _mm512_store_si512(
                tile_at(out, r, b),
                bf16_pair(
                    _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(from + i), inv), low),
                    _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(from + i + 16), inv),
                                  high)));
        }
    }
}

/* 1 / X to 2^-23, zero where MASK is not set. */
static inline __m512 reciprocal(__mmask16 mask, __m512 x)
{
    const __m512 r = _mm512_maskz_rcp14_ps(mask, x);

    return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, _mm512_set1_ps(2.0f)));
}

/* D_X + INV (gain d_y - y / gain MEAN) of 16 places */
static inline __m512 norm_slope(float *d_x, const float *d_y, const uint16_t *y,
                                const float *gain, __mmask16 mask, __m512 inv,
                                __m512 mean)
{
    const __m512 g = _mm512_maskz_loadu_ps(mask, gain);
    const __m512 plain = _mm512_mul_ps(bf16_load(y), reciprocal(mask, g));
    const __m512 d =
        _mm512_fnmadd_ps(plain, mean, _mm512_mul_ps(g, _mm512_loadu_ps(d_y)));
    const __m512 sum = _mm512_fmadd_ps(d, inv, _mm512_loadu_ps(d_x));

    _mm512_storeu_ps(d_x, sum);
    return sum;
}

void bf16_norm_backward(struct tiles out, float *d_x, const float *d_xn,
                        struct tiles xn, const float *inv_rms, const float *gain,
                        size_t dim, size_t blocks, size_t row, size_t rows)
{
    for (size_t r = row; r < row + rows; r++) {
        const float *d_y = d_xn + r * blocks * 32;
        float *to = d_x + r * blocks * 32;
        __m512 even = _mm512_setzero_ps(), odd = even, inv, mean;

        for (size_t b = 0; b < blocks; b++) {
            const uint16_t *y = tile_at(xn, r, b);

            even = _mm512_fmadd_ps(_mm512_loadu_ps(d_y + b * 32), bf16_load(y), even);
            odd = _mm512_fmadd_ps(_mm512_loadu_ps(d_y + b * 32 + 16), bf16_load(y + 16),
                                  odd);
        }
        mean =
            _mm512_set1_ps(_mm512_reduce_add_ps(_mm512_add_ps(even, odd)) / (float)dim);
        inv = _mm512_set1_ps(inv_rms[r]);
        for (size_t b = 0; b < blocks; b++) {
            const uint16_t *y = tile_at(xn, r, b);
            const size_t i = b * 32;
            const __m512 low =
                norm_slope(to + i, d_y + i, y, gain + i, inside(i, dim), inv, mean);
            const __m512 high =
                norm_slope(to + i + 16, d_y + i + 16, y + 16, gain + i + 16,
                           inside(i + 16, dim), inv, mean);

            if (out.at)
                _mm512_store_si512(tile_at(out, r, b), bf16_pair(low, high));
        }
    }
}

void bf16_to_tiles(struct tiles out, const float *x, size_t pitch, size_t blocks,
                   size_t row, size_t rows)
{
    for (size_t r = row; r < row + rows; r++)
        for (size_t b = 0; b < blocks; b++) {
            const float *from = x + r * pitch + b * 32;

            _mm512_store_si512(
                tile_at(out, r, b),
                bf16_pair(_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)));
        }
}

void bf16_spread(float *x, size_t pitch, struct tiles t, size_t blocks,
                 const int32_t *index, size_t row, size_t rows)
{
    for (size_t b = 0; b < blocks; b++)
        for (size_t half = 0; half < 32; half += 16) {
            const __m512i to = _mm512_loadu_si512(index + b * 32 + half);
            const __mmask16 there = _mm512_cmpge_epi32_mask(to, _mm512_setzero_si512());

            for (size_t r = row; r < row + rows; r++)
                _mm512_mask_i32scatter_ps(x + (r - row) * pitch, there, to,
                                          bf16_load(tile_at(t, r, b) + half),
                                          sizeof(float));
        }
}

void bf16_sum_rows(float *sum, struct tiles t, size_t row, size_t n)
{
    __m512 low = _mm512_loadu_ps(sum), high = _mm512_loadu_ps(sum + 16);

    for (size_t r = row; r < row + n; r++) {
        const uint16_t *from = tile_at(t, r, 0);

        low = _mm512_add_ps(low, bf16_load(from));
        high = _mm512_add_ps(high, bf16_load(from + 16));
    }
    _mm512_storeu_ps(sum, low);
    _mm512_storeu_ps(sum + 16, high);
}

/* 16 gates and their 16 ups, side by side at P */
static inline __m512 swiglu_of(const uint16_t *p)
{
    const __m512 gate = bf16_load(p), up = bf16_load(p + 16);

    return _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid_fast(gate)), up);
}

void bf16_swiglu(struct tiles act, struct tiles gate_up, size_t blocks, size_t row,
                 size_t rows)
{
    for (size_t r = row; r < row + rows; r++)
        for (size_t b = 0; b < blocks; b++)
            _mm512_store_si512(tile_at(act, r, b),
                               bf16_pair(swiglu_of(tile_at(gate_up, r, 2 * b)),
                                         swiglu_of(tile_at(gate_up, r, 2 * b + 1))));
}
#endif
