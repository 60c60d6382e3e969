/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A universal expert beside experts that a router weighs (MoDULA): what Res and Flan must
 * be equal to, gates, gradients by finite differences and exactly where they vanish.
 *
 * Bound: as in test_gradients.c, where a step of 1e-2 leaves 5e-4 to rounding. phi bends at
 * 0, so steps must be shorter than the way to the next bend: 3e-3, and 1.7e-3 for rounding.
 */
#include "support/toy_decoder.h"

#include <stdio.h>

#include "decoder/pass.h"
#include "decoder/session.h"
#include "experts/fold.h"

#define STEP 3e-3f

static const struct gate_rule res = {.place = ROUTER_LINEAR,
                                     .decides = DECIDE_TOKEN,
                                     .kind = GATE_SOFTMAX,
                                     .n_fixed = 1};
static const struct gate_rule no_residual = {.place = ROUTER_LINEAR,
                                             .decides = DECIDE_TOKEN,
                                             .kind = GATE_SOFTMAX,
                                             .n_fixed = 1,
                                             .silent = true};
static const struct gate_rule flan = {.place = ROUTER_LINEAR,
                                      .decides = DECIDE_TOKEN,
                                      .kind = GATE_SOFTMAX,
                                      .bias = true}; /* so that a gate can be one-hot */

static void fill(struct mixture *m, const struct artel_model *model,
                 const struct gate_rule *rule)
{
    const enum expert_kind kind = rule->n_fixed ? EXPERT_RES : EXPERT_LORA;
    struct artel_error err;

    assert_int_equal(mixture_init(m, "test", &model->weights->config, rule, &err), 0);
    toy_expert(m, model, "universal", 4, NULL, 1);
    toy_expert_of(m, model, kind, "attention", 2, "0123", 2);
    toy_expert_of(m, model, kind, "all", 5, NULL, 3);
    mixture_draw_routers(m, 0.4f, 9);
}

static void zero(const struct expert *e, bool of_a)
{
    for (size_t i = 0; i < e->n_layers * N_SITES; i++) {
        const struct lora *l = &e->lora[i];

        memset(of_a ? l->a : l->b, 0,
               l->rank * (of_a ? l->n_a : l->n_out) * sizeof(float));
    }
}

static void assert_same_logits(const struct artel_model *model, const struct mixture *a,
                               int expert_a, const struct mixture *b, int expert_b)
{
    float *x = toy_logits(model, a, expert_a), *y = toy_logits(model, b, expert_b);

    assert_memory_equal(x, y, 26 * TOY_VOCAB * sizeof(*x));
    free(x);
    free(y);
}

static void res_with_all_b_zero_is_the_universal_expert(void **state)
{
    struct artel_model *model = toy_open(7);
    struct mixture m;

    (void)state;
    fill(&m, model, &res);
    zero(&m.experts[1], false);
    zero(&m.experts[2], false);
    assert_same_logits(model, &m, -2, &m, 0);
    mixture_release(&m);
    toy_close(model);
}

static void res_with_a_zero_universal_expert_is_the_base(void **state)
{
    struct artel_model *model = toy_open(7);
    struct mixture m;

    (void)state;
    fill(&m, model, &res);
    zero(&m.experts[0], false);
    mixture_fold(&m, NULL);
    assert_same_logits(model, &m, -2, NULL, -1);
    mixture_release(&m);
    toy_close(model);
}

/* What is left of it is what the others make of h, and by itself it is a LoRA. */
static void without_the_residual_it_is_read_and_not_heard(void **state)
{
    struct artel_model *model = toy_open(7);
    struct mixture m, with;

    (void)state;
    fill(&m, model, &no_residual);
    fill(&with, model, &res);
    assert_same_logits(model, &m, 0, &with, 0);
    zero(&m.experts[1], false);
    zero(&m.experts[2], false);
    assert_same_logits(model, &m, -2, NULL, -1);
    assert_same_logits(model, &m, 1, NULL, -1);
    mixture_release(&m);
    mixture_release(&with);
    toy_close(model);
}

