/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen weights against sums in double; rows that depend on
 * themselves alone; threads that move no bit.
 */
#include "check.h"

#include <float.h>
#include <omp.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/rng.h"
#include "math/kernels.h"
#include "math/matrix.h"

#define MAX_FLOATS 200000

static float w[MAX_FLOATS], x[MAX_FLOATS], y[MAX_FLOATS], y2[MAX_FLOATS];

static void fill(float *p, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 1);
    for (size_t i = 0; i < n; i++)
        p[i] = rng_normal(&r);
}

static struct tensor plain(size_t M, size_t N)
{
    return (struct tensor){.name = "w",
                           .dtype = DTYPE_F32,
                           .n_dims = 2,
                           .shape = {M, N},
                           .data = w,
                           .bytes = M * N * sizeof(float)};
}

static void open_matrix(struct matrix *m, struct arena *arena, const struct tensor *raw)
{
    const int use = MATRIX_FORWARD | MATRIX_BACKWARD | MATRIX_DECODE;
    struct arena measure = {0};

    matrix_init(m, &measure, raw, use);
    assert_int_equal(arena_init(arena, measure.used, NULL), 0);
    matrix_init(m, arena, raw, use);
    assert_int_equal(arena->used, measure.used);
}

/* C (T, n) against beta + sum_k a[t][k] b(k, j); W's strides give b. */
static void check_product(const float *c, float beta, size_t T, size_t n, size_t k,
                          size_t w_k, size_t w_n)
{
    for (size_t t = 0; t < T; t++)
        for (size_t j = 0; j < n; j++) {
            double sum = (double)beta, size = fabs(sum);

            for (size_t i = 0; i < k; i++) {
                const float a = x[t * k + i], b = w[i * w_k + j * w_n];
                const double p = (double)a * (double)b;

                sum += p;
                size += fabs(p);
            }
            /* k sums and products, each rounded once to 2^-24 */
            assert_near(c[t * n + j], sum,
                        2.0 * (double)(k + 1) * (double)FLT_EPSILON / 2 * size);
        }
}

static void check_both_ways(size_t T, size_t M, size_t N)
{
    const struct tensor raw = plain(M, N);
    struct arena arena;
    struct matrix m;

    fill(w, M * N, 1);
    fill(x, T * (M > N ? M : N), 2);
    open_matrix(&m, &arena, &raw);
    for (int beta = 0; beta < 2; beta++) {
        for (size_t i = 0; i < T * M; i++)
            y[i] = beta ? 1.0f : NAN;
        y[T * M] = 77.0f;
        matrix_forward(y, (float)beta, x, &m, T);
        check_product(y, (float)beta, T, M, N, 1, N);
        assert_true(y[T * M] == 77.0f);
        for (size_t i = 0; i < T * N; i++)
            y[i] = beta ? 1.0f : NAN;
        y[T * N] = 77.0f;
        matrix_backward(y, (float)beta, x, &m, T);
        check_product(y, (float)beta, T, N, M, N, 1);
        assert_true(y[T * N] == 77.0f);
    }
    arena_release(&arena);
}

static void both_ways_match_sums_in_double(void **state)
{
    (void)state;
    check_both_ways(1, 1, 1);
    check_both_ways(3, 5, 7);
    check_both_ways(33, 70, 45);
    check_both_ways(64, 64, 96);
    check_both_ways(17, 31, 2100); /* k in two blocks, both ways */
    check_both_ways(270, 40, 33);  /* rows in two blocks */
}

static void a_row_depends_on_itself_alone(void **state)
{
    const size_t M = 200, N = 150, T = 40;
    const struct tensor raw = plain(M, N);
    struct arena arena;
    struct matrix m;

    (void)state;
    fill(w, M * N, 1);
    fill(x, T * M, 2);
    open_matrix(&m, &arena, &raw);
    matrix_forward(y, 0.0f, x, &m, T);
    for (size_t n = 1; n < T; n++) {
        matrix_forward(y2, 0.0f, x + (T - n) * N, &m, n);
        assert_memory_equal(y2, y + (T - n) * M, n * M * sizeof(float));
    }
    matrix_backward(y, 0.0f, x, &m, T);
    for (size_t n = 1; n < T; n++) {
        matrix_backward(y2, 0.0f, x + (T - n) * M, &m, n);
        assert_memory_equal(y2, y + (T - n) * N, n * N * sizeof(float));
    }
    matrix_decode(y, x, &m, T);
    for (size_t n = 1; n < T; n++) {
        matrix_decode(y2, x + (T - n) * N, &m, n);
        assert_memory_equal(y2, y + (T - n) * M, n * M * sizeof(float));
    }
    arena_release(&arena);
}

