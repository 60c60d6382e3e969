/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts and routers as data: what joins, what leaves, what is refused; and
 * that an expert in company computes exactly what it computes alone.
 */
#include "support/toy_decoder.h"

#include <stdio.h>

static const struct gate_rule moa = {.place = ROUTER_LAYER, .fix_expert = true};

static void open_mixture(struct mixture *m, const struct artel_model *model,
                         const struct gate_rule *rule)
{
    struct artel_error err;

    assert_int_equal(mixture_init(m, "test", &model->weights->config, rule, &err), 0);
}

/* Logits of the last row of DATA with every sequence on its own expert. */
static void run(float *logits, const struct artel_model *model, const struct mixture *m,
                const struct toy_data *data, enum routing_mode routing)
{
    const struct pass_options o = {.routing = routing, .max_rows = 32, .max_seqs = 4};
    struct decoder_pass *p;
    struct artel_error err;

    assert_int_equal(pass_open(&p, model, m, &o, &err), 0);
    decoder_forward(p, &data->block);
    for (size_t t = 0; t < data->block.n_rows; t++)
        pass_logits(p, logits + t * TOY_VOCAB, t);
    pass_close(p);
}

static void an_expert_in_company_equals_itself_alone(void **state)
{
    struct artel_model *model = toy_open(1);
    struct mixture many, alone;
    struct toy_data data, single;
    static float in_company[32 * TOY_VOCAB], by_itself[32 * TOY_VOCAB];
    size_t row = 0;

    (void)state;
    toy_fill(&data, 3);
    open_mixture(&many, model, &moa);
    toy_expert(&many, model, "one", 3, NULL, 1);
    toy_expert(&many, model, "two", 5, "0246", 2);
    toy_expert(&many, model, "three", 2, NULL, 3);
    run(in_company, model, &many, &data, ROUTE_GIVEN);
    for (size_t s = 0; s < TOY_SEQS; s++) {
        struct artel_error err;
        struct expert copy;

        open_mixture(&alone, model, &(const struct gate_rule){.place = ROUTER_NONE});
        assert_int_equal(expert_copy(&copy, &many.experts[s], &err), 0);
        assert_int_equal(mixture_add(&alone, &copy, &model->weights->config, &err), 0);
        single = data;
        single.seqs[0] = data.seqs[s];
        single.seqs[0].expert = 0;
        single.block =
            (struct block){.seqs = single.seqs, .n_seqs = 1, .n_rows = data.seqs[s].n};
        run(by_itself, model, &alone, &single, ROUTE_GIVEN);
        assert_memory_equal(by_itself, in_company + row * TOY_VOCAB,
                            data.seqs[s].n * TOY_VOCAB * sizeof(float));
        row += data.seqs[s].n;
        mixture_release(&alone);
    }
    mixture_release(&many);
    toy_close(model);
}

static void a_fresh_expert_and_an_identity_change_no_bit(void **state)
{
    struct artel_model *model = toy_open(1);
    struct mixture m;
    struct toy_data data;
    static float base[32 * TOY_VOCAB], with[32 * TOY_VOCAB];

    (void)state;
    toy_fill(&data, 3);
    for (size_t s = 0; s < TOY_SEQS; s++)
        data.seqs[s].expert = -1;
    run(base, model, NULL, &data, ROUTE_GIVEN);
    open_mixture(&m, model, &moa);
    toy_expert(&m, model, "fresh", 4, NULL, 1);
    expert_draw(&m.experts[0], 1, 1);
    toy_identity(&m, model, "identity");
    for (size_t s = 0; s < TOY_SEQS; s++)
        data.seqs[s].expert = (int)(s % 2);
    run(with, model, &m, &data, ROUTE_GIVEN);
    assert_memory_equal(base, with, data.block.n_rows * TOY_VOCAB * sizeof(float));
    mixture_release(&m);
    toy_close(model);
}

/* A hot softmax is a one-hot gate, and gates of a row sum to one. */
static void gates_sum_to_one_and_sharpen_to_one_hot(void **state)
{
    const enum gate_kind kinds[] = {GATE_ONE_HOT, GATE_SOFTMAX, GATE_TOP_K};
    float probs[2 * 4] = {0.1f, 0.2f, 0.3f, 0.4f, 0.25f, 0.25f, 0.25f, 0.25f}, gate[8];
    const uint32_t unit[2] = {0, 1};
    uint32_t first[5], row[8];
    struct gates g = {.n_rows = 2,
                      .n_units = 2,
                      .n_experts = 4,
                      .unit_of_row = unit,
                      .probs = probs,
                      .gate = gate,
                      .first = first,
                      .row = row};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        const struct gate_rule rule = {.kind = kinds[k], .top_k = 2};

        gates_decide(&g, &rule);
        for (size_t u = 0; u < 2; u++)
            assert_near(gate[4 * u] + gate[4 * u + 1] + gate[4 * u + 2] +
                            gate[4 * u + 3],
                        1.0, 1e-6);
    }
    assert_near(gate[3], 0.4 / 0.7, 1e-6); /* top 2 of the first unit */
    assert_near(gate[2], 0.3 / 0.7, 1e-6);
    assert_true(gate[4] == 0.5f && gate[5] == 0.5f); /* ties: the lower indices */
    assert_int_equal(first[4], 4);
    assert_int_equal(row[first[3]], 0);
    assert_int_equal(gates_argmax(&g, 1), 0);
}

