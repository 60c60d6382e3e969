/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the four sums of a product of tiles lie; tile_quad_bf16.h says what is done
 * with them.
 */
#ifndef ARTEL_TILES_TILE_QUAD_H
#define ARTEL_TILES_TILE_QUAD_H

#include "tiles/tiles.h"

struct quad {
    float *at[4]; /* each 16 x 16, rows of PITCH */
    size_t pitch; /* floats; a multiple of 16 */
};

/* The steps of tile_quad_bf16.h by AVX-512-BF16; quad_row's right sides are B[0] to
 * B[3]. */
void quad_step_avx512bf16(const struct quad *q, const uint16_t *a0, const uint16_t *a1,
                          const uint16_t *b0, const uint16_t *b1);
void quad_column_avx512bf16(const struct quad *q, const uint16_t *a, size_t down,
                            const uint16_t *b, size_t n);
void quad_row_avx512bf16(const struct quad *q, const uint16_t *a,
                         const uint16_t *const *b);

/* Four tiles one after the other. */
static inline struct quad quad_of(float *sums)
{
    return (struct quad){{sums, sums + 256, sums + 512, sums + 768}, 16};
}

/* The quarters of a 32 x 32. */
static inline struct quad quad_within(float *c, size_t pitch)
{
    return (struct quad){{c, c + 16, c + 16 * pitch, c + 16 * pitch + 16}, pitch};
}

#endif
