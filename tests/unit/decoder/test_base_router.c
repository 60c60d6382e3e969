/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A router of the base: what it reads is what the layers of the bare base put out, whoever
 * else is in the block and whatever the experts are; and what is answered is the chosen
 * expert's alone.
 */
#define TOY_LAYERS 3
#include "support/toy_decoder.h"

#include <omp.h>

#include "decoder/session.h"
#include "math/rmsnorm.h"
#include "tiles/tiles.h"

static const struct gate_rule rule = {.place = ROUTER_BASE,
                                      .bias = true,
                                      .fix_expert = true,
                                      .n_reads = 2,
                                      .reads = {1, 3}};

static struct artel_model *base_of(enum precision precision)
{
    struct artel_model *m = toy_open(31);
    struct artel_error err;

    if (precision == PRECISION_BF16)
        assert_int_equal(model_prepare(m, precision, MATRIX_DECODE | MATRIX_FORWARD,
                                       TOY_CONTEXT, &err),
                         0);
    return m;
}

static void fill(struct mixture *m, const struct artel_model *model,
                 const struct gate_rule *r)
{
    struct artel_error err;

    assert_int_equal(mixture_init(m, "test", &model->weights->config, r, &err), 0);
    toy_expert(m, model, "one", 3, NULL, 1);
    toy_expert(m, model, "two", 2, NULL, 2);
    toy_expert(m, model, "three", 4, "456", 3);
    mixture_draw_routers(m, 1.0f, 4);
}

static struct decoder_pass *forward(const struct artel_model *model,
                                    const struct mixture *m, const struct block *block,
                                    bool shared)
{
    const struct pass_options o = {.routing = ROUTE_ROUTER,
                                   .max_rows = 40,
                                   .max_seqs = TOY_SEQS,
                                   .shared = shared};
    struct decoder_pass *p;
    struct artel_error err;

    assert_int_equal(pass_open(&p, model, m, &o, &err), 0);
    decoder_forward(p, block);
    return p;
}

/* Layer 1's output is what a router of layer 2 reads where experts add nothing; the last
 * one's is what the head reads. */
static void it_reads_what_layers_put_out(void **state)
{
    struct gate_rule by_layer = {.place = ROUTER_LAYER};

    (void)state;
    for (int half = 0; half < 1 + precision_native_bf16(); half++) {
        struct artel_model *model = base_of(half ? PRECISION_BF16 : PRECISION_FP32);
        struct mixture m, silent;
        struct decoder_pass *p, *q;
        struct toy_data data;
        size_t row = 0;

        fill(&m, model, &rule);
        fill(&silent, model, &by_layer);
        for (size_t e = 0; e < 3; e++)
            memset(silent.experts[e].params, 0,
                   silent.experts[e].n_params * sizeof(float));
        toy_fill(&data, 5);
        p = forward(model, &m, &data.block, false);
        q = forward(model, &silent, &data.block, false);
        for (size_t s = 0; s < TOY_SEQS; s++) {
            const struct sequence *seq = &data.seqs[s];
            const float *z = pass_router_input(p, 0, s);
            float last[TOY_DIM] = {0.0f}, normed[TOY_DIM];

            for (size_t i = 0; i < TOY_DIM; i++)
                assert_near(z[i], pass_router_input(q, 1, s)[i], half ? 0.03 : 1e-6);
            for (size_t t = 0; t < seq->pool_n; t++) {
                rmsnorm_forward(normed, NULL, pass_hidden(p, row + seq->pool_first + t),
                                model->final_norm, 1e-5f, 1, TOY_DIM);
                for (size_t i = 0; i < TOY_DIM; i++)
                    last[i] += normed[i] / (float)seq->pool_n;
            }
            for (size_t i = 0; i < TOY_DIM; i++)
                assert_near(z[TOY_DIM + i], last[i], 1e-5);
            row += seq->n;
        }
        pass_close(p);
        pass_close(q);
        mixture_release(&m);
        mixture_release(&silent);
        toy_close(model);
    }
}

