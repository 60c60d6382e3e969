/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an expert adds and what a gate's slope is depend neither on other experts nor on
 * other rows, to the bit.
 */
#include "support/stacked_case.h"

/* What the expert of index E adds through the set's own products, in Y and D_X, where
 * it serves all rows. */
static void run_forced(struct fixture *f, struct group *g, int e, float *y, float *d_x)
{
    const struct tile_map *in = &f->shape.in[g->id], *out = &f->shape.out[g->id];
    const int all[] = {e, e, e};
    struct stacked_place at = {
        .layer = LAYER, .group = g->id, .wants_d_x = true, .dropout_seed = f->seed};
    uint16_t *base = zeroed(PACK_ELEMS * (in->blocks + out->blocks), 2);
    struct tile_product p = {.k = 1, .b = base, .b_pitch = PACK_ELEMS, .rows = ROWS};

    for (size_t i = 0; i < PACK_ELEMS * (in->blocks + out->blocks); i++)
        base[i] = bf16_of((float)(i % 37) * 0.125f - 2.0f);
    for (int s = 0; s < N_SITES; s++) {
        f->gates[0][s].n_units = 3;
        gates_give(&f->gates[0][s], all);
        f->gates[0][s].d_gate = NULL;
        at.gates[s] = &f->gates[0][s];
    }
    p.a = g->x_tiles;
    p.panels = out->blocks;
    p.low = stacked_forward(&f->room, &at, g->x_tiles, 0, ROWS);
    tile_set()->product_float(&p, y, g->wide_out);
    p.a = g->d_y_tiles;
    p.panels = in->blocks;
    p.low =
        stacked_backward(&f->room, &at, g->x_tiles, g->d_y_tiles, &f->grads[0], 0, ROWS)
            .low;
    tile_set()->product_float(&p, d_x, g->wide_in);
    free(base);
}

/* In a mixture or alone, an expert adds the same, to the bit. */
static void check_forced(const struct gate_rule *rule, size_t rank, unsigned sites)
{
    const struct test_case one = {"alone", GIVEN, 1, {rank}, {sites}, .given = true};
    const struct test_case many = {"among others",   *rule,         4, {3, 8, rank, 40},
                                   {0, 0, sites, 0}, .given = false};
    struct fixture f[2];

    fixture_init(&f[0], &one);
    fixture_init(&f[1], &many);
    assert_int_equal(f[0].mixture.experts[0].n_params,
                     f[1].mixture.experts[2].n_params);
    memcpy(f[1].mixture.experts[2].params, f[0].mixture.experts[0].params,
           f[0].mixture.experts[0].n_params * sizeof(float));
    expert_stack_pack(&f[1].stack, (const bool[]){false, false, true, false});
    for (size_t i = 0; i < 2; i++) /* sequences decide, whoever may decide in use */
        for (size_t t = 0, s = 0; t < T; t++) {
            s += t == seq_end[s];
            f[i].unit_of_row[t] = (uint32_t)s;
        }
    for (int id = 0; id < N_TILE_GROUPS; id++) {
        struct group g;
        float *y[2], *d_x[2];

        group_init(&g, &f[0], (enum tile_group)id);
        for (size_t i = 0; i < 2; i++) {
            y[i] = zeroed(ROWS * g.wide_out, sizeof(float));
            d_x[i] = zeroed(ROWS * g.wide_in, sizeof(float));
            run_forced(&f[i], &g, i ? 2 : 0, y[i], d_x[i]);
        }
        assert_memory_equal(y[0], y[1], ROWS * g.wide_out * sizeof(float));
        if (rule->kind == GATE_ONE_HOT) /* else q, k and v join in another order */
            assert_memory_equal(d_x[0], d_x[1], ROWS * g.wide_in * sizeof(float));
        for (size_t i = 0; i < 2; i++) {
            free(y[i]);
            free(d_x[i]);
        }
        group_release(&g);
    }
    assert_memory_equal(f[0].grads[0].expert[0], f[1].grads[0].expert[2],
                        f[0].mixture.experts[0].n_params * sizeof(float));
    assert_false(f[1].grads[0].touched[1]);
    fixture_release(&f[0]);
    fixture_release(&f[1]);
}

static void an_expert_does_not_depend_on_its_neighbours(void **state)
{
    static const struct gate_rule rules[] = {ONE_HOT, TOP_2, DENSE};

    (void)state;
    if (!tile_rank_set())
        skip();
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        check_forced(&rules[i], 8, 0);
        check_forced(&rules[i], 1, 0);
        check_forced(&rules[i], 33, 1 << SITE_Q | 1 << SITE_UP);
        check_forced(&rules[i], 64, 0);
    }
}

/* Row FROM + t of T becomes row t, for N rows; what follows becomes zero. */
static void rows_up(struct tiles t, size_t blocks, size_t from, size_t n)
{
    for (size_t row = 0; row < ROWS; row++)
        for (size_t b = 0; b < blocks; b++) {
            uint16_t *to = tile_at(t, row, b);

            if (row < n)
                memcpy(to, tile_at(t, from + row, b), TILE_COLS * sizeof(*to));
            else
                memset(to, 0, TILE_COLS * sizeof(*to));
        }
}

/* The last sequence alone, where it begins at another row: the same slopes of gates. */
static void a_slope_of_a_gate_does_not_depend_on_the_rows_before(void **state)
{
    const struct test_case c = {
        "softmax a sequence",
        {.place = ROUTER_FFN, .decides = DECIDE_SEQUENCE, .kind = GATE_SOFTMAX},
        3,
        {8, 8, 64},
        .given = false};
    const size_t first = seq_end[1], n = T - first;
    struct fixture f;
    struct group g;
    struct stacked_place at = {.layer = LAYER, .group = TILE_O, .wants_d_x = true};
    struct gates *gates = &f.gates[0][SITE_O];
    float among[3];

    (void)state;
    if (!tile_rank_set())
        skip();
    fixture_init(&f, &c);
    group_init(&g, &f, TILE_O);
    at.gates[SITE_O] = gates;
    stacked_backward(&f.room, &at, g.x_tiles, g.d_y_tiles, NULL, 0, ROWS);
    memcpy(among, gates->d_gate + 2 * 3, sizeof(among));
    memset(gates->d_gate, 0, 3 * 3 * sizeof(float));
    rows_up(g.x_tiles, f.shape.in[TILE_O].blocks, first, n);
    rows_up(g.d_y_tiles, f.shape.out[TILE_O].blocks, first, n);
    for (size_t t = 0; t < n; t++)
        f.unit_of_row[t] = 2;
    gates->n_rows = n;
    gates_index(gates);
    stacked_backward(&f.room, &at, g.x_tiles, g.d_y_tiles, NULL, 0, 32);
    assert_memory_equal(gates->d_gate + 2 * 3, among, sizeof(among));
    group_release(&g);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_does_not_depend_on_its_neighbours),
        cmocka_unit_test(a_slope_of_a_gate_does_not_depend_on_the_rows_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
