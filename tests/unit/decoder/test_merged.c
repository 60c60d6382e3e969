/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions that add experts into their weights: the same logits and the same greedy tokens
 * as with the experts beside them, for every rule whose gates hold for a sequence; what
 * cannot be merged or does not fit is refused, or left as it was; and when it pays.
 *
 * Bound: both sum the same products, in another order. Logits are below 10 and end two
 * layers of sums of 32 and 48: 5e-5 is ten times what was seen.
 */
#include "support/toy_session.h"

#include <omp.h>

#include "base/cpu.h"
#include "decoder/session_parts.h"
#include "math/quantise.h"
#include "tiles/tiles.h"

#define N_PROMPT N_IDS
#define N_STEPS  12
#define BOUND    5e-5

/* Three LoRAs, the last one of the FFN alone. */
static void open_fixture(struct fixture *f, const struct gate_rule *rule)
{
    fixture_begin(f, rule);
    toy_expert(&f->mixture, f->model, "one", 3, NULL, 1);
    toy_expert(&f->mixture, f->model, "two", 2, NULL, 2);
    toy_expert(&f->mixture, f->model, "three", 4, "456", 3);
    fixture_end(f);
}

static struct artel_session *new_session(const struct fixture *f, enum merge_mode mode)
{
    struct artel_session *s = fixture_session(f, false);
    struct artel_error err;

    assert_int_equal(session_set_merge(s, mode, N_STEPS, 0, &err), 0);
    return s;
}

static void prefill(struct artel_session *s, const struct fixture *f, size_t n,
                    int expert)
{
    struct artel_error err;

    assert_int_equal(session_prefill(s, f->ids, n, expert, 2, n - 4, &err), 0);
}

static void assert_logits_near(const struct artel_session *a,
                               const struct artel_session *b, double bound)
{
    for (size_t v = 0; v < TOY_VOCAB; v++)
        assert_near(session_logits(a)[v], session_logits(b)[v], bound);
}

static int32_t likeliest(const struct artel_session *s)
{
    int32_t best = 0;

    for (int32_t v = 1; v < TOY_VOCAB; v++)
        if (session_logits(s)[v] > session_logits(s)[best])
            best = v;
    return best;
}

/* After a prompt of N tokens and at each of the steps behind it, greedily. */
static void compare_with(struct artel_session *merged, struct artel_session *beside,
                         const struct fixture *f, size_t n, int expert)
{
    struct artel_error err;

    prefill(merged, f, n, expert);
    prefill(beside, f, n, expert);
    assert_int_equal(session_merged(beside), MERGE_NOTHING);
    assert_int_equal(session_expert(merged), session_expert(beside));
    for (size_t i = 0; i < N_STEPS; i++) {
        const int32_t id = likeliest(beside);

        assert_logits_near(merged, beside, BOUND);
        assert_int_equal(likeliest(merged), id);
        assert_int_equal(session_step(merged, id, &err), 0);
        assert_int_equal(session_step(beside, id, &err), 0);
    }
}

static void compare(const struct fixture *f, size_t n, int expert,
                    enum merge_extent extent)
{
    struct artel_session *merged = new_session(f, MERGE_ALWAYS),
                         *beside = new_session(f, MERGE_NEVER);

    prefill(merged, f, n, expert);
    prefill(beside, f, n, expert);
    /* Prompts are of other sums, too, unless routers that agreed have read them already. */
    if (expert != EXPERT_AUTO || f->mixture.n_experts == 1)
        assert_int_equal(!memcmp(session_logits(merged), session_logits(beside),
                                 TOY_VOCAB * sizeof(float)),
                         extent == MERGE_NOTHING);
    session_reset(merged);
    session_reset(beside);
    compare_with(merged, beside, f, n, expert);
    assert_int_equal(session_merged(merged), extent);
    session_close(merged);
    session_close(beside);
}

static const struct gate_rule single = {.place = ROUTER_NONE};
static const struct gate_rule moa = {.place = ROUTER_LAYER, .fix_expert = true};

static void one_lora_merged_is_that_lora(void **state)
{
    struct fixture f;

    (void)state;
    fixture_begin(&f, &single);
    toy_expert(&f.mixture, f.model, "one", 3, "046", 1);
    fixture_end(&f);
    compare(&f, N_PROMPT, 0, MERGE_ALL);
    compare(&f, 7, EXPERT_AUTO, MERGE_ALL);
    compare(&f, 3 + 4, 0, MERGE_ALL);
    compare(&f, N_PROMPT, EXPERT_BASE, MERGE_NOTHING); /* nothing is added */
    fixture_close(&f);
}

