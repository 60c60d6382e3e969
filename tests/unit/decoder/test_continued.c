/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences that continue others: what they share is computed once, and no bit of a
 * likelihood changes. And what the routers did, summed up.
 */
#define TOY_VOCAB 64
#include "support/toy_decoder.h"

#include "decoder/gate_sums.h"

#define SHARED 7
static const size_t rest[] = {4, 1, 9};
#define N_REST (sizeof(rest) / sizeof(rest[0]))

struct text {
    int32_t ids[64];
    unsigned char loss[64];
};

static void fill(struct text *t, size_t which)
{
    struct rng r;

    rng_init(&r, 5, 0);
    for (size_t i = 0; i < SHARED; i++)
        t->ids[i] = (int32_t)rng_below(&r, TOY_VOCAB);
    rng_init(&r, 6 + which, 0);
    for (size_t i = SHARED; i < 64; i++)
        t->ids[i] = (int32_t)rng_below(&r, TOY_VOCAB);
    for (size_t i = 0; i < 64; i++)
        t->loss[i] = i >= SHARED;
}

static struct decoder_pass *pass_over(const struct artel_model *model,
                                      const struct mixture *m, enum routing_mode mode,
                                      bool continued)
{
    const struct pass_options o = {
        .routing = mode, .continued = continued, .max_rows = 80, .max_seqs = 8};
    struct decoder_pass *p;
    struct artel_error err;

    assert_int_equal(pass_open(&p, model, m, &o, &err), 0);
    return p;
}

/* The whole text as one sequence, another sequence before it. */
static double whole(const struct artel_model *model, const struct mixture *m,
                    enum routing_mode mode, size_t which, int expert)
{
    struct decoder_pass *const p = pass_over(model, m, mode, false);
    struct block_loss loss;
    struct sequence seqs[2];
    struct text t;
    double nll[2];

    fill(&t, which);
    seqs[0] = (struct sequence){
        .ids = t.ids + 3, .n = 5, .pool_n = 2, .loss_scale = 1, .expert = -1};
    seqs[1] = (struct sequence){.ids = t.ids,
                                .n = SHARED + rest[which],
                                .loss = t.loss,
                                .pool_first = 2,
                                .pool_n = 4,
                                .loss_scale = 1,
                                .expert = expert};
    decoder_forward(
        p, &(struct block){.seqs = seqs, .n_seqs = 2, .n_rows = 5 + seqs[1].n});
    decoder_loss(p, &loss, nll);
    pass_close(p);
    return nll[1];
}

/* All of the texts, their beginning as a sequence that the rest of each continues. */
static void together(double *nll, const struct artel_model *model,
                     const struct mixture *m, enum routing_mode mode, int expert)
{
    struct decoder_pass *const p = pass_over(model, m, mode, true);
    struct sequence seqs[2 + N_REST];
    struct text t[N_REST];
    struct block_loss loss;
    double all[2 + N_REST];
    size_t rows = 6 + SHARED;

    fill(&t[0], 0);
    seqs[0] = (struct sequence){
        .ids = t[0].ids, .n = 6, .pool_n = 3, .loss_scale = 1, .expert = -1};
    seqs[1] = (struct sequence){.ids = t[0].ids,
                                .n = SHARED,
                                .pool_first = 2,
                                .pool_n = 4,
                                .loss_scale = 1,
                                .expert = expert};
    for (size_t i = 0; i < N_REST; i++) {
        fill(&t[i], i);
        seqs[2 + i] = (struct sequence){.ids = t[i].ids + SHARED,
                                        .n = rest[i],
                                        .loss = t[i].loss + SHARED,
                                        .pool_first = 2,
                                        .pool_n = 4,
                                        .loss_scale = 1,
                                        .expert = expert,
                                        .after = 2};
        rows += rest[i];
    }
    decoder_forward(
        p, &(struct block){.seqs = seqs, .n_seqs = 2 + N_REST, .n_rows = rows});
    decoder_loss(p, &loss, all);
    assert_true(all[0] == 0 && all[1] == 0);
    memcpy(nll, all + 2, sizeof(all) - 2 * sizeof(*all));
    pass_close(p);
}

