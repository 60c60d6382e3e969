/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles of the float product: against a plain sum in double, equal to the bit
 * between sets that fuse, whatever tile an element lies in, however k is cut.
 */
#include "math/gemm.h"
#include "sets.h"

#define C_ROW 61
#define K     37

static float a[16 * K], b[64 * K];
static struct guarded c;

static size_t tiles_here(const struct gemm_set *sets[3])
{
    size_t n = 0;

    sets[n++] = gemm_ref();
    if (cpu_isa() >= CPU_AVX2 && gemm_avx2())
        sets[n++] = gemm_avx2();
    if (cpu_isa() >= CPU_AVX512 && gemm_avx512())
        sets[n++] = gemm_avx512();
    return n;
}

/* C (rows, cols) of fresh or added tiles, k cut in two at CUT. */
static void run(const struct gemm_set *s, size_t rows, size_t cols, bool fresh,
                size_t cut)
{
    struct gemm_tile t = {.c = c.all + GUARD,
                          .a = a,
                          .b = b,
                          .c_row = C_ROW,
                          .a_row = K,
                          .a_step = 1,
                          .b_step = 64,
                          .k = cut,
                          .fresh = fresh};

    guard(&c, 16 * C_ROW);
    if (!fresh)
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < cols; j++)
                c.x[r * C_ROW + j] = (float)(r + j);
    if (cut) {
        s->tile(&t, rows, cols);
        t.fresh = false;
    }
    t.a += cut;
    t.b += cut * t.b_step;
    t.k = K - cut;
    s->tile(&t, rows, cols);
    check_guard(&c);
    for (size_t r = 0; r < 16; r++)
        for (size_t j = 0; j < C_ROW; j++)
            if (r >= rows || j >= cols)
                assert_true(c.x[r * C_ROW + j] == CANARY);
}

static void every_tile_is_right_and_touches_nothing_else(void **state)
{
    const struct gemm_set *sets[3];
    const size_t n_sets = tiles_here(sets);

    (void)state;
    fill(a, 16 * K, 1);
    fill(b, 64 * K, 2);
    for (size_t s = 0; s < n_sets; s++)
        for (size_t rows = 1; rows <= sets[s]->rows; rows++)
            for (size_t cols = 1; cols <= sets[s]->cols; cols++)
                for (int fresh = 0; fresh < 2; fresh++) {
                    run(sets[s], rows, cols, fresh, (rows * cols) % K);
                    for (size_t r = 0; r < rows; r++)
                        for (size_t j = 0; j < cols; j++) {
                            double sum = fresh ? 0 : (double)(r + j), size = fabs(sum);

                            for (size_t k = 0; k < K; k++) {
                                const double p =
                                    (double)a[r * K + k] * (double)b[k * 64 + j];

                                sum += p;
                                size += fabs(p);
                            }
                            /* K sums and K products, each rounded at most once */
                            assert_near(c.x[r * C_ROW + j], sum,
                                        2.0 * K * (double)FLT_EPSILON / 2 * size);
                        }
                }
}

static void fused_sets_agree_to_the_bit_in_every_tile(void **state)
{
    static float want[16 * C_ROW];
    const struct gemm_set *sets[3];
    const size_t n_sets = tiles_here(sets);

    (void)state;
    if (n_sets < 2)
        skip();
    fill(a, 16 * K, 1);
    fill(b, 64 * K, 2);
    for (size_t r = 0; r < 8; r++) /* element by element: fmaf along k */
        for (size_t j = 0; j < 48; j++) {
            float sum = 0.0f;

            for (size_t k = 0; k < K; k++)
                sum = fmaf(a[r * K + k], b[k * 64 + j], sum);
            want[r * C_ROW + j] = sum;
        }
    for (size_t s = 1; s < n_sets; s++)
        for (size_t rows = 1; rows <= sets[s]->rows; rows++)
            for (size_t cols = 1; cols <= sets[s]->cols; cols++) {
                run(sets[s], rows, cols, true, cols % K);
                for (size_t r = 0; r < rows; r++)
                    assert_memory_equal(c.x + r * C_ROW, want + r * C_ROW,
                                        cols * sizeof(float));
            }
}

static void packing_moves_and_pads(void **state)
{
    const struct gemm_set *sets[3];
    const size_t n_sets = tiles_here(sets);

    (void)state;
    fill(b, 64 * K, 2);
    for (size_t s = 0; s < n_sets; s++)
        for (size_t n = 1; n <= sets[s]->cols; n++)
            for (size_t k = 1; k <= K; k++) {
                const size_t lanes = sets[s]->lanes,
                             to = (n + lanes - 1) / lanes * lanes;

                guard(&c, to * k);
                sets[s]->copy(c.x, b, 64, n, k);
                check_guard(&c);
                for (size_t i = 0; i < k; i++)
                    for (size_t j = 0; j < to; j++)
                        assert_true(c.x[i * to + j] == (j < n ? b[i * 64 + j] : 0.0f));
                guard(&c, to * k);
                sets[s]->transpose(c.x, b, K, n, k);
                check_guard(&c);
                for (size_t i = 0; i < k; i++)
                    for (size_t j = 0; j < to; j++)
                        assert_true(c.x[i * to + j] == (j < n ? b[j * K + i] : 0.0f));
            }
}

static void every_set_of_this_processor_is_built(void **state)
{
    (void)state;
#if defined(__x86_64__)
    assert_non_null(gemm_avx2());
    assert_non_null(gemm_avx512());
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_of_this_processor_is_built),
        cmocka_unit_test(every_tile_is_right_and_touches_nothing_else),
        cmocka_unit_test(fused_sets_agree_to_the_bit_in_every_tile),
        cmocka_unit_test(packing_moves_and_pads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
