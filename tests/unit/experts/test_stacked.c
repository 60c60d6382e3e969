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
#include "check.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/stacked.h"

#define T       70 /* rows: three sequences */
#define ROWS    96
#define LAYER   1
#define MOST    9 /* experts */
#define ROUNDED (0x1p-8 + 0x1p-14)
#define SUMMED  0x1p-14

static const size_t seq_end[] = {20, 50, T};

/* Ranks of expert E: by site, or of a list that repeats. */
struct test_case {
    const char *name;
    struct gate_rule rule;
    size_t n_experts;
    size_t ranks[MOST];   /* 0: an identity */
    unsigned sites[MOST]; /* a bit each; 0: all */
    bool rslora;
    float dropout[MOST];
    bool given; /* gates from outside: expert (sequence + 1) % E */
    bool frozen_first;
};

#define ONE_HOT                                                                        \
    {                                                                                  \
        .place = ROUTER_LAYER, .decides = DECIDE_SEQUENCE, .kind = GATE_ONE_HOT        \
    }
#define DENSE                                                                          \
    {                                                                                  \
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX          \
    }
#define TOP_2                                                                          \
    {                                                                                  \
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_TOP_K,           \
        .top_k = 2                                                                     \
    }
#define GIVEN                                                                          \
    {                                                                                  \
        .place = ROUTER_NONE                                                           \
    }

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

struct fixture {
    const struct test_case *c;
    struct model_config config;
    struct tile_shape shape;
    struct mixture mixture, absolute;
    struct arena arena;
    struct expert_stack stack;
    struct stacked_room room;
    struct apply_scratch apply;
    struct gates gates[2][N_SITES]; /* ours, the plain code's */
    struct gates bound[N_SITES];    /* of absolute numbers */
    struct mixture_grads grads[3];  /* ours, plain, absolute */
    uint32_t unit_of_row[T];
    uint64_t seed;
};

static struct rng random_numbers;

/* A normal number as bf16 has it. */
static float draw(void)
{
    return bf16_to(bf16_of(rng_normal(&random_numbers)));
}

static void add_expert(struct fixture *f, struct mixture *m, size_t i)
{
    struct lora_options o;
    struct artel_error err;
    struct expert e;
    char name[8] = "e0";

    name[1] = (char)('0' + i);
    if (!f->c->ranks[i]) {
        assert_int_equal(expert_init_identity(&e, name, f->config.n_layers, &err), 0);
    } else {
        lora_options_default(&o);
        o.rank = f->c->ranks[i];
        o.alpha = 6.0f;
        o.use_rslora = f->c->rslora;
        o.dropout = f->c->dropout[i];
        for (int s = 0; s < N_SITES; s++)
            o.targets[s] = !f->c->sites[i] || f->c->sites[i] >> s & 1;
        assert_int_equal(expert_init_uniform(&e, name, &f->config, &o, &err), 0);
        e.dropout = f->c->dropout[i];
    }
    assert_int_equal(mixture_add(m, &e, &f->config, &err), 0);
}

static void mixtures_init(struct fixture *f)
{
    struct artel_error err;

    assert_int_equal(mixture_init(&f->mixture, "", &f->config, &f->c->rule, &err), 0);
    assert_int_equal(mixture_init(&f->absolute, "", &f->config, &f->c->rule, &err), 0);
    for (size_t i = 0; i < f->c->n_experts; i++) {
        struct expert *e, *a;

        add_expert(f, &f->mixture, i);
        add_expert(f, &f->absolute, i);
        e = &f->mixture.experts[i];
        a = &f->absolute.experts[i];
        for (size_t k = 0; k < e->n_params; k++) {
            e->params[k] = draw();
            a->params[k] = fabsf(e->params[k]);
        }
    }
}

static void gates_init(struct fixture *f, struct arena *a, struct gates *g)
{
    gates_carve(g, a, T, T, f->c->n_experts, 0, true);
    g->n_rows = T;
    g->n_units = f->c->rule.decides == DECIDE_TOKEN ? T : 3;
    g->unit_of_row = f->unit_of_row;
}

