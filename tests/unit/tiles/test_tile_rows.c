/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The norm and its backward, SwiGLU, and rows from and to tiles, against the formulas
 * in double; gaps stay zero, and nothing outside the rows asked for is written.
 */
#include "check.h"

#include <float.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "tiles/tile_head.h"

#if defined(__x86_64__)
#define HALF_ULP 0x1p-8 /* of bf16, relative */
#define EPS      1e-5f

static const size_t dims[] = {576, 64, 40, 1, 2048};
static const size_t row_counts[] = {1, 5, 32, 33, 300};

#define N_DIMS (sizeof(dims) / sizeof(*dims))
#define N_ROWS (sizeof(row_counts) / sizeof(*row_counts))

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0xff, bytes);
    return p;
}

static struct tiles tiles_room(size_t rows, size_t pitch)
{
    return (struct tiles){room(tile_elems(rows, pitch) * sizeof(uint16_t)), pitch};
}

/* Random rows of DIM floats, their gaps zero. */
static float *rows_room(size_t rows, size_t dim, uint64_t seed)
{
    const size_t width = tile_round(dim);
    float *x = room(rows * width * sizeof(float));
    struct rng rng;

    rng_init(&rng, seed, dim);
    for (size_t i = 0; i < rows * width; i++)
        x[i] = i % width < dim ? rng_normal(&rng) : 0.0f;
    return x;
}

/* Gains of both signs, some of them tiny; those of gaps must not matter. */
static float *gain_room(size_t dim)
{
    float *gain = room(tile_round(dim) * sizeof(float));

    for (size_t i = 0; i < dim; i++)
        gain[i] =
            i % 7 == 3 ? 1e-20f : (i % 3 ? 0.5f : -1.5f) + 0.01f * (float)(i % 50);
    return gain;
}

static double element(struct tiles t, size_t row, size_t i)
{
    return (double)bf16_to(tile_at(t, row, i / 32)[i % 32]);
}

static void check_norm(size_t rows, size_t dim)
{
    const size_t width = tile_round(dim), blocks = width / 32;
    float *x = rows_room(rows, dim, 1), *gain = gain_room(dim);
    float *inv_rms = room(rows * sizeof(float));
    struct tiles out = tiles_room(rows, blocks + 1);
    const size_t first = rows / 2; /* in two calls, as two threads would */

    tile_set()->norm(out, inv_rms, x, gain, EPS, dim, blocks, 0, first);
    tile_set()->norm(out, inv_rms, x, gain, EPS, dim, blocks, first, rows - first);
    for (size_t r = 0; r < rows; r++) {
        double sum = 0.0, inv;

        for (size_t i = 0; i < dim; i++)
            sum += (double)x[r * width + i] * (double)x[r * width + i];
        inv = 1.0 / sqrt(sum / (double)dim + (double)EPS);
        /* a lane adds D / 32 squares, 5 sums across, then root, division, addition */
        assert_near(inv_rms[r], inv, inv * (double)(dim / 32 + 10) * 0x1p-24);
        for (size_t i = 0; i < width; i++) {
            const double want =
                i < dim ? (double)x[r * width + i] * inv * (double)gain[i] : 0.0;

            assert_near(element(out, r, i), want,
                        fabs(want) * (HALF_ULP + (double)(dim / 32 + 14) * 0x1p-24));
        }
        assert_int_equal(tile_at(out, r, blocks)[5], 0xffff);
    }
    free(x);
    free(gain);
    free(inv_rms);
    free(out.at);
}

static void norm_is_that_of_the_formula(void **state)
{
    (void)state;
    if (!tile_set())
        skip();
    for (size_t i = 0; i < N_DIMS; i++)
        for (size_t j = 0; j < N_ROWS; j++)
            check_norm(row_counts[j], dims[i]);
}

struct backward_case {
    size_t rows, dim, width;
    float *x, *gain, *d_y, *before, *d_x, *inv_rms;
    struct tiles y, out;
};

/* Row R against the formula over the rounded y, which is what the step keeps. */
static void check_slopes(const struct backward_case *c, size_t r)
{
    const size_t at = r * c->width;
    const double inv = (double)c->inv_rms[r];
    double dot = 0.0, size = 0.0;

    for (size_t i = 0; i < c->dim; i++) {
        const double p = (double)c->d_y[at + i] * element(c->y, r, i);

        dot += p / (double)c->dim;
        size += fabs(p) / (double)c->dim;
    }
    for (size_t i = 0; i < c->width; i++) {
        const double before = (double)c->before[at + i];
        double plain, turned, want;

        if (i >= c->dim) {
            assert_true(c->d_x[at + i] == 0.0f);
            assert_true(!c->out.at || element(c->out, r, i) == 0.0);
            continue;
        }
        plain = element(c->y, r, i) / (double)c->gain[i];
        turned = (double)c->gain[i] * (double)c->d_y[at + i];
        want = before + inv * (turned - plain * dot);
        /* D / 32 + 5 sums of the mean, and a few roundings of each term */
        assert_near(c->d_x[at + i], want,
                    inv * fabs(plain) * size * (double)(c->dim / 32 + 12) * 0x1p-24 +
                        (fabs(before) + inv * fabs(turned)) * 0x1p-22);
        if (c->out.at)
            assert_int_equal(tile_at(c->out, r, i / 32)[i % 32],
                             bf16_of(c->d_x[at + i]));
    }
}

