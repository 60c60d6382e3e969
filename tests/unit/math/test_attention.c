/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention against a reference in double, gradients against differences of
 * that reference, and which inputs a row depends on.
 */
#include "check.h"

#include <float.h>
#include <omp.h>
#include <stdlib.h>

#include "base/rng.h"
#include "math/attention.h"

#define MAX_FLOATS 60000

static float q[MAX_FLOATS], k[MAX_FLOATS], v[MAX_FLOATS], o[MAX_FLOATS], o2[MAX_FLOATS],
    d_o[MAX_FLOATS], d_q[MAX_FLOATS], d_k[MAX_FLOATS], d_v[MAX_FLOATS], lse[MAX_FLOATS],
    lse2[MAX_FLOATS];

static void fill(float *x, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 1);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&r);
}

static float *scratch_for(const struct attention_shape *a, size_t T, size_t S)
{
    float *p = malloc(attention_scratch(a, T, S) * sizeof(float));

    assert_non_null(p);
    return p;
}

/* One row in double: OUT (d), returns its log-sum-exp. */
static double row(double *out, const struct attention_shape *a, size_t t, size_t h,
                  size_t n_keys)
{
    const size_t H = a->n_heads, G = a->n_kv_heads, d = a->head_dim, g = h / (H / G);
    double s[600], most = -INFINITY, sum = 0;

    for (size_t j = 0; j < n_keys; j++) {
        s[j] = 0;
        for (size_t i = 0; i < d; i++)
            s[j] += (double)q[(t * H + h) * d + i] * (double)k[(j * G + g) * d + i];
        s[j] /= sqrt((double)d);
        most = s[j] > most ? s[j] : most;
    }
    for (size_t j = 0; j < n_keys; j++)
        sum += exp(s[j] - most);
    for (size_t i = 0; i < d; i++) {
        out[i] = 0;
        for (size_t j = 0; j < n_keys; j++)
            out[i] += exp(s[j] - most) / sum * (double)v[(j * G + g) * d + i];
    }
    return most + log(sum);
}

static void check_forward(size_t T, size_t S, struct attention_shape a)
{
    const size_t H = a.n_heads, d = a.head_dim;
    float *scratch = scratch_for(&a, T, S);
    double want[256];

    fill(q, T * H * d, 1);
    fill(k, S * a.n_kv_heads * d, 2);
    fill(v, S * a.n_kv_heads * d, 3);
    attention_forward(o, lse, q, k, v, T, S, &a, scratch);
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < H; h++) {
            const double log_sum = row(want, &a, t, h, S - T + t + 1);

            /* Scores up to about 6 sqrt(d) carry d roundings, exp turns their
             * absolute error into a relative one. */
            assert_near(lse[t * H + h], log_sum, 1e-5);
            for (size_t i = 0; i < d; i++)
                assert_near(o[(t * H + h) * d + i], want[i], 2e-5);
        }
    free(scratch);
}

static void forward_matches_a_plain_softmax(void **state)
{
    (void)state;
    check_forward(1, 1, (struct attention_shape){1, 1, 2});
    check_forward(5, 5, (struct attention_shape){2, 1, 6});
    check_forward(37, 37, (struct attention_shape){9, 3, 64});
    check_forward(50, 131, (struct attention_shape){4, 4, 20});
    check_forward(1, 131, (struct attention_shape){9, 3, 64});
    check_forward(2, 300, (struct attention_shape){12, 1, 16});
    check_forward(1, 77, (struct attention_shape){12, 1, 16});
}

/* A row alone (decode), in a shorter call and in a full one: the same bits. */
static void a_row_depends_on_its_own_keys_alone(void **state)
{
    const struct attention_shape a = {9, 3, 64};
    const size_t T = 67, H = 9, w = 9 * 64;
    float *scratch = scratch_for(&a, T, T);

    (void)state;
    fill(q, T * w, 1);
    fill(k, T * 3 * 64, 2);
    fill(v, T * 3 * 64, 3);
    attention_forward(o, lse, q, k, v, T, T, &a, scratch);
    for (size_t t = 0; t < T; t++) {
        attention_forward(o2, lse2, q + t * w, k, v, 1, t + 1, &a, scratch);
        assert_memory_equal(o2, o + t * w, w * sizeof(float));
        assert_memory_equal(lse2, lse + t * H, H * sizeof(float));
        attention_forward(o2, NULL, q + t / 2 * w, k, v, t + 1 - t / 2, t + 1, &a,
                          scratch);
        assert_memory_equal(o2, o + t / 2 * w, (t + 1 - t / 2) * w * sizeof(float));
    }
    /* What comes later may be anything, NaN included. */
    for (size_t i = 40 * 3 * 64; i < T * 3 * 64; i++)
        k[i] = v[i] = NAN;
    attention_forward(o2, lse2, q, k, v, T, T, &a, scratch);
    assert_memory_equal(o2, o, 40 * w * sizeof(float));
    assert_true(isnan(o2[40 * w]));
    free(scratch);
}