static void grads_init(struct fixture *f, struct arena *a, struct mixture_grads *g)
{
    const size_t E = f->c->n_experts;

    g->n_experts = E;
    g->expert = arena_take(a, E * sizeof(*g->expert));
    g->touched = arena_take(a, E * sizeof(*g->touched));
    for (size_t e = 0; e < E; e++) {
        float *p = arena_f32(a, f->mixture.experts[e].n_params);

        if (g->expert)
            g->expert[e] = f->c->frozen_first && e == 0 ? NULL : p;
    }
}

static void lay_out(struct fixture *f, struct arena *a)
{
    bool dropout = false;

    for (size_t e = 0; e < f->c->n_experts; e++)
        dropout |= f->c->dropout[e] > 0.0f;
    expert_stack_init(&f->stack, a, &f->mixture, &f->shape, true);
    stacked_room_carve(&f->room, a, &f->stack, T, true, dropout);
    apply_scratch_carve(&f->apply, a, &f->mixture, &f->config, T);
    for (int s = 0; s < N_SITES; s++) {
        gates_init(f, a, &f->gates[0][s]);
        gates_init(f, a, &f->gates[1][s]);
        gates_init(f, a, &f->bound[s]);
    }
    for (size_t i = 0; i < 3; i++)
        grads_init(f, a, &f->grads[i]);
}

/* The same decisions for all three; linears under one router have the same. */
static void decide(struct fixture *f)
{
    const struct test_case *c = f->c;
    struct gates *const all[] = {f->gates[0], f->gates[1], f->bound};
    const int given[] = {1 % (int)c->n_experts, 2 % (int)c->n_experts,
                         c->n_experts > 1 ? -1 : 0};

    for (size_t t = 0, s = 0; t < T; t++) {
        s += t == seq_end[s];
        f->unit_of_row[t] = (uint32_t)(c->rule.decides == DECIDE_TOKEN ? t : s);
    }
    for (int s = 0; s < N_SITES; s++) {
        struct gates *g = &all[0][s];

        for (size_t u = 0; u < g->n_units; u++) {
            float sum = 0.0f;

            for (size_t e = 0; e < c->n_experts; e++)
                sum += g->probs[u * c->n_experts + e] =
                    expf(rng_normal(&random_numbers));
            for (size_t e = 0; e < c->n_experts; e++)
                g->probs[u * c->n_experts + e] /= sum;
        }
        if (s && c->rule.place == ROUTER_LAYER)
            memcpy(g->probs, all[0][0].probs,
                   g->n_units * c->n_experts * sizeof(float));
        for (size_t i = 0; i < 3; i++) {
            memcpy(all[i][s].probs, g->probs,
                   g->n_units * c->n_experts * sizeof(float));
            if (c->given)
                gates_give(&all[i][s], given);
            else
                gates_decide(&all[i][s], &c->rule);
        }
    }
}

static void fixture_init(struct fixture *f, const struct test_case *c)
{
    struct arena measure = {0};
    struct artel_error err;

    memset(f, 0, sizeof(*f));
    f->c = c;
    f->seed = 77;
    f->config = (struct model_config){.n_layers = 2,
                                      .dim = 72,
                                      .n_heads = 3,
                                      .n_kv_heads = 1,
                                      .head_dim = 24,
                                      .ffn_dim = 88,
                                      .n_vocab = 32};
    rng_init(&random_numbers, 5, 6);
    mixtures_init(f);
    tile_shape_init(&f->shape, &measure, &f->config);
    assert_int_equal(arena_init(&f->arena, measure.used, &err), 0);
    tile_shape_init(&f->shape, &f->arena, &f->config);
    measure = (struct arena){0};
    lay_out(f, &measure);
    arena_release(&f->arena);
    measure.used += 1 << 20; /* the shape's own */
    assert_int_equal(arena_init(&f->arena, measure.used, &err), 0);
    tile_shape_init(&f->shape, &f->arena, &f->config);
    lay_out(f, &f->arena);
    decide(f);
    expert_stack_pack(&f->stack, NULL);
}

