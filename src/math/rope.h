/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary position embedding, in place on T rows of H heads of d.
 *
 *     pair (a, b) of a head turns by pos * theta^(-2i/d) / divisor[i]
 *
 * Pairs are (2i, 2i+1) when interleaved, (i, i + d/2) otherwise.
 */
#ifndef ARTEL_MATH_ROPE_H
#define ARTEL_MATH_ROPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;

struct rope {
    size_t head_dim;
    bool interleaved;
    size_t n_positions;
    float *cos, *sin; /* (n_positions, d / 2), computed in double */
};

/* Tables for positions below N_POSITIONS, laid in ARENA (or measured). */
void rope_init(struct rope *r, struct arena *arena, size_t head_dim, bool interleaved,
               float theta, const float *divisor, size_t n_positions);
/* X (T, H * d), position of each row in POS (T). */
void rope_forward(const struct rope *r, float *x, const int32_t *pos, size_t T,
                  size_t H);
/* The turn back: the gradient of the forward turn, in place. */
void rope_backward(const struct rope *r, float *d_x, const int32_t *pos, size_t T,
                   size_t H);

#endif