static void check_backward(size_t rows, size_t dim, bool with_tiles)
{
    const size_t width = tile_round(dim), blocks = width / 32;
    struct backward_case c = {.rows = rows,
                              .dim = dim,
                              .width = width,
                              .x = rows_room(rows, dim, 1),
                              .gain = gain_room(dim),
                              .d_y = rows_room(rows, dim, 2),
                              .before = rows_room(rows, dim, 3),
                              .d_x = rows_room(rows, dim, 3),
                              .inv_rms = room(rows * sizeof(float)),
                              .y = tiles_room(rows, blocks)};

    if (with_tiles)
        c.out = tiles_room(rows, blocks + 2);
    tile_set()->norm(c.y, c.inv_rms, c.x, c.gain, EPS, dim, blocks, 0, rows);
    tile_set()->norm_backward(c.out, c.d_x, c.d_y, c.y, c.inv_rms, c.gain, dim, blocks,
                              0, rows);
    for (size_t r = 0; r < rows; r++)
        check_slopes(&c, r);
    free(c.x);
    free(c.gain);
    free(c.d_y);
    free(c.before);
    free(c.d_x);
    free(c.inv_rms);
    free(c.y.at);
    free(c.out.at);
}

static void norm_backward_is_that_of_the_formula(void **state)
{
    (void)state;
    if (!tile_set())
        skip();
    for (size_t i = 0; i < N_DIMS; i++)
        for (size_t j = 0; j < N_ROWS; j++)
            check_backward(row_counts[j], dims[i], j % 2);
}

static void rows_go_to_tiles(void **state)
{
    const size_t rows = 37, blocks = 3, pitch = 101;
    struct tiles t;
    struct rng rng;
    float *x;

    (void)state;
    if (!tile_set())
        skip();
    x = room(rows * pitch * sizeof(float));
    t = tiles_room(rows, blocks + 1);
    rng_init(&rng, 1, 1);
    for (size_t i = 0; i < rows * pitch; i++)
        x[i] = rng_normal(&rng);
    tile_set()->to_tiles(t, x, pitch, blocks, 5, rows - 5);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < blocks * 32; i++) {
            const uint16_t want = r < 5 ? 0xffff : bf16_of(x[r * pitch + i]);

            assert_int_equal(tile_at(t, r, i / 32)[i % 32], want);
        }
        assert_int_equal(tile_at(t, r, blocks)[0], 0xffff);
    }
    free(x);
    free(t.at);
}

static void swiglu_is_that_of_the_formula(void **state)
{
    const size_t rows = 35, blocks = 5;
    struct tiles gate_up, act;
    struct rng rng;

    (void)state;
    if (!tile_set())
        skip();
    gate_up = tiles_room(rows, 2 * blocks);
    act = tiles_room(rows, blocks + 1);
    rng_init(&rng, 1, 1);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < 2 * blocks * 32; i++)
            tile_at(gate_up, r, i / 32)[i % 32] =
                bf16_of(rng_normal(&rng) * (r % 5 == 4 ? 200.0f : 3.0f));
    tile_set()->swiglu(act, gate_up, blocks, 0, rows);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < blocks * 32; i++) {
            const double gate = element(gate_up, r, i / 16 * 32 + i % 16);
            const double up = element(gate_up, r, i / 16 * 32 + 16 + i % 16);
            const double want = gate * up / (1.0 + exp(-gate));

            /* the exponent's rounding grows with the gate; below e^-87 all is zero */
            assert_near(element(act, r, i), want,
                        fabs(want) * (HALF_ULP + 1e-6 + fabs(gate) * 0x1p-22) +
                            fabs(gate * up) * 0x1p-124);
        }
        assert_int_equal(tile_at(act, r, blocks)[31], 0xffff);
    }
    free(gate_up.at);
    free(act.at);
}
#else
static void skipped(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#if defined(__x86_64__)
        cmocka_unit_test(norm_is_that_of_the_formula),
        cmocka_unit_test(norm_backward_is_that_of_the_formula),
        cmocka_unit_test(rows_go_to_tiles),
        cmocka_unit_test(swiglu_is_that_of_the_formula),
#else
        cmocka_unit_test(skipped),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