/* Told, or chosen by routers that agree or not. */
static void an_expert_of_a_mixture_is_merged_once_it_is_fixed(void **state)
{
    struct fixture f;

    (void)state;
    open_fixture(&f, &moa);
    for (int e = 0; e < 3; e++)
        compare(&f, N_PROMPT, e, MERGE_ALL);
    for (size_t n = 6; n <= N_PROMPT; n++)
        compare(&f, n, EXPERT_AUTO, MERGE_ALL);
    fixture_close(&f);
}

/* Another expert in a later turn: other weights, in a session that has some. */
static void another_turn_forms_the_weights_anew(void **state)
{
    static const int turns[] = {0, 0, 1, 2, 0, EXPERT_BASE, EXPERT_AUTO, 1};
    struct artel_session *merged, *beside;
    struct fixture f;

    (void)state;
    open_fixture(&f, &moa);
    merged = new_session(&f, MERGE_ALWAYS);
    beside = new_session(&f, MERGE_NEVER);
    for (size_t i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
        const struct merged *m = merged->merged;
        const char *before = m->arena.base;
        const size_t bytes = m->arena.size;

        compare_with(merged, beside, &f, 10 + i, turns[i]);
        if (i == 1) { /* the same expert: what was formed stays */
            assert_ptr_equal(before, m->arena.base);
            assert_int_equal(merged_bytes(m), 0);
        }
        assert_true(!i || m->arena.size == bytes); /* room is used again */
    }
    session_close(merged);
    session_close(beside);
    fixture_close(&f);
}

/* Soft gates of a whole sequence, other ones in each layer. */
static void held_gates_are_merged(void **state)
{
    const struct gate_rule soft = {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX};
    const struct gate_rule linear = {.place = ROUTER_LINEAR, .kind = GATE_SOFTMAX};
    const struct gate_rule ffn = {
        .place = ROUTER_FFN, .kind = GATE_SOFTMAX, .n_fixed = 1};
    const struct gate_rule *const rules[] = {&soft, &linear, &ffn};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;

        open_fixture(&f, rules[i]);
        compare(&f, N_PROMPT, EXPERT_AUTO, MERGE_ALL);
        fixture_close(&f);
    }
}

/* SLIM's masks drop rows of B and columns of A; an identity adds nothing. */
static void masked_experts_are_merged_as_they_are_worn(void **state)
{
    static const enum mask_kind kinds[] = {MASK_FIXED, MASK_EXPECTED, MASK_NONE};
    struct gate_rule slim = {.place = ROUTER_FFN,
                             .decides = DECIDE_TOKEN,
                             .kind = GATE_TOP_K,
                             .top_k = 2,
                             .n_clusters = 2,
                             .clusters = {DISTANCE_MEAN, 0.99f, 1.0f},
                             .masks = {.drop = 0.5f}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct artel_error err;
        struct fixture f;

        slim.masks.kind = kinds[i];
        fixture_begin(&f, &slim);
        toy_expert(&f.mixture, f.model, "one", 3, "456", 1);
        toy_expert(&f.mixture, f.model, "two", 5, "456", 2);
        toy_identity(&f.mixture, f.model, "nothing");
        fixture_end(&f);
        assert_int_equal(
            mixture_wear(&f.mixture, &f.model->weights->config, MASK_INFERENCE, &err),
            0);
        compare(&f, N_PROMPT, 0, MERGE_ALL);
        compare(&f, N_PROMPT, 1, MERGE_ALL);
        compare(&f, N_PROMPT, 2, MERGE_NOTHING);
        fixture_close(&f);
    }
}

