/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacked experts, kept h: other ways to the same bits.
 */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "base/rng.h"
#include "experts/apply.h"

#define T         37
#define WIDEST    48
#define N_EXPERTS 4

static const struct model_config shape = {.architecture = "llama",
                                          .n_layers = 1,
                                          .dim = 32,
                                          .n_heads = 4,
                                          .n_kv_heads = 2,
                                          .head_dim = 8,
                                          .ffn_dim = WIDEST};

struct fixture {
    struct mixture mixture;
    struct arena arena;
    struct apply_scratch scratch;
    struct gates gates;
    struct mixture_grads grads;
    uint32_t unit[T];
    float x[T * WIDEST], d_y[T * WIDEST], kept[T * WIDEST];
    float y[T * WIDEST], d_x[T * WIDEST];
};

static void noise(float *x, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&r);
}

/* Experts of ranks 4, 0 (an identity), 3 and 8, with soft gates a row. */
static void open_mixture(struct fixture *f)
{
    static const size_t ranks[N_EXPERTS] = {4, 0, 3, 8};
    struct gate_rule rule = {
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX};
    struct artel_error err;

    assert_int_equal(mixture_init(&f->mixture, "test", &shape, &rule, &err), 0);
    for (size_t e = 0; e < N_EXPERTS; e++) {
        const char name[] = {(char)('a' + e), '\0'};
        struct lora_options o;
        struct expert expert = {0};
        int rc;

        lora_options_default(&o);
        o.rank = ranks[e];
        o.alpha = 3.0f + (float)e;
        rc = ranks[e] ? expert_init_uniform(&expert, name, &shape, &o, &err)
                      : expert_init_identity(&expert, name, 1, &err);
        assert_int_equal(rc, 0);
        noise(expert.params, expert.n_params, e + 1);
        assert_int_equal(mixture_add(&f->mixture, &expert, &shape, &err), 0);
    }
}

static void carve(struct fixture *f, struct arena *a)
{
    apply_scratch_carve(&f->scratch, a, &f->mixture, &shape, T);
    gates_carve(&f->gates, a, T, T, N_EXPERTS, 0, true);
    f->grads.n_experts = N_EXPERTS;
    f->grads.expert = arena_take(a, N_EXPERTS * sizeof(*f->grads.expert));
    f->grads.touched = arena_take(a, N_EXPERTS * sizeof(*f->grads.touched));
    for (size_t e = 0; e < N_EXPERTS; e++) {
        float *d = arena_f32(a, f->mixture.experts[e].n_params);

        if (f->grads.expert)
            f->grads.expert[e] = d;
    }
}

static struct fixture *open_fixture(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct arena measure = {0};

    assert_non_null(f);
    open_mixture(f);
    carve(f, &measure);
    assert_int_equal(arena_init(&f->arena, measure.used, NULL), 0);
    carve(f, &f->arena);
    f->gates.n_rows = f->gates.n_units = T;
    f->gates.unit_of_row = f->unit;
    for (size_t t = 0; t < T; t++) {
        f->unit[t] = (uint32_t)t;
        for (size_t e = 0; e < N_EXPERTS; e++)
            f->gates.gate[t * N_EXPERTS + e] = 0.1f + 0.01f * (float)((3 * t + e) % 17);
    }
    noise(f->x, T * WIDEST, 21);
    noise(f->d_y, T * WIDEST, 22);
    return f;
}

static void close_fixture(struct fixture *f)
{
    arena_release(&f->arena);
    mixture_release(&f->mixture);
    free(f);
}

static void run(struct fixture *f, enum site site, bool keep)
{
    const struct apply_place at = {.mixture = &f->mixture,
                                   .site = site,
                                   .gates = &f->gates,
                                   .kept = keep ? f->kept : NULL};

    gates_index(&f->gates);
    noise(f->y, T * WIDEST, 23);
    noise(f->d_x, T * WIDEST, 24);
    experts_forward(f->y, &at, f->x, &f->scratch);
    experts_backward(f->d_x, &f->grads, &at, f->d_y, f->x, &f->scratch);
}

static void assert_same(const struct fixture *f, const struct fixture *g)
{
    assert_memory_equal(f->y, g->y, sizeof(f->y));
    assert_memory_equal(f->d_x, g->d_x, sizeof(f->d_x));
    assert_memory_equal(f->gates.d_gate, g->gates.d_gate,
                        T * N_EXPERTS * sizeof(float));
    for (size_t e = 0; e < N_EXPERTS; e++)
        assert_memory_equal(f->grads.expert[e], g->grads.expert[e],
                            f->mixture.experts[e].n_params * sizeof(float));
}

static void a_stack_gives_the_bits_of_its_experts(void **state)
{
    (void)state;
    for (int site = 0; site < N_SITES; site++)
        for (int keep = 0; keep < 2; keep++) {
            struct fixture *f = open_fixture(), *g = open_fixture();

            assert_non_null(f->scratch.a);
            run(f, (enum site)site, keep);
            g->scratch.a = NULL; /* one after another */
            run(g, (enum site)site, false);
            assert_true(f->grads.touched[0] && !f->grads.touched[1]);
            assert_same(f, g);
            close_fixture(f);
            close_fixture(g);
        }
}

/* A row that one expert does not serve must not move a bit of the others. */
static void a_gate_of_zero_changes_its_own_row_alone(void **state)
{
    struct fixture *f = open_fixture(), *g = open_fixture();
    const size_t zeroed = 11, M = WIDEST;

    (void)state;
    run(f, SITE_UP, true);
    g->gates.gate[zeroed * N_EXPERTS + 3] = 0.0f;
    run(g, SITE_UP, true);
    assert_memory_equal(f->y, g->y, zeroed * M * sizeof(float));
    assert_memory_not_equal(f->y + zeroed * M, g->y + zeroed * M, M * sizeof(float));
    assert_memory_equal(f->y + (zeroed + 1) * M, g->y + (zeroed + 1) * M,
                        (T - zeroed - 1) * M * sizeof(float));
    close_fixture(f);
    close_fixture(g);
}

/* Many scattered rows of several experts: kept parts are found again in their order. */
static void kept_parts_are_found_again(void **state)
{
    struct fixture *f = open_fixture(), *g = open_fixture();

    (void)state;
    for (size_t t = 0; t < T; t++) {
        f->gates.gate[t * N_EXPERTS + t % N_EXPERTS] = 0.0f;
        g->gates.gate[t * N_EXPERTS + t % N_EXPERTS] = 0.0f;
    }
    run(f, SITE_DOWN, true);
    run(g, SITE_DOWN, false);
    assert_same(f, g);
    close_fixture(f);
    close_fixture(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stack_gives_the_bits_of_its_experts),
        cmocka_unit_test(a_gate_of_zero_changes_its_own_row_alone),
        cmocka_unit_test(kept_parts_are_found_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
