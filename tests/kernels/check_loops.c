/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums, norms, rotation, softmax pieces, SwiGLU and AdamW of every set against
 * the reference. u is half a unit in the last place, 2^-24.
 */
#include "math/kernels.h"
#include "sets.h"

#define U (FLT_EPSILON / 2)

static float x[MAX_N], y[MAX_N], z[MAX_N], w[MAX_N], want[MAX_N];
static struct guarded got, also;

/* Two sums of n products, each in its own order and each product rounded at most
 * twice: they differ by at most 2 (n + 2) u sum |product|, first order. */
static double sum_bound(double sum_of_sizes, size_t n)
{
    return 2.0 * (double)(n + 2) * (double)U * sum_of_sizes;
}

static void check_sums(const struct kernels *ref, const struct kernels *set, size_t n)
{
    double squares = 0, products = 0, triples = 0;

    fill(x, n, n + 1);
    fill(y, n, n + 2);
    fill(z, n, n + 3);
    for (size_t i = 0; i < n; i++) {
        squares += (double)x[i] * (double)x[i];
        products += fabs((double)x[i] * (double)y[i]);
        triples += fabs((double)x[i] * (double)y[i] * (double)z[i]);
    }
    assert_near(set->sum_squares(x, n), ref->sum_squares(x, n), sum_bound(squares, n));
    assert_near(set->dot(x, y, n), ref->dot(x, y, n), sum_bound(products, n));
    assert_near(set->dot3(x, y, z, n), ref->dot3(x, y, z, n), sum_bound(triples, n));
    assert_true(set->max(x, n) == ref->max(x, n));
}

static void sums_agree(void **state)
{
    (void)state;
    for_all_sets(check_sums);
}

static void check_rows(const struct kernels *ref, const struct kernels *set, size_t n)
{
    fill(x, n, n + 1);
    fill(y, n, n + 2);
    fill(z, n, n + 3);

    guard(&got, n);
    ref->scale_mul(want, x, y, 0.75f, n);
    set->scale_mul(got.x, x, y, 0.75f, n);
    for (size_t i = 0; i < n; i++)
        assert_true(got.x[i] == want[i]); /* the same two roundings */
    check_guard(&got);

    guard(&got, n);
    memcpy(want, z, n * sizeof(float));
    memcpy(got.x, z, n * sizeof(float));
    ref->axpy(want, -1.5f, x, n);
    set->axpy(got.x, -1.5f, x, n);
    for (size_t i = 0; i < n; i++) /* one rounding less */
        assert_near(got.x[i], want[i], 2.0f * U * (fabsf(1.5f * x[i]) + fabsf(z[i])));
    check_guard(&got);

    guard(&got, n);
    memcpy(want, z, n * sizeof(float));
    memcpy(got.x, z, n * sizeof(float));
    ref->norm_backward(want, x, y, y, 0.7f, -0.3f, n);
    set->norm_backward(got.x, x, y, y, 0.7f, -0.3f, n);
    for (size_t i = 0; i < n;
         i++) /* at most five roundings each, of parts of this size */
        assert_near(got.x[i], want[i],
                    10.0f * U * (fabsf(x[i] * y[i]) + fabsf(y[i]) + fabsf(z[i])));
    check_guard(&got);
}

static void rows_agree_and_touch_nothing_else(void **state)
{
    (void)state;
    for_all_sets(check_rows);
}

