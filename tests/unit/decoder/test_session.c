/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session against itself: the same tokens give the same logits however they
 * came in, prefixes are kept only where they may be, and a routed prompt ends
 * as the work of the one expert that was chosen.
 *
 * Decoding reads weights by other kernels than a prefill of many rows: logits
 * agree within 1e-4 (values below 10, sums of 48 products).
 */
#include "support/toy_session.h"

#define N_PROMPT N_IDS

static void open_fixture(struct fixture *f, const struct gate_rule *rule)
{
    fixture_begin(f, rule);
    toy_expert(&f->mixture, f->model, "one", 3, NULL, 1);
    toy_expert(&f->mixture, f->model, "two", 2, NULL, 2);
    toy_expert(&f->mixture, f->model, "three", 4, "456", 3);
    fixture_end(f);
}

static void prefill(struct artel_session *s, const struct fixture *f, size_t n,
                    int expert)
{
    struct artel_error err;

    assert_int_equal(session_prefill(s, f->ids, n, expert, 2, n - 4, &err), 0);
    assert_int_equal(session_length(s), n);
}

static void assert_logits_near(const struct artel_session *a,
                               const struct artel_session *b)
{
    for (size_t v = 0; v < TOY_VOCAB; v++)
        assert_near(session_logits(a)[v], session_logits(b)[v], 1e-4);
}

static const struct gate_rule moa = {.place = ROUTER_LAYER, .fix_expert = true};

static void steps_equal_a_prefill(void **state)
{
    struct fixture f;
    struct artel_session *whole, *steps;
    struct artel_error err;

    (void)state;
    open_fixture(&f, &moa);
    for (int expert = EXPERT_BASE; expert < 3; expert++) {
        whole = fixture_session(&f, false);
        steps = fixture_session(&f, false);
        prefill(whole, &f, N_PROMPT, expert);
        prefill(steps, &f, 8, expert);
        for (size_t i = 8; i < N_PROMPT; i++)
            assert_int_equal(session_step(steps, f.ids[i], &err), 0);
        assert_logits_near(whole, steps);
        session_close(whole);
        session_close(steps);
    }
    fixture_close(&f);
}

static void a_kept_prefix_changes_no_answer(void **state)
{
    struct fixture f;
    struct artel_session *kept, *fresh;

    (void)state;
    open_fixture(&f, &moa);
    kept = fixture_session(&f, false);
    fresh = fixture_session(&f, false);
    prefill(kept, &f, 12, 1);
    prefill(kept, &f, N_PROMPT, 1);
    prefill(fresh, &f, N_PROMPT, 1);
    assert_logits_near(kept, fresh);
    /* Another expert must not see the first one's keys and values. */
    prefill(kept, &f, N_PROMPT, 0);
    session_reset(fresh);
    prefill(fresh, &f, N_PROMPT, 0);
    assert_memory_equal(session_logits(kept), session_logits(fresh),
                        TOY_VOCAB * sizeof(float));
    session_close(kept);
    session_close(fresh);
    fixture_close(&f);
}

/* Whatever the layers chose, the answer is that of the chosen expert alone. */
static void a_routed_prompt_is_the_work_of_one_expert(void **state)
{
    struct gate_rule rule = moa;
    struct fixture f;

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct artel_session *routed, *forced;

        rule.selector = kind ? SELECT_VOTE : SELECT_LAST;
        open_fixture(&f, &rule);
        routed = fixture_session(&f, false);
        forced = fixture_session(&f, false);
        for (size_t n = 6; n <= N_PROMPT; n++) {
            const float *p;
            size_t best = 0;

            session_reset(routed);
            session_reset(forced);
            prefill(routed, &f, n, EXPERT_AUTO);
            assert_true(session_expert(routed) >= 0);
            assert_true(session_layers_agreeing(routed) >= 1);
            prefill(forced, &f, n, session_expert(routed));
            assert_memory_equal(session_logits(routed), session_logits(forced),
                                TOY_VOCAB * sizeof(float));
            p = session_probs(routed, TOY_LAYERS - 1);
            for (size_t e = 1; e < 3; e++)
                best = p[e] > p[best] ? e : best;
            if (!kind)
                assert_int_equal(session_expert(routed), best);
        }
        session_close(routed);
        session_close(forced);
        fixture_close(&f);
    }
}

/* Soft gates for a whole sequence are found once and held while decoding. */
static void held_gates_stay_those_of_the_prompt(void **state)
{
    const struct gate_rule soft = {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX};
    struct fixture f;
    struct artel_session *steps, *whole;
    struct artel_error err;

    (void)state;
    open_fixture(&f, &soft);
    steps = fixture_session(&f, false);
    whole = fixture_session(&f, false);
    assert_int_equal(session_prefill(steps, f.ids, 10, EXPERT_AUTO, 2, 6, &err), 0);
    for (size_t i = 10; i < N_PROMPT; i++)
        assert_int_equal(session_step(steps, f.ids[i], &err), 0);
    /* The same pool in the whole prompt gives the same gates. */
    assert_int_equal(session_prefill(whole, f.ids, N_PROMPT, EXPERT_AUTO, 2, 6, &err),
                     0);
    assert_logits_near(steps, whole);
    session_close(steps);
    session_close(whole);
    fixture_close(&f);
}

