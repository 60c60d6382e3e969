/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prototype is the first right singular vector of B A: against the dense product,
 * multiplied with itself until one direction is left.
 */
#include "check.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/arrow.h"

#define N ((size_t)45)
#define M ((size_t)31)

static void dense_direction(double *v, const struct lora *l)
{
    double *w = calloc(M * N, sizeof(*w)), u[M];

    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++)
            for (size_t r = 0; r < l->rank; r++)
                w[i * N + j] += (double)l->b[i * l->rank + r] * (double)l->a[r * N + j];
    for (size_t j = 0; j < N; j++)
        v[j] = 1.0 + (double)j / 100.0;
    for (size_t turn = 0; turn < 5000; turn++) {
        double length = 0.0;

        for (size_t i = 0; i < M; i++) {
            u[i] = 0.0;
            for (size_t j = 0; j < N; j++)
                u[i] += w[i * N + j] * v[j];
        }
        for (size_t j = 0; j < N; j++) {
            v[j] = 0.0;
            for (size_t i = 0; i < M; i++)
                v[j] += w[i * N + j] * u[i];
            length += v[j] * v[j];
        }
        for (size_t j = 0; j < N; j++)
            v[j] /= sqrt(length);
    }
    free(w);
}

static void a_prototype_is_the_first_right_singular_vector(void **state)
{
    static const size_t ranks[] = {1, 2, 8, 20, 40};

    (void)state;
    for (size_t k = 0; k < sizeof(ranks) / sizeof(ranks[0]); k++) {
        const size_t R = ranks[k];
        float *a = malloc(R * N * sizeof(*a)), *b = malloc(M * R * sizeof(*b)), v[N];
        const struct lora l = {
            .rank = R, .n_in = N, .n_out = M, .scale = 2.0f, .a = a, .b = b};
        struct artel_error err;
        double expected[N], length = 0.0, same = 0.0;
        struct rng rng;

        rng_init(&rng, 7, R);
        for (size_t i = 0; i < R * N; i++)
            a[i] = rng_normal(&rng);
        for (size_t i = 0; i < M * R; i++)
            b[i] = rng_normal(&rng) * (i % R ? 0.3f : 1.0f);
        if (R == 20) /* A of a lesser rank than it has rows */
            for (size_t j = 0; j < N; j++)
                a[3 * N + j] = a[4 * N + j] = 0.0f;
        assert_int_equal(arrow_prototype(v, &l, &err), 0);
        dense_direction(expected, &l);
        for (size_t j = 0; j < N; j++) {
            same += expected[j] * (double)v[j];
            length += (double)v[j] * (double)v[j];
        }
        assert_near(length, 1.0, 1e-6);
        assert_near(fabs(same), 1.0, 1e-6);
        free(a);
        free(b);
    }
}

static void a_fresh_expert_has_none(void **state)
{
    float a[2 * N], b[2 * M] = {0.0f}, v[N];
    const struct lora l = {.rank = 2, .n_in = N, .n_out = M, .a = a, .b = b};
    struct artel_error err;

    (void)state;
    for (size_t i = 0; i < 2 * N; i++)
        a[i] = (float)(i % 7) - 3.0f;
    assert_int_equal(arrow_prototype(v, &l, &err), 0);
    for (size_t j = 0; j < N; j++)
        assert_true(v[j] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prototype_is_the_first_right_singular_vector),
        cmocka_unit_test(a_fresh_expert_has_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