static void check_rotation(const struct kernels *ref, const struct kernels *set,
                           size_t n)
{
    const size_t half = n / 2;

    fill(x, n, n + 1);
    for (size_t i = 0; i < half; i++) {
        y[i] = (float)cos((double)i + 0.5);
        z[i] = (float)sin((double)i + 0.5);
    }
    guard(&got, 2 * half);
    memcpy(want, x, 2 * half * sizeof(float));
    memcpy(got.x, x, 2 * half * sizeof(float));
    ref->rotate_pairs(want, y, z, half);
    set->rotate_pairs(got.x, y, z, half);
    for (size_t i = 0; i < 2 * half; i++) /* 3 roundings each; |cos|, |sin| <= 1 */
        assert_near(got.x[i], want[i],
                    6.0f * U * (fabsf(x[i & ~1ul]) + fabsf(x[i | 1])));
    check_guard(&got);

    guard(&got, half);
    guard(&also, half);
    memcpy(want, x, 2 * half * sizeof(float));
    memcpy(got.x, x, half * sizeof(float));
    memcpy(also.x, x + half, half * sizeof(float));
    ref->rotate_halves(want, want + half, y, z, half);
    set->rotate_halves(got.x, also.x, y, z, half);
    for (size_t i = 0; i < half; i++) {
        const float size = fabsf(x[i]) + fabsf(x[half + i]);

        assert_near(got.x[i], want[i], 6.0f * U * size);
        assert_near(also.x[i], want[half + i], 6.0f * U * size);
    }
    check_guard(&got);
    check_guard(&also);
}

static void rotations_agree(void **state)
{
    (void)state;
    for_all_sets(check_rotation);
}

static void check_exp_sum(const struct kernels *ref, const struct kernels *set,
                          size_t n)
{
    const float shift = 1.25f;
    double sum = 0;
    float set_sum;

    (void)ref;
    fill(x, n, n + 1);
    guard(&got, n);
    for (size_t i = 0; i < n; i++)
        got.x[i] = x[i] = 10.0f * x[i];
    set_sum = set->exp_sum(got.x, shift, n);
    for (size_t i = 0; i < n; i++) {
        const double e = exp((double)(x[i] - shift));

        assert_near(got.x[i], e, 4.0 * (double)U * e); /* 2 ulp */
        sum += (double)got.x[i];
    }
    assert_near(set_sum, sum, sum_bound(sum, n));
    check_guard(&got);
}

/* Every 977th float from far below the range of exp to far above it. */
static void exp_stays_within_two_units(void **state)
{
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    for_all_sets(check_exp_sum);
    for (size_t s = 1; s < n_sets; s++)
        for (uint32_t sign = 0; sign < 2; sign++)
            for (uint32_t bits = 0; bits < 0x7f800000u; bits += 977 * 64) {
                for (uint32_t i = 0; i < 64; i++) {
                    const uint32_t b = (bits + 977 * i) | sign << 31;

                    memcpy(x + i, &b, sizeof(b));
                    want[i] = x[i];
                }
                sets[s]->exp_sum(x, 0.0f, 64);
                for (size_t i = 0; i < 64; i++) {
                    const double e = exp((double)want[i]);
                    const double unit = e < (double)FLT_MIN
                                            ? (double)FLT_TRUE_MIN
                                            : (double)FLT_EPSILON * e; /* >= 1 ulp */

                    if (isnan(want[i]))
                        assert_true(isnan(x[i]));
                    else if (e > (double)FLT_MAX * (1.0 + (double)FLT_EPSILON))
                        assert_true(isinf(x[i]) && x[i] > 0);
                    else
                        assert_true(fabs((double)x[i] - e) <= 2.0 * unit);
                }
            }
}

