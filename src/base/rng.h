/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers that anyone can reproduce: PCG32 (O'Neill 2014, XSH-RR),
 * 64 bits of state and an odd stream number. The whole state is two integers,
 * so a checkpoint that stores them continues bit for bit.
 */
#ifndef ARTEL_BASE_RNG_H
#define ARTEL_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state, stream;
};

/* One SEED, many independent STREAMS (an expert, a layer, a dropout mask). */
void rng_init(struct rng *r, uint64_t seed, uint64_t stream);
uint32_t rng_u32(struct rng *r);
uint32_t rng_below(struct rng *r, uint32_t n); /* uniform in 0 .. n-1, n > 0 */
float rng_uniform(struct rng *r);              /* [0, 1), 24 bits */
float rng_normal(struct rng *r);               /* N(0, 1), Box-Muller, no state kept */
void rng_shuffle(struct rng *r, uint32_t *items, size_t n); /* Fisher-Yates */

#endif
