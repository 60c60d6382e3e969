/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of floats to quantised weights; layouts are in dequant_ref.c.
 *
 *     Q8_0         d = max |x| / 127                     q = round(x / d)
 *     Q4_0, Q5_0   d = m / -8, -16, m the element of the largest magnitude with its sign
 *     Q4_1, Q5_1   d = (max - min) / 15, 31              q = (x - min) / d
 *
 * Numbers are chosen with the d of a float; the d that is stored is its nearest half, as
 * in the reference, so that the same floats give the same bytes.
 */
#include "math/quantise.h"

#include <math.h>
#include <string.h>

#define BLOCK 32

uint16_t half_of(float x)
{
    uint32_t u, sign, rest;
    int exponent;

    memcpy(&u, &x, sizeof(u));
    sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (u >= 0x477ff000) /* half of a step beyond the largest half */
        return (uint16_t)(sign | 0x7c00);
    if (u >= 0x38800000) { /* a normal half */
        u -= 0x38000000;
        return (uint16_t)(sign | (u + 0xfff + (u >> 13 & 1)) >> 13);
    }
    exponent = (int)(u >> 23);
    if (exponent < 102) /* below half of the smallest one */
        return (uint16_t)sign;
    u = (u & 0x7fffff) | 0x800000;
    rest = u & ((1u << (126 - exponent)) - 1);
    u >>= 126 - exponent;
    exponent = 125 - exponent; /* bit of one half in REST */
    u += rest > 1u << exponent || (rest == 1u << exponent && (u & 1));
    return (uint16_t)(sign | u);
}

static uint16_t bf16_bits(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* D as a half at OUT; false where it is none. */
static bool put_half(uint8_t *out, float d)
{
    const uint16_t h = half_of(d);

    out[0] = (uint8_t)h;
    out[1] = (uint8_t)(h >> 8);
    return (h & 0x7c00) != 0x7c00;
}

static float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

/* The element of the largest magnitude, with its sign. */
static float largest(const float *x)
{
    float most = 0.0f, value = 0.0f;

    for (size_t i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > most) {
            most = fabsf(x[i]);
            value = x[i];
        }
    return value;
}

static void range(const float *x, float *min, float *max)
{
    *min = *max = x[0];
    for (size_t i = 1; i < BLOCK; i++) {
        *min = x[i] < *min ? x[i] : *min;
        *max = x[i] > *max ? x[i] : *max;
    }
}

static uint8_t at_most(float x, int most)
{
    const int q = (int)x;

    return (uint8_t)(q < most ? q : most);
}

static bool block_q8_0(uint8_t *out, const float *x)
{
    const float d = fabsf(largest(x)) / 127.0f, id = inverse(d);

    for (size_t i = 0; i < BLOCK; i++)
        out[2 + i] = (uint8_t)(int8_t)roundf(x[i] * id);
    return put_half(out, d);
}

static void put_nibbles(uint8_t *out, const uint8_t *q)
{
    for (size_t i = 0; i < BLOCK / 2; i++)
        out[i] = (uint8_t)((q[i] & 15) | (q[i + BLOCK / 2] & 15) << 4);
}

static void put_fifth_bits(uint8_t *out, const uint8_t *q)
{
    memset(out, 0, 4);
    for (size_t i = 0; i < BLOCK; i++)
        out[i / 8] |= (uint8_t)((q[i] >> 4) << i % 8);
}

static bool block_q4_0(uint8_t *out, const float *x)
{
    const float d = largest(x) / -8.0f, id = inverse(d);
    uint8_t q[BLOCK];

    for (size_t i = 0; i < BLOCK; i++)
        q[i] = at_most(x[i] * id + 8.5f, 15);
    put_nibbles(out + 2, q);
    return put_half(out, d);
}

static bool block_q5_0(uint8_t *out, const float *x)
{
    const float d = largest(x) / -16.0f, id = inverse(d);
    uint8_t q[BLOCK];

    for (size_t i = 0; i < BLOCK; i++)
        q[i] = at_most(x[i] * id + 16.5f, 31);
    put_fifth_bits(out + 2, q);
    put_nibbles(out + 6, q);
    return put_half(out, d);
}

/* X as Q (BLOCK) of MOST + 1 steps from the least of them; step and least to OUT. */
static bool from_least(uint8_t *q, uint8_t *out, const float *x, int most)
{
    float min, max, d, id;
    bool fits;

    range(x, &min, &max);
    d = (max - min) / (float)most;
    id = inverse(d);
    for (size_t i = 0; i < BLOCK; i++)
        q[i] = at_most((x[i] - min) * id + 0.5f, most);
    fits = put_half(out, d);
    return put_half(out + 2, min) && fits;
}

static bool block_q4_1(uint8_t *out, const float *x)
{
    uint8_t q[BLOCK];
    const bool fits = from_least(q, out, x, 15);

    put_nibbles(out + 4, q);
    return fits;
}

static bool block_q5_1(uint8_t *out, const float *x)
{
    uint8_t q[BLOCK];
    const bool fits = from_least(q, out, x, 31);

    put_fifth_bits(out + 4, q);
    put_nibbles(out + 8, q);
    return fits;
}

static bool plain_f16(uint8_t *out, const float *x)
{
    return put_half(out, *x);
}

static bool plain_bf16(uint8_t *out, const float *x)
{
    const uint16_t b = bf16_bits(*x);

    out[0] = (uint8_t)b;
    out[1] = (uint8_t)(b >> 8);
    return (b & 0x7f80) != 0x7f80;
}

static bool plain_f32(uint8_t *out, const float *x)
{
    memcpy(out, x, sizeof(*x));
    return true;
}

/* One block; false where it does not fit. X is finite. */
typedef bool block_function(uint8_t *out, const float *x);

static block_function *const blocks[N_DTYPES] = {
    [DTYPE_F32] = plain_f32,   [DTYPE_F16] = plain_f16,   [DTYPE_BF16] = plain_bf16,
    [DTYPE_Q8_0] = block_q8_0, [DTYPE_Q4_0] = block_q4_0, [DTYPE_Q4_1] = block_q4_1,
    [DTYPE_Q5_0] = block_q5_0, [DTYPE_Q5_1] = block_q5_1,
};

bool quantise_knows(enum dtype t)
{
    return blocks[t] != NULL;
}

bool quantise(void *out, enum dtype t, const float *x, size_t n)
{
    const size_t elems = dtype_block_elems(t), bytes = dtype_block_bytes(t);
    uint8_t *to = out;
    bool fits = true;

    for (size_t i = 0; i < n; i++)
        fits = fits && isfinite(x[i]);
    for (size_t i = 0; fits && i < n / elems; i++)
        fits = blocks[t](to + i * bytes, x + i * elems);
    return fits;
}