static void check_swiglu(const struct kernels *ref, const struct kernels *set, size_t n)
{
    fill(x, n, n + 1);
    fill(y, n, n + 2);
    fill(z, n, n + 3);
    for (size_t i = 0; i < n; i++)
        x[i] *= 4.0f;
    guard(&got, n);
    ref->swiglu(want, x, y, n);
    set->swiglu(got.x, x, y, n);
    for (size_t i = 0; i < n;
         i++) /* exp to 2 ulp on both sides, and 3 roundings each */
        assert_near(got.x[i], want[i], 14.0f * U * fabsf(want[i]));
    check_guard(&got);

    guard(&got, n);
    guard(&also, n);
    ref->swiglu_backward(want, w, z, x, y, n);
    set->swiglu_backward(got.x, also.x, z, x, y, n);
    for (size_t i = 0; i < n; i++) {
        /* 1 - share cancels: its error is that of share, weighed by g */
        assert_near(got.x[i], want[i],
                    20.0f * U * fabsf(z[i] * y[i]) * (1.0f + fabsf(x[i])));
        assert_near(also.x[i], w[i], 14.0f * U * fabsf(w[i]));
    }
    check_guard(&got);
    check_guard(&also);

    /* In place over its own inputs. */
    memcpy(got.x, x, n * sizeof(float));
    memcpy(w, z, n * sizeof(float));
    set->swiglu_backward(got.x, w, w, got.x, y, n);
    for (size_t i = 0; i < n; i++)
        assert_true(w[i] == also.x[i]);
}

static void swiglu_agrees(void **state)
{
    (void)state;
    for_all_sets(check_swiglu);
}

static void check_adamw(const struct kernels *ref, const struct kernels *set, size_t n)
{
    static float p[2][MAX_N], m[2][MAX_N], g[MAX_N];
    static struct guarded v[2];
    const float rate = 1e-2f, decay = 0.1f;

    fill(p[0], n, n + 1);
    fill(m[0], n, n + 2);
    fill(g, n, n + 3);
    fill(x, n, n + 4);
    for (size_t k = 0; k < 2; k++) {
        guard(&v[k], n);
        for (size_t i = 0; i < n; i++) {
            p[k][i] = p[0][i];
            m[k][i] = m[0][i];
            v[k].x[i] = x[i] * x[i];
        }
    }
    for (size_t k = 0; k < 2; k++)
        (k ? set : ref)
            ->adamw(p[k], m[k], v[k].x, g, n, rate, 0.9f, 0.999f, 1e-8f, decay, 1.3f,
                    1.1f, 0.5f);
    for (size_t i = 0; i < n; i++) {
        const float root = sqrtf(v[0].x[i] * 1.1f) + 1e-8f;
        const float m_off = 8.0f * U * (fabsf(m[0][i]) + fabsf(g[i]));

        assert_near(m[1][i], m[0][i], m_off);
        assert_near(v[1].x[i], v[0].x[i], 8.0f * U * v[0].x[i]);
        /* 4 U from v under the root, as much from the operations, and what m is off */
        assert_near(p[1][i], p[0][i],
                    4.0f * U * fabsf(p[0][i]) +
                        rate * 1.3f / root * (m_off + 16.0f * U * fabsf(m[0][i])));
    }
    check_guard(&v[1]);
}

static void adamw_agrees(void **state)
{
    (void)state;
    for_all_sets(check_adamw);
}

static void nan_is_never_lost(void **state)
{
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++)
        for (size_t n = 1; n < 70; n++)
            for (size_t at = 0; at < n; at++) {
                fill(x, n, 3);
                fill(y, n, 4);
                x[at] = NAN;
                assert_true(isnan(sets[s]->sum_squares(x, n)));
                assert_true(isnan(sets[s]->dot(y, x, n)));
                assert_true(isnan(sets[s]->dot3(y, y, x, n)));
                assert_true(n == 1 || !isnan(sets[s]->max(x, n)));
                sets[s]->swiglu(z, x, y, n);
                assert_true(isnan(z[at]));
                sets[s]->swiglu(z, y, x, n);
                assert_true(isnan(z[at]));
                assert_true(isnan(sets[s]->exp_sum(x, 0.0f, n)));
                assert_true(isnan(x[at]));
            }
}