static void compare(const struct artel_model *model, const struct mixture *m,
                    enum routing_mode mode, int expert)
{
    double nll[N_REST];

    together(nll, model, m, mode, expert);
    for (size_t i = 0; i < N_REST; i++)
        assert_true(nll[i] == whole(model, m, mode, i, expert));
}

static void compare_all(struct artel_model *model)
{
    static const struct gate_rule rules[] = {
        {.place = ROUTER_LAYER, .fix_expert = true},
        {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX}};
    struct artel_error err;

    compare(model, NULL, ROUTE_GIVEN, -1);
    for (size_t i = 0; i < 2; i++) {
        struct mixture m;

        assert_int_equal(
            mixture_init(&m, "test", &model->weights->config, &rules[i], &err), 0);
        toy_expert(&m, model, "one", 3, NULL, 1);
        toy_expert(&m, model, "two", 5, "0246", 2);
        mixture_draw_routers(&m, 0.5f, 4);
        compare(model, &m, ROUTE_GIVEN, 1);
        compare(model, &m, ROUTE_ROUTER, -1);
        mixture_release(&m);
    }
}

static void what_is_shared_changes_no_bit(void **state)
{
    struct artel_model *const model = toy_open(1);

    (void)state;
    compare_all(model);
    toy_close(model);
}

static void what_is_shared_changes_no_bit_in_tiles(void **state)
{
    struct artel_model *const model = toy_open(1);
    struct artel_error err;

    (void)state;
    if (!precision_native_bf16()) {
        toy_close(model);
        skip();
    }
    arena_release(&model->arena);
    assert_int_equal(model_prepare(model, PRECISION_BF16,
                                   MATRIX_DECODE | MATRIX_FORWARD, TOY_CONTEXT, &err),
                     0);
    compare_all(model);
    toy_close(model);
}

/* Gates of a row sum to one; routers of zeros are as unsure as can be; sharp ones sure. */
static void routing_is_summed_up(void **state)
{
    const struct gate_rule rule = {
        .place = ROUTER_FFN, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX};
    struct artel_model *const model = toy_open(1);
    struct gate_sums *sums;
    struct toy_data data;
    struct artel_error err;
    struct decoder_pass *p;
    struct mixture m;

    (void)state;
    assert_int_equal(mixture_init(&m, "test", &model->weights->config, &rule, &err), 0);
    toy_expert(&m, model, "one", 3, NULL, 1);
    toy_expert(&m, model, "two", 2, NULL, 2);
    toy_identity(&m, model, "nothing");
    toy_fill(&data, 1);
    sums = calloc(2, gate_sums_bytes(m.n_routers, m.n_experts));
    p = pass_over(model, &m, ROUTE_ROUTER, false);
    decoder_forward(p, &data.block);
    gate_sums_add(sums, p);
    assert_near(sums->n, data.block.n_rows, 0);
    assert_near(sums->entropy / sums->decisions, log(3), 1e-6);
    assert_near(sums->identity / sums->decisions, 1.0 / 3, 1e-6);
    for (size_t i = 0; i < m.n_routers * m.n_experts; i++)
        assert_near(sums->gate[i] / sums->n, 1.0 / 3, 1e-6);
    mixture_draw_routers(&m, 30, 4);
    decoder_forward(p, &data.block);
    memset(sums, 0, gate_sums_bytes(m.n_routers, m.n_experts));
    gate_sums_add(sums, p);
    assert_true(sums->entropy / sums->decisions < 0.1);
    pass_close(p);
    free(sums);
    mixture_release(&m);
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_shared_changes_no_bit),
        cmocka_unit_test(what_is_shared_changes_no_bit_in_tiles),
        cmocka_unit_test(routing_is_summed_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
