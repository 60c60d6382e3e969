/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacked experts in bf16 against the plain code of apply.h, on inputs that bf16 holds
 * exactly.
 *
 * What differs: h~ and d_h are rounded to bf16 once, by 2^-8 of each at most, and sums of
 * fewer than 2^10 products are found in another order. So a result that is a sum of
 * products differs by less than (2^-8 + 2^-14) times the same sum of absolute values,
 * which the plain code finds from absolute inputs.
 */
#include "support/stacked_case.h"

#define ROUNDED (0x1p-8 + 0x1p-14)
#define SUMMED  0x1p-14

static const struct test_case cases[] = {
    {"one expert", GIVEN, 1, {8}, .given = true},
    {"one of rank 1", GIVEN, 1, {1}, .given = true},
    {"one of rank 200", GIVEN, 1, {200}, .given = true},
    {"some linears", GIVEN, 1, {16}, {1 << SITE_Q | 1 << SITE_V}, .given = true},
    {"one a sequence", ONE_HOT, 3, {8, 4, 16}, .given = false},
    {"one a sequence, given", ONE_HOT, 4, {8, 33, 0, 64}, .given = true},
    {"softmax a token", DENSE, 3, {8, 8, 8}, .given = false},
    {"softmax of mixed ranks",
     DENSE,
     4,
     {5, 0, 33, 16},
     {0, 0, 0x15, 0x63},
     .given = false},
    {"softmax a sequence",
     {.place = ROUTER_FFN, .decides = DECIDE_SEQUENCE, .kind = GATE_SOFTMAX},
     3,
     {8, 8, 64},
     .frozen_first = true},
    {"top 2", TOP_2, 4, {8, 4, 8, 1}, .rslora = true},
    {"top 2 of 9", TOP_2, 9, {8, 8, 8, 8, 8, 8, 8, 8, 8}, .given = false},
    {"dropout", GIVEN, 1, {8}, .dropout = {0.25f}, .given = true},
    {"dropout of rank 40", GIVEN, 1, {40}, .dropout = {0.1f}, .given = true},
    {"dropout of some", DENSE, 3, {8, 6, 33}, .dropout = {0.5f, 0.0f, 0.1f}},
};

/* What a product adds for a row and a column of a panel. */
static float low_at(const struct tile_low *low, size_t row, size_t panel, size_t column)
{
    const struct tile_share *share = low->shares;
    double sum = 0.0;

    while (panel >= share->end)
        share++;
    for (size_t i = 0; i < share->n; i++)
        for (size_t k = 0; k < 32; k++)
            sum += (double)bf16_to(tile_at(low->h, row, share->blocks[i].h)[k]) *
                   bf16_to(low->packed[(panel * low->stack + share->blocks[i].stack) *
                                           PACK_ELEMS +
                                       pack_at(k, column)]);
    return (float)sum;
}

static void rows_are_zero(struct tiles t, size_t blocks)
{
    for (size_t row = T; row < ROWS; row++)
        for (size_t j = 0; j < blocks * 32; j++)
            assert_int_equal(tile_at(t, row, j / 32)[j % 32], 0);
}

