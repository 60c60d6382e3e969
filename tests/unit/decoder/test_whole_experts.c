/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder with experts that make whole FFNs beside one LoRA in attention (MixLoRA): what
 * it must be equal to, gates and the balance loss by their formulas, gradients by finite
 * differences, decoding, and what is refused.
 *
 * Bound: as in test_gradients.c. A row must not change its choice on the way of a step, so
 * steps are 3e-3, which leaves 1.7e-3 to rounding.
 */
#include "support/toy_decoder.h"

#include <stdio.h>

#include "decoder/pass.h"
#include "decoder/session.h"

#define STEP    3e-3f
#define BALANCE 0.02f

static const struct gate_rule top_two = {.place = ROUTER_FFN,
                                         .decides = DECIDE_TOKEN,
                                         .kind = GATE_TOP_K,
                                         .top_k = 2,
                                         .n_fixed = 1,
                                         .whole_ffn = true};
static const struct gate_rule top_share = {.place = ROUTER_FFN,
                                           .decides = DECIDE_TOKEN,
                                           .kind = GATE_TOP_P,
                                           .top_p = 0.6f,
                                           .n_fixed = 1,
                                           .whole_ffn = true};

static void start(struct mixture *m, const struct artel_model *model,
                  const struct gate_rule *rule)
{
    struct artel_error err;

    assert_int_equal(mixture_init(m, "test", &model->weights->config, rule, &err), 0);
    if (rule->n_fixed)
        toy_expert(m, model, "shared", 4, "0123", 1);
}

/* With these routers no row is near a choice of other experts. */
static void fill(struct mixture *m, const struct artel_model *model,
                 const struct gate_rule *rule)
{
    start(m, model, rule);
    toy_expert_of(m, model, EXPERT_FFN, "one", 5, "456", 2);
    toy_expert_of(m, model, EXPERT_FFN, "two", 3, "456", 3);
    toy_expert_of(m, model, EXPERT_FFN, "three", 2, "456", 4);
    mixture_draw_routers(m, 0.4f, 2);
}

/* BOUND 0: to the bit. */
static void assert_same_logits(const struct artel_model *model, const struct mixture *a,
                               int expert_a, const struct mixture *b, int expert_b,
                               double bound)
{
    float *x = toy_logits(model, a, expert_a), *y = toy_logits(model, b, expert_b);

    for (size_t i = 0; i < 26 * TOY_VOCAB; i++)
        assert_true(fabs((double)x[i] - (double)y[i]) <= bound);
    free(x);
    free(y);
}

/* One LoRA at all linears, with the numbers of "shared" in attention and of E in the FFN. */
static void plain(struct mixture *m, const struct artel_model *model,
                  const struct mixture *of, size_t e)
{
    static const struct gate_rule none = {.place = ROUTER_NONE};
    uint16_t rank[TOY_LAYERS * N_SITES];
    float scale[TOY_LAYERS * N_SITES];
    struct artel_error err;
    struct expert x;

    for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++) {
        const struct lora *l = &of->experts[i % N_SITES < SITE_GATE ? 0 : e].lora[i];

        rank[i] = (uint16_t)l->rank;
        scale[i] = l->scale;
    }
    assert_int_equal(
        expert_init(&x, "plain", &model->weights->config, rank, scale, &err), 0);
    for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++) {
        const struct lora *l = &of->experts[i % N_SITES < SITE_GATE ? 0 : e].lora[i];

        memcpy(x.lora[i].a, l->a, l->rank * l->n_in * sizeof(float));
        memcpy(x.lora[i].b, l->b, l->rank * l->n_out * sizeof(float));
    }
    assert_int_equal(mixture_init(m, "plain", &model->weights->config, &none, &err), 0);
    assert_int_equal(mixture_add(m, &x, &model->weights->config, &err), 0);
}

static void one_expert_is_a_plain_lora(void **state)
{
    struct artel_model *model = toy_open(7);
    struct gate_rule one = top_two;
    struct mixture m, lora;

    (void)state;
    one.top_k = 1;
    start(&m, model, &one);
    toy_expert_of(&m, model, EXPERT_FFN, "only", 5, "456", 2);
    mixture_draw_routers(&m, 0.4f, 9);
    plain(&lora, model, &m, 1);
    assert_same_logits(model, &m, -2, &lora, 0, 2e-5);
    mixture_release(&m);
    mixture_release(&lora);
    toy_close(model);
}

