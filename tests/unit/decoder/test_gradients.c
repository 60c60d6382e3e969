/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole decoder's backward against finite differences, for every kind of
 * gate: along the gradient of each parameter block, and along a random
 * direction, the loss must change as the gradient says.
 *
 * Bound: the loss is a sum of float logits, so a difference quotient carries
 * about eps * |loss| * sqrt(terms) / step; with step 1e-2 that is below 5e-4
 * here. Curvature adds a part of the slope itself, below 1 %.
 */
#include "support/toy_decoder.h"

#include <stdio.h>

static double total_loss(struct decoder_pass *p, const struct toy_data *d, float ce)
{
    struct block_loss loss;

    decoder_forward(p, &d->block);
    decoder_loss(p, &loss, NULL);
    return loss.scaled + (double)ce * loss.router_ce;
}

struct probe {
    struct decoder_pass *pass;
    const struct toy_data *data;
    float ce;
};

static double slope_along(const struct probe *at, float *p, const float *dir, size_t n,
                          float step)
{
    float *kept = malloc(n * sizeof(*kept));
    double above, below;

    memcpy(kept, p, n * sizeof(*p));
    for (size_t i = 0; i < n; i++)
        p[i] = kept[i] + step * dir[i];
    above = total_loss(at->pass, at->data, at->ce);
    for (size_t i = 0; i < n; i++)
        p[i] = kept[i] - step * dir[i];
    below = total_loss(at->pass, at->data, at->ce);
    memcpy(p, kept, n * sizeof(*p));
    free(kept);
    return (above - below) / (2.0 * (double)step);
}

/* PARAMS move along DIR; GRAD must tell how the loss moves. Returns the slope. */
static double check_direction(const struct probe *at, float *params, const float *grad,
                              const float *dir, size_t n, const char *what)
{
    double want = 0.0, got;

    for (size_t i = 0; i < n; i++)
        want += (double)grad[i] * (double)dir[i];
    got = slope_along(at, params, dir, n, 1e-2f);
    if (!(fabs(got - want) <= 5e-4 + 0.01 * fabs(want)))
        fail_msg("%s: the loss moves by %.6g, the gradient says %.6g", what, got, want);
    return fabs(want);
}

static double check_block(const struct probe *at, float *params, const float *grad,
                          size_t n, const char *what, uint64_t seed)
{
    float *dir = calloc(n, sizeof(*dir));
    double norm = 0.0, moved;
    struct rng r;

    for (size_t i = 0; i < n; i++)
        norm += (double)grad[i] * (double)grad[i];
    norm = sqrt(norm);
    assert_true(isfinite(norm));
    for (size_t i = 0; i < n; i++)
        dir[i] = norm > 0.0 ? grad[i] / (float)norm : 0.0f;
    moved = check_direction(at, params, grad, dir, n, what);
    rng_init(&r, seed, 3);
    norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        dir[i] = rng_normal(&r);
        norm += (double)dir[i] * (double)dir[i];
    }
    for (size_t i = 0; i < n; i++)
        dir[i] /= (float)sqrt(norm);
    check_direction(at, params, grad, dir, n, what);
    free(dir);
    return moved;
}

/* Every A and B of every expert and every router, each as a block of its own. */
static void check_everything(const struct probe *at, struct mixture *m,
                             const struct mixture_grads *g, bool routers)
{
    double alive = 0.0, routed = 0.0;
    char what[128];

    for (size_t e = 0; e < m->n_experts; e++)
        for (size_t i = 0; i < m->n_layers * N_SITES; i++) {
            struct expert *x = &m->experts[e];
            struct lora *l = &x->lora[i];

            if (!l->rank)
                continue;
            snprintf(what, sizeof(what), "%s layer %zu %s", x->name, i / N_SITES,
                     site_name((enum site)(i % N_SITES)));
            alive += check_block(at, l->a, g->expert[e] + l->d_a, l->rank * l->n_in,
                                 what, i);
            alive += check_block(at, l->b, g->expert[e] + l->d_b, l->rank * l->n_out,
                                 what, i);
        }
    for (size_t r = 0; routers && r < m->n_routers; r++) {
        snprintf(what, sizeof(what), "router %zu", r);
        routed += check_block(at, m->routers[r].w,
                              g->routers + (m->routers[r].w - m->router_params),
                              m->routers[r].n_experts * m->routers[r].dim, what, r);
        if (m->routers[r].b)
            check_block(at, m->routers[r].b,
                        g->routers + (m->routers[r].b - m->router_params),
                        m->routers[r].n_experts, what, r);
    }
    assert_true(alive > 0.01); /* a check of zeros would prove nothing */
    assert_true(!routers || routed > 1e-3);
}

