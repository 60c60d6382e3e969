/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products on bf16 tiles, each piece of 32 x 32 finished while the next is computed.
 *
 *     for panels of 32 columns          36 KiB at K = 576: stays in L1
 *       for pairs of row blocks         A of 256 rows stays in L2
 *         for blocks of K, then the low-rank blocks
 *           4 tile products             2 rows of the last piece go through their
 *                                       epilogue, the next panel is fetched
 *
 * The last piece waits in one of two buffers of 4 KiB.
 */
#include "tiles/tile_products.h"

#if defined(TILE_BUILT)
#include <assert.h>

#include "tiles/tile_avx512bf16.h"
#include "tiles/tile_quad_bf16.h"

#define ALWAYS   static inline __attribute__((always_inline))
#define K_BLOCKS 20 /* a panel's blocks that stay in L1 while rows pass by: 40 KiB */

typedef void finish_fn(const void *context, size_t row, size_t panel, __m512 left,
                       __m512 right);

/* A piece whose sums are there and whose epilogue is not through. */
struct pending {
    const float *sums; /* four tiles of 16 x 16: top left, top right, bottom ... */
    size_t row, panel;
    size_t rows_done; /* of 32 */
};

/* One step along K. LINES cache lines of AHEAD are fetched. */
ALWAYS void step(const struct quad *c, const uint16_t *top, const uint16_t *bottom,
                 const uint16_t *b, const char *ahead, const int lines)
{
    quad_step_ahead(c, top, bottom, b, b + TILE_ELEMS, ahead, lines);
}

/* The steps of what rides along. */
ALWAYS void low_steps(const struct quad *c, const struct tile_low *low,
                      const struct tile_share *share, size_t panel, size_t row)
{
    for (size_t i = 0; i < share->n; i++) {
        const struct tile_stacked s = share->blocks[i];
        const uint16_t *h =
            low->h.at + s.h * TILE_ELEMS + row / TILE_ROWS * low->h.pitch * TILE_ELEMS;

        step(c, h, h + low->h.pitch * TILE_ELEMS,
             low->packed + (panel * low->stack + s.stack) * PACK_ELEMS, NULL, 0);
    }
}

ALWAYS void finish_row(const struct tile_product *p, const struct pending *q, size_t r,
                       finish_fn *finish, const void *context)
{
    const float *sums = q->sums + r / 16 * 512 + r % 16 * 16;
    __m512 left = _mm512_load_ps(sums), right = _mm512_load_ps(sums + 256);

    if (p->plus) {
        const float *plus = p->plus + (q->row + r) * p->plus_pitch + q->panel * 32;

        left = _mm512_add_ps(left, _mm512_loadu_ps(plus));
        right = _mm512_add_ps(right, _mm512_loadu_ps(plus + 16));
    }
    finish(context, q->row + r, q->panel, left, right);
}

