/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Low-rank operations on tiles against plain sums. What they read is exact in bf16 and
 * so are its products in float: only the order of sums differs, by less than 2^-23 of
 * the sum of absolute values for each of the terms.
 */
#include "check.h"

#include <stdlib.h>

#include "base/rng.h"
#include "tiles/tile_ranks.h"

static struct rng numbers;

static void *zeroed(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0, (bytes + 63) / 64 * 64);
    return p;
}

/* N rows of normal numbers, zeros behind them. */
static struct tiles draw_tiles(size_t n, size_t rows, size_t blocks)
{
    const struct tiles t = {zeroed(tile_elems(rows, blocks) * 2), blocks};

    for (size_t row = 0; row < n; row++)
        for (size_t j = 0; j < blocks * 32; j++)
            tile_at(t, row, j / 32)[j % 32] = bf16_of(rng_normal(&numbers));
    return t;
}

static float at(struct tiles t, size_t row, size_t column)
{
    return bf16_to(tile_at(t, row, column / 32)[column % 32]);
}

static void check_gradient(size_t n, size_t row, size_t blocks)
{
    const size_t rows = tile_round(n) - row, pitch = blocks * 32 + 3;
    const struct tiles h = draw_tiles(n, n, 2), x = draw_tiles(n, n, blocks);
    float *g = zeroed(32 * pitch * sizeof(*g));
    const struct tile_rank_set *set = tile_rank_set();
    uint16_t *turned = zeroed(rows * TILE_COLS * sizeof(*turned));
    void *mixed = zeroed(set->scratch(rows));
    const struct rank_target all = {.to = g, .pitch = pitch, .n = 32};
    const struct rank_block block = {turned, row, rows, &all, 1};

    for (size_t i = 0; i < 32 * pitch; i++)
        g[i] = 1.0f;
    set->turn(turned, tiles_from(h, 1), row, rows);
    set->gradients(&block, 1, x, blocks, NULL, row, rows, mixed);
    for (size_t r = 0; r < 32; r++) {
        for (size_t j = 0; j < blocks * 32; j++) {
            double sum = 1.0, absolute = 1.0;

            for (size_t t = row; t < n; t++) {
                sum += (double)at(h, t, 32 + r) * at(x, t, j);
                absolute += fabs((double)at(h, t, 32 + r) * at(x, t, j));
            }
            assert_near(g[r * pitch + j], sum, 0x1p-23 * (double)(n + 1) * absolute);
        }
        for (size_t j = blocks * 32; j < pitch; j++)
            assert_true(g[r * pitch + j] == 1.0f);
    }
    free(h.at);
    free(x.at);
    free(g);
    free(turned);
    free(mixed);
}

static void gradients_are_sums_over_rows(void **state)
{
    (void)state;
    if (!tile_rank_set())
        skip();
    rng_init(&numbers, 1, 2);
    check_gradient(1, 0, 1);
    check_gradient(32, 0, 2);
    check_gradient(70, 32, 3);
    check_gradient(256, 0, 4);
    check_gradient(600, 64, 5);
}

static void draws_are_those_of_one_number_after_another(void **state)
{
    static const uint64_t seeds[][2] = {{0, 0}, {77, 3}, {UINT64_MAX, 1ull << 63}};
    uint64_t kept[32];

    (void)state;
    if (!tile_rank_set())
        skip();
    for (size_t i = 0; i < 3; i++) {
        const uint32_t limit = (uint32_t)(0.3 * 4294967296.0);
        struct rng rng;

        rng_init(&rng, seeds[i][0], seeds[i][1]);
        tile_rank_set()->draw_kept(kept, seeds[i][0], seeds[i][1], limit, 1999);
        for (size_t k = 0; k < 1999; k++)
            assert_int_equal(kept[k / 64] >> k % 64 & 1, rng_u32(&rng) >= limit);
    }
}

/* A row that nobody serves is zero even where h is not a number. */
static void rows_that_nobody_serves_are_zero(void **state)
{
    static const float gate[] = {0.5f, 0.0f};
    static const uint32_t unit_of_row[] = {0, 1, 0};
    struct rank_rule rule = {.n_gates = 1,
                             .gates = {{.gate = gate,
                                        .unit_of_row = unit_of_row,
                                        .n_owners = 1,
                                        .n_rows = 3,
                                        .places = 0x00f0000f}}};
    const struct tiles h = {zeroed(tile_elems(32, 1) * 2), 1};
    float given[32 * 32];

    (void)state;
    if (!tile_rank_set())
        skip();
    for (size_t i = 0; i < 32; i++)
        rule.scale[i] = 3.0f;
    for (size_t i = 0; i < 32 * 32; i++)
        given[i] = i / 32 == 1 || i / 32 > 2 ? NAN : 2.0f;
    tile_rank_set()->scale(h, given, 0, 32, &rule);
    for (size_t row = 0; row < 32; row++)
        for (size_t j = 0; j < 32; j++)
            assert_true(at(h, row, j) ==
                        ((row == 0 || row == 2) && 0x00f0000f >> j & 1 ? 3.0f : 0.0f));
    free(h.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_sums_over_rows),
        cmocka_unit_test(draws_are_those_of_one_number_after_another),
        cmocka_unit_test(rows_that_nobody_serves_are_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