/* Alone, in company, cut behind its pool, by one thread or two: the same bits. */
static void company_and_threads_change_no_bit(void **state)
{
    (void)state;
    for (int half = 0; half < 1 + precision_native_bf16(); half++) {
        struct artel_model *model = base_of(half ? PRECISION_BF16 : PRECISION_FP32);
        const int before = omp_get_max_threads();
        struct decoder_pass *all, *one;
        struct toy_data data;
        struct mixture m;

        fill(&m, model, &rule);
        toy_fill(&data, 6);
        omp_set_num_threads(2);
        all = forward(model, &m, &data.block, true);
        omp_set_num_threads(1);
        for (size_t s = 0; s < TOY_SEQS; s++) {
            struct sequence seq = data.seqs[s];
            struct block block = {.seqs = &seq, .n_seqs = 1};
            size_t agreeing = 9;

            seq.n = seq.pool_first + seq.pool_n;
            block.n_rows = seq.n;
            one = forward(model, &m, &block, false);
            assert_memory_equal(pass_router_input(one, 0, 0),
                                pass_router_input(all, 0, s),
                                2 * TOY_DIM * sizeof(float));
            assert_memory_equal(pass_router_probs(one, 0, 0),
                                pass_router_probs(all, 0, s), 3 * sizeof(float));
            assert_int_equal(pass_select(one, 0, &agreeing), pass_select(all, s, NULL));
            assert_int_equal(agreeing, 0);
            pass_close(one);
        }
        omp_set_num_threads(before);
        pass_close(all);
        mixture_release(&m);
        toy_close(model);
    }
}

/* However long the prompt, the session ends as if the chosen expert had been named. */
static void the_answer_is_the_chosen_experts(void **state)
{
    struct artel_model *model = base_of(PRECISION_FP32);
    struct artel_session *routed, *forced;
    struct artel_error err;
    struct mixture m;
    int32_t ids[30];
    bool seen[3] = {false};
    struct rng r;

    (void)state;
    fill(&m, model, &rule);
    for (size_t i = 0; i < 3 * m.routers[0].dim; i++)
        m.routers[0].w[i] *= 10.0f;
    assert_int_equal(session_open(&routed, model, &m, 40, &err), 0);
    assert_int_equal(session_open(&forced, model, &m, 40, &err), 0);
    rng_init(&r, 3, 0);
    for (size_t turn = 0; turn < 12; turn++) {
        const size_t n = 3 + turn * 2;
        int expert;

        for (size_t i = 0; i < 30; i++)
            ids[i] = (int32_t)rng_below(&r, TOY_VOCAB);
        assert_int_equal(session_prefill(routed, ids, n, EXPERT_AUTO, 1, n - 2, &err),
                         0);
        expert = session_expert(routed);
        assert_in_range(expert, 0, 2);
        seen[expert] = true;
        assert_non_null(session_probs(routed, 0));
        for (size_t e = 0; e < 3; e++)
            assert_true(session_probs(routed, 0)[e] <=
                        session_probs(routed, 0)[expert]);
        session_reset(forced);
        assert_int_equal(session_prefill(forced, ids, n, expert, 1, n - 2, &err), 0);
        assert_memory_equal(session_logits(routed), session_logits(forced),
                            TOY_VOCAB * sizeof(float));
        assert_int_equal(session_step(routed, 7, &err), 0);
        assert_int_equal(session_step(forced, 7, &err), 0);
        assert_memory_equal(session_logits(routed), session_logits(forced),
                            TOY_VOCAB * sizeof(float));
    }
    assert_true(seen[0] + seen[1] + seen[2] > 1);
    session_close(routed);
    session_close(forced);
    mixture_release(&m);
    toy_close(model);
}

/* What sums there are follow the experts; a layer that the base has not is refused. */
static void sums_follow_the_experts(void **state)
{
    struct artel_model *model = base_of(PRECISION_FP32);
    struct gate_rule far = rule;
    struct artel_error err;
    struct mixture m;
    double kept;

    (void)state;
    fill(&m, model, &rule);
    assert_true(mixture_router_used(&m, 0));
    assert_int_equal(ridge_init(&m.sums, m.routers[0].dim, 3, &err), 0);
    for (size_t e = 0; e < 3; e++)
        ridge_add(&m.sums, e, m.routers[0].w + e * m.routers[0].dim);
    kept = m.sums.s[2 * m.sums.dim];
    assert_int_equal(mixture_remove(&m, 1, &err), 0);
    assert_int_equal(m.sums.n_domains, 2);
    assert_true(m.sums.s[m.sums.dim] == kept);
    mixture_release(&m);
    far.reads[1] = TOY_LAYERS + 1;
    assert_int_equal(mixture_init(&m, "test", &model->weights->config, &far, &err),
                     ARTEL_EFORMAT);
    assert_string_equal(err.code, "MIX05");
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reads_what_layers_put_out),
        cmocka_unit_test(company_and_threads_change_no_bit),
        cmocka_unit_test(the_answer_is_the_chosen_experts),
        cmocka_unit_test(sums_follow_the_experts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