static void flan_with_a_one_hot_gate_is_that_lora(void **state)
{
    struct artel_model *model = toy_open(7);
    struct mixture m;

    (void)state;
    for (int e = 0; e < 3; e++) {
        fill(&m, model, &flan);
        for (size_t r = 0; r < m.n_routers; r++)
            m.routers[r].b[e] = 1000.0f;
        assert_same_logits(model, &m, -2, &m, e);
        mixture_release(&m);
    }
    toy_close(model);
}

static void gates_sum_to_one_beside_the_fixed_ones(void **state)
{
    const struct gate_rule rules[] = {res, flan};
    struct artel_model *model = toy_open(7);
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .max_rows = 32, .max_seqs = 4};
    struct toy_data d;

    (void)state;
    toy_fill(&d, 5);
    for (size_t k = 0; k < 2; k++) {
        struct decoder_pass *p;
        struct artel_error err;
        struct mixture m;

        fill(&m, model, &rules[k]);
        assert_int_equal(m.routers[0].n_experts, k ? 3 : 2);
        assert_int_equal(pass_open(&p, model, &m, &o, &err), 0);
        decoder_forward(p, &d.block);
        for (size_t r = 0; r < m.n_routers; r++)
            for (size_t t = 0; t < d.block.n_rows; t++) {
                const float *g = p->gates[r].gate + t * 3;
                const float *probs = p->gates[r].probs + t * 3;

                assert_near(k ? g[0] + g[1] + g[2] : g[1] + g[2], 1.0f, 1e-6);
                assert_true(k || (g[0] == 1.0f && probs[0] == 0.0f));
            }
        pass_close(p);
        mixture_release(&m);
    }
    toy_close(model);
}

/* ---- gradients ---- */

struct slopes {
    struct mixture_grads folded; /* as the pass leaves them */
    float *own[3];               /* of parameters */
};

static double run_backward(struct decoder_pass *p, const struct toy_data *d,
                           const struct mixture *m, struct slopes *out)
{
    struct block_loss loss;

    decoder_forward(p, &d->block);
    decoder_loss(p, &loss, NULL);
    if (!out)
        return loss.scaled;
    out->folded = toy_grads(m);
    decoder_backward(p, &out->folded);
    for (size_t e = 0; e < 3; e++)
        out->own[e] = calloc(m->experts[e].n_params, sizeof(float));
    memcpy(out->own[0], out->folded.expert[0], m->experts[0].n_params * sizeof(float));
    for (size_t e = 1; e < 3; e++)
        mixture_unfold(out->own[e], out->own[0], m, e, out->folded.expert[e]);
    return loss.scaled;
}

static void slopes_free(struct slopes *s)
{
    toy_grads_free(&s->folded);
    for (size_t e = 0; e < 3; e++)
        free(s->own[e]);
}

struct probe {
    struct decoder_pass *pass;
    const struct toy_data *data;
    struct mixture *m;
};

static double loss_at(const struct probe *at, float *params, const float *kept,
                      const float *dir, size_t n, float step)
{
    for (size_t i = 0; i < n; i++)
        params[i] = kept[i] + step * dir[i];
    mixture_fold(at->m, NULL);
    return run_backward(at->pass, at->data, at->m, NULL);
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
        double norm = 0, want = 0, got;

        for (size_t i = 0; i < n; i++) {
            dir[i] = random ? rng_normal(&r) : grad[i];
            norm += (double)dir[i] * (double)dir[i];
        }
        for (size_t i = 0; i < n; i++) {
            dir[i] = norm > 0 ? dir[i] / (float)sqrt(norm) : 0.0f;
            want += (double)dir[i] * (double)grad[i];
        }
        got = (loss_at(at, params, kept, dir, n, STEP) -
               loss_at(at, params, kept, dir, n, -STEP)) /
              (2 * (double)STEP);
        if (!(fabs(got - want) <= 1.7e-3 + 0.01 * fabs(want)))
            fail_msg("%s: the loss moves by %.6g, the gradient says %.6g", what, got,
                     want);
        first = random ? first : fabs(want);
    }
    memcpy(params, kept, n * sizeof(*kept));
    mixture_fold(at->m, NULL);
    free(dir);
    free(kept);
    return first;
}

