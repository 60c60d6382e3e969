/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of quantised weights to float, one rounding an operation in the order
 * that the format's reference has, so that the result is the same to the bit.
 *
 *     Q4_0, IQ4_NL   32  d 2, nibbles 16            d (q - 8), d T[q]
 *     Q4_1           32  d 2, m 2, nibbles 16       d q + m
 *     Q5_0           32  d 2, fifth bits 4, nibbles 16        d (q - 16)
 *     Q5_1           32  d 2, m 2, fifth bits 4, nibbles 16   d q + m
 *     Q8_0           32  d 2, int8 32               d q
 *     Q4_K          256  d 2, dmin 2, scales 12, nibbles 128
 *     Q5_K          256  d 2, dmin 2, scales 12, fifth bits 32, nibbles 128
 *     Q6_K          256  low nibbles 128, high pairs 64, int8 scales 16, d 2
 *
 * In the blocks of 32, element i has the low nibble of byte i and element
 * i + 16 the high one.
 */
#include <assert.h>
#include <string.h>

#include "math/dequant_sets.h"
#include "math/kernels_sets.h"

const float iq4_nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

float half_to_float(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 31, fraction = h & 1023u, bits;
    float f;

    if (exponent == 31) { /* infinity, or NaN made quiet as the CPU does */
        bits = 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0);
    } else if (exponent) {
        bits = (exponent + 112) << 23 | fraction << 13;
    } else if (fraction) { /* subnormal: a normal float */
        for (exponent = 113; !(fraction & 1024); exponent--)
            fraction <<= 1;
        bits = exponent << 23 | (fraction & 1023) << 13;
    } else {
        bits = 0;
    }
    bits |= sign;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static float half_at(const uint8_t *p)
{
    return half_to_float((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t word_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

void dequant_f32_ref(float *out, const void *in, size_t n)
{
    memcpy(out, in, n * sizeof(float));
}

void dequant_f16_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    for (size_t i = 0; i < n; i++)
        out[i] = half_at(p + 2 * i);
}

void dequant_bf16_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)p[2 * i] << 16 | (uint32_t)p[2 * i + 1] << 24;

        memcpy(out + i, &bits, sizeof(bits));
    }
}

void dequant_q8_0_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 32 == 0);
    for (size_t b = 0; b < n / 32; b++, p += 34) {
        const float d = half_at(p);

        for (size_t i = 0; i < 32; i++)
            *out++ = (float)(int8_t)p[2 + i] * d;
    }
}

void dequant_q4_0_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 32 == 0);
    for (size_t b = 0; b < n / 32; b++, p += 18, out += 32) {
        const float d = half_at(p);

        for (size_t i = 0; i < 16; i++) {
            out[i] = (float)((p[2 + i] & 15) - 8) * d;
            out[i + 16] = (float)((p[2 + i] >> 4) - 8) * d;
        }
    }
}

void dequant_q4_1_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 32 == 0);
    for (size_t b = 0; b < n / 32; b++, p += 20, out += 32) {
        const float d = half_at(p), m = half_at(p + 2);

        for (size_t i = 0; i < 16; i++) {
            out[i] = (float)(p[4 + i] & 15) * d + m;
            out[i + 16] = (float)(p[4 + i] >> 4) * d + m;
        }
    }
}

void dequant_q5_0_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 32 == 0);
    for (size_t b = 0; b < n / 32; b++, p += 22, out += 32) {
        const float d = half_at(p);
        const uint32_t high = word_at(p + 2);

        for (size_t i = 0; i < 16; i++) {
            const int low = (p[6 + i] & 15) | (int)(high >> i & 1) << 4;
            const int up = (p[6 + i] >> 4) | (int)(high >> (i + 16) & 1) << 4;

            out[i] = (float)(low - 16) * d;
            out[i + 16] = (float)(up - 16) * d;
        }
    }
}

void dequant_q5_1_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 32 == 0);
    for (size_t b = 0; b < n / 32; b++, p += 24, out += 32) {
        const float d = half_at(p), m = half_at(p + 2);
        const uint32_t high = word_at(p + 4);

        for (size_t i = 0; i < 16; i++) {
            const int low = (p[8 + i] & 15) | (int)(high >> i & 1) << 4;
            const int up = (p[8 + i] >> 4) | (int)(high >> (i + 16) & 1) << 4;

            out[i] = (float)low * d + m;
            out[i + 16] = (float)up * d + m;
        }
    }
}

void dequant_q4_k_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 256 == 0);
    for (size_t b = 0; b < n / 256; b++, p += 144) {
        const float d = half_at(p), d_min = half_at(p + 2);

        for (int j = 0; j < 8; j++) { /* sub-blocks of 32 */
            const uint8_t *q = p + 16 + j / 2 * 32;
            const int shift = j % 2 * 4;
            uint8_t scale, min;
            float s, m;

            k_scale_min(p + 4, j, &scale, &min);
            s = d * (float)scale;
            m = d_min * (float)min;
            for (size_t l = 0; l < 32; l++)
                *out++ = s * (float)(q[l] >> shift & 15) - m;
        }
    }
}

void dequant_q5_k_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 256 == 0);
    for (size_t b = 0; b < n / 256; b++, p += 176) {
        const float d = half_at(p), d_min = half_at(p + 2);

        for (int j = 0; j < 8; j++) {
            const uint8_t *q = p + 48 + j / 2 * 32, *high = p + 16;
            const int shift = j % 2 * 4;
            uint8_t scale, min;
            float s, m;

            k_scale_min(p + 4, j, &scale, &min);
            s = d * (float)scale;
            m = d_min * (float)min;
            for (size_t l = 0; l < 32; l++)
                *out++ =
                    s * (float)((q[l] >> shift & 15) + 16 * (high[l] >> j & 1)) - m;
        }
    }
}

void dequant_q6_k_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 256 == 0);
    for (size_t b = 0; b < n / 256; b++, p += 210) {
        const float d = half_at(p + 208);

        for (int part = 0; part < 16; part++) { /* 16 elements with one scale */
            const int half = part / 8, c = part % 8 / 2, l0 = part % 2 * 16;
            const uint8_t *low = p + 64 * half + 32 * (c & 1) + l0;
            const uint8_t *high = p + 128 + 32 * half + l0;
            const float s = d * (float)(int8_t)p[192 + part];

            for (int l = 0; l < 16; l++) {
                const int q =
                    (c < 2 ? low[l] & 15 : low[l] >> 4) | (high[l] >> 2 * c & 3) << 4;

                *out++ = s * (float)(q - 32);
            }
        }
    }
}

void dequant_iq4_nl_ref(float *out, const void *in, size_t n)
{
    const uint8_t *p = in;

    assert(n % 32 == 0);
    for (size_t b = 0; b < n / 32; b++, p += 18, out += 32) {
        const float d = half_at(p);

        for (size_t i = 0; i < 16; i++) {
            out[i] = d * iq4_nl_values[p[2 + i] & 15];
            out[i + 16] = d * iq4_nl_values[p[2 + i] >> 4];
        }
    }
}