static void a_chosen_expert_is_a_plain_lora(void **state)
{
    struct artel_model *model = toy_open(7);
    struct mixture m, lora;

    (void)state;
    fill(&m, model, &top_two);
    for (int e = 1; e < 4; e++) {
        plain(&lora, model, &m, (size_t)e);
        assert_same_logits(model, &m, e, &lora, 0, 2e-5);
        mixture_release(&lora);
    }
    assert_same_logits(model, &m, -1, NULL, -1, 0);
    mixture_release(&m);
    toy_close(model);
}

static void with_all_b_zero_it_is_the_base(void **state)
{
    struct artel_model *model = toy_open(7);
    struct mixture m;

    (void)state;
    fill(&m, model, &top_two);
    for (size_t e = 0; e < 4; e++)
        for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++) {
            const struct lora *l = &m.experts[e].lora[i];

            memset(l->b, 0, l->rank * l->n_out * sizeof(float));
        }
    assert_same_logits(model, &m, -2, NULL, -1,
                       2e-5); /* gates add up to 1 but for ulps */
    mixture_release(&m);
    toy_close(model);
}

static void gates_are_those_of_the_rule(void **state)
{
    const struct gate_rule *const rules[] = {&top_two, &top_share};
    struct artel_model *model = toy_open(7);
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .max_rows = 32, .max_seqs = 4};
    size_t several = 0, alone = 0;
    struct toy_data d;

    (void)state;
    toy_fill(&d, 5);
    for (size_t k = 0; k < 2; k++) {
        struct decoder_pass *p;
        struct artel_error err;
        struct mixture m;

        fill(&m, model, rules[k]);
        assert_int_equal(m.n_routers, TOY_LAYERS);
        assert_int_equal(pass_open(&p, model, &m, &o, &err), 0);
        decoder_forward(p, &d.block);
        for (size_t r = 0; r < m.n_routers; r++)
            for (size_t t = 0; t < d.block.n_rows; t++) {
                const float *g = p->gates[r].gate + t * 4;
                const float *probs = p->gates[r].probs + t * 4;
                float kept = 0.0f, least = 1.0f, most = 0.0f;
                size_t n = 0;

                for (size_t e = 1; e < 4; e++) {
                    n += g[e] > 0.0f;
                    kept += g[e] > 0.0f ? probs[e] : 0.0f;
                    least = g[e] > 0.0f && probs[e] < least ? probs[e] : least;
                    most = g[e] == 0.0f && probs[e] > most ? probs[e] : most;
                }
                assert_true(g[0] == 1.0f && least >= most);
                assert_true(k ? kept >= 0.6f && kept - least < 0.6f : n == 2);
                for (size_t e = 1; e < 4; e++)
                    assert_true(g[e] == 0.0f || fabsf(g[e] - probs[e] / kept) < 1e-6f);
                several += k && n > 1;
                alone += k && n == 1;
            }
        pass_close(p);
        mixture_release(&m);
    }
    assert_true(several && alone);
    toy_close(model);
}

/* ---- the balance loss ---- */

