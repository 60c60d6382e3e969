/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products on tiles, their low-rank blocks and epilogues, against sums in double over
 * the same bf16 numbers; rows that depend on themselves alone.
 */
#include "check.h"

#include <stdlib.h>

#include "base/rng.h"
#include "tiles/tiles.h"

#define MAX_ROWS 96
#define EPS      0x1p-8 /* one rounding to bf16, relative */

struct bench {
    size_t rows, k, panels, stack;
    uint16_t *a, *h, *b, *low; /* tiles and packed */
    float *wa, *wh;            /* (rows, k * 32), (rows, stack * 32) */
    float *wb, *wl;            /* (panels * 32, k * 32), (panels * 32, stack * 32) */
    double *want;              /* (rows, panels * 32) */
};

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0, (bytes + 63) / 64 * 64);
    return p;
}

static float draw(struct rng *r)
{
    return bf16_to(bf16_of(rng_normal(r)));
}

/* Floats (rows, blocks * 32) and the same in tiles. */
static float *tiled(struct tiles to, size_t rows, size_t blocks, struct rng *r)
{
    float *x = room(rows * blocks * 32 * sizeof(*x));

    for (size_t i = 0; i < rows; i++)
        for (size_t c = 0; c < blocks * 32; c++) {
            x[i * blocks * 32 + c] = draw(r);
            tile_at(to, i, c / 32)[c % 32] = bf16_of(x[i * blocks * 32 + c]);
        }
    return x;
}

/* W (panels * 32, blocks * 32) and its packed form, of which panels lie PITCH apart. */
static float *packed(uint16_t *to, size_t panels, size_t blocks, struct rng *r)
{
    float *w = room(panels * blocks * 1024 * sizeof(*w));

    for (size_t i = 0; i < panels * blocks * 1024; i++)
        w[i] = draw(r);
    for (size_t p = 0; p < panels; p++)
        for (size_t k = 0; k < blocks; k++)
            tile_set()->pack_forward(to + (p * blocks + k) * PACK_ELEMS,
                                     w + p * 32 * blocks * 32 + k * 32, blocks * 32);
    return w;
}

static void bench_open(struct bench *t, size_t rows, size_t k, size_t panels,
                       size_t stack)
{
    struct rng r;

    rng_init(&r, rows * 31 + k, panels);
    *t = (struct bench){.rows = rows, .k = k, .panels = panels, .stack = stack};
    t->a = room(tile_elems(rows, k) * 2);
    t->h = room(tile_elems(rows, stack + 1) * 2);
    t->b = room(panels * k * PACK_ELEMS * 2);
    t->low = room(panels * (stack + 1) * PACK_ELEMS * 2);
    t->wa = tiled((struct tiles){t->a, k}, rows, k, &r);
    t->wh = tiled((struct tiles){t->h, stack + 1}, rows, stack, &r);
    t->wb = packed(t->b, panels, k, &r);
    t->wl = packed(t->low, panels, stack, &r);
    t->want = room(rows * panels * 32 * sizeof(*t->want));
}