struct scenario {
    struct gate_rule rule;
    enum routing_mode routing;
    float ce;
    bool identity;
    size_t more; /* experts */
    bool raised; /* expert 32 and the last are the two best wherever it is decided */
};

static void run_scenario(const struct scenario *s)
{
    struct artel_model *model = toy_open(7);
    struct pass_options o = {.routing = s->routing,
                             .backward = true,
                             .router_ce = s->ce,
                             .max_rows = 32,
                             .max_seqs = 4};
    struct toy_data data;
    struct mixture m;
    struct artel_error err;
    struct mixture_grads g;
    struct probe at = {.data = &data, .ce = s->ce};
    struct block_loss loss;

    assert_int_equal(mixture_init(&m, "test", &model->weights->config, &s->rule, &err),
                     0);
    toy_expert(&m, model, "all", 3, NULL, 1);
    toy_expert(&m, model, "attention", 2, "0123", 2);
    toy_expert(&m, model, "ffn", 5, "456", 3);
    if (s->identity)
        toy_identity(&m, model, "identity");
    for (size_t i = 0; i < s->more; i++) {
        char name[32];

        snprintf(name, sizeof(name), "more%zu", i);
        toy_expert(&m, model, name, 1 + i % 3, i % 2 ? "14" : NULL, 10 + i);
    }
    mixture_draw_routers(&m, 0.4f, 9);
    for (size_t i = 0; s->raised && i < m.n_routers; i++) {
        m.routers[i].b[32] = 12.0f;
        m.routers[i].b[m.n_experts - 1] = 12.0f;
    }
    toy_fill(&data, 5);
    assert_int_equal(pass_open(&at.pass, model, &m, &o, &err), 0);
    g = toy_grads(&m);
    decoder_forward(at.pass, &data.block);
    decoder_loss(at.pass, &loss, NULL);
    decoder_backward(at.pass, &g);
    check_everything(&at, &m, &g, m.n_routers > 0);
    toy_grads_free(&g);
    pass_close(at.pass);
    mixture_release(&m);
    toy_close(model);
}

static void labelled_experts(void **state)
{
    const struct scenario s = {.rule = {.place = ROUTER_NONE}, .routing = ROUTE_GIVEN};

    (void)state;
    run_scenario(&s);
}

static void labelled_experts_with_router_cross_entropy(void **state)
{
    const struct scenario mean = {
        .rule = {.place = ROUTER_LAYER}, .routing = ROUTE_GIVEN, .ce = 0.2f};
    const struct scenario last = {.rule = {.place = ROUTER_LAYER, .pool = POOL_LAST},
                                  .routing = ROUTE_GIVEN,
                                  .ce = 0.2f};

    (void)state;
    run_scenario(&mean);
    run_scenario(&last);
}

static void soft_gates_per_sequence(void **state)
{
    const struct scenario s = {
        .rule = {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX, .bias = true},
        .routing = ROUTE_ROUTER,
        .identity = true};

    (void)state;
    run_scenario(&s);
}