/* U K sum F P and its gradient by the logits, F held fixed, for units of any number. */
static void the_balance_loss_is_its_formula(void **state)
{
    enum { K = 3, E = K + 1, UNITS = 21 }; /* some in lanes, some one by one */
    static const struct gate_rule *const rules[] = {&top_two, &top_share};
    struct arena a = {0};
    struct artel_error err;
    struct gates g = {0};
    struct router router = {.n_experts = K, .dim = 1};
    float logits[UNITS * K], with[UNITS * K], without[UNITS * K];
    uint32_t self[UNITS];
    struct rng r;

    (void)state;
    gates_carve(&g, &a, UNITS, UNITS, E, 0, true);
    assert_int_equal(arena_init(&a, a.used, &err), 0);
    gates_carve(&g, &a, UNITS, UNITS, E, 0, true);
    g.n_rows = g.n_units = UNITS;
    g.n_fixed = 1;
    g.unit_of_row = self;
    rng_init(&r, 4, 4);
    for (size_t k = 0; k < 2; k++) {
        double share[K] = {0}, mean[K] = {0}, chosen = 0, want = 0;
        struct gates_slope slope = {.rule = rules[k]};

        for (size_t i = 0; i < UNITS * K; i++)
            logits[i] = rng_normal(&r);
        for (size_t i = 0; i < UNITS * E; i++)
            g.d_gate[i] = rng_normal(&r);
        for (uint32_t u = 0; u < UNITS; u++)
            self[u] = u;
        gates_read_logits(&g, &router, logits, K);
        gates_decide(&g, rules[k]);
        for (size_t u = 0; u < UNITS; u++)
            for (size_t e = 0; e < K; e++) {
                share[e] += g.gate[u * E + 1 + e] > 0.0f;
                chosen += g.gate[u * E + 1 + e] > 0.0f;
                mean[e] += (double)g.probs[u * E + 1 + e] / UNITS;
            }
        for (size_t e = 0; e < K; e++)
            want += share[e] / chosen * mean[e];
        assert_near(gates_balance(&g), UNITS * K * want, 1e-4);
        gates_backward_logits(&g, &slope, without, K);
        slope.balance = BALANCE;
        gates_backward_logits(&g, &slope, with, K);
        for (size_t u = 0; u < UNITS; u++) {
            const float *p = g.probs + u * E + 1;
            double own = 0;

            for (size_t e = 0; e < K; e++)
                own += (double)p[e] * K * share[e] / chosen;
            for (size_t e = 0; e < K; e++)
                assert_near(with[u * K + e] - without[u * K + e],
                            (double)BALANCE * (double)p[e] *
                                (K * share[e] / chosen - own),
                            1e-6);
        }
    }
    arena_release(&a);
}

/* ---- gradients ---- */

struct probe {
    struct decoder_pass *pass;
    const struct toy_data *data;
};

static double loss_of(const struct probe *at)
{
    struct block_loss loss;

    decoder_forward(at->pass, &at->data->block);
    decoder_loss(at->pass, &loss, NULL);
    return loss.scaled + (double)BALANCE * loss.balance;
}

/* PARAMS move along their gradient, and along a random direction. */
static double check_block(const struct probe *at, float *params, const float *grad,
                          size_t n, const char *what, uint64_t seed)
{
    float *dir = malloc(n * sizeof(*dir)), *kept = malloc(n * sizeof(*kept));
    double first = 0;
    struct rng r;

    rng_init(&r, seed, 3);
    memcpy(kept, params, n * sizeof(*kept));
    for (int random = 0; random < 2; random++) {
        double norm = 0, want = 0, got = 0;

        for (size_t i = 0; i < n; i++) {
            dir[i] = random ? rng_normal(&r) : grad[i];
            norm += (double)dir[i] * (double)dir[i];
        }
        for (size_t i = 0; i < n; i++) {
            dir[i] = norm > 0 ? dir[i] / (float)sqrt(norm) : 0.0f;
            want += (double)dir[i] * (double)grad[i];
        }
        for (int sign = -1; sign <= 1; sign += 2) {
            for (size_t i = 0; i < n; i++)
                params[i] = kept[i] + (float)sign * STEP * dir[i];
            got += sign * loss_of(at) / (2 * (double)STEP);
        }
        if (!(fabs(got - want) <= 1.7e-3 + 0.01 * fabs(want)))
            fail_msg("%s: the loss moves by %.6g, the gradient says %.6g", what, got,
                     want);
        first = random ? first : fabs(want);
    }
    memcpy(params, kept, n * sizeof(*kept));
    free(dir);
    free(kept);
    return first;
}

static void check_everything(const struct probe *at, struct mixture *m,
                             const struct mixture_grads *g)
{
    double routed = 0;
    char what[96];

    for (size_t e = 0; e < m->n_experts; e++) {
        double alive = 0;

        for (size_t i = 0; i < m->n_layers * N_SITES; i++) {
            struct lora *l = &m->experts[e].lora[i];

            if (!l->rank)
                continue;
            snprintf(what, sizeof(what), "%s layer %zu %s", m->experts[e].name,
                     i / N_SITES, site_name((enum site)(i % N_SITES)));
            alive += check_block(at, l->a, g->expert[e] + l->d_a, l->rank * l->n_in,
                                 what, i);
            alive += check_block(at, l->b, g->expert[e] + l->d_b, l->rank * l->n_out,
                                 what, i);
        }
        assert_true(alive > 0.01); /* a check of zeros would prove nothing */
    }
    for (size_t r = 0; r < m->n_routers; r++) {
        snprintf(what, sizeof(what), "router %zu", r);
        routed += check_block(at, m->routers[r].w,
                              g->routers + (m->routers[r].w - m->router_params),
                              m->routers[r].n_experts * m->routers[r].dim, what, r);
    }
    assert_true(routed > 1e-3);
}