static void one_whole_ffn_beside_a_shared_lora_is_merged(void **state)
{
    const struct gate_rule mixlora = {.place = ROUTER_FFN,
                                      .decides = DECIDE_TOKEN,
                                      .kind = GATE_TOP_K,
                                      .top_k = 2,
                                      .n_fixed = 1,
                                      .whole_ffn = true};
    struct fixture f;

    (void)state;
    fixture_begin(&f, &mixlora);
    toy_expert(&f.mixture, f.model, "shared", 4, "0123", 1);
    toy_expert_of(&f.mixture, f.model, EXPERT_FFN, "one", 5, "456", 2);
    toy_expert_of(&f.mixture, f.model, EXPERT_FFN, "two", 3, "456", 3);
    fixture_end(&f);
    compare(&f, N_PROMPT, 0, MERGE_ALL);
    compare(&f, N_PROMPT, 1, MERGE_ALL);
    compare(&f, N_PROMPT, 2, MERGE_ALL);
    fixture_close(&f);
}

/* Refused where it must be, else computed as if nobody had asked. */
static void refuse(const struct fixture *f, int expert, const char *code)
{
    struct artel_session *always = new_session(f, MERGE_ALWAYS),
                         *as_it_fits = new_session(f, MERGE_AUTO),
                         *never = new_session(f, MERGE_NEVER);
    struct artel_error err;

    assert_error(session_prefill(always, f->ids, N_PROMPT, expert, 2, 5, &err),
                 !strcmp(code, "MRG01") ? ARTEL_EUSAGE : ARTEL_ELIMIT, err, code);
    prefill(as_it_fits, f, N_PROMPT, expert);
    prefill(never, f, N_PROMPT, expert);
    assert_int_equal(session_merged(as_it_fits), MERGE_NOTHING);
    assert_memory_equal(session_logits(as_it_fits), session_logits(never),
                        TOY_VOCAB * sizeof(float));
    prefill(always, f, N_PROMPT, EXPERT_BASE); /* it lives on */
    session_close(always);
    session_close(as_it_fits);
    session_close(never);
}

static void what_is_no_change_of_weights_is_refused(void **state)
{
    const struct gate_rule flan = {
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX};
    struct gate_rule res = flan;
    struct fixture f;

    (void)state;
    open_fixture(&f, &flan);
    refuse(&f, EXPERT_AUTO, "MRG01"); /* gates of tokens */
    compare(&f, N_PROMPT, 1, MERGE_ALL);
    fixture_close(&f);

    res.n_fixed = 1;
    fixture_begin(&f, &res);
    toy_expert(&f.mixture, f.model, "universal", 4, NULL, 1);
    toy_expert_of(&f.mixture, f.model, EXPERT_RES, "bent", 3, NULL, 2);
    fixture_end(&f);
    refuse(&f, EXPERT_AUTO, "MRG01");
    refuse(&f, 1, "MRG01"); /* phi is not linear */
    compare(&f, N_PROMPT, 0, MERGE_ALL);
    fixture_close(&f);
}

static void weights_that_do_not_fit_are_refused(void **state)
{
    struct artel_session *s, *never;
    struct artel_error err;
    struct fixture f;
    size_t needed;

    (void)state;
    open_fixture(&f, &single);
    s = new_session(&f, MERGE_ALWAYS);
    merged_want(s->merged, 0, NULL);
    needed = merged_bytes(s->merged);
    assert_true(needed >= 4 * TOY_LAYERS * 3 * TOY_DIM * TOY_FFN);
    assert_int_equal(session_set_merge(s, MERGE_ALWAYS, N_STEPS, needed - 1, &err), 0);
    assert_error(session_prefill(s, f.ids, N_PROMPT, 0, 0, 0, &err), ARTEL_ELIMIT, err,
                 "MRG02");
    assert_null(s->merged->arena.base);
    assert_int_equal(session_set_merge(s, MERGE_ALWAYS, N_STEPS, needed + 4096, &err),
                     0);
    prefill(s, &f, N_PROMPT, 0);
    assert_int_equal(session_merged(s), MERGE_ALL);
    /* What it has counts: another expert of that size fits into the same room. */
    prefill(s, &f, N_PROMPT, 1);
    assert_int_equal(session_merged(s), MERGE_ALL);
    session_close(s);

    /* Auto, where it would pay but does not fit: as without. */
    s = new_session(&f, MERGE_AUTO);
    never = new_session(&f, MERGE_NEVER);
    assert_int_equal(session_set_merge(s, MERGE_AUTO, 30, needed - 1, &err), 0);
    prefill(s, &f, 5, 0);
    prefill(never, &f, 5, 0);
    assert_int_equal(session_merged(s), MERGE_NOTHING);
    assert_memory_equal(session_logits(s), session_logits(never),
                        TOY_VOCAB * sizeof(float));
    assert_int_equal(session_set_merge(s, MERGE_AUTO, 30, 0, &err), 0);
    prefill(s, &f, 6, 0);
    assert_int_not_equal(session_merged(s), MERGE_NOTHING);
    session_close(s);
    session_close(never);
    fixture_close(&f);
}

