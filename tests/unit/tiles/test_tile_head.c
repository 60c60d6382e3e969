/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head's loss and slopes by tiles against the formula in double, over sizes with
 * and without gaps, logits of any size, and rows alone against rows together.
 */
#include "check.h"

#include <float.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "tiles/tile_head.h"

#if defined(__x86_64__)
/* A head of V words of width D and ROWS rows that it reads. */
struct head_case {
    size_t rows, n_vocab, dim, blocks;
    struct tile_head head;
    struct tile_loss loss;
    float *w; /* (V, D), rounded to bf16 */
    float *x; /* (rows, D), rounded to bf16 */
    float *d; /* (tile_round(rows), blocks * 32) */
    size_t pitch;
};

static void *room(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0xff, bytes); /* NaN: what is read must have been written */
    return p;
}

static void release(struct head_case *c)
{
    free(c->head.forward);
    free(c->head.backward);
    free(c->loss.x.at);
    free(c->loss.scratch);
    free(c->loss.nll);
    free((void *)(uintptr_t)c->loss.target);
    free((void *)(uintptr_t)c->loss.scale);
    free(c->w);
    free(c->x);
    free(c->d);
}

/* Words at both sides of every kind of edge. */
static int32_t edge_target(size_t row, size_t n_vocab)
{
    static const size_t edges[] = {0, 31, 32, 255, 256, 15, 16, 511, 512, 1, 543};
    const size_t n = sizeof(edges) / sizeof(*edges);

    return (int32_t)(row % (n + 1) == 0 ? n_vocab - 1
                                        : edges[row % (n + 1) - 1] % n_vocab);
}

/* x of the case to tiles, a pitch wider than they are. */
static void place_x(struct head_case *c)
{
    const size_t rows = tile_round(c->rows);

    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < c->blocks; b++)
            for (size_t i = 0; i < 32; i++) {
                const size_t k = b * 32 + i;
                const bool there = r < c->rows && k < c->dim;

                tile_at(c->loss.x, r, b)[i] = there ? bf16_of(c->x[r * c->dim + k]) : 0;
            }
}

/* Random x and weights, SIZE the deviation of a logit. */
static void open(struct head_case *c, size_t rows, size_t n_vocab, size_t dim,
                 float size)
{
    const size_t blocks = (dim + 31) / 32, all = tile_round(rows);
    int32_t *target = room(rows * sizeof(*target));
    float *scale = room(rows * sizeof(*scale));
    struct rng rng;

    *c = (struct head_case){rows, n_vocab, dim, blocks, .pitch = blocks + 1};
    rng_init(&rng, rows * 7 + n_vocab, dim);
    c->w = room(n_vocab * dim * sizeof(float));
    c->x = room(rows * dim * sizeof(float));
    c->d = room(all * blocks * 32 * sizeof(float));
    for (size_t i = 0; i < n_vocab * dim; i++)
        c->w[i] = bf16_to(bf16_of(rng_normal(&rng)));
    for (size_t i = 0; i < rows * dim; i++)
        c->x[i] = bf16_to(bf16_of(rng_normal(&rng) * size / sqrtf((float)dim)));
    c->head.blocks = blocks;
    c->head.n_vocab = n_vocab;
    c->head.forward = room(tile_set()->head_bytes(blocks, n_vocab, false));
    c->head.backward = room(tile_set()->head_bytes(blocks, n_vocab, true));
    for (size_t i = 0; i < n_vocab; i += 32)
        tile_set()->head_pack(&c->head, c->w + i * dim, dim, i,
                              n_vocab - i < 32 ? n_vocab - i : 32);
    for (size_t r = 0; r < rows; r++) {
        target[r] = edge_target(r, n_vocab);
        scale[r] = 0.25f + (float)(r % 3);
    }
    c->loss = (struct tile_loss){
        .x = {room(tile_elems(rows, c->pitch) * sizeof(uint16_t)), c->pitch},
        .rows = rows,
        .target = target,
        .scale = scale,
        .nll = room(rows * sizeof(double)),
        .d_x = c->d,
        .scratch = room(tile_set()->head_scratch(&c->head, rows, true))};
    place_x(c);
}

/* What a row should give, and how far a logit may be off. */
struct expected {
    double nll, range, logit_error;
    double *p; /* (V) */
};

