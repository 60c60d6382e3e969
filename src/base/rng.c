/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCG32 and what is drawn from it.
 */
#include "base/rng.h"

#include <assert.h>
#include <math.h>

#define PCG_MULTIPLIER 6364136223846793005ull

void rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
    r->state = 0;
    r->stream = stream << 1 | 1;
    rng_u32(r);
    r->state += seed;
    rng_u32(r);
}

uint32_t rng_u32(struct rng *r)
{
    const uint64_t old = r->state;
    const uint32_t shifted = (uint32_t)((old >> 18 ^ old) >> 27);
    const uint32_t turn = (uint32_t)(old >> 59);

    r->state = old * PCG_MULTIPLIER + r->stream;
    return shifted >> turn | shifted << (-turn & 31);
}

uint32_t rng_below(struct rng *r, uint32_t n)
{
    assert(n > 0);
    /* Values under 2^32 mod n would make some results likelier: draw again. */
    const uint32_t first_fair = -n % n;
    uint32_t x;

    do
        x = rng_u32(r);
    while (x < first_fair);
    return x % n;
}

float rng_uniform(struct rng *r)
{
    return (float)(rng_u32(r) >> 8) * 0x1p-24f;
}

float rng_normal(struct rng *r)
{
    const float u = 1.0f - rng_uniform(r); /* (0, 1]: the logarithm stays finite */
    const float v = rng_uniform(r);

    return sqrtf(-2.0f * logf(u)) * cosf(6.28318530718f * v);
}

void rng_shuffle(struct rng *r, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        const size_t j = rng_below(r, (uint32_t)i);
        const uint32_t kept = items[i - 1];

        items[i - 1] = items[j];
        items[j] = kept;
    }
}