static void soft_gates_per_token_and_linear(void **state)
{
    const struct scenario s = {
        .rule = {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
        .routing = ROUTE_ROUTER};

    (void)state;
    run_scenario(&s);
}

static void soft_gates_per_sequence_and_linear(void **state)
{
    const struct scenario s = {.rule = {.place = ROUTER_LINEAR,
                                        .decides = DECIDE_SEQUENCE,
                                        .kind = GATE_SOFTMAX},
                               .routing = ROUTE_ROUTER};

    (void)state;
    run_scenario(&s);
}

static void top_two_per_token_with_identity(void **state)
{
    const struct scenario s = {.rule = {.place = ROUTER_FFN,
                                        .decides = DECIDE_TOKEN,
                                        .kind = GATE_TOP_K,
                                        .top_k = 2},
                               .routing = ROUTE_ROUTER,
                               .identity = true};

    (void)state;
    run_scenario(&s);
}

static void top_two_per_sequence(void **state)
{
    const struct scenario s = {.rule = {.place = ROUTER_LAYER,
                                        .decides = DECIDE_SEQUENCE,
                                        .kind = GATE_TOP_K,
                                        .top_k = 2},
                               .routing = ROUTE_ROUTER};

    (void)state;
    run_scenario(&s);
}

/* 33 and 100 of them: more than gates are made of by lanes. */
static void more_experts_than_lanes_hold(void **state)
{
    static const size_t more[] = {30, 97}; /* beside all, attention and ffn */

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const struct scenario dense = {.rule = {.place = ROUTER_FFN,
                                                .decides = DECIDE_TOKEN,
                                                .kind = GATE_SOFTMAX,
                                                .bias = true},
                                       .routing = ROUTE_ROUTER,
                                       .more = more[i]};
        const struct scenario labelled = {.rule = {.place = ROUTER_LAYER},
                                          .routing = ROUTE_GIVEN,
                                          .ce = 0.2f,
                                          .more = more[i]};
        struct scenario two = dense;

        two.rule.kind = GATE_TOP_K;
        two.rule.top_k = 2;
        two.raised = more[i] > 30; /* else 32 is the last */
        run_scenario(&dense);
        run_scenario(&labelled);
        if (two.raised)
            run_scenario(&two);
    }
}

/* R28: a wrong gradient must be seen; the check itself is checked. */
static void a_planted_error_is_found(void **state)
{
    struct artel_model *model = toy_open(7);
    const struct pass_options o = {
        .routing = ROUTE_GIVEN, .backward = true, .max_rows = 32, .max_seqs = 4};
    const struct gate_rule rule = {.place = ROUTER_NONE};
    struct toy_data data;
    struct mixture m;
    struct artel_error err;
    struct mixture_grads g;
    struct probe at = {.data = &data};
    struct block_loss loss;
    struct lora *l;
    double want = 0.0, got, norm = 0.0;

    (void)state;
    assert_int_equal(mixture_init(&m, "test", &model->weights->config, &rule, &err), 0);
    toy_expert(&m, model, "all", 3, NULL, 1);
    toy_fill(&data, 5);
    for (size_t s = 0; s < TOY_SEQS; s++)
        data.seqs[s].expert = 0;
    assert_int_equal(pass_open(&at.pass, model, &m, &o, &err), 0);
    g = toy_grads(&m);
    decoder_forward(at.pass, &data.block);
    decoder_loss(at.pass, &loss, NULL);
    decoder_backward(at.pass, &g);
    l = expert_lora(&m.experts[0], 1, SITE_DOWN);
    for (size_t i = 0; i < l->rank * l->n_out; i++) {
        float *d = &g.expert[0][l->b - m.experts[0].params + (ptrdiff_t)i];

        *d *= 1.1f; /* as a forgotten factor would */
        norm += (double)*d * (double)*d;
    }
    {
        float *d = g.expert[0] + (l->b - m.experts[0].params);
        const size_t n = l->rank * l->n_out;
        float *dir = malloc(n * sizeof(*dir));

        for (size_t i = 0; i < n; i++) {
            dir[i] = d[i] / (float)sqrt(norm);
            want += (double)d[i] * (double)dir[i];
        }
        got = slope_along(&at, l->b, dir, n, 1e-2f);
        assert_true(fabs(got - want) > 5e-4 + 0.01 * fabs(want));
        free(dir);
    }
    toy_grads_free(&g);
    pass_close(at.pass);
    mixture_release(&m);
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labelled_experts),
        cmocka_unit_test(labelled_experts_with_router_cross_entropy),
        cmocka_unit_test(soft_gates_per_sequence),
        cmocka_unit_test(soft_gates_per_token_and_linear),
        cmocka_unit_test(soft_gates_per_sequence_and_linear),
        cmocka_unit_test(top_two_per_token_with_identity),
        cmocka_unit_test(top_two_per_sequence),
        cmocka_unit_test(more_experts_than_lanes_hold),
        cmocka_unit_test(a_planted_error_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