static void run_backward(struct decoder_pass *p, const struct toy_data *d,
                         struct mixture_grads *g)
{
    const struct probe at = {p, d};

    loss_of(&at);
    decoder_backward(p, g);
}

static void check_rule(const struct gate_rule *rule, float dropout)
{
    struct artel_model *model = toy_open(7);
    const struct pass_options o = {.routing = ROUTE_ROUTER,
                                   .backward = true,
                                   .balance = BALANCE,
                                   .dropout = dropout > 0.0f,
                                   .dropout_seed = 5,
                                   .max_rows = 32,
                                   .max_seqs = 4};
    struct mixture_grads g;
    struct artel_error err;
    struct mixture m;
    struct toy_data d;
    struct probe at = {.data = &d};

    fill(&m, model, rule);
    for (size_t e = 0; e < m.n_experts; e++)
        m.experts[e].dropout = dropout;
    toy_fill(&d, 5);
    assert_int_equal(pass_open(&at.pass, model, &m, &o, &err), 0);
    g = toy_grads(&m);
    run_backward(at.pass, &d, &g);
    check_everything(&at, &m, &g);
    toy_grads_free(&g);
    pass_close(at.pass);
    mixture_release(&m);
    toy_close(model);
}

static void gradients_are_those_of_differences(void **state)
{
    (void)state;
    check_rule(&top_two, 0.0f);
    check_rule(&top_share, 0.0f);
    check_rule(&top_two, 0.2f);
}

static void layers_computed_anew_change_no_bit(void **state)
{
    struct artel_model *model = toy_open(7);
    struct pass_options o = {.routing = ROUTE_ROUTER,
                             .backward = true,
                             .balance = BALANCE,
                             .dropout = true,
                             .dropout_seed = 5,
                             .max_rows = 32,
                             .max_seqs = 4};
    struct mixture_grads g[2];
    struct artel_error err;
    struct mixture m;
    struct toy_data d;

    (void)state;
    fill(&m, model, &top_two);
    m.experts[0].dropout = m.experts[2].dropout = 0.2f;
    toy_fill(&d, 5);
    for (size_t i = 0; i < 2; i++) {
        struct decoder_pass *p;

        o.recompute = i;
        assert_int_equal(pass_open(&p, model, &m, &o, &err), 0);
        g[i] = toy_grads(&m);
        run_backward(p, &d, &g[i]);
        pass_close(p);
    }
    for (size_t e = 0; e < m.n_experts; e++)
        assert_memory_equal(g[0].expert[e], g[1].expert[e],
                            m.experts[e].n_params * sizeof(float));
    assert_memory_equal(g[0].routers, g[1].routers, m.n_router_params * sizeof(float));
    toy_grads_free(&g[0]);
    toy_grads_free(&g[1]);
    mixture_release(&m);
    toy_close(model);
}

/* ---- decoding ---- */

static void check_steps(const struct artel_model *model, const struct mixture *m,
                        int expert)
{
    struct artel_session *steps, *whole;
    struct artel_error err;
    struct toy_data d;

    toy_fill(&d, 3);
    assert_int_equal(session_open(&steps, model, m, 40, &err), 0);
    assert_int_equal(session_open(&whole, model, m, 40, &err), 0);
    assert_int_equal(session_prefill(steps, d.ids, 10, expert, 2, 4, &err), 0);
    for (size_t i = 10; i < 20; i++)
        assert_int_equal(session_step(steps, d.ids[i], &err), 0);
    assert_int_equal(session_prefill(whole, d.ids, 20, expert, 2, 4, &err), 0);
    for (size_t v = 0; v < TOY_VOCAB; v++)
        assert_near(session_logits(steps)[v], session_logits(whole)[v], 1e-4);
    assert_true(expert != EXPERT_AUTO || session_expert(steps) > 0);
    session_close(steps);
    session_close(whole);
}