/* Forward and backward of stacked.h over two calls that share the rows. */
static void run_stacked(struct fixture *f, struct group *g)
{
    const struct tile_map *in = &f->shape.in[g->id], *out = &f->shape.out[g->id];
    struct stacked_place at = {.layer = LAYER,
                               .group = g->id,
                               .dropout = true,
                               .dropout_seed = f->seed,
                               .wants_d_x = true};

    for (int s = 0; s < N_SITES; s++)
        at.gates[s] = &f->gates[0][s];
    for (size_t row = 0; row < ROWS; row += 64) {
        const size_t n = ROWS - row < 64 ? ROWS - row : 64;
        const struct tile_low *low = stacked_forward(&f->room, &at, g->x_tiles, row, n);
        struct stacked_slopes slopes;

        for (size_t t = row; low && t < row + n && t < T; t++)
            for (size_t j = 0; j < g->wide_out; j++)
                if (out->index[j] >= 0)
                    g->y[0][out->site[j]]
                        [t * outputs(f, out->site[j]) + (size_t)out->index[j]] =
                        low_at(low, t, j / 32, j % 32);
                else
                    assert_true(low_at(low, t, j / 32, j % 32) == 0.0f);
        if (low && row + n == ROWS)
            rows_are_zero(low->h, low->h.pitch);
        slopes = stacked_backward(&f->room, &at, g->x_tiles, g->d_y_tiles, &f->grads[0],
                                  row, n);
        for (size_t t = row; t < row + n && t < T; t++)
            for (size_t j = 0; j < g->wide_in; j++)
                if (in->index[j] >= 0)
                    g->d_x[0][t * g->n_in + (size_t)in->index[j]] =
                        (slopes.low ? low_at(slopes.low, t, j / 32, j % 32) : 0.0f) +
                        (slopes.plus ? slopes.plus[t * slopes.plus_pitch + j] : 0.0f);
    }
}

/* The plain code; WHICH 2: of absolute numbers. */
static void run_plain(struct fixture *f, struct group *g, size_t which)
{
    for (int s = 0; s < N_SITES; s++) {
        const struct apply_place at = {
            .mixture = which == 2 ? &f->absolute : &f->mixture,
            .layer = LAYER,
            .site = (enum site)s,
            .gates = which == 2 ? &f->bound[s] : &f->gates[1][s],
            .dropout = true,
            .dropout_seed = f->seed};
        const float *x = which == 2 ? g->abs_x : g->x;

        if (tile_group_of((enum site)s) != g->id)
            continue;
        experts_forward(g->y[which][s], &at, x, &f->apply);
        experts_backward(g->d_x[which], &f->grads[which], &at,
                         which == 2 ? g->abs_d_y[s] : g->d_y[s], x, &f->apply);
    }
}

static void compare(const char *what, const char *name, const float *got,
                    const float *want, const float *bound, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= by * bound[i]))
            fail_msg("%s: %s %zu is %.9g, expected %.9g within %.3g", name, what, i,
                     got[i], want[i], by * bound[i]);
}

static void run_group(struct fixture *f, enum tile_group id)
{
    const char *name = f->c->name;
    struct group g;

    group_init(&g, f, id);
    run_stacked(f, &g);
    run_plain(f, &g, 1);
    run_plain(f, &g, 2);
    for (int s = 0; s < N_SITES; s++)
        if (tile_group_of((enum site)s) == id)
            compare("y", name, g.y[0][s], g.y[1][s], g.y[2][s], T * outputs(f, s),
                    ROUNDED);
    compare("d_x", name, g.d_x[0], g.d_x[1], g.d_x[2], T * g.n_in, ROUNDED);
    group_release(&g);
}

static void run_case(const struct test_case *c)
{
    struct fixture f;

    fixture_init(&f, c);
    for (int id = 0; id < N_TILE_GROUPS; id++)
        run_group(&f, (enum tile_group)id);
    for (size_t e = 0; e < c->n_experts; e++) {
        assert_int_equal(f.grads[0].touched[e], f.grads[1].touched[e]);
        if (f.grads[0].expert[e])
            compare("gradient", c->name, f.grads[0].expert[e], f.grads[1].expert[e],
                    f.grads[2].expert[e], f.mixture.experts[e].n_params, ROUNDED);
    }
    for (int s = 0; s < N_SITES; s++)
        compare("d_gate", c->name, f.gates[0][s].d_gate, f.gates[1][s].d_gate,
                f.bound[s].d_gate, f.gates[0][s].n_units * c->n_experts, SUMMED);
    fixture_release(&f);
}

static void stacked_experts_are_the_plain_ones(void **state)
{
    (void)state;
    if (!tile_rank_set())
        skip();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        run_case(&cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stacked_experts_are_the_plain_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