static void token_gates_are_found_at_every_step(void **state)
{
    const struct gate_rule rules[] = {
        {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
        {.place = ROUTER_FFN, .decides = DECIDE_TOKEN, .kind = GATE_TOP_K, .top_k = 2},
        {.place = ROUTER_LINEAR,
         .decides = DECIDE_TOKEN,
         .kind = GATE_TOP_K,
         .top_k = 2,
         .absolute = true,
         .temperature = 0.5f}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;
        struct artel_session *steps, *whole;
        struct artel_error err;

        open_fixture(&f, &rules[i]);
        steps = fixture_session(&f, false);
        whole = fixture_session(&f, false);
        prefill(steps, &f, 10, EXPERT_AUTO);
        for (size_t t = 10; t < N_PROMPT; t++)
            assert_int_equal(session_step(steps, f.ids[t], &err), 0);
        prefill(whole, &f, N_PROMPT, EXPERT_AUTO);
        assert_logits_near(steps, whole);
        session_close(steps);
        session_close(whole);
        fixture_close(&f);
    }
}

/* The gates of the rows that predicted a token: one after another, or all in one pass. */
static void gates_of_tokens_are_averaged(void **state)
{
    const struct gate_rule rule = {
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX};
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .max_rows = N_PROMPT, .max_seqs = 1};
    unsigned char loss[N_PROMPT] = {0};
    double *sum;
    struct fixture f;
    struct artel_session *s;
    struct decoder_pass *p;
    struct artel_error err;
    float *mean;
    size_t cells;

    (void)state;
    open_fixture(&f, &rule);
    cells = f.mixture.n_routers * f.mixture.n_experts;
    sum = calloc(cells, sizeof(*sum));
    mean = calloc(cells, sizeof(*mean));
    s = fixture_session(&f, false);
    prefill(s, &f, 12, EXPERT_BASE);
    assert_false(session_gates(s, mean));
    prefill(s, &f, 12, EXPERT_AUTO);
    for (size_t i = 12; i + 1 < N_PROMPT; i++)
        assert_int_equal(session_step(s, f.ids[i], &err), 0);
    assert_true(session_gates(s, mean));
    memset(loss + 12, 1, N_PROMPT - 12);
    assert_int_equal(pass_open(&p, f.model, &f.mixture, &o, &err), 0);
    decoder_forward(
        p, &(struct block){
               .seqs = &(struct sequence){.ids = f.ids, .n = N_PROMPT, .expert = -1},
               .n_seqs = 1,
               .n_rows = N_PROMPT});
    assert_int_equal(pass_add_gates(p, 0, loss, sum), N_PROMPT - 12);
    for (size_t i = 0; i < cells; i++)
        assert_near(mean[i], (float)(sum[i] / (N_PROMPT - 12)), 1e-5);
    assert_int_equal(session_expert(s), mixture_heaviest(&f.mixture, sum));
    /* A prompt that begins as the cache does is continued, to the same end. */
    prefill(s, &f, N_PROMPT, EXPERT_AUTO);
    assert_true(session_gates(s, mean));
    pass_close(p);
    session_close(s);
    free(sum);
    free(mean);
    fixture_close(&f);
}

static void a_full_session_says_so(void **state)
{
    struct fixture f;
    struct artel_session *s;
    struct artel_error err;
    int32_t many[41] = {0};

    (void)state;
    open_fixture(&f, &moa);
    s = fixture_session(&f, false);
    assert_error(session_prefill(s, many, 41, 0, 0, 1, &err), ARTEL_ELIMIT, err,
                 "CTX03");
    assert_error(session_prefill(s, many, 0, 0, 0, 1, &err), ARTEL_EUSAGE, err,
                 "CTX04");
    assert_int_equal(session_prefill(s, many, 40, 0, 0, 1, &err), 0);
    assert_error(session_step(s, 1, &err), ARTEL_ELIMIT, err, "CTX03");
    session_close(s);
    assert_error(session_open(&s, f.model, NULL, TOY_CONTEXT + 1, &err), ARTEL_ELIMIT,
                 err, "CTX02");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_equal_a_prefill),
        cmocka_unit_test(a_kept_prefix_changes_no_answer),
        cmocka_unit_test(a_routed_prompt_is_the_work_of_one_expert),
        cmocka_unit_test(held_gates_stay_those_of_the_prompt),
        cmocka_unit_test(token_gates_are_found_at_every_step),
        cmocka_unit_test(gates_of_tokens_are_averaged),
        cmocka_unit_test(a_full_session_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
