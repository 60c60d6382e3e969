/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three products in all their ways through the code (in place, packed, cut
 * along k, shared), against sums in double and against themselves.
 */
#include "check.h"

#include <float.h>
#include <omp.h>

#include "base/rng.h"
#include "math/matmul.h"

#define MAX_FLOATS 150000

static float a[MAX_FLOATS], b[MAX_FLOATS], c[MAX_FLOATS], c2[MAX_FLOATS];

enum form { NN, NT, TN };

static void fill(float *p, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 1);
    for (size_t i = 0; i < n; i++)
        p[i] = rng_normal(&r);
}

static void product(enum form f, float *out, float beta, const float *left, size_t m,
                    size_t n, size_t k)
{
    (f == NN ? gemm_nn : f == NT ? gemm_nt : gemm_tn)(out, beta, left, b, m, n, k);
}

static void check(enum form f, size_t m, size_t n, size_t k)
{
    fill(a, m * k, 1);
    fill(b, n * k, 2);
    for (int beta = 0; beta < 2; beta++) {
        for (size_t i = 0; i < m * n; i++)
            c[i] = beta ? 2.0f : NAN;
        c[m * n] = 77.0f;
        product(f, c, (float)beta, a, m, n, k);
        assert_true(c[m * n] == 77.0f);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) {
                double sum = beta ? 2.0 : 0.0, size = sum;

                for (size_t l = 0; l < k; l++) {
                    const double p = (double)a[f == TN ? l * m + i : i * k + l] *
                                     (double)b[f == NT ? j * k + l : l * n + j];

                    sum += p;
                    size += fabs(p);
                }
                /* k sums and products, each rounded once to 2^-24 */
                assert_near(c[i * n + j], sum,
                            (double)(k + 1) * (double)FLT_EPSILON * size);
            }
    }
}

static void products_match_sums_in_double(void **state)
{
    static const size_t shapes[][3] = {
        {1, 1, 1},    {1, 8, 57},   {8, 1, 57},   {5, 7, 0},    {33, 49, 17},
        {64, 50, 16}, {20, 200, 3}, {70, 30, 90}, {17, 9, 800}, {3, 400, 130},
    };

    (void)state;
    for (enum form f = NN; f <= TN; f++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++)
            check(f, shapes[s][0], shapes[s][1], shapes[s][2]);
}

static void a_row_depends_on_itself_alone(void **state)
{
    const size_t m = 60, n = 150, k = 410;

    (void)state;
    fill(a, m * k, 1);
    fill(b, n * k, 2);
    for (enum form f = NN; f <= NT; f++) {
        product(f, c, 0.0f, a, m, n, k);
        for (size_t rows = 1; rows < m; rows++) {
            product(f, c2, 0.0f, a + (m - rows) * k, rows, n, k);
            assert_memory_equal(c2, c + (m - rows) * n, rows * n * sizeof(float));
        }
    }
}

static void threads_move_no_bit(void **state)
{
    const size_t m = 60, n = 150, k = 410;
    const int before = omp_get_max_threads();

    (void)state;
    fill(a, m * k, 1);
    fill(b, n * k, 2);
    for (enum form f = NN; f <= TN; f++) {
        omp_set_num_threads(1);
        product(f, c, 0.0f, a, m, n, k);
        for (int threads = 2; threads < 6; threads++) {
            omp_set_num_threads(threads);
            memset(c2, 0, m * n * sizeof(float));
            product(f, c2, 0.0f, a, m, n, k);
            assert_memory_equal(c2, c, m * n * sizeof(float));
        }
    }
    omp_set_num_threads(before);
}

static void strides_leave_the_gaps_alone(void **state)
{
    const size_t m = 19, n = 21, k = 23;
    const struct strides ld = {30, 40, 50};

    (void)state;
    fill(a, 40 * 40, 1);
    fill(b, 50 * 50, 2);
    for (enum form f = NN; f <= TN; f++) {
        for (size_t i = 0; i < m * ld.c; i++)
            c[i] = 77.0f;
        (f == NN   ? gemm_nn_strided
         : f == NT ? gemm_nt_strided
                   : gemm_tn_strided)(c, 0.0f, a, b, m, n, k, ld);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < ld.c; j++) {
                double sum = 0;

                if (j >= n) {
                    assert_true(c[i * ld.c + j] == 77.0f);
                    continue;
                }
                for (size_t l = 0; l < k; l++)
                    sum += (double)a[f == TN ? l * ld.a + i : i * ld.a + l] *
                           (double)b[f == NT ? j * ld.b + l : l * ld.b + j];
                assert_near(c[i * ld.c + j], sum, 1e-4);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_sums_in_double),
        cmocka_unit_test(a_row_depends_on_itself_alone),
        cmocka_unit_test(threads_move_no_bit),
        cmocka_unit_test(strides_leave_the_gaps_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
