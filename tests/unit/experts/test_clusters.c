/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters move as their formulas say, nothing yields at home, and what is far yields.
 */
#include "check.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "experts/clusters.h"
#include "support/plain_clusters.h"

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

/* Clusters as if 64 samples had been seen, N of them there. */
static void set_ready(struct room *r, size_t n)
{
    r->c.counts[0] = (float)n;
    r->c.counts[1] = CLUSTERS_FIRST;
    r->c.counts[2] = 0.25f;
    assert_true(clusters_valid(&r->c));
}

/*
 * The origin has another nearest centre in each reading of the word:
 *
 *     centre               (0, 2)   (3, 0)   (0, 4)
 *     its variances        (25, 1)  (2, 1)   (25, 16)   whose means are (52/3, 6)
 *     squares                 4        9       16
 *     over the means       0.67     0.52     2.67
 *     over its own            4     4.50        1
 */
static void the_nearest_is_scaled_by_the_mean_variance(void **state)
{
    static const float center[3][2] = {{0, 2}, {3, 0}, {0, 4}};
    static const float variance[3][2] = {{25, 1}, {2, 1}, {25, 16}};
    static const double origin[D];
    const double beyond = 3.0 / sqrt(2.0 + 1e-6) - 1.0;
    const float x[D] = {0.0f};
    struct room r;

    (void)state;
    open_room(&r);
    for (size_t i = 0; i < C * D; i++)
        r.c.variance[i] = 1.0f;
    for (size_t i = 0; i < C; i++)
        for (size_t j = 0; j < 2; j++) {
            r.c.center[i * D + j] = center[i][j];
            r.c.variance[i * D + j] = variance[i][j];
        }
    set_ready(&r, C);
    assert_int_equal(plain_nearest(r.c.center, r.c.variance, C, D, origin), 1);
    assert_near(clusters_distance(&r.c, x, DISTANCE_MEAN), beyond / (double)D, 1e-8);
    assert_near(clusters_distance(&r.c, x, DISTANCE_MAX), beyond, 1e-6);
    clusters_add(&r.c, x, &usual); /* moves that one alone */
    assert_near(r.c.center[D], 0.99 * 3.0, 1e-6);
    assert_near(r.c.variance[D], 0.99 * 2.0 + 0.01 * 9.0, 1e-6);
    assert_true(r.c.center[1] == 2.0f && r.c.center[2 * D + 1] == 4.0f);
    free(r.state);
}

/* Clusters of many shapes, one channel without any variance, against plain loops. A centre
 * that is not there yet, though it lies at the sample, is not asked. */
static void distances_are_the_formulas(void **state)
{
    size_t met[3] = {0}, inside = 0;
    struct rng rng;

    (void)state;
    rng_init(&rng, 5, 0);
    for (size_t trial = 0; trial < 300; trial++) {
        const size_t n = 1 + trial % C;
        const float reach = 0.5f + (float)(trial % 7);
        struct room r;
        float x[D];
        double wide[D], mean, most;

        open_room(&r);
        for (size_t j = 0; j < D; j++) {
            x[j] = rng_normal(&rng);
            wide[j] = (double)x[j];
            for (size_t i = 0; i < C; i++) {
                r.c.center[i * D + j] =
                    i < n ? x[j] + reach * (rng_uniform(&rng) - 0.5f) : x[j];
                r.c.variance[i * D + j] = j ? expf(0.7f * rng_normal(&rng)) : 0.0f;
            }
        }
        if (trial % 2) /* or the channel without variance outweighs all others */
            for (size_t i = 0; i < C; i++)
                r.c.center[i * D] = x[0] + (i < n ? 2e-4f * (float)(i + 1) : 0.0f);
        set_ready(&r, n);
        met[plain_nearest(r.c.center, r.c.variance, n, D, wide)]++;
        mean = plain_distance(r.c.center, r.c.variance, n, D, wide, false);
        most = plain_distance(r.c.center, r.c.variance, n, D, wide, true);
        inside += mean == 0.0 && most == 0.0;
        assert_near(clusters_distance(&r.c, x, DISTANCE_MEAN), mean, 1e-6 * mean);
        assert_near(clusters_distance(&r.c, x, DISTANCE_MAX), most, 1e-6 * most);
        free(r.state);
    }
    for (size_t i = 0; i < C; i++)
        assert_true(met[i] > 20);
    assert_true(inside > 5); /* within one sigma everywhere: no distance at all */
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
        cmocka_unit_test(the_nearest_is_scaled_by_the_mean_variance),
        cmocka_unit_test(distances_are_the_formulas),
        cmocka_unit_test(far_inputs_yield_and_near_ones_do_not),
        cmocka_unit_test(training_counts_a_distance_before_use),
        cmocka_unit_test(centres_are_distinct),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
