/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step holds in memory is no part of its result: losses and all trained numbers
 * after some steps are the same bits in every memory mode, for every kind of gate, in
 * both precisions and for any number of threads; and a run goes on in another mode.
 */
#define TOY_LAYERS 5 /* more than have room where layers take turns */
#include "support/toy_decoder.h"

#include "base/cpu.h"
#include "tiles/tiles.h"
#include "train/trainer.h"

#define ROWS     9
#define LONGEST  40
#define STEPS    3
#define N_TOKENS (ROWS * LONGEST)

struct setting {
    enum precision precision;
    struct gate_rule rule;
    enum routing_mode routing;
    bool routers, alone, straight;
    float eta, dropout;
};

struct run {
    struct artel_model *model;
    struct mixture mixture;
    struct artel_trainer *trainer;
    float loss[STEPS + 1];
};

struct data {
    int32_t ids[ROWS][LONGEST];
    unsigned char loss[LONGEST];
    struct example row[ROWS];
    const struct example *rows[ROWS];
    struct batch batch;
};

/* Rows of 3 to 40 tokens: whole blocks of rows, parts of them, and rows that share. */
static void fill(struct data *d)
{
    static const size_t length[ROWS] = {5, 40, 3, 32, 17, 11, 9, 31, 24};
    struct rng r;

    memset(d, 0, sizeof(*d));
    rng_init(&r, 21, 0);
    for (size_t t = 0; t < LONGEST; t++)
        d->loss[t] = t > 1 && t % 5 != 3;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t t = 0; t < LONGEST; t++)
            d->ids[i][t] = (int32_t)rng_below(&r, TOY_VOCAB);
        d->row[i] = (struct example){.ids = d->ids[i],
                                     .n = length[i],
                                     .n_prompt = 2,
                                     .loss = d->loss,
                                     .pool_first = 1,
                                     .pool_n = length[i] / 2,
                                     .domain = (uint32_t)(i % 3),
                                     .row = i + 1};
        for (size_t t = 1; t < length[i]; t++)
            d->row[i].n_loss += d->loss[t];
        d->rows[i] = &d->row[i];
        d->batch.n_tokens += length[i];
        d->batch.n_loss += d->row[i].n_loss;
    }
    d->batch.rows = d->rows;
    d->batch.n_rows = ROWS;
}

static void open_run(struct run *run, const struct setting *s, enum memory_mode memory,
                     size_t threads)
{
    static const char *const names[] = {"one", "two", "three"};
    const bool trained[3] = {!s->alone, !s->alone, !s->alone};
    struct train_options o;
    struct artel_error err;

    memset(run, 0, sizeof(*run));
    assert_int_equal(cpu_set_threads(threads, &err), 0);
    run->model = toy_open(3);
    assert_int_equal(model_prepare(run->model, s->precision, memory_mode_use(memory),
                                   TOY_CONTEXT, &err),
                     0);
    assert_int_equal(mixture_init(&run->mixture, "test", &run->model->weights->config,
                                  &s->rule, &err),
                     0);
    for (size_t e = 0; e < 3; e++) {
        if (s->rule.whole_ffn)
            toy_expert_of(&run->mixture, run->model, e ? EXPERT_FFN : EXPERT_LORA,
                          names[e], 2 + e, e ? "456" : "0123", e + 1);
        else
            toy_expert(&run->mixture, run->model, names[e], 2 + e, NULL, e + 1);
        run->mixture.experts[e].dropout = s->dropout;
    }
    mixture_draw_routers(&run->mixture, 0.4f, 9);
    train_options_default(&o);
    o.learning_rate = 1e-2f;
    o.eta = s->eta;
    o.balance = s->rule.whole_ffn ? 0.1f : 0.0f;
    o.routing = s->routing;
    o.straight = s->straight;
    o.lm_loss = !s->alone;
    o.max_row_tokens = LONGEST;
    o.block_rows = LONGEST;
    o.memory = memory;
    o.wave_rows = 2 * LONGEST;
    assert_int_equal(trainer_open(&run->trainer, run->model, &run->mixture, trained,
                                  s->routers, &o, &err),
                     0);
}