/* All panels, LINES of the next one fetched with each step. */
ALWAYS void panels(const struct tile_product *p, finish_fn *finish, const void *context,
                   const int lines)
{
    float sums[2][1024] __attribute__((aligned(64)));
    const struct tile_share *share = p->low ? p->low->shares : NULL;
    const struct tile_share *others = p->more ? p->more->shares : NULL;
    struct pending last = {.rows_done = PAIR_ROWS};
    size_t turn = 0;

    for (size_t panel = 0; panel < p->panels; panel++) {
        const uint16_t *b = p->b + panel * p->b_pitch;
        const char *ahead = (const char *)(b + p->b_pitch);

        while (share && panel >= share->end)
            share++;
        while (others && panel >= others->end)
            others++;
        for (size_t r = p->row; r < p->row + p->rows; r += PAIR_ROWS) {
            const uint16_t *top = p->a.at + r / TILE_ROWS * p->a.pitch * TILE_ELEMS;
            const uint16_t *bottom = top + p->a.pitch * TILE_ELEMS;
            const struct quad c = quad_of(sums[turn]);
            size_t k = 0;

            quad_zero(&c);
            for (; k < p->k && last.rows_done < PAIR_ROWS; k++, last.rows_done += 2) {
                step(&c, top + k * TILE_ELEMS, bottom + k * TILE_ELEMS,
                     b + k * PACK_ELEMS, ahead, lines);
                finish_row(p, &last, last.rows_done, finish, context);
                finish_row(p, &last, last.rows_done + 1, finish, context);
                ahead += 64 * lines;
            }
            for (; k < p->k; k++) {
                step(&c, top + k * TILE_ELEMS, bottom + k * TILE_ELEMS,
                     b + k * PACK_ELEMS, ahead, lines);
                ahead += 64 * lines;
            }
            if (share)
                low_steps(&c, p->low, share, panel, r);
            if (others)
                low_steps(&c, p->more, others, panel, r);
            for (; last.rows_done < PAIR_ROWS; last.rows_done++)
                finish_row(p, &last, last.rows_done, finish, context);
            quad_store(&c);
            last = (struct pending){sums[turn], r, panel, 0};
            turn = !turn;
        }
    }
    for (; last.rows_done < PAIR_ROWS; last.rows_done++)
        finish_row(p, &last, last.rows_done, finish, context);
}

/* A panel's bytes are shared out over the steps that its rows take. */
ALWAYS void product(const struct tile_product *p, finish_fn *finish,
                    const void *context)
{
    assert(p->row % PAIR_ROWS == 0 && p->rows % PAIR_ROWS == 0);
    if (!p->rows)
        return;
    tiles_begin();
    if (p->rows >= 1024)
        panels(p, finish, context, 1);
    else if (p->rows >= 512)
        panels(p, finish, context, 2);
    else
        panels(p, finish, context, 4);
    tiles_end();
}

struct to_tiles {
    struct tiles out;
    size_t turned, head_blocks;
    const struct tile_rope *rope;
};

ALWAYS void store(const void *context, size_t row, size_t panel, __m512 left,
                  __m512 right)
{
    const struct to_tiles *to = context;

    _mm512_store_si512(tile_at(to->out, row, panel), bf16_pair(left, right));
}

void TILE(product_tiles)(const struct tile_product *p, struct tiles out)
{
    const struct to_tiles to = {.out = out};

    product(p, store, &to);
}

/* Pair i turns by its angle: (a, b) to (a cos - b sin, b cos + a sin). */
ALWAYS void turn(const void *context, size_t row, size_t panel, __m512 left,
                 __m512 right)
{
    const struct to_tiles *to = context;
    const struct tile_rope *rope = to->rope;
    const size_t at =
        (size_t)rope->pos[row] * rope->half + panel % to->head_blocks * 16;
    __m512 cos, sin;

    if (panel >= to->turned) {
        store(context, row, panel, left, right);
        return;
    }
    cos = _mm512_loadu_ps(rope->cos + at);
    sin = _mm512_loadu_ps(rope->sin + at);
    store(context, row, panel, _mm512_fmsub_ps(left, cos, _mm512_mul_ps(right, sin)),
          _mm512_fmadd_ps(right, cos, _mm512_mul_ps(left, sin)));
}

void TILE(product_rope)(const struct tile_product *p, struct tiles out, size_t turned,
                        size_t head_blocks, const struct tile_rope *rope)
{
    const struct to_tiles to = {out, turned, head_blocks, rope};

    product(p, turn, &to);
}

struct to_floats {
    float *x;
    size_t pitch;
};

/* Even stretches of K of at most K_BLOCKS; experts and PLUS join the last. */
static bool next_stretch(struct tile_product *part, const struct tile_product *whole,
                         size_t *done)
{
    const size_t n = (whole->k + K_BLOCKS - 1) / K_BLOCKS;
    const size_t most = n ? (whole->k + n - 1) / n : 0, left = whole->k - *done;

    if (*done && !left)
        return false;
    *part = *whole;
    part->a = tiles_from(whole->a, *done);
    part->b = whole->b + *done * PACK_ELEMS;
    part->k = left < most ? left : most;
    if (part->k < left) {
        part->low = NULL;
        part->more = NULL;
        part->plus = NULL;
    }
    *done += part->k;
    return part->k > 0 || whole->low || whole->more;
}