static void expect(struct expected *e, const struct head_case *c, size_t r)
{
    double most = -INFINITY, least = INFINITY, sum = 0.0;

    e->logit_error = 0.0;
    for (size_t v = 0; v < c->n_vocab; v++) {
        double dot = 0.0, size = 0.0;

        for (size_t k = 0; k < c->dim; k++) {
            const double p =
                (double)c->x[r * c->dim + k] * (double)c->w[v * c->dim + k];

            dot += p;
            size += fabs(p);
        }
        e->p[v] = dot;
        /* D sums, each rounded once */
        e->logit_error =
            fmax(e->logit_error, (double)(c->dim + 1) * (double)FLT_EPSILON / 2 * size);
        most = fmax(most, dot);
        least = fmin(least, dot);
    }
    for (size_t v = 0; v < c->n_vocab; v++)
        sum += exp(e->p[v] - most);
    e->nll = log(sum) + most - e->p[c->loss.target[r]];
    e->range = fmax(fabs(most), fabs(least));
    for (size_t v = 0; v < c->n_vocab; v++)
        e->p[v] = exp(e->p[v] - most) / sum;
}

/*
 * The sum: V / 32 additions in a lane and 5 across, the exponential 2e-7. The exponent
 * is rounded once, and its base is that of a float's log2(e), 2e-8 off: 2^-22 of the
 * range covers both with the difference to the reference.
 */
static double sum_error(const struct head_case *c, const struct expected *e)
{
    return 2 * e->logit_error + e->range * 0x1p-22 + 4e-7 +
           ((double)c->n_vocab / 32 + 10) * (double)FLT_EPSILON;
}

static void check_slope(const struct head_case *c, const struct expected *e, size_t r)
{
    const double scale = (double)c->loss.scale[r];
    /* exponentials are rounded to bf16, products summed in float */
    const double error = 2 * sum_error(c, e) + 0x1p-8 + (double)c->n_vocab * 0x1p-24;

    double want[2048] = {0}, size[2048] = {0};

    for (size_t v = 0; v < c->n_vocab; v++)
        for (size_t k = 0; k < c->dim; k++) {
            const double pe = e->p[v] * (double)c->w[v * c->dim + k];

            want[k] += pe;
            size[k] += fabs(pe);
        }
    for (size_t k = 0; k < c->dim; k++) {
        const double target = (double)c->w[(size_t)c->loss.target[r] * c->dim + k];

        assert_near(c->d[r * c->blocks * 32 + k], scale * (want[k] - target),
                    scale *
                        (size[k] * (error + 0x1p-22) + fabs(target) * 0x1p-22 + 1e-30));
    }
    for (size_t k = c->dim; k < c->blocks * 32; k++)
        assert_true(c->d[r * c->blocks * 32 + k] == 0.0f);
}

static void check_rows(const struct head_case *c, size_t step)
{
    struct expected e = {.p = room(c->n_vocab * sizeof(double))};

    for (size_t r = 0; r < c->rows; r++) {
        if (r % step && r + 1 != c->rows)
            continue;
        expect(&e, c, r);
        assert_near(c->loss.nll[r], e.nll, sum_error(c, &e));
        check_slope(c, &e, r);
    }
    for (size_t i = c->rows * c->blocks * 32; i < tile_round(c->rows) * c->blocks * 32;
         i++)
        assert_true(c->d[i] == 0.0f);
    free(e.p);
}

static void loss_and_slopes_are_those_of_the_formula(void **state)
{
    /* rows, V, D, every which row is compared */
    static const size_t shapes[][4] = {
        {5, 49152, 64, 4},   {1, 49152, 576, 1}, {300, 300, 64, 7},  {33, 257, 40, 1},
        {32, 32, 576, 3},    {1, 1, 1, 1},       {256, 1000, 40, 5}, {600, 290, 40, 13},
        {33, 300, 2048, 16}, {5, 513, 32, 1},
    };

    (void)state;
    if (!tile_set())
        skip();
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (float size = 0.5f; size < 100.0f; size *= 12.0f) {
            struct head_case c;

            open(&c, shapes[i][0], shapes[i][1], shapes[i][2], size);
            tile_set()->head_loss(&c.head, &c.loss);
            check_rows(&c, shapes[i][3]);
            release(&c);
        }
}

/* Logits from -1e4 to 1e4, each above the one before: every panel is a new maximum. */
static void growing_logits_stay_exact(void **state)
{
    struct head_case c;

    (void)state;
    if (!tile_set())
        skip();
    for (int direction = -1; direction <= 1; direction += 2) {
        open(&c, 3, 2000, 40, 1.0f);
        for (size_t v = 0; v < c.n_vocab; v++)
            for (size_t k = 0; k < c.dim; k++)
                c.w[v * c.dim + k] = bf16_to(bf16_of(((float)v - 1000.0f) / 100.0f));
        for (size_t i = 0; i < c.rows * c.dim; i++)
            c.x[i] =
                bf16_to(bf16_of((float)direction * 25.0f / (float)(1 + i / c.dim)));
        for (size_t i = 0; i < c.n_vocab; i += 32)
            tile_set()->head_pack(&c.head, c.w + i * c.dim, c.dim, i,
                                  c.n_vocab - i < 32 ? c.n_vocab - i : 32);
        place_x(&c);
        tile_set()->head_loss(&c.head, &c.loss);
        assert_true(c.loss.nll[0] > 5e3 || c.loss.nll[1] > 5e3);
        check_rows(&c, 1);
        release(&c);
    }
}