static void routers_follow_their_experts(void **state)
{
    struct artel_model *model = toy_open(1);
    struct mixture m;
    struct artel_error err;
    static float kept[TOY_LAYERS][2][TOY_DIM];

    (void)state;
    open_mixture(&m, model, &moa);
    toy_expert(&m, model, "one", 2, NULL, 1);
    toy_expert(&m, model, "two", 2, NULL, 2);
    mixture_draw_routers(&m, 1.0f, 5);
    for (size_t l = 0; l < TOY_LAYERS; l++)
        memcpy(kept[l], m.routers[l].w, sizeof(kept[l]));
    toy_expert(&m, model, "three", 2, NULL, 3);
    for (size_t l = 0; l < TOY_LAYERS; l++) {
        assert_int_equal(m.routers[l].n_experts, 3);
        assert_memory_equal(m.routers[l].w, kept[l], sizeof(kept[l]));
        for (size_t d = 0; d < TOY_DIM; d++)
            assert_true(m.routers[l].w[2 * TOY_DIM + d] == 0.0f);
    }
    assert_int_equal(m.n_router_params, TOY_LAYERS * TOY_DIM * 3);
    assert_int_equal(mixture_remove(&m, 0, &err), 0);
    assert_int_equal(mixture_find(&m, "one"), -1);
    assert_int_equal(mixture_find(&m, "two"), 0);
    for (size_t l = 0; l < TOY_LAYERS; l++)
        assert_memory_equal(m.routers[l].w, kept[l][1], TOY_DIM * sizeof(float));
    mixture_release(&m);
    toy_close(model);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct artel_model *model = toy_open(1);
    struct model_config other = model->weights->config;
    struct mixture m;
    struct artel_error err;
    struct expert e;
    struct lora_options o;

    (void)state;
    open_mixture(&m, model, &moa);
    toy_expert(&m, model, "one", 2, NULL, 1);
    lora_options_default(&o);
    assert_int_equal(expert_init_uniform(&e, "ONE", &model->weights->config, &o, &err),
                     0);
    assert_error(mixture_add(&m, &e, &model->weights->config, &err), ARTEL_EFORMAT, err,
                 "MIX02");
    expert_release(&e);
    other.ffn_dim = 40;
    assert_int_equal(expert_init_uniform(&e, "wide", &other, &o, &err), 0);
    assert_error(mixture_add(&m, &e, &model->weights->config, &err), ARTEL_EFORMAT, err,
                 "MIX01");
    expert_release(&e);
    other.n_layers = 1;
    assert_int_equal(expert_init_uniform(&e, "short", &other, &o, &err), 0);
    assert_error(mixture_add(&m, &e, &model->weights->config, &err), ARTEL_EFORMAT, err,
                 "MIX01");
    expert_release(&e);
    o.rank = 0;
    assert_error(expert_init_uniform(&e, "none", &other, &o, &err), ARTEL_EUSAGE, err,
                 "EXP02");
    assert_int_equal(m.n_experts, 1);
    mixture_release(&m);
    toy_close(model);
}

static void names_are_letters_digits_and_marks(void **state)
{
    static const char *const good[] = {"a", "Math-2", "a.b_c", "0"};
    static const char *const bad[] = {"",    ".",   "..",       "-x",  "../x",
                                      "a/b", "a b", "\xc3\xa9", "a\nb"};
    char longest[EXPERT_NAME_MAX + 2];

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(expert_name_valid(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(expert_name_valid(bad[i]));
    memset(longest, 'a', sizeof(longest));
    longest[EXPERT_NAME_MAX + 1] = '\0';
    assert_false(expert_name_valid(longest));
    longest[EXPERT_NAME_MAX] = '\0';
    assert_true(expert_name_valid(longest));
}

static void every_method_has_a_rule_and_a_summary(void **state)
{
    struct gate_rule rule;
    size_t n = 0;

    (void)state;
    for (; method_name(n); n++) {
        assert_int_equal(method_rule(&rule, method_name(n)), 0);
        assert_non_null(method_summary(method_name(n)));
    }
    assert_true(n >= 4);
    assert_int_equal(method_rule(&rule, "moa"), 0);
    assert_int_equal(rule.place, ROUTER_LAYER);
    assert_true(rule.fix_expert);
    assert_int_equal(method_rule(&rule, "mao"), -1);
    assert_null(method_summary("mao"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_in_company_equals_itself_alone),
        cmocka_unit_test(a_fresh_expert_and_an_identity_change_no_bit),
        cmocka_unit_test(gates_sum_to_one_and_sharpen_to_one_hot),
        cmocka_unit_test(routers_follow_their_experts),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(names_are_letters_digits_and_marks),
        cmocka_unit_test(every_method_has_a_rule_and_a_summary),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