static void r27_infinities_and_subnormals_follow_the_plain_loop(void **state)
{
    static const float edge[] = {INFINITY, -INFINITY, 88.8f,  -103.0f, -200.0f,
                                 FLT_MAX,  -FLT_MAX,  1e-40f, -1e-40f, -0.0f};
    const size_t n = sizeof(edge) / sizeof(*edge);
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    for (size_t s = 1; s < n_sets; s++) {
        memcpy(x, edge, sizeof(edge));
        memcpy(want, edge, sizeof(edge));
        sets[0]->exp_sum(want, 0.0f, n);
        sets[s]->exp_sum(x, 0.0f, n);
        for (size_t i = 0; i < n; i++)
            assert_true(isinf(want[i]) ? want[i] == x[i]
                                       : fabsf(want[i] - x[i]) <=
                                             4.0f * U * want[i] + FLT_TRUE_MIN);
        assert_true(sets[s]->max(edge, n) == INFINITY);
        assert_true(sets[s]->max(edge, 0) == -INFINITY);
        assert_true(sets[s]->dot(edge + 7, edge + 4, 1) == -200.0f * 1e-40f);
    }
}

/* N rows of up to 70 floats that lie 73 apart, and their weighted sum. */
static void check_short_rows(const struct kernels *ref, const struct kernels *set,
                             size_t n_rows, size_t n)
{
    enum { APART = 73 };
    static float v[40 * APART];
    float alone[APART];

    fill(v, n_rows * APART, 5);
    fill(x, n, 6);
    fill(y, n_rows, 7);
    for (int add = 0; add < 2; add++) {
        guard(&got, n_rows);
        memcpy(got.x, y, n_rows * sizeof(float));
        memcpy(want, y, n_rows * sizeof(float));
        memcpy(alone, y, n_rows * sizeof(float));
        ref->rows(want, add, x, v, APART, n_rows, n);
        set->rows(got.x, add, x, v, APART, n_rows, n);
        for (size_t i = 0; i < n_rows; i++) {
            double size = fabs((double)y[i]);

            for (size_t k = 0; k < n; k++)
                size += fabs((double)x[k] * (double)v[i * APART + k]);
            assert_near(got.x[i], want[i], sum_bound(size, n));
            set->rows(alone + i, add, x, v + i * APART, APART, 1, n);
            assert_true(alone[i] == got.x[i]);
        }
        check_guard(&got);
    }
    guard(&got, n);
    ref->mix(want, false, y, v, APART, n_rows, n);
    set->mix(got.x, false, y, v, APART, n_rows, n);
    set->mix(alone, false, y, v, APART, n_rows / 3, n);
    set->mix(alone, true, y + n_rows / 3, v + n_rows / 3 * APART, APART,
             n_rows - n_rows / 3, n);
    assert_memory_equal(alone, got.x, n * sizeof(float));
    for (size_t k = 0; k < n; k++) {
        double size = 0;

        for (size_t i = 0; i < n_rows; i++)
            size += fabs((double)y[i] * (double)v[i * APART + k]);
        assert_near(got.x[k], want[k], sum_bound(size, n_rows));
    }
    check_guard(&got);
}

/* A row's product is the same to the bit in a block and alone. */
static void short_rows_agree(void **state)
{
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++)
        for (size_t n_rows = 0; n_rows <= 35; n_rows++)
            for (size_t n = 0; n <= 70; n++)
                check_short_rows(sets[0], sets[s], n_rows, n);
}

static void every_set_of_this_processor_is_built(void **state)
{
    (void)state;
#if defined(__x86_64__)
    assert_non_null(kernels_avx2());
    assert_non_null(kernels_avx512());
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_of_this_processor_is_built),
        cmocka_unit_test(sums_agree),
        cmocka_unit_test(rows_agree_and_touch_nothing_else),
        cmocka_unit_test(short_rows_agree),
        cmocka_unit_test(rotations_agree),
        cmocka_unit_test(exp_stays_within_two_units),
        cmocka_unit_test(swiglu_agrees),
        cmocka_unit_test(adamw_agrees),
        cmocka_unit_test(nan_is_never_lost),
        cmocka_unit_test(r27_infinities_and_subnormals_follow_the_plain_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