static void the_loss_needs_no_slopes(void **state)
{
    struct head_case c;
    double with[300];

    (void)state;
    if (!tile_set())
        skip();
    open(&c, 300, 1000, 40, 3.0f);
    tile_set()->head_loss(&c.head, &c.loss);
    memcpy(with, c.loss.nll, sizeof(with));
    free(c.loss.scratch);
    free(c.head.backward);
    c.head.backward = NULL;
    c.loss.scratch = room(tile_set()->head_scratch(&c.head, 300, false));
    c.loss.d_x = NULL;
    tile_set()->head_loss(&c.head, &c.loss);
    assert_memory_equal(c.loss.nll, with, sizeof(with));
    release(&c);
}

/* Row R of ALL by itself, by slope and by loss. */
static void check_alone(struct head_case *one, const struct head_case *all, size_t r)
{
    const size_t width = all->blocks * 32 * sizeof(float);

    memcpy(one->x, all->x + r * all->dim, all->dim * sizeof(float));
    *(int32_t *)(uintptr_t)one->loss.target = all->loss.target[r];
    *(float *)(uintptr_t)one->loss.scale = all->loss.scale[r];
    place_x(one);
    tile_set()->head_loss(&all->head, &one->loss);
    assert_memory_equal(one->d, all->d + r * all->blocks * 32, width);
    assert_memory_equal(one->loss.nll, all->loss.nll + r, sizeof(double));
}

static void a_row_depends_on_itself_alone(void **state)
{
    static const size_t picks[] = {0, 1, 15, 16, 31, 32, 351, 352, 600, 699};
    struct head_case all, one; /* two rounds of 352 rows, and one */

    (void)state;
    if (!tile_set())
        skip();
    open(&all, 700, 1100, 40, 8.0f);
    tile_set()->head_loss(&all.head, &all.loss);
    open(&one, 1, 1100, 40, 8.0f);
    for (size_t i = 0; i < sizeof(picks) / sizeof(*picks); i++)
        check_alone(&one, &all, picks[i]);
    release(&one);
    release(&all);
}

/* A pass lays out for its longest chunk and comes with shorter ones. */
static void room_for_many_rows_is_enough_for_few(void **state)
{
    (void)state;
    if (!tile_set())
        skip();
    for (size_t blocks = 1; blocks <= 200; blocks++) {
        const struct tile_head h = {.blocks = blocks};
        const size_t most = tile_set()->head_scratch(&h, 256, true);

        for (size_t rows = 1; rows < 256; rows++)
            assert_true(tile_set()->head_scratch(&h, rows, true) <= most);
    }
}

static void nan_stays_in_its_row(void **state)
{
    struct head_case c;
    double before[64];
    float *d;

    (void)state;
    if (!tile_set())
        skip();
    open(&c, 64, 1000, 40, 3.0f);
    tile_set()->head_loss(&c.head, &c.loss);
    memcpy(before, c.loss.nll, sizeof(before));
    d = room(64 * c.blocks * 32 * sizeof(float));
    memcpy(d, c.d, 64 * c.blocks * 32 * sizeof(float));
    c.x[17 * c.dim + 3] = NAN;
    place_x(&c);
    tile_set()->head_loss(&c.head, &c.loss);
    for (size_t r = 0; r < 64; r++) {
        const size_t at = r * c.blocks * 32;

        if (r == 17) {
            assert_true(isnan(c.loss.nll[r]));
            for (size_t k = 0; k < c.dim; k++)
                assert_true(isnan(c.d[at + k]));
        } else {
            assert_memory_equal(&c.loss.nll[r], &before[r], sizeof(double));
            assert_memory_equal(c.d + at, d + at, c.blocks * 32 * sizeof(float));
        }
    }
    free(d);
    release(&c);
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
        cmocka_unit_test(loss_and_slopes_are_those_of_the_formula),
        cmocka_unit_test(growing_logits_stay_exact),
        cmocka_unit_test(the_loss_needs_no_slopes),
        cmocka_unit_test(a_row_depends_on_itself_alone),
        cmocka_unit_test(room_for_many_rows_is_enough_for_few),
        cmocka_unit_test(nan_stays_in_its_row),
#else
        cmocka_unit_test(skipped),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