static void fixture_release(struct fixture *f)
{
    mixture_release(&f->mixture);
    mixture_release(&f->absolute);
    arena_release(&f->arena);
}

static void *zeroed(size_t n, size_t size)
{
    void *p = aligned_alloc(64, (n * size + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0, (n * size + 63) / 64 * 64);
    return p;
}

/* One group's vectors in natural order and in tiles, with what comes of them. */
struct group {
    enum tile_group id;
    size_t n_in, wide_in, wide_out;
    float *x, *abs_x;
    float *d_y[N_SITES], *abs_d_y[N_SITES];
    struct tiles x_tiles, d_y_tiles;
    float *y[3][N_SITES], *d_x[3]; /* ours, plain, absolute */
};

static size_t outputs(const struct fixture *f, int s)
{
    size_t n_out, n_in;

    site_shape(&f->config, (enum site)s, &n_out, &n_in);
    return n_out;
}

static void group_init(struct group *g, struct fixture *f, enum tile_group id)
{
    const struct tile_map *in = &f->shape.in[id], *out = &f->shape.out[id];
    size_t n_out;

    memset(g, 0, sizeof(*g));
    g->id = id;
    site_shape(&f->config,
               id == TILE_DOWN ? SITE_DOWN
               : id == TILE_O  ? SITE_O
                               : SITE_Q,
               &n_out, &g->n_in);
    g->wide_in = in->blocks * 32;
    g->wide_out = out->blocks * 32;
    g->x = zeroed(T * g->n_in, sizeof(float));
    g->abs_x = zeroed(T * g->n_in, sizeof(float));
    for (size_t i = 0; i < T * g->n_in; i++)
        g->abs_x[i] = fabsf(g->x[i] = draw());
    g->x_tiles = (struct tiles){zeroed(tile_elems(T, in->blocks), 2), in->blocks};
    g->d_y_tiles = (struct tiles){zeroed(tile_elems(T, out->blocks), 2), out->blocks};
    for (size_t i = 0; i < 3; i++)
        g->d_x[i] = zeroed(T * g->n_in, sizeof(float));
    for (int s = 0; s < N_SITES; s++) {
        const size_t M = outputs(f, s);

        if (tile_group_of((enum site)s) != id)
            continue;
        g->d_y[s] = zeroed(T * M, sizeof(float));
        g->abs_d_y[s] = zeroed(T * M, sizeof(float));
        for (size_t i = 0; i < T * M; i++)
            g->abs_d_y[s][i] = fabsf(g->d_y[s][i] = draw());
        for (size_t i = 0; i < 3; i++)
            g->y[i][s] = zeroed(T * M, sizeof(float));
    }
    for (size_t t = 0; t < T; t++) {
        for (size_t j = 0; j < g->wide_in; j++)
            if (in->index[j] >= 0)
                tile_at(g->x_tiles, t, j / 32)[j % 32] =
                    bf16_of(g->x[t * g->n_in + (size_t)in->index[j]]);
        for (size_t j = 0; j < g->wide_out; j++)
            if (out->index[j] >= 0)
                tile_at(g->d_y_tiles, t, j / 32)[j % 32] =
                    bf16_of(g->d_y[out->site[j]][t * outputs(f, out->site[j]) +
                                                 (size_t)out->index[j]]);
    }
}

static void group_release(struct group *g)
{
    free(g->x);
    free(g->abs_x);
    free(g->x_tiles.at);
    free(g->d_y_tiles.at);
    for (size_t i = 0; i < 3; i++)
        free(g->d_x[i]);
    for (int s = 0; s < N_SITES; s++) {
        free(g->d_y[s]);
        free(g->abs_d_y[s]);
        for (size_t i = 0; i < 3; i++)
            free(g->y[i][s]);
    }
}

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
        cmocka_unit_test(stacked_experts_are_the_plain_ones),
        cmocka_unit_test(an_expert_does_not_depend_on_its_neighbours),
        cmocka_unit_test(a_slope_of_a_gate_does_not_depend_on_the_rows_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
