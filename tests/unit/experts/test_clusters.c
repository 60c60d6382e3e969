/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters move as their formulas say, nothing yields at home, and what is far yields.
 */
#include "check.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "experts/clusters.h"

#define C ((size_t)3)
#define D ((size_t)40)

static const struct cluster_options usual = {DISTANCE_MEAN, 0.99f, 1.0f};

struct room {
    struct clusters c;
    float *state;
};

static void open_room(struct room *r)
{
    r->state = calloc(clusters_floats(C, D), sizeof(*r->state));
    assert_non_null(r->state);
    clusters_view(&r->c, r->state, C, D);
}

/* A sample of group G: about 10 G in every channel, with deviation SPREAD. */
static void sample(float *x, struct rng *rng, size_t g, float spread)
{
    for (size_t j = 0; j < D; j++)
        x[j] = 10.0f * (float)g + spread * rng_normal(rng);
}

static void nothing_yields_before_64_samples(void **state)
{
    struct room r;
    struct rng rng;
    float x[D], far[D];

    (void)state;
    open_room(&r);
    rng_init(&rng, 1, 0);
    for (size_t j = 0; j < D; j++)
        far[j] = 1e6f;
    for (size_t i = 0; i < CLUSTERS_FIRST; i++) {
        assert_false(clusters_ready(&r.c));
        assert_true(clusters_distance(&r.c, far, DISTANCE_MEAN) == 0.0f);
        assert_true(clusters_yield(&r.c, 1e6f, 0.99f, true) == 0.0f);
        sample(x, &rng, i % 3, 1.0f);
        clusters_add(&r.c, x, &usual);
    }
    assert_true(clusters_ready(&r.c));
    assert_true(clusters_distance(&r.c, far, DISTANCE_MEAN) > 0.0f);
    free(r.state);
}

/* The same in double, as the header writes it. */
static void an_update_is_the_formulas(void **state)
{
    struct room r;
    struct rng rng;
    float x[CLUSTERS_FIRST + 1][D];
    double v[D];
    const size_t n = CLUSTERS_FIRST;

    (void)state;
    open_room(&r);
    rng_init(&rng, 2, 0);
    for (size_t i = 0; i <= n; i++)
        sample(x[i], &rng, i % 3, 1.0f);
    for (size_t i = 0; i < n; i++)
        clusters_add(&r.c, x[i], &usual);
    for (size_t j = 0; j < D; j++) {
        double mean = 0.0;

        v[j] = 0.0;
        for (size_t i = 0; i < n; i++)
            mean += (double)x[i][j] / (double)n;
        for (size_t i = 0; i < n; i++)
            v[j] += ((double)x[i][j] - mean) * ((double)x[i][j] - mean) / (double)n;
        for (size_t c = 0; c < C; c++) {
            assert_true(r.c.center[c * D + j] == x[c][j]);
            assert_near(r.c.variance[c * D + j], v[j], 1e-4 * v[j]);
        }
    }
    clusters_add(&r.c, x[n], &usual); /* of group 64 % 3 = 1 */
    for (size_t j = 0; j < D; j++) {
        const double apart = (double)x[n][j] - (double)x[1][j];

        assert_near(r.c.center[D + j], 0.99 * (double)x[1][j] + 0.01 * (double)x[n][j],
                    1e-5);
        assert_near(r.c.variance[D + j], 0.99 * v[j] + 0.01 * apart * apart,
                    1e-4 * v[j]);
        assert_true(r.c.center[j] == x[0][j]); /* the others stay */
        assert_true(r.c.center[2 * D + j] == x[2][j]);
    }
    free(r.state);
}

static void train(struct room *r, struct rng *rng, size_t n)
{
    float x[D];

    for (size_t i = 0; i < n; i++) {
        sample(x, rng, i % 3, 1.0f);
        clusters_add(&r->c, x, &usual);
    }
}

static void far_inputs_yield_and_near_ones_do_not(void **state)
{
    struct room r;
    struct rng rng;
    float x[D];
    double home = 0.0;

    (void)state;
    open_room(&r);
    rng_init(&rng, 3, 0);
    train(&r, &rng, 3000);
    for (size_t i = 0; i < 100; i++) {
        sample(x, &rng, i % 3, 1.0f);
        home += (double)clusters_yield(&r.c, clusters_distance(&r.c, x, DISTANCE_MEAN),
                                       0.99f, false) /
                100.0;
    }
    assert_true(home < 0.3);
    for (size_t far = 6; far < 60; far *= 3) {
        float d;

        sample(x, &rng, far, 1.0f);
        d = clusters_distance(&r.c, x, DISTANCE_MEAN);
        assert_true(clusters_yield(&r.c, d, 0.99f, false) > 10.0f);
        assert_true(clusters_distance(&r.c, x, DISTANCE_MAX) > d);
    }
    free(r.state);
}

/* In training the mean counts the distance before it is used. */
static void training_counts_a_distance_before_use(void **state)
{
    struct room r;
    struct rng rng;
    float x[D], d, mean, expected;

    (void)state;
    open_room(&r);
    rng_init(&rng, 4, 0);
    train(&r, &rng, 500);
    sample(x, &rng, 7, 1.0f);
    d = clusters_distance(&r.c, x, DISTANCE_MEAN);
    mean = r.c.counts[2];
    expected = d / (0.99f * mean + 0.01f * d) - 1.0f;
    assert_near(clusters_yield(&r.c, d, 0.99f, true), expected, 1e-5 * expected);
    assert_near(clusters_yield(&r.c, d, 0.99f, false), d / mean - 1.0f,
                1e-5 * (d / mean));
    assert_true(r.c.counts[2] == mean); /* asking changes nothing */
    clusters_add(&r.c, x, &usual);
    assert_near(r.c.counts[2], 0.99f * mean + 0.01f * d, 1e-5 * d);
    free(r.state);
}

/* Samples that are all the same make one centre, and the first other one the next. */
static void centres_are_distinct(void **state)
{
    struct room r;
    float x[D];

    (void)state;
    open_room(&r);
    for (size_t j = 0; j < D; j++)
        x[j] = 1.0f;
    for (size_t i = 0; i < 2 * (size_t)CLUSTERS_FIRST; i++)
        clusters_add(&r.c, x, &usual);
    assert_true(r.c.counts[0] == 1.0f);
    assert_true(clusters_distance(&r.c, x, DISTANCE_MEAN) == 0.0f);
    x[3] = 2.0f;
    clusters_add(&r.c, x, &usual);
    assert_true(r.c.counts[0] == 2.0f);
    assert_true(clusters_distance(&r.c, x, DISTANCE_MAX) == 0.0f);
    free(r.state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_yields_before_64_samples),
        cmocka_unit_test(an_update_is_the_formulas),
        cmocka_unit_test(far_inputs_yield_and_near_ones_do_not),
        cmocka_unit_test(training_counts_a_distance_before_use),
        cmocka_unit_test(centres_are_distinct),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
