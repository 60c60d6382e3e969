/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixtures of random experts, decisions for three sequences, and vectors of a group of
 * linears that bf16 holds exactly: in natural order for the plain code, in tiles for
 * stacked experts.
 */
#ifndef ARTEL_TESTS_SUPPORT_STACKED_CASE_H
#define ARTEL_TESTS_SUPPORT_STACKED_CASE_H

#include "check.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/stacked.h"

#define T     70 /* rows: three sequences */
#define ROWS  96
#define LAYER 1
#define MOST  9 /* experts */

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
static inline float draw(void)
{
    return bf16_to(bf16_of(rng_normal(&random_numbers)));
}

static inline void add_expert(struct fixture *f, struct mixture *m, size_t i)
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

static inline void mixtures_init(struct fixture *f)
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

static inline void gates_init(struct fixture *f, struct arena *a, struct gates *g)
{
    gates_carve(g, a, T, T, f->c->n_experts, 0, true);
    g->n_rows = T;
    g->n_units = f->c->rule.decides == DECIDE_TOKEN ? T : 3;
    g->unit_of_row = f->unit_of_row;
}

static inline void grads_init(struct fixture *f, struct arena *a,
                              struct mixture_grads *g)
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

static inline void lay_out(struct fixture *f, struct arena *a)
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
static inline void decide(struct fixture *f)
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

static inline void fixture_init(struct fixture *f, const struct test_case *c)
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

static inline void fixture_release(struct fixture *f)
{
    mixture_release(&f->mixture);
    mixture_release(&f->absolute);
    arena_release(&f->arena);
}

static inline void *zeroed(size_t n, size_t size)
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

static inline size_t outputs(const struct fixture *f, int s)
{
    size_t n_out, n_in;

    site_shape(&f->config, (enum site)s, &n_out, &n_in);
    return n_out;
}

static inline void group_init(struct group *g, struct fixture *f, enum tile_group id)
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

static inline void group_release(struct group *g)
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

#endif