static void close_run(struct run *run)
{
    trainer_close(run->trainer);
    mixture_release(&run->mixture);
    toy_close(run->model);
}

static void steps(struct run *run, size_t n)
{
    struct step_report report;
    struct eval_report eval;
    struct artel_error err;
    struct data d;

    fill(&d);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(trainer_step(run->trainer, &d.batch, 1, &report, &err), 0);
        run->loss[i] = report.loss;
    }
    assert_int_equal(trainer_eval(run->trainer, d.rows, ROWS, &eval, &err), 0);
    run->loss[STEPS] = (float)eval.nll;
}

static void assert_same(const struct run *a, const struct run *b)
{
    assert_memory_equal(a->loss, b->loss, sizeof(a->loss));
    for (size_t e = 0; e < a->mixture.n_experts; e++)
        assert_memory_equal(a->mixture.experts[e].params, b->mixture.experts[e].params,
                            a->mixture.experts[e].n_params * sizeof(float));
    if (a->mixture.n_router_params)
        assert_memory_equal(a->mixture.router_params, b->mixture.router_params,
                            a->mixture.n_router_params * sizeof(float));
}

static void all_modes(struct setting s)
{
    for (int p = PRECISION_FP32; p <= PRECISION_BF16; p++) {
        struct run keep;

        s.precision = (enum precision)p;
        if (p == PRECISION_BF16 && (!precision_native_bf16() || s.rule.whole_ffn))
            continue;
        open_run(&keep, &s, MEMORY_KEEP, 1);
        steps(&keep, STEPS);
        for (int mode = MEMORY_KEEP; mode < N_MEMORY_MODES; mode++)
            for (size_t threads = 1; threads <= 3; threads++) {
                struct run other;

                open_run(&other, &s, (enum memory_mode)mode, threads);
                steps(&other, STEPS);
                assert_same(&keep, &other);
                close_run(&other);
            }
        close_run(&keep);
    }
}

static void plain_lora(void **state)
{
    const struct setting s = {.routing = ROUTE_GIVEN};

    (void)state;
    all_modes(s);
}

static void dropout(void **state)
{
    const struct setting s = {.routing = ROUTE_GIVEN, .dropout = 0.3f};

    (void)state;
    all_modes(s);
}

static void labels_and_routers(void **state)
{
    const struct setting s = {.rule = {.place = ROUTER_LAYER},
                              .routing = ROUTE_GIVEN,
                              .routers = true,
                              .eta = 0.1f};

    (void)state;
    all_modes(s);
}

static void one_hot_gates(void **state)
{
    const struct setting s = {.rule = {.place = ROUTER_LAYER, .kind = GATE_ONE_HOT},
                              .routing = ROUTE_ROUTER,
                              .routers = true,
                              .straight = true};

    (void)state;
    all_modes(s);
}