/* loss = <d_o, o>, in double. */
static double loss(const struct attention_shape *a, size_t T)
{
    const size_t H = a->n_heads, d = a->head_dim;
    double sum = 0, out[64];

    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < H; h++) {
            row(out, a, t, h, t + 1);
            for (size_t i = 0; i < d; i++)
                sum += out[i] * (double)d_o[(t * H + h) * d + i];
        }
    return sum;
}

static void check_slope(float *x, const float *d_x, size_t n,
                        const struct attention_shape *a, size_t T)
{
    const float step = 1.0f / 256;

    for (size_t i = 0; i < n; i += n / 23 + 1) {
        const float kept = x[i];
        double above, below;

        x[i] = kept + step;
        above = loss(a, T) / (2.0 * (double)step);
        x[i] = kept - step;
        below = loss(a, T) / (2.0 * (double)step);
        x[i] = kept;
        /* d_x starts at 1: a backward adds. The step's cube term is some 1e-5. */
        assert_near(d_x[i], 1.0 + above - below, 3e-4);
    }
}

static void gradients_match_differences_and_are_added(void **state)
{
    static const struct attention_shape shapes[] = {{4, 2, 6}, {3, 1, 20}, {2, 2, 64}};

    (void)state;
    for (size_t c = 0; c < 3; c++) {
        const struct attention_shape *a = &shapes[c];
        const size_t T = 41, nq = T * a->n_heads * a->head_dim;
        const size_t nk = T * a->n_kv_heads * a->head_dim;
        float *scratch = scratch_for(a, T, T);

        fill(q, nq, 1);
        fill(k, nk, 2);
        fill(v, nk, 3);
        fill(d_o, nq, 4);
        for (size_t i = 0; i < nq; i++)
            d_q[i] = 1;
        for (size_t i = 0; i < nk; i++)
            d_k[i] = d_v[i] = 1;
        attention_forward(o, lse, q, k, v, T, T, a, scratch);
        attention_backward(d_q, d_k, d_v, d_o, q, k, v, o, lse, T, a, scratch);
        check_slope(q, d_q, nq, a, T);
        check_slope(k, d_k, nk, a, T);
        check_slope(v, d_v, nk, a, T);
        free(scratch);
    }
}

static void threads_move_no_bit(void **state)
{
    const struct attention_shape a = {9, 3, 64};
    const size_t T = 70, n = T * 9 * 64, nk = T * 3 * 64;
    static float one[4][MAX_FLOATS];
    const int before = omp_get_max_threads();

    (void)state;
    fill(q, n, 1);
    fill(k, nk, 2);
    fill(v, nk, 3);
    fill(d_o, n, 4);
    for (int threads = 1; threads <= 3; threads++) {
        float *scratch;

        omp_set_num_threads(threads);
        scratch = scratch_for(&a, T, T);
        memset(d_q, 0, n * sizeof(float));
        memset(d_k, 0, nk * sizeof(float));
        memset(d_v, 0, nk * sizeof(float));
        attention_forward(o, lse, q, k, v, T, T, &a, scratch);
        attention_backward(d_q, d_k, d_v, d_o, q, k, v, o, lse, T, &a, scratch);
        if (threads == 1) {
            memcpy(one[0], o, n * sizeof(float));
            memcpy(one[1], d_q, n * sizeof(float));
            memcpy(one[2], d_k, nk * sizeof(float));
            memcpy(one[3], d_v, nk * sizeof(float));
        }
        assert_memory_equal(one[0], o, n * sizeof(float));
        assert_memory_equal(one[1], d_q, n * sizeof(float));
        assert_memory_equal(one[2], d_k, nk * sizeof(float));
        assert_memory_equal(one[3], d_v, nk * sizeof(float));
        free(scratch);
    }
    omp_set_num_threads(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_a_plain_softmax),
        cmocka_unit_test(a_row_depends_on_its_own_keys_alone),
        cmocka_unit_test(gradients_match_differences_and_are_added),
        cmocka_unit_test(threads_move_no_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