static void steps_end_as_a_prefill_does(void **state)
{
    const struct gate_rule *const rules[] = {&top_two, &top_share};
    struct artel_model *model = toy_open(21);
    struct mixture m;

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        fill(&m, model, rules[k]);
        for (int expert = EXPERT_AUTO; expert < 4; expert++)
            check_steps(model, &m, expert);
        mixture_release(&m);
    }
    toy_close(model);
}

/* Sessions that are routed, of one expert, and of none, in one step. */
static void a_step_is_the_same_in_any_company(void **state)
{
    static const int experts[] = {EXPERT_AUTO, EXPERT_AUTO, 2, EXPERT_BASE, 0};
    enum { N = sizeof(experts) / sizeof(experts[0]) };
    struct artel_model *model = toy_open(21);
    struct artel_session *alone[N], *together[N];
    int32_t next[N] = {7, 3, 11, 5, 23};
    struct artel_error err;
    struct mixture m;
    struct toy_data d;

    (void)state;
    toy_fill(&d, 3);
    fill(&m, model, &top_two);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(session_open(&alone[i], model, &m, 40, &err), 0);
        assert_int_equal(session_open(&together[i], model, &m, 40, &err), 0);
        assert_int_equal(
            session_prefill(alone[i], d.ids + i, 8, experts[i], 2, 4, &err), 0);
        assert_int_equal(
            session_prefill(together[i], d.ids + i, 8, experts[i], 2, 4, &err), 0);
    }
    for (size_t k = 0; k < 3; k++) {
        assert_int_equal(sessions_step(together, next, N, &err), 0);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(session_step(alone[i], next[i], &err), 0);
            assert_memory_equal(session_logits(alone[i]), session_logits(together[i]),
                                TOY_VOCAB * sizeof(float));
            next[i] = (next[i] + 5) % TOY_VOCAB;
        }
    }
    for (size_t i = 0; i < N; i++) {
        session_close(alone[i]);
        session_close(together[i]);
    }
    mixture_release(&m);
    toy_close(model);
}

/* ---- what does not fit ---- */

static void other_experts_are_refused(void **state)
{
    static const struct {
        bool whole, second;
        enum expert_kind kind;
        enum site site;
    } cases[] = {{false, false, EXPERT_FFN, SITE_UP},
                 {true, false, EXPERT_FFN, SITE_UP},
                 {true, false, EXPERT_LORA, SITE_UP},
                 {true, true, EXPERT_LORA, SITE_UP},
                 {true, true, EXPERT_FFN, SITE_Q}};
    struct artel_model *model = toy_open(7);
    const struct model_config *c = &model->weights->config;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct lora_options o = {.rank = 2, .alpha = 2, .kind = cases[i].kind};
        struct gate_rule rule = top_two;
        struct artel_error err;
        struct mixture m;
        struct expert e;

        rule.whole_ffn = cases[i].whole;
        o.targets[cases[i].site] = true;
        assert_int_equal(mixture_init(&m, "test", c, &rule, &err), 0);
        if (cases[i].second)
            toy_expert(&m, model, "shared", 3, "0", 1);
        assert_int_equal(expert_init_uniform(&e, "wrong", c, &o, &err), 0);
        assert_int_equal(mixture_add(&m, &e, c, &err), ARTEL_EFORMAT);
        assert_string_equal(err.code, "MIX15");
        expert_release(&e);
        mixture_release(&m);
    }
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_expert_is_a_plain_lora),
        cmocka_unit_test(a_chosen_expert_is_a_plain_lora),
        cmocka_unit_test(with_all_b_zero_it_is_the_base),
        cmocka_unit_test(gates_are_those_of_the_rule),
        cmocka_unit_test(the_balance_loss_is_its_formula),
        cmocka_unit_test(gradients_are_those_of_differences),
        cmocka_unit_test(layers_computed_anew_change_no_bit),
        cmocka_unit_test(steps_end_as_a_prefill_does),
        cmocka_unit_test(a_step_is_the_same_in_any_company),
        cmocka_unit_test(other_experts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
