/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables are computed in double, so that far positions keep their angle to
 * the last bit of a float; the turn back is the turn with the sine negated.
 */
#include "math/rope.h"

#include <assert.h>
#include <math.h>

#include "base/arena.h"
#include "math/kernels.h"

#define MAX_HALF 512 /* half of the widest head */

void rope_init(struct rope *r, struct arena *arena, size_t head_dim, bool interleaved,
               float theta, const float *divisor, size_t n_positions)
{
    const size_t half = head_dim / 2;

    assert(head_dim % 2 == 0 && half <= MAX_HALF);
    *r = (struct rope){
        .head_dim = head_dim, .interleaved = interleaved, .n_positions = n_positions};
    r->cos = arena_f32(arena, n_positions * half);
    r->sin = arena_f32(arena, n_positions * half);
    if (!r->cos)
        return;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < half; i++) {
        const double slow = divisor ? (double)divisor[i] : 1.0;
        const double turn =
            pow((double)theta, -2.0 * (double)i / (double)head_dim) / slow;

        for (size_t pos = 0; pos < n_positions; pos++) {
            r->cos[pos * half + i] = (float)cos((double)pos * turn);
            r->sin[pos * half + i] = (float)sin((double)pos * turn);
        }
    }
}

static void turn(const struct rope *r, float *x, const float *cos, const float *sin,
                 size_t H)
{
    const struct kernels *k = kernels();
    const size_t half = r->head_dim / 2;

    for (size_t h = 0; h < H; h++, x += r->head_dim) {
        if (r->interleaved)
            k->rotate_pairs(x, cos, sin, half);
        else
            k->rotate_halves(x, x + half, cos, sin, half);
    }
}

void rope_forward(const struct rope *r, float *x, const int32_t *pos, size_t T,
                  size_t H)
{
    const size_t half = r->head_dim / 2;

    for (size_t t = 0; t < T; t++) {
        assert(pos[t] >= 0 && (size_t)pos[t] < r->n_positions);
        turn(r, x + t * H * r->head_dim, r->cos + (size_t)pos[t] * half,
             r->sin + (size_t)pos[t] * half, H);
    }
}

void rope_backward(const struct rope *r, float *d_x, const int32_t *pos, size_t T,
                   size_t H)
{
    const size_t half = r->head_dim / 2;

    for (size_t t = 0; t < T; t++) {
        const float *sin = r->sin + (size_t)pos[t] * half;
        float back[MAX_HALF];

        assert(pos[t] >= 0 && (size_t)pos[t] < r->n_positions);
        for (size_t i = 0; i < half; i++)
            back[i] = -sin[i];
        turn(r, d_x + t * H * r->head_dim, r->cos + (size_t)pos[t] * half, back, H);
    }
}