/* Beside others, merged or not, and on any number of threads: the same bits. */
static void company_and_threads_change_no_bit(void **state)
{
    static const enum merge_mode modes[] = {MERGE_ALWAYS, MERGE_NEVER, MERGE_NEVER,
                                            MERGE_ALWAYS};
    float alone[4][TOY_VOCAB];
    struct artel_error err;
    struct fixture f;

    (void)state;
    open_fixture(&f, &moa);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct artel_session *s[4];
        int32_t ids[4];

        omp_set_num_threads(threads);
        for (int i = 0; i < 4; i++) {
            s[i] = new_session(&f, modes[i]);
            prefill(s[i], &f, 9 + (size_t)i, i % 3);
            ids[i] = f.ids[i];
        }
        for (int i = 0; i < 4 && threads == 1; i++) {
            assert_int_equal(session_step(s[i], ids[i], &err), 0);
            memcpy(alone[i], session_logits(s[i]), sizeof(alone[i]));
            session_reset(s[i]); /* or rows would be kept that a step made */
            prefill(s[i], &f, 9 + (size_t)i, i % 3);
            assert_int_equal(session_merged(s[i]) != MERGE_NOTHING,
                             modes[i] == MERGE_ALWAYS);
        }
        assert_int_equal(sessions_step(s, ids, 4, &err), 0);
        for (int i = 0; i < 4; i++) {
            assert_memory_equal(session_logits(s[i]), alone[i], sizeof(alone[i]));
            session_close(s[i]);
        }
    }
    omp_set_num_threads((int)cpu_threads());
    fixture_close(&f);
}

/* The base's linears in two bytes a number. */
static void halve(struct artel_model *model)
{
    struct artel_error err;

    for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++) {
        struct tensor *t = &model->weights->layers[i / N_SITES].site[i % N_SITES];
        const size_t n = t->shape[0] * t->shape[1];
        void *half = malloc(n * 2);

        assert_non_null(half);
        assert_true(quantise(half, DTYPE_BF16, t->data, n));
        toy_free(t);
        t->data = half;
        t->dtype = DTYPE_BF16;
        t->bytes = n * 2;
    }
    arena_release(&model->arena);
    assert_int_equal(model_prepare(model, PRECISION_FP32,
                                   MATRIX_DECODE | MATRIX_FORWARD, TOY_CONTEXT, &err),
                     0);
}

/* Merged in float, not rounded back. */
static void a_base_of_16_bits_is_merged_in_float(void **state)
{
    struct fixture f;

    (void)state;
    open_fixture(&f, &moa);
    halve(f.model);
    compare(&f, N_PROMPT, 1, MERGE_ALL);
    fixture_close(&f);
}

/* On tiles prompts stay as they are, to the bit; steps are merged. */
static void in_bf16_steps_alone_are_merged(void **state)
{
    struct artel_session *merged, *beside;
    struct artel_error err;
    struct fixture f;

    (void)state;
    if (!precision_native_bf16())
        skip();
    open_fixture(&f, &moa);
    assert_int_equal(model_prepare(f.model, PRECISION_BF16,
                                   MATRIX_DECODE | MATRIX_FORWARD, TOY_CONTEXT, &err),
                     0);
    merged = new_session(&f, MERGE_ALWAYS);
    beside = new_session(&f, MERGE_NEVER);
    prefill(merged, &f, N_PROMPT, 1);
    prefill(beside, &f, N_PROMPT, 1);
    assert_int_equal(session_merged(merged), MERGE_STEPS);
    assert_memory_equal(session_logits(merged), session_logits(beside),
                        TOY_VOCAB * sizeof(float));
    for (size_t i = 0; i < N_STEPS; i++) {
        assert_int_equal(session_step(merged, f.ids[i], &err), 0);
        assert_int_equal(session_step(beside, f.ids[i], &err), 0);
        assert_logits_near(merged, beside, BOUND);
    }
    session_close(merged);
    session_close(beside);
    fixture_close(&f);
}

/* All linears of a model of 30 layers of width 576 and 1,536 (the demo's), under a LoRA of
 * RANK. */
