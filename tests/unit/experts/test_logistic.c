/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The classifier's minimum is one: the loss's slopes, by finite differences of a dense
 * reference, are zero there; rows that can be told apart are.
 */
#include "check.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/logistic.h"

#define N ((size_t)13)
#define E ((size_t)3)

static void fill(struct labelled_rows *r, size_t n, float apart)
{
    struct artel_error err;
    struct rng rng;
    float z[N];

    *r = (struct labelled_rows){.dim = N};
    rng_init(&rng, 5, 0);
    for (size_t i = 0; i < n; i++) {
        const uint32_t label = (uint32_t)(i % E);

        for (size_t j = 0; j < N; j++)
            z[j] = 20.0f * (rng_normal(&rng) + (j % E == label ? apart : 0.0f));
        assert_int_equal(labelled_rows_add(r, label, z, &err), 0);
    }
}

static double loss(const float *w, const float *b, const struct labelled_rows *r,
                   double lambda)
{
    double sum = 0, squares = 0, size = 0;

    for (size_t i = 0; i < r->n * N; i++)
        size += (double)r->z[i] * (double)r->z[i] / (double)(r->n * N);
    for (size_t i = 0; i < r->n; i++) {
        double x[E], total = 0;

        for (size_t e = 0; e < E; e++) {
            x[e] = (double)b[e];
            for (size_t j = 0; j < N; j++)
                x[e] += (double)w[e * N + j] * (double)r->z[i * N + j];
            total += exp(x[e]);
        }
        sum += (log(total) - x[r->label[i]]) / (double)r->n;
    }
    for (size_t k = 0; k < E * N; k++)
        squares += (double)w[k] * (double)w[k] * size;
    return sum + lambda / 2 * squares;
}

static void the_slopes_are_zero_at_the_minimum(void **state)
{
    const double lambda = 0.02;
    struct labelled_rows r;
    struct artel_error err;
    float w[E * N], b[E], w2[E * N], b2[E];
    double at;

    (void)state;
    fill(&r, 300, 0.4f);
    assert_int_equal(logistic_solve(w, b, &r, E, lambda, &err), 0);
    at = loss(w, b, &r, lambda);
    for (size_t k = 0; k < E * N; k++) {
        const float kept = w[k], step = 1e-3f;
        double up, down;

        w[k] = kept + step;
        up = loss(w, b, &r, lambda);
        w[k] = kept - step;
        down = loss(w, b, &r, lambda);
        w[k] = kept;
        assert_true(up > at && down > at);
        assert_near((up - down) / (2 * (double)step * 20), 0, 1e-4);
    }
    /* The same rows, the same bits. */
    assert_int_equal(logistic_solve(w2, b2, &r, E, lambda, &err), 0);
    assert_memory_equal(w, w2, sizeof(w));
    assert_memory_equal(b, b2, sizeof(b));
    labelled_rows_release(&r);
}

static void labels_are_told_apart(void **state)
{
    struct labelled_rows r;
    struct artel_error err;
    float w[E * N], b[E];
    size_t right = 0;

    (void)state;
    fill(&r, 240, 3.0f);
    assert_int_equal(logistic_solve(w, b, &r, E, 1e-3, &err), 0);
    for (size_t i = 0; i < r.n; i++) {
        double best = -1e30;
        size_t choice = 0;

        for (size_t e = 0; e < E; e++) {
            double x = (double)b[e];

            for (size_t j = 0; j < N; j++)
                x += (double)w[e * N + j] * (double)r.z[i * N + j];
            choice = x > best ? e : choice;
            best = x > best ? x : best;
        }
        right += choice == r.label[i];
    }
    assert_int_equal(right, r.n);
    labelled_rows_release(&r);
}

/* One label alone is certain; without rows, or with numbers that are none, it is said. */
static void what_cannot_be_found_is_said(void **state)
{
    struct labelled_rows r = {.dim = N};
    struct artel_error err;
    float w[E * N], b[E], z[N];

    (void)state;
    assert_int_equal(logistic_solve(w, b, &r, E, 1e-3, &err), ARTEL_EFORMAT);
    assert_string_equal(err.code, "MIX21");
    for (size_t j = 0; j < N; j++)
        z[j] = 1.0f;
    assert_int_equal(labelled_rows_add(&r, 0, z, &err), 0);
    assert_int_equal(logistic_solve(w, b, &r, 1, 1e-3, &err), 0);
    for (size_t j = 0; j < N; j++)
        assert_true(w[j] == 0.0f);
    z[3] = NAN;
    assert_int_equal(labelled_rows_add(&r, 0, z, &err), 0);
    assert_int_equal(logistic_solve(w, b, &r, E, 1e-3, &err), ARTEL_EFORMAT);
    labelled_rows_release(&r);
}

/* Every third number is left, the others are 0; what is not told is 0 too. */
static void sparse_rows_give_the_bits_of_dense_ones(void **state)
{
    struct labelled_rows dense, sparse = {.dim = N, .sparse = true};
    float w[2][E * N], b[2][E];
    struct artel_error err;

    (void)state;
    fill(&dense, 300, 0.5f);
    for (size_t i = 0; i < dense.n; i++) {
        uint32_t at[N];
        float z[N];
        size_t n = 0;

        for (size_t j = 0; j < N; j++) {
            float *const x = &dense.z[i * N + j];

            *x = (i + j) % 3 && i != 7 ? 0.0f : *x;
            *x = i == 8 ? 0.0f : *x; /* a row of nothing */
            if (*x != 0.0f) {
                at[n] = (uint32_t)j;
                z[n++] = *x;
            }
        }
        assert_int_equal(
            labelled_rows_add_sparse(&sparse, dense.label[i], at, z, n, &err), 0);
    }
    assert_int_equal(logistic_solve(w[0], b[0], &dense, E, 1e-3, &err), 0);
    assert_int_equal(logistic_solve(w[1], b[1], &sparse, E, 1e-3, &err), 0);
    assert_memory_equal(w[0], w[1], sizeof(w[0]));
    assert_memory_equal(b[0], b[1], sizeof(b[0]));
    labelled_rows_release(&dense);
    labelled_rows_release(&sparse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_slopes_are_zero_at_the_minimum),
        cmocka_unit_test(labels_are_told_apart),
        cmocka_unit_test(what_cannot_be_found_is_said),
        cmocka_unit_test(sparse_rows_give_the_bits_of_dense_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
