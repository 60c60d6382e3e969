/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tile_quad_bf16.h by AMX: tile registers 0 to 3 hold the sums, the others what is
 * multiplied.
 *
 * Tile registers are a thread's own. Every operation configures them on entry
 * (tiles_begin) because another library may have changed them.
 */
#ifndef ARTEL_TILES_TILE_QUAD_AMX_H
#define ARTEL_TILES_TILE_QUAD_AMX_H

#include <immintrin.h>

#include "tiles/tile_quad.h"

#define QUAD static inline __attribute__((always_inline))

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* gcc 12 does not know that tile loads and stores touch memory. */
QUAD void quad_fence(void)
{
    __asm__ volatile("" ::: "memory");
}

/* All eight tiles 16 rows x 64 bytes. */
static inline void tiles_begin(void)
{
    struct tile_config c = {.palette = 1};

    for (size_t i = 0; i < 8; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = 16;
    }
    quad_fence();
    _tile_loadconfig(&c);
}

static inline void tiles_end(void)
{
    quad_fence();
    _tile_release();
}

QUAD void quad_zero(const struct quad *q)
{
    (void)q;
    quad_fence();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

QUAD void quad_load(const struct quad *q)
{
    quad_fence();
    _tile_loadd(0, q->at[0], q->pitch * sizeof(float));
    _tile_loadd(1, q->at[1], q->pitch * sizeof(float));
    _tile_loadd(2, q->at[2], q->pitch * sizeof(float));
    _tile_loadd(3, q->at[3], q->pitch * sizeof(float));
}

QUAD void quad_store(const struct quad *q)
{
    _tile_stored(0, q->at[0], q->pitch * sizeof(float));
    _tile_stored(1, q->at[1], q->pitch * sizeof(float));
    _tile_stored(2, q->at[2], q->pitch * sizeof(float));
    _tile_stored(3, q->at[3], q->pitch * sizeof(float));
    quad_fence();
}

/* LINES cache lines of AHEAD, 4 at most, are fetched between the products. */
QUAD void quad_step_ahead(const struct quad *q, const uint16_t *a0, const uint16_t *a1,
                          const uint16_t *b0, const uint16_t *b1, const char *ahead,
                          const int lines)
{
    (void)q;
    _tile_loadd(6, b0, 64);
    if (lines > 0)
        _mm_prefetch(ahead, _MM_HINT_T1);
    _tile_loadd(4, a0, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (lines > 1)
        _mm_prefetch(ahead + 64, _MM_HINT_T1);
    _tile_loadd(7, b1, 64);
    _tile_dpbf16ps(1, 4, 7);
    if (lines > 2)
        _mm_prefetch(ahead + 128, _MM_HINT_T1);
    _tile_loadd(5, a1, 64);
    _tile_dpbf16ps(2, 5, 6);
    if (lines > 3)
        _mm_prefetch(ahead + 192, _MM_HINT_T1);
    _tile_dpbf16ps(3, 5, 7);
}

QUAD void quad_step(const struct quad *q, const uint16_t *a0, const uint16_t *a1,
                    const uint16_t *b0, const uint16_t *b1)
{
    quad_step_ahead(q, a0, a1, b0, b1, NULL, 0);
}

QUAD void quad_column(const struct quad *q, const uint16_t *a, size_t down,
                      const uint16_t *b, size_t n)
{
    (void)q;
    _tile_loadd(7, b, 64);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 7);
    _tile_loadd(5, a + down, 64);
    _tile_dpbf16ps(1, 5, 7);
    if (n > 2) {
        _tile_loadd(6, a + 2 * down, 64);
        _tile_dpbf16ps(2, 6, 7);
        _tile_loadd(4, a + 3 * down, 64);
        _tile_dpbf16ps(3, 4, 7);
    }
}

QUAD void quad_row(const struct quad *q, const uint16_t *a, const uint16_t *b0,
                   const uint16_t *b1, const uint16_t *b2, const uint16_t *b3)
{
    (void)q;
    _tile_loadd(4, a, 64);
    _tile_loadd(5, b0, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, b1, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, b2, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, b3, 64);
    _tile_dpbf16ps(3, 4, 5);
}

#endif