static void compare_gradients(const struct gate_rule *rule)
{
    struct artel_model *model = toy_open(7);
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .backward = true, .max_rows = 32, .max_seqs = 4};
    double alive[4] = {0};
    struct artel_error err;
    struct slopes s;
    struct mixture m;
    struct toy_data d;
    struct probe at = {.data = &d, .m = &m};
    char what[96];

    fill(&m, model, rule);
    toy_fill(&d, 5);
    assert_int_equal(pass_open(&at.pass, model, &m, &o, &err), 0);
    run_backward(at.pass, &d, &m, &s);
    for (size_t e = 0; e < 3; e++)
        for (size_t i = 0; i < m.n_layers * N_SITES; i++) {
            struct expert *x = &m.experts[e];
            struct lora *l = &x->lora[i];

            if (!l->rank)
                continue;
            snprintf(what, sizeof(what), "%s linear %zu", x->name, i);
            alive[e] += check_block(&at, l->a, s.own[e] + (l->a - x->params),
                                    l->rank * l->n_a, what, i);
            alive[e] += check_block(&at, l->b, s.own[e] + (l->b - x->params),
                                    l->rank * l->n_out, what, i);
        }
    for (size_t r = 0; r < m.n_routers; r++) {
        snprintf(what, sizeof(what), "router %zu", r);
        alive[3] += check_block(&at, m.routers[r].w,
                                s.folded.routers + (m.routers[r].w - m.router_params),
                                m.routers[r].n_experts * m.routers[r].dim, what, r);
    }
    for (size_t i = 0; i < 4; i++)
        assert_true(alive[i] > 1e-3); /* a check of zeros would prove nothing */
    slopes_free(&s);
    pass_close(at.pass);
    mixture_release(&m);
    toy_close(model);
}

static void gradients_are_those_of_differences(void **state)
{
    (void)state;
    compare_gradients(&res);
    compare_gradients(&no_residual);
}

static void no_gradient_where_the_universal_expert_says_nothing(void **state)
{
    struct artel_model *model = toy_open(7);
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .backward = true, .max_rows = 32, .max_seqs = 4};
    struct toy_data d;

    (void)state;
    toy_fill(&d, 5);
    for (int of_a = 0; of_a < 2; of_a++) {
        struct decoder_pass *p;
        struct artel_error err;
        struct slopes s;
        struct mixture m;

        fill(&m, model, &res);
        zero(&m.experts[0], of_a);
        mixture_fold(&m, NULL);
        assert_int_equal(pass_open(&p, model, &m, &o, &err), 0);
        run_backward(p, &d, &m, &s);
        for (size_t e = 1; e < 3; e++)
            for (size_t i = 0; i < m.experts[e].n_params; i++)
                assert_true(s.own[e][i] == 0.0f);
        slopes_free(&s);
        pass_close(p);
        mixture_release(&m);
    }
    toy_close(model);
}

/* ---- decoding, and what does not fit ---- */

static void compare_steps(const struct gate_rule *rule)
{
    struct artel_model *model = toy_open(21);
    struct artel_session *steps, *whole;
    struct artel_error err;
    struct toy_data d;
    struct mixture m;

    toy_fill(&d, 3);
    fill(&m, model, rule);
    for (int expert = EXPERT_AUTO; expert < 3; expert++) {
        assert_int_equal(session_open(&steps, model, &m, 40, &err), 0);
        assert_int_equal(session_open(&whole, model, &m, 40, &err), 0);
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
    mixture_release(&m);
    toy_close(model);
}

static void steps_end_as_a_prefill_does(void **state)
{
    (void)state;
    compare_steps(&res);
    compare_steps(&no_residual);
}

/* Whichever way round. */
static void an_expert_learnt_beside_the_other_sum_is_refused(void **state)
{
    struct artel_model *model = toy_open(7);
    const struct gate_rule *const rules[] = {&res, &no_residual};
    struct artel_error err;
    struct mixture from, to;
    struct expert e;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        fill(&from, model, rules[i]);
        assert_int_equal(expert_copy(&e, &from.experts[2], &err), 0);
        assert_int_equal(
            mixture_init(&to, "test", &model->weights->config, rules[1 - i], &err), 0);
        toy_expert(&to, model, "universal", 4, NULL, 1);
        assert_int_equal(mixture_add(&to, &e, &model->weights->config, &err),
                         ARTEL_EFORMAT);
        assert_string_equal(err.code, "MIX17");
        expert_release(&e);
        mixture_release(&from);
        mixture_release(&to);
    }
    toy_close(model);
}