static void softmax_a_token(void **state)
{
    const struct setting s = {
        .rule = {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
        .routing = ROUTE_ROUTER,
        .routers = true,
        .dropout = 0.2f};

    (void)state;
    all_modes(s);
}

static void two_of_three_a_token(void **state)
{
    const struct setting s = {.rule = {.place = ROUTER_FFN,
                                       .decides = DECIDE_TOKEN,
                                       .kind = GATE_TOP_K,
                                       .top_k = 2},
                              .routing = ROUTE_ROUTER,
                              .routers = true};

    (void)state;
    all_modes(s);
}

static void whole_ffns(void **state)
{
    const struct setting s = {.rule = {.place = ROUTER_FFN,
                                       .decides = DECIDE_TOKEN,
                                       .kind = GATE_TOP_P,
                                       .top_p = 0.6f,
                                       .n_fixed = 1,
                                       .whole_ffn = true},
                              .routing = ROUTE_ROUTER,
                              .routers = true,
                              .dropout = 0.1f};

    (void)state;
    all_modes(s);
}

static void another_mode_goes_on(void **state)
{
    const struct setting s = {.precision = PRECISION_FP32,
                              .rule = {.place = ROUTER_LAYER},
                              .routers = true,
                              .eta = 0.1f,
                              .dropout = 0.1f};
    struct run whole, first, second;
    struct artel_error err;
    struct tensor kept[32];
    size_t n;

    (void)state;
    open_run(&whole, &s, MEMORY_KEEP, 1);
    steps(&whole, STEPS);
    open_run(&first, &s, MEMORY_KEEP, 1);
    steps(&first, 1);
    open_run(&second, &s, MEMORY_RECOMPUTE, 2);
    n = trainer_state(first.trainer, NULL);
    assert_in_range(n, 1, 32);
    trainer_state(first.trainer, kept);
    assert_int_equal(trainer_restore(second.trainer, kept, n, 1, &err), 0);
    steps(&second, STEPS - 1);
    memcpy(second.loss, whole.loss, sizeof(second.loss) - sizeof(second.loss[0]));
    assert_same(&whole, &second);
    close_run(&whole);
    close_run(&first);
    close_run(&second);
}

/* A row that is not finite ends the step in every mode, in the same block. */
static void a_bad_loss_is_refused(void **state)
{
    const struct setting s = {.precision = PRECISION_FP32, .routing = ROUTE_GIVEN};

    (void)state;
    for (int mode = MEMORY_KEEP; mode < N_MEMORY_MODES; mode++) {
        struct step_report report;
        struct artel_error err;
        struct run run;
        struct data d;

        open_run(&run, &s, (enum memory_mode)mode, 2);
        fill(&d);
        run.mixture.experts[1].lora[2 * N_SITES + SITE_UP].b[3] = NAN;
        assert_error(trainer_step(run.trainer, &d.batch, 1, &report, &err),
                     ARTEL_ENONFINITE, err, "NAN01");
        assert_non_null(strstr(err.where, "layer 2, expert "));
        assert_int_equal(trainer_steps_done(run.trainer), 0);
        close_run(&run);
    }
}

/* Routers alone read the same inputs, whatever the base is held in. */
static void routers_alone(void **state)
{
    struct setting s = {.rule = {.place = ROUTER_LAYER},
                        .routing = ROUTE_GIVEN,
                        .routers = true,
                        .alone = true};

    (void)state;
    all_modes(s);
}

static void less_memory_is_asked_for(void **state)
{
    const struct setting s = {.routing = ROUTE_GIVEN};
    const bool trained[3] = {true, true, true};
    size_t bytes[N_MEMORY_MODES];
    struct run run;

    (void)state;
    open_run(&run, &s, MEMORY_KEEP, 1);
    for (int mode = MEMORY_KEEP; mode < N_MEMORY_MODES; mode++) {
        struct train_options o;

        train_options_default(&o);
        o.memory = (enum memory_mode)mode;
        bytes[mode] = trainer_bytes(run.model, &run.mixture, trained, false, &o);
    }
    assert_true(bytes[MEMORY_RECOMPUTE] < bytes[MEMORY_KEEP]);
    close_run(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_lora),
        cmocka_unit_test(dropout),
        cmocka_unit_test(labels_and_routers),
        cmocka_unit_test(one_hot_gates),
        cmocka_unit_test(softmax_a_token),
        cmocka_unit_test(two_of_three_a_token),
        cmocka_unit_test(whole_ffns),
        cmocka_unit_test(routers_alone),
        cmocka_unit_test(a_bad_loss_is_refused),
        cmocka_unit_test(another_mode_goes_on),
        cmocka_unit_test(less_memory_is_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