static void threads_move_no_bit(void **state)
{
    const size_t M = 500, N = 300, T = 64; /* enough to be shared */
    const int before = omp_get_max_threads();
    const struct tensor raw = plain(M, N);
    struct arena arena;
    struct matrix m;

    (void)state;
    fill(w, M * N, 1);
    fill(x, T * M, 2);
    open_matrix(&m, &arena, &raw);
    omp_set_num_threads(1);
    matrix_forward(y, 0.0f, x, &m, T);
    for (int threads = 2; threads <= 5; threads++) {
        omp_set_num_threads(threads);
        matrix_forward(y2, 0.0f, x, &m, T);
        assert_memory_equal(y2, y, T * M * sizeof(float));
        memset(y2, 0, T * M * sizeof(float));
#pragma omp parallel for
        for (size_t t = 0; t < T; t++)
            matrix_forward(y2 + t * M, 0.0f, x + t * N, &m, 1);
        assert_memory_equal(y2, y, T * M * sizeof(float));
    }
    omp_set_num_threads(1);
    matrix_decode(y, x, &m, 3);
    omp_set_num_threads(3);
    matrix_decode(y2, x, &m, 3);
    assert_memory_equal(y2, y, 3 * M * sizeof(float));
    omp_set_num_threads(before);
    arena_release(&arena);
}

/* Q8_0 blocks: the three forms of one matrix agree, and rows are its rows. */
static void every_form_holds_the_same_weights(void **state)
{
    enum { M = 48, N = 320, T = 5 };
    static uint8_t blocks[M * N / 32 * 34];
    const struct tensor raw = {.name = "q",
                               .dtype = DTYPE_Q8_0,
                               .n_dims = 2,
                               .shape = {M, N},
                               .data = blocks,
                               .bytes = sizeof(blocks)};
    const int32_t ids[] = {47, 0, 3};
    struct arena arena;
    struct matrix m;
    struct rng r;

    (void)state;
    rng_init(&r, 5, 1);
    for (size_t i = 0; i < sizeof(blocks); i++)
        blocks[i] = (uint8_t)(i % 34 == 1 ? 0x24 : rng_u32(&r));
    fill(x, T * N, 2);
    kernels_ref()->dequant[DTYPE_Q8_0](w, blocks, M * N);
    open_matrix(&m, &arena, &raw);
    matrix_forward(y, 0.0f, x, &m, T);
    check_product(y, 0.0f, T, M, N, 1, N);
    matrix_decode(y, x, &m, T);
    check_product(y, 0.0f, T, M, N, 1, N);
    matrix_rows(y, &m, ids, 3);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(y + i * N, w + (size_t)ids[i] * N, N * sizeof(float));
    arena_release(&arena);
}

/* Packed once or at each use, whole or in parts, one thread or four: the same bits. */
static void lean_and_packed_forms_agree_to_the_bit(void **state)
{
    const size_t M = 2 * MATRIX_PART + 21, N = 310, T = 75, half = MATRIX_PART;
    const int use = MATRIX_FORWARD | MATRIX_BACKWARD, before = omp_get_max_threads();
    const struct tensor raw = plain(M, N);
    struct arena measure = {0}, arena;
    struct matrix lean, packed;

    (void)state;
    fill(w, M * N, 1);
    fill(x, T * N, 2);
    matrix_init(&lean, &measure, &raw, use | MATRIX_LEAN);
    assert_int_equal(measure.used, 0); /* used where it lies */
    open_matrix(&packed, &arena, &raw);
    matrix_forward(y, 0.0f, x, &lean, T);
    for (int threads = 1; threads <= 4; threads += 3) {
        omp_set_num_threads(threads);
        matrix_forward(y2, 0.0f, x, &packed, T);
        assert_memory_equal(y2, y, T * M * sizeof(float));
    }
    matrix_forward_part(y2, 0.0f, x, &packed, T, half, M - half);
    for (size_t t = 0; t < T; t++)
        assert_memory_equal(y2 + t * (M - half), y + t * M + half,
                            (M - half) * sizeof(float));
    matrix_backward_part(y, 0.0f, x, &lean, T, half, M - half);
    matrix_backward_part(y2, 0.0f, x, &packed, T, half, M - half);
    assert_memory_equal(y2, y, T * N * sizeof(float));
    matrix_backward(y, 0.0f, x, &lean, T);
    matrix_backward(y2, 0.0f, x, &packed, T);
    assert_memory_equal(y2, y, T * N * sizeof(float));
    omp_set_num_threads(before);
    arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways_match_sums_in_double),
        cmocka_unit_test(a_row_depends_on_itself_alone),
        cmocka_unit_test(threads_move_no_bit),
        cmocka_unit_test(every_form_holds_the_same_weights),
        cmocka_unit_test(lean_and_packed_forms_agree_to_the_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