static struct merge_count demo(double bytes_a_weight, size_t rank)
{
    static const double shape[N_SITES][2] = {{576, 576}, {192, 576},  {192, 576},
                                             {576, 576}, {1536, 576}, {1536, 576},
                                             {576, 1536}};
    struct merge_count c = {.prompts = true};
    const double R = (double)rank;

    for (size_t s = 0; s < N_SITES; s++) {
        c.weights += 30 * shape[s][0] * shape[s][1];
        c.low_rank += 30 * R * (shape[s][0] + shape[s][1]);
        c.updates += 30 * R * shape[s][0] * shape[s][1];
    }
    c.stored_bytes = bytes_a_weight * c.weights;
    return c;
}

static void merging_pays_on_one_side_of_the_break_even(void **state)
{
    struct merge_count f32 = demo(4, 8), bf16 = demo(2, 8), q4 = demo(0.625, 8), wide;
    size_t at = 1;

    (void)state;
    /* The count by hand: (16 W + 4 W) / 4.2 P = 4.76 W / P, W / P = 43.5. */
    while (at < 1000 && merge_choose(&f32, 0, at) == MERGE_NOTHING)
        at++;
    assert_in_range(at, 206, 209);
    assert_int_equal(merge_choose(&f32, 0, at + 1), MERGE_STEPS);
    assert_true(merge_saves(&f32, MERGE_STEPS, 0, at - 1) <= 0);
    assert_true(merge_saves(&f32, MERGE_STEPS, 0, at) > 0);
    f32.formed = true; /* it is there: from the first step on */
    assert_int_equal(merge_choose(&f32, 0, 1), MERGE_STEPS);
    assert_int_equal(merge_choose(&f32, 1000, 0), MERGE_NOTHING);

    /* Floats are read instead of half or a sixth as much: never, until the factors are
     * themselves as large as the weights. */
    assert_int_equal(merge_choose(&bf16, 0, 1000000), MERGE_NOTHING);
    assert_int_equal(merge_choose(&q4, 2000, 1000000), MERGE_NOTHING);
    wide = demo(2, 256);
    assert_int_equal(merge_choose(&wide, 0, 1000), MERGE_STEPS);
    assert_int_equal(merge_choose(&wide, 0, 10), MERGE_NOTHING);
    wide = demo(0.625, 512);
    assert_int_equal(merge_choose(&wide, 0, 1000), MERGE_STEPS);
    wide = demo(0.625, 256);
    assert_int_equal(merge_choose(&wide, 0, 100000), MERGE_NOTHING);

    /* Of prompts the low-rank products are saved, and packing at each use is lost. */
    wide = demo(4, 256);
    assert_int_equal(merge_choose(&wide, 2000, 0), MERGE_ALL);
    assert_int_equal(merge_choose(&wide, 10, 0), MERGE_NOTHING);
    assert_int_equal(merge_choose(&wide, 10, 300), MERGE_ALL);
    wide.prompts = false;
    assert_int_equal(merge_choose(&wide, 2000, 0), MERGE_NOTHING);
    assert_int_equal(merge_choose(&wide, 2000, 300), MERGE_STEPS);
    f32 = demo(4, 8);
    assert_int_equal(merge_choose(&f32, 2000, 300), MERGE_STEPS);
    f32.lean = true; /* it is lost already */
    assert_int_equal(merge_choose(&f32, 2000, 300), MERGE_ALL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_lora_merged_is_that_lora),
        cmocka_unit_test(an_expert_of_a_mixture_is_merged_once_it_is_fixed),
        cmocka_unit_test(another_turn_forms_the_weights_anew),
        cmocka_unit_test(held_gates_are_merged),
        cmocka_unit_test(masked_experts_are_merged_as_they_are_worn),
        cmocka_unit_test(one_whole_ffn_beside_a_shared_lora_is_merged),
        cmocka_unit_test(what_is_no_change_of_weights_is_refused),
        cmocka_unit_test(weights_that_do_not_fit_are_refused),
        cmocka_unit_test(company_and_threads_change_no_bit),
        cmocka_unit_test(a_base_of_16_bits_is_merged_in_float),
        cmocka_unit_test(in_bf16_steps_alone_are_merged),
        cmocka_unit_test(merging_pays_on_one_side_of_the_break_even),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
