/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The closed form meets the normal equations, tells domains apart, and grows by a column
 * without the others' rows: to the bit what all rows at once give.
 */
#include "check.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/ridge.h"

#define N    ((size_t)24)
#define E    ((size_t)4)
#define ROWS ((size_t)50) /* a domain */

static void row(float *z, size_t domain, size_t i)
{
    struct rng r;

    rng_init(&r, domain, i);
    for (size_t j = 0; j < N; j++)
        z[j] = rng_normal(&r) + (j % E == domain ? 2.0f : 0.0f);
}

static void add_domain(struct ridge_sums *r, size_t domain)
{
    float z[N];

    for (size_t i = 0; i < ROWS; i++) {
        row(z, domain, i);
        ridge_add(r, domain, z);
    }
}

static void the_normal_equations_hold(void **state)
{
    struct artel_error err;
    struct ridge_sums r;
    float w[E * N], b[E];
    const double lambda = 0.01;
    double trace = 0.0;
    const size_t D = N + 1;

    (void)state;
    assert_int_equal(ridge_init(&r, N, E, &err), 0);
    for (size_t d = 0; d < E; d++)
        add_domain(&r, d);
    assert_int_equal(ridge_solve(w, b, &r, lambda, &err), 0);
    for (size_t i = 0; i < D; i++)
        trace += r.g[i * D + i];
    for (size_t e = 0; e < E; e++)
        for (size_t i = 0; i < D; i++) {
            double sum = 0.0;

            for (size_t j = 0; j < D; j++) {
                const double x = (double)(j < N ? w[e * N + j] : b[e]);
                double g = j <= i ? r.g[i * D + j] : r.g[j * D + i];

                g += i == j ? lambda * trace / (double)D : 0.0;
                sum += g * x;
            }
            assert_near(sum, r.s[e * D + i], 1e-3);
        }
    ridge_release(&r);
}

static void domains_are_told_apart(void **state)
{
    struct artel_error err;
    struct ridge_sums r;
    float w[E * N], b[E];
    size_t right = 0;

    (void)state;
    assert_int_equal(ridge_init(&r, N, E, &err), 0);
    for (size_t d = 0; d < E; d++)
        add_domain(&r, d);
    assert_int_equal(ridge_solve(w, b, &r, 0.01, &err), 0);
    for (size_t d = 0; d < E; d++)
        for (size_t i = 0; i < 100; i++) {
            float z[N], best = -INFINITY;
            size_t choice = 0;

            row(z, d, 1000 + i);
            for (size_t e = 0; e < E; e++) {
                float score = b[e];

                for (size_t j = 0; j < N; j++)
                    score += w[e * N + j] * z[j];
                choice = score > best ? e : choice;
                best = score > best ? score : best;
            }
            right += choice == d;
        }
    assert_true(right >= 396); /* of 400 */
    ridge_release(&r);
}

static void a_domain_more_is_a_column_more(void **state)
{
    struct artel_error err;
    struct ridge_sums whole, grown;
    float w[2][E * N], b[2][E];

    (void)state;
    assert_int_equal(ridge_init(&whole, N, E, &err), 0);
    assert_int_equal(ridge_init(&grown, N, E - 1, &err), 0);
    for (size_t d = 0; d < E; d++)
        add_domain(&whole, d);
    for (size_t d = 0; d + 1 < E; d++)
        add_domain(&grown, d);
    assert_int_equal(ridge_grow(&grown, &err), 0);
    add_domain(&grown, E - 1);
    assert_int_equal(ridge_solve(w[0], b[0], &whole, 0.01, &err), 0);
    assert_int_equal(ridge_solve(w[1], b[1], &grown, 0.01, &err), 0);
    assert_memory_equal(w[0], w[1], sizeof(w[0]));
    assert_memory_equal(b[0], b[1], sizeof(b[0]));
    ridge_release(&whole);
    ridge_release(&grown);
}

static void what_cannot_be_solved_is_said(void **state)
{
    struct artel_error err;
    struct ridge_sums r;
    float w[E * N], b[E], z[N];

    (void)state;
    assert_int_equal(ridge_init(&r, N, E, &err), 0);
    assert_int_equal(ridge_solve(w, b, &r, 0.01, &err), ARTEL_EFORMAT);
    assert_string_equal(err.code, "MIX21");
    for (size_t j = 0; j < N; j++)
        z[j] = NAN;
    ridge_add(&r, 0, z);
    assert_int_equal(ridge_solve(w, b, &r, 0.01, &err), ARTEL_EFORMAT);
    ridge_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_normal_equations_hold),
        cmocka_unit_test(domains_are_told_apart),
        cmocka_unit_test(a_domain_more_is_a_column_more),
        cmocka_unit_test(what_cannot_be_solved_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