static void bench_close(struct bench *t)
{
    void *all[] = {t->a, t->h, t->b, t->low, t->wa, t->wh, t->wb, t->wl, t->want};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

/* What the product must be where panels below SPLIT take block 0 of the stack alone and
 * the others all of it. */
static void reference(struct bench *t, size_t split)
{
    for (size_t i = 0; i < t->rows; i++)
        for (size_t n = 0; n < t->panels * 32; n++) {
            const size_t low = n / 32 < split ? (t->stack ? 32 : 0) : t->stack * 32;
            double sum = 0;

            for (size_t k = 0; k < t->k * 32; k++)
                sum += (double)t->wa[i * t->k * 32 + k] * t->wb[n * t->k * 32 + k];
            for (size_t k = 0; k < low; k++)
                sum +=
                    (double)t->wh[i * t->stack * 32 + k] * t->wl[n * t->stack * 32 + k];
            t->want[i * t->panels * 32 + n] = sum;
        }
}

/* Sums of N products of normal numbers in float: n eps sum |a b| at worst, far less. */
static double bound(const struct bench *t)
{
    return 0x1p-20 * (double)((t->k + t->stack) * 32);
}

static void one_shape(size_t rows, size_t k, size_t panels, size_t stack)
{
    struct bench t;
    struct tile_stacked blocks[8];
    struct tile_share shares[2];
    struct tile_low low;
    struct tile_product p;
    const size_t split = panels / 2, wide = panels * 32;
    float *out, *alone;

    bench_open(&t, rows, k, panels, stack);
    reference(&t, stack ? split : 0);
    for (size_t i = 0; i < stack; i++)
        blocks[i] = (struct tile_stacked){(uint16_t)i, (uint16_t)i};
    shares[0] = (struct tile_share){split, 1, blocks};
    shares[1] = (struct tile_share){panels, stack, blocks};
    low = (struct tile_low){{t.h, stack + 1}, t.low, stack, shares};
    p = (struct tile_product){.a = {t.a, k},
                              .k = k,
                              .b = t.b,
                              .b_pitch = k * PACK_ELEMS,
                              .panels = panels,
                              .low = stack ? &low : NULL,
                              .rows = tile_round(rows)};
    out = room(tile_round(rows) * wide * sizeof(*out));
    alone = room(tile_round(rows) * wide * sizeof(*alone));
    tile_set()->product_float(&p, out, wide);
    for (size_t i = 0; i < rows * wide; i++)
        assert_near(out[i], t.want[i], bound(&t));

    /* the stack in the second place, for a wide K once too */
    p.low = NULL;
    p.more = stack ? &low : NULL;
    tile_set()->product_float(&p, out, wide);
    for (size_t i = 0; i < rows * wide; i++)
        assert_near(out[i], t.want[i], bound(&t));
    p.low = p.more;
    p.more = NULL;

    /* twice the same added, with another product beside it */
    p.plus = out;
    p.plus_pitch = wide;
    memcpy(alone, out, rows * wide * sizeof(*out));
    tile_set()->product_add(&p, alone, wide);
    for (size_t i = 0; i < rows * wide; i++)
        assert_near(alone[i], 3 * t.want[i], 4 * bound(&t));
    p.plus = NULL;

    /* the last rows alone: the same bits */
    memset(alone, 0, tile_round(rows) * wide * sizeof(*alone));
    p.row = (rows - 1) / 32 * 32;
    p.rows = 32;
    tile_set()->product_float(&p, alone, wide);
    assert_memory_equal(alone + p.row * wide, out + p.row * wide,
                        (rows - p.row) * wide * sizeof(*out));
    free(out);
    free(alone);
    bench_close(&t);
}

static void products_are_sums(void **state)
{
    (void)state;
    if (!tile_set())
        skip();
    one_shape(32, 1, 1, 0);
    one_shape(1, 2, 3, 1);
    one_shape(33, 18, 4, 1);
    one_shape(96, 17, 2, 3);
    one_shape(64, 16, 5, 4);
    one_shape(40, 48, 2, 1);
    one_shape(32, 97, 3, 2);
}

static void rope_turns_pairs(void **state)
{
    enum { rows = 40, k = 2, panels = 6, heads = 2, half = 32, positions = 50 };
    struct bench t;
    struct tile_product p;
    float cos_at[positions * half], sin_at[positions * half];
    int32_t pos[64] = {0};
    struct tile_rope rope = {cos_at, sin_at, half, pos};
    uint16_t *out;

    (void)state;
    if (!tile_set())
        skip();
    bench_open(&t, rows, k, panels, 0);
    reference(&t, 0);
    for (size_t i = 0; i < positions * half; i++) {
        cos_at[i] = cosf((float)i);
        sin_at[i] = sinf((float)i);
    }
    for (size_t i = 0; i < rows; i++)
        pos[i] = (int32_t)((i * 7) % positions);
    out = room(tile_elems(rows, panels) * 2);
    p = (struct tile_product){.a = {t.a, k},
                              .k = k,
                              .b = t.b,
                              .b_pitch = k * PACK_ELEMS,
                              .panels = panels,
                              .rows = 64};
    tile_set()->product_rope(&p, (struct tiles){out, panels}, 4, heads, &rope);
    for (size_t i = 0; i < rows; i++)
        for (size_t n = 0; n < panels; n++)
            for (size_t j = 0; j < 16; j++) {
                const uint16_t *got = tile_at((struct tiles){out, panels}, i, n);
                const double *want = t.want + (i * panels + n) * 32;
                const size_t at = (size_t)pos[i] * half + n % heads * 16 + j;
                const double c = n < 4 ? cos_at[at] : 1, s = n < 4 ? sin_at[at] : 0;
                const double a = want[j] * c - want[j + 16] * s;
                const double b = want[j + 16] * c + want[j] * s;

                assert_near(bf16_to(got[j]), a, EPS * fabs(a) + bound(&t) * 2);
                assert_near(bf16_to(got[j + 16]), b, EPS * fabs(b) + bound(&t) * 2);
            }
    free(out);
    bench_close(&t);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void swiglu_there_and_back(void **state)
{
    enum { rows = 35, k = 3, panels = 4 };
    struct bench t, back;
    struct tile_product p;
    uint16_t *gate_up, *act;
    struct tiles gu, d_gu;

    (void)state;
    if (!tile_set())
        skip();
    bench_open(&t, rows, k, panels, 0);
    reference(&t, 0);
    gate_up = room(tile_elems(rows, panels) * 2);
    act = room(tile_elems(rows, panels / 2) * 2);
    gu = (struct tiles){gate_up, panels};
    p = (struct tile_product){.a = {t.a, k},
                              .k = k,
                              .b = t.b,
                              .b_pitch = k * PACK_ELEMS,
                              .panels = panels,
                              .rows = 64};
    tile_set()->product_swiglu(&p, gu, (struct tiles){act, panels / 2});
    for (size_t i = 0; i < rows; i++)
        for (size_t n = 0; n < panels * 16; n++) {
            const double *want = t.want + (i * panels + n / 16) * 32;
            const double g = want[n % 16], u = want[16 + n % 16],
                         a = g * sigmoid(g) * u;

            assert_near(bf16_to(tile_at(gu, i, n / 16)[n % 16]), g,
                        EPS * fabs(g) + bound(&t));
            assert_near(bf16_to(tile_at(gu, i, n / 16)[16 + n % 16]), u,
                        EPS * fabs(u) + bound(&t));
            assert_near(
                bf16_to(tile_at((struct tiles){act, panels / 2}, i, n / 32)[n % 32]), a,
                EPS * fabs(a) + 40 * bound(&t));
        }

    bench_open(&back, rows, 2, panels / 2, 0);
    reference(&back, 0);
    d_gu = (struct tiles){t.a, panels}; /* room enough, and not its own input */
    d_gu.at = room(tile_elems(rows, panels) * 2);
    p = (struct tile_product){.a = {back.a, 2},
                              .k = 2,
                              .b = back.b,
                              .b_pitch = 2 * PACK_ELEMS,
                              .panels = panels / 2,
                              .rows = 64};
    tile_set()->product_swiglu_backward(&p, d_gu, gu);
    for (size_t i = 0; i < rows; i++)
        for (size_t n = 0; n < panels * 16; n++) {
            const uint16_t *at = tile_at(gu, i, n / 16), *d = tile_at(d_gu, i, n / 16);
            const double g = bf16_to(at[n % 16]), u = bf16_to(at[16 + n % 16]);
            const double slope = back.want[i * panels * 16 + n], s = sigmoid(g);
            const double d_u = slope * g * s, d_g = slope * u * s * (1 + g * (1 - s));

            assert_near(bf16_to(d[n % 16]), d_g, EPS * fabs(d_g) + 1e-3);
            assert_near(bf16_to(d[16 + n % 16]), d_u, EPS * fabs(d_u) + 1e-3);
        }
    free(d_gu.at);
    free(gate_up);
    free(act);
    bench_close(&t);
    bench_close(&back);
}

static void both_packings_hold_the_same_weights(void **state)
{
    float w[32 * 40];
    uint16_t *forward = room(PACK_ELEMS * 2), *backward = room(PACK_ELEMS * 2);
    struct rng r;

    (void)state;
    if (!tile_set())
        skip();
    rng_init(&r, 5, 1);
    for (size_t i = 0; i < 32 * 40; i++)
        w[i] = rng_normal(&r);
    tile_set()->pack_forward(forward, w, 40);
    tile_set()->pack_backward(backward, w, 40);
    for (size_t out = 0; out < 32; out++)
        for (size_t in = 0; in < 32; in++) {
            assert_int_equal(forward[pack_at(in, out)], bf16_of(w[out * 40 + in]));
            assert_int_equal(backward[pack_at(out, in)], bf16_of(w[out * 40 + in]));
        }
    free(forward);
    free(backward);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_sums),
        cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(swiglu_there_and_back),
        cmocka_unit_test(both_packings_hold_the_same_weights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