ALWAYS void store_floats(const void *context, size_t row, size_t panel, __m512 left,
                         __m512 right)
{
    const struct to_floats *to = context;
    float *x = to->x + row * to->pitch + panel * 32;

    _mm512_storeu_ps(x, left);
    _mm512_storeu_ps(x + 16, right);
}

ALWAYS void add_floats(const void *context, size_t row, size_t panel, __m512 left,
                       __m512 right)
{
    const struct to_floats *to = context;
    float *x = to->x + row * to->pitch + panel * 32;

    _mm512_storeu_ps(x, _mm512_add_ps(_mm512_loadu_ps(x), left));
    _mm512_storeu_ps(x + 16, _mm512_add_ps(_mm512_loadu_ps(x + 16), right));
}

void TILE(product_float)(const struct tile_product *p, float *out, size_t pitch)
{
    const struct to_floats to = {out, pitch};
    struct tile_product part;

    for (size_t done = 0; next_stretch(&part, p, &done);) {
        if (done == part.k)
            product(&part, store_floats, &to);
        else
            product(&part, add_floats, &to);
    }
}

void TILE(product_add)(const struct tile_product *p, float *x, size_t pitch)
{
    const struct to_floats to = {x, pitch};
    struct tile_product part;

    for (size_t done = 0; next_stretch(&part, p, &done);)
        product(&part, add_floats, &to);
}

struct to_swiglu {
    struct tiles gate_up, act, d_gate_up;
};

ALWAYS void swiglu(const void *context, size_t row, size_t panel, __m512 gate,
                   __m512 up)
{
    const struct to_swiglu *to = context;
    const __m512 act = _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid_fast(gate)), up);

    _mm512_store_si512(tile_at(to->gate_up, row, panel), bf16_pair(gate, up));
    _mm256_store_si256((__m256i *)(tile_at(to->act, row, panel / 2) + panel % 2 * 16),
                       bf16_half(act));
}

void TILE(product_swiglu)(const struct tile_product *p, struct tiles gate_up,
                          struct tiles act)
{
    const struct to_swiglu to = {.gate_up = gate_up, .act = act};

    product(p, swiglu, &to);
}

/* From 16 slopes of act to those of gate and up:
 * d_up = d silu(gate), d_gate = d up sigma (1 + gate (1 - sigma)) */
ALWAYS void swiglu_back(const struct to_swiglu *to, size_t row, size_t block, __m512 d)
{
    const uint16_t *at = tile_at(to->gate_up, row, block);
    const __m512 gate = bf16_load(at), up = bf16_load(at + 16),
                 one = _mm512_set1_ps(1.0f);
    const __m512 sigma = sigmoid_fast(gate), d_sigma = _mm512_mul_ps(d, sigma);
    const __m512 bend = _mm512_fmadd_ps(gate, _mm512_sub_ps(one, sigma), one);

    _mm512_store_si512(tile_at(to->d_gate_up, row, block),
                       bf16_pair(_mm512_mul_ps(_mm512_mul_ps(d_sigma, up), bend),
                                 _mm512_mul_ps(d_sigma, gate)));
}

ALWAYS void swiglu_slopes(const void *context, size_t row, size_t panel, __m512 left,
                          __m512 right)
{
    swiglu_back(context, row, 2 * panel, left);
    swiglu_back(context, row, 2 * panel + 1, right);
}

void TILE(product_swiglu_backward)(const struct tile_product *p, struct tiles d_gate_up,
                                   struct tiles gate_up)
{
    const struct to_swiglu to = {.gate_up = gate_up, .d_gate_up = d_gate_up};

    product(p, swiglu_slopes, &to);
}
#endif
