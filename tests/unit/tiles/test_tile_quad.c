/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of tiles by AVX-512-BF16 against sums in double over the same bf16 numbers.
 */
#include "check.h"

#include "base/rng.h"
#include "tiles/tile_quad.h"

#if defined(__x86_64__)
#define PITCH 48

static _Alignas(64) uint16_t a[4][TILE_ELEMS], b[4][TILE_ELEMS];
static _Alignas(64) float sums[64 * PITCH], before[64 * PITCH];

static void fill(void)
{
    struct rng r;

    rng_init(&r, 7, 7);
    for (size_t i = 0; i < 4 * TILE_ELEMS; i++) {
        a[i / TILE_ELEMS][i % TILE_ELEMS] = bf16_of(rng_normal(&r));
        b[i / TILE_ELEMS][i % TILE_ELEMS] = bf16_of(rng_normal(&r));
    }
    for (size_t i = 0; i < 64 * PITCH; i++)
        sums[i] = before[i] = rng_normal(&r);
}

/* Sum I at TO has got the product of left side L and right side R. */
static void check(const float *to, size_t l, size_t r)
{
    const float *old = before + (to - sums);

    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 16; j++) {
            double want = (double)old[i * PITCH + j], size = fabs(want);

            for (size_t k = 0; k < 32; k++) {
                const double p = (double)bf16_to(a[l][i * 32 + k]) *
                                 (double)bf16_to(b[r][pack_at(k, j)]);

                want += p;
                size += fabs(p);
            }
            /* 32 sums, each rounded once; products of bf16 are exact */
            assert_near(to[i * PITCH + j], want, 32 * 0x1p-24 * size);
        }
}

static void vectors_multiply_tiles(void **state)
{
    const uint16_t *const right[4] = {b[0], b[1], b[2], b[3]};
    const struct quad square = {
        {sums, sums + 16, sums + 16 * PITCH, sums + 16 * PITCH + 16}, PITCH};
    const struct quad column = {
        {sums, sums + 16 * PITCH, sums + 32 * PITCH, sums + 48 * PITCH}, PITCH};
    const struct quad row = {{sums, sums + 16, sums + 32, sums + 16 * PITCH}, PITCH};

    (void)state;
    if (!tile_set())
        skip();
    fill();
    quad_step_avx512bf16(&square, a[0], a[2], b[1], b[3]);
    check(square.at[0], 0, 1);
    check(square.at[1], 0, 3);
    check(square.at[2], 2, 1);
    check(square.at[3], 2, 3);
    for (size_t n = 2; n <= 4; n += 2) {
        fill();
        quad_column_avx512bf16(&column, a[0], TILE_ELEMS, b[2], n);
        for (size_t i = 0; i < n; i++)
            check(column.at[i], i, 2);
        for (size_t i = n * 16 * PITCH; i < 64 * PITCH; i++)
            assert_true(sums[i] == before[i]);
    }
    fill();
    quad_row_avx512bf16(&row, a[3], right);
    for (size_t i = 0; i < 4; i++)
        check(row.at[i], 3, i);
}

#else
static void skipped(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#if defined(__x86_64__)
        cmocka_unit_test(vectors_multiply_tiles),
#else
        cmocka_unit_test(skipped),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