static void an_expert_without_what_it_reads_is_refused(void **state)
{
    struct artel_model *model = toy_open(7);
    const struct model_config *c = &model->weights->config;
    struct lora_options o = {.rank = 2, .alpha = 2, .kind = EXPERT_RES};
    struct artel_error err;
    struct mixture m;
    struct expert e;

    (void)state;
    o.targets[SITE_Q] = o.targets[SITE_UP] = true;
    assert_int_equal(expert_init_uniform(&e, "reader", c, &o, &err), 0);
    assert_int_equal(mixture_init(&m, "test", c, &res, &err), 0);
    assert_int_equal(mixture_add(&m, &e, c, &err), ARTEL_EFORMAT);
    assert_string_equal(err.code, "MIX13");
    toy_expert(&m, model, "universal", 3, "0", 1);
    assert_int_equal(mixture_add(&m, &e, c, &err), ARTEL_EFORMAT);
    assert_non_null(strstr(err.reason, "up_proj"));
    mixture_release(&m);
    assert_int_equal(mixture_init(&m, "test", c, &flan, &err), 0);
    toy_expert(&m, model, "universal", 3, NULL, 1);
    assert_int_equal(mixture_add(&m, &e, c, &err), ARTEL_EFORMAT);
    expert_release(&e);
    mixture_release(&m);
    toy_close(model);
}

static void a_copy_and_a_removal_keep_the_rest(void **state)
{
    struct artel_model *model = toy_open(7);
    struct artel_error err;
    struct mixture m, two;
    struct expert copy;

    (void)state;
    fill(&m, model, &res);
    fill(&two, model, &res);
    assert_int_equal(expert_copy(&copy, &m.experts[2], &err), 0);
    assert_memory_equal(copy.lora[3].down, m.experts[2].lora[3].down,
                        copy.lora[3].rank * copy.lora[3].n_in * sizeof(float));
    assert_true(copy.lora[3].down != m.experts[2].lora[3].down);
    expert_release(&copy);
    assert_int_equal(mixture_remove(&m, 1, &err), 0);
    assert_int_equal(m.routers[3].n_experts, 1);
    assert_memory_equal(m.routers[3].w, two.routers[3].w + two.routers[3].dim,
                        m.routers[3].dim * sizeof(float));
    assert_same_logits(model, &m, 1, &two, 2);
    mixture_release(&m);
    mixture_release(&two);
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(res_with_all_b_zero_is_the_universal_expert),
        cmocka_unit_test(res_with_a_zero_universal_expert_is_the_base),
        cmocka_unit_test(without_the_residual_it_is_read_and_not_heard),
        cmocka_unit_test(flan_with_a_one_hot_gate_is_that_lora),
        cmocka_unit_test(gates_sum_to_one_beside_the_fixed_ones),
        cmocka_unit_test(gradients_are_those_of_differences),
        cmocka_unit_test(no_gradient_where_the_universal_expert_says_nothing),
        cmocka_unit_test(steps_end_as_a_prefill_does),
        cmocka_unit_test(an_expert_learnt_beside_the_other_sum_is_refused),
        cmocka_unit_test(an_expert_without_what_it_reads_is_refused),
        cmocka_unit_test(a_copy_and_a_removal_keep_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
