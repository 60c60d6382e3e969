/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One job at a time: what is asked for comes, and it is what artel run answers.
 *
 * All tests of the engine run clean under ThreadSanitizer with one OpenMP thread, for
 * libgomp tells it nothing of its barriers:
 *     -DARTEL_SANITIZE=thread, OMP_NUM_THREADS=1
 */
#include "engine_fixture.h"

#include "decoder/logprobs.h"
#include "serve/grammar.h"

/* A grammar of this test's own: the letters of WORD, then the end. */
struct grammar {
    const struct tokenizer *tok;
    const char *word;
    size_t at;
    unsigned char allowed[64];
    int *closed;
};

const unsigned char *grammar_allowed(struct grammar *g)
{
    const char letter[2] = {g->word[g->at], '\0'};
    const int32_t id =
        letter[0] ? tokenizer_find(g->tok, letter) : tokenizer_eos(g->tok);

    assert_in_range(id, 0, 319);
    memset(g->allowed, 0, sizeof(g->allowed));
    g->allowed[id / 8] = (unsigned char)(1 << id % 8);
    return g->allowed;
}

void grammar_accept(struct grammar *g, int32_t id)
{
    size_t n;

    assert_int_equal(tokenizer_piece(g->tok, id, &n)[0], g->word[g->at++]);
}

void grammar_close(struct grammar *g)
{
    ++*g->closed;
}

static const char *const texts[] = {"Hello there, who are you?", "a", "1 + 1 = ",
                                    "The quick brown fox jumps over the lazy dog"};

static void answers_are_those_of_artel_run(void **state)
{
    struct engine *e = new_engine((struct engine_options){0});
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    for (int expert = EXPERT_AUTO; expert < N_EXPERTS; expert++)
        for (size_t i = 0; i < 4; i++) {
            struct job_options o = options(expert, 24);
            struct artel_answer want;
            struct heard *h;

            if (i >= 2) /* the same seed, the same text */
                o.sampling = (struct sampler_options){.temperature = 1.1f,
                                                      .top_p = 0.9f,
                                                      .repetition_penalty = 1.2f,
                                                      .seed = 5 + i};
            run_alone(&want, &b.opened, texts[i], &o);
            h = ask(e, &b, texts[i], &o);
            assert_answers(h, &want);
            assert_string_equal(h->events, "SRTD");
            assert_int_equal(h->usage.prompt_tokens, want.n_prompt_tokens);
            assert_int_equal(h->routed.routed, expert == EXPERT_AUTO);
            if (want.probabilities)
                assert_memory_equal(h->probabilities, want.probabilities,
                                    want.n_routers * want.n_experts * sizeof(float));
            assert_int_equal(h->route.layers_agreeing, want.layers_agreeing);
            free_heard(h);
            artel_answer_release(&want);
        }
    engine_close(e);
    close_base(&b);
    assert_int_equal(held, 0);
}

static void tokens_that_route_themselves_tell_of_the_whole_answer(void **state)
{
    const struct gate_rule by_token = {
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX};
    struct engine *e = new_engine((struct engine_options){0});
    const struct job_options o = options(EXPERT_AUTO, 12);
    struct artel_answer want;
    struct heard *h;
    struct base b;

    (void)state;
    open_base(&b, &by_token, 3);
    run_alone(&want, &b.opened, texts[0], &o);
    h = ask(e, &b, texts[0], &o);
    assert_answers(h, &want);
    assert_true(h->route.per_token && h->routed.per_token);
    assert_int_equal(h->route.n_routers, want.n_routers);
    assert_memory_equal(h->probabilities, want.probabilities,
                        want.n_routers * want.n_experts * sizeof(float));
    free_heard(h);
    artel_answer_release(&want);
    engine_close(e);
    close_base(&b);
}

/* A stop string that lies across tokens is found, and nothing of it is told (H28). */
static void H28_stop_strings_end_the_text_and_do_not_leak(void **state)
{
    struct engine *e = new_engine((struct engine_options){0});
    struct job_options o = options(0, 40);
    struct artel_answer all, want;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    run_alone(&all, &b.opened, texts[0], &o);
    assert_true(all.n_text > 12);
    for (size_t at = 4; at < 8; at++) {
        char stop[8] = "";
        const char *const stops[] = {"never to be found", stop};
        struct heard *h;

        memcpy(stop, all.text + at, 4);
        o.stop = stops;
        o.n_stop = 2;
        run_alone(&want, &b.opened, texts[0], &o);
        h = ask(e, &b, texts[0], &o);
        assert_answers(h, &want);
        assert_string_equal(h->reason, "stop");
        assert_null(strstr(h->text, stop));
        for (size_t i = 0; i < h->n_ids; i++)
            assert_true(h->text_at[i] < h->n_text);
        free_heard(h);
        artel_answer_release(&want);
    }
    artel_answer_release(&all);
    engine_close(e);
    close_base(&b);
}

static void answers_end_where_they_must(void **state)
{
    struct engine *e = new_engine((struct engine_options){.context = 20});
    struct job_options o = options(EXPERT_AUTO, 0);
    struct heard *h;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    assert_int_equal(engine_context(e, &b.loaded), 20);
    h = ask(e, &b, "1 + 1 = ", &o); /* the prompt is read, nothing is written */
    assert_string_equal(h->events, "SRD");
    assert_string_equal(h->reason, "length");
    assert_int_equal(h->usage.completion_tokens, 0);
    free_heard(h);
    o.max_tokens = 3;
    h = ask(e, &b, "1 + 1 = ", &o);
    assert_string_equal(h->reason, "length");
    assert_int_equal(h->usage.completion_tokens, 3);
    free_heard(h);
    o.max_tokens = (size_t)-1; /* the end of the context: the last token is not read */
    h = ask(e, &b, "1 + 1 = ", &o);
    assert_string_equal(h->reason, "length");
    assert_int_equal(h->usage.completion_tokens, 20 - h->usage.prompt_tokens + 1);
    free_heard(h);
    engine_close(e);
    close_base(&b);
}

static void what_has_no_room_or_no_meaning_is_refused(void **state)
{
    struct engine *e = new_engine((struct engine_options){.context = 20});
    struct job_options o = options(EXPERT_AUTO, 5);
    const struct token_bias bias = {320, 1};
    int32_t ids[21] = {0};
    struct prompt p = {.ids = {.at = ids}, .pool_n = 1};
    struct artel_error err;
    struct job *job;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
#define refused(rc, code)                                                              \
    assert_error(engine_submit(e, &job, &b.loaded, &p, &o, hear, NULL, &err), rc, err, \
                 code)
    refused(ARTEL_EUSAGE, "CTX04");
    p.ids.n = 20;
    refused(ARTEL_EUSAGE, "CTX01");
    o.max_tokens = 0;
    p.ids.n = 21;
    refused(ARTEL_EUSAGE, "CTX01");
    p.ids.n = 4; /* H32 */
    ids[3] = 320;
    refused(ARTEL_EUSAGE, "CTX05");
    ids[3] = -1;
    refused(ARTEL_EUSAGE, "CTX05");
    ids[3] = 1;
    o.sampling.bias = &bias; /* H29 */
    o.sampling.n_bias = 1;
    refused(ARTEL_EUSAGE, "CTX05");
#undef refused
    assert_ptr_equal(p.ids.at, ids); /* nothing was taken over */
    assert_int_equal(held, 0);
    assert_true(engine_idle(e));
    engine_close(e);
    close_base(&b);
}

/* Log-probabilities are those of the model at each step, computed here directly. */
static void log_probabilities_are_the_models_own(void **state)
{
    struct engine *e = new_engine((struct engine_options){0});
    struct job_options o = options(1, 16);
    const struct token_bias bias = {300, 100};
    struct artel_session *s;
    struct prompt p = {0};
    struct artel_error err;
    struct heard *h;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    o.top_logprobs = 3;
    o.sampling.temperature = 2;
    o.sampling.bias =
        &bias; /* 300 always comes; its log-probability stays what it is */
    o.sampling.n_bias = 1;
    h = ask(e, &b, texts[0], &o);
    assert_int_equal(h->n_ids, 16);
    prompt_encode_raw(&p, b.model->tokenizer, texts[0], strlen(texts[0]), &err);
    assert_int_equal(session_open(&s, b.model, &b.mixture, 200, &err), 0);
    assert_int_equal(session_prefill(s, p.ids.at, p.ids.n, 1, 0, 1, &err), 0);
    for (size_t i = 0; i < h->n_ids; i++) {
        const float *const x = session_logits(s);
        double sum = 0;
        size_t best = 0;

        for (size_t v = 0; v < 320; v++) {
            sum += exp((double)x[v]);
            best = x[v] > x[best] ? v : best;
        }
        assert_int_equal(h->ids[i], 300);
        assert_near(h->logprob[i], (double)x[h->ids[i]] - log(sum), 1e-5);
        assert_int_equal(h->n_top[i], 3);
        assert_int_equal(h->top[i][0].id, best);
        assert_near(h->top[i][0].logit, (double)x[best] - log(sum), 1e-5);
        assert_true(h->top[i][0].logit >= h->top[i][1].logit);
        assert_int_equal(session_step(s, h->ids[i], &err), 0);
    }
    session_close(s);
    prompt_release(&p);
    free_heard(h);
    engine_close(e);
    close_base(&b);
}

/* Each token of the prompt by a prefill of those before it. */
static void prompts_tell_their_log_probabilities(void **state)
{
    struct engine *e = new_engine((struct engine_options){.prefill_rows = 8});
    struct job_options o = options(2, 0);
    struct artel_session *s;
    struct prompt p = {0};
    struct artel_error err;
    struct heard *h;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    o.prompt_logprobs = true;
    h = ask(e, &b, texts[3], &o);
    assert_string_equal(h->events, "SPRD");
    prompt_encode_raw(&p, b.model->tokenizer, texts[3], strlen(texts[3]), &err);
    assert_int_equal(h->n_prompt, p.ids.n);
    assert_true(isnan(h->prompt_logprob[0]));
    assert_int_equal(session_open(&s, b.model, &b.mixture, 200, &err), 0);
    for (size_t i = 1; i < p.ids.n; i++) {
        float want;

        session_reset(s);
        assert_int_equal(session_prefill(s, p.ids.at, i, 2, 0, 1, &err), 0);
        logprobs_of(&want, NULL, 0, session_logits(s), 320, p.ids.at[i]);
        assert_near(h->prompt_logprob[i], want, 1e-4);
    }
    session_close(s);
    prompt_release(&p);
    free_heard(h);
    engine_close(e);
    close_base(&b);
}

static void an_embedding_is_no_answer(void **state)
{
    struct engine *e = new_engine((struct engine_options){.prefill_rows = 8});
    struct job_options o = options(0, 0);
    struct heard *h[3];
    struct base b;
    double same = 0, other = 0;

    (void)state;
    open_base(&b, &by_layer, 7);
    o.embed = true;
    h[0] = ask(e, &b, texts[3], &o);
    h[1] = ask(e, &b, texts[3], &o);
    h[2] = ask(e, &b, texts[0], &o);
    assert_string_equal(h[0]->events, "SRED");
    assert_int_equal(h[0]->n_embedding, b.model->weights->config.dim);
    for (size_t i = 0; i < h[0]->n_embedding; i++) {
        same += fabs((double)(h[0]->embedding[i] - h[1]->embedding[i]));
        other += fabs((double)(h[0]->embedding[i] - h[2]->embedding[i]));
    }
    assert_near(same, 0, 0);
    assert_true(other > 0.1);
    for (size_t i = 0; i < 3; i++)
        free_heard(h[i]);
    engine_close(e);
    close_base(&b);
}

/* The mean over the routers of what the chosen expert got. */
static double sure(const struct heard *h)
{
    double sum = 0;

    for (size_t r = 0; r < h->route.n_routers; r++)
        sum += (double)h->probabilities[r * N_EXPERTS + (size_t)h->route.expert];
    return sum / (double)h->route.n_routers;
}

static void below_the_threshold_the_base_answers_or_nobody(void **state)
{
    struct engine *e = new_engine((struct engine_options){0});
    struct job_options o = options(EXPERT_AUTO, 20), base = options(EXPERT_BASE, 20);
    struct artel_answer by_expert, by_base;
    struct heard *h;
    struct base b;
    double p;

    (void)state;
    open_base(&b, &by_layer, 7);
    run_alone(&by_expert, &b.opened, texts[0], &o);
    run_alone(&by_base, &b.opened, texts[0], &base);
    h = ask(e, &b, texts[0], &o);
    p = sure(h);
    assert_true(p > 0.05 && p < 0.999);
    free_heard(h);
    o.below = BELOW_BASE;
    o.threshold = (float)p - 1e-4f;
    h = ask(e, &b, texts[0], &o);
    assert_answers(h, &by_expert);
    assert_false(h->route.below);
    free_heard(h);
    o.threshold = (float)p + 1e-4f;
    h = ask(e, &b, texts[0], &o);
    assert_answers(h, &by_base);
    assert_true(h->route.below && h->routed.below && h->route.routed);
    assert_string_equal(h->events, "SRTD");
    free_heard(h);
    o.below = BELOW_REFUSED;
    h = ask(e, &b, texts[0], &o);
    assert_string_equal(h->code, "SRV20");
    assert_string_equal(h->events, "SF");
    free_heard(h);
    artel_answer_release(&by_expert);
    artel_answer_release(&by_base);
    engine_close(e);
    close_base(&b);
}

static void a_grammar_decides_what_may_come(void **state)
{
    struct engine *e = new_engine((struct engine_options){0});
    struct job_options o = options(EXPERT_AUTO, 20);
    struct grammar g = {.word = "{}"};
    struct heard *h;
    struct base b;
    int closed = 0;

    (void)state;
    open_base(&b, &by_layer, 7);
    g.tok = b.model->tokenizer;
    g.closed = &closed;
    o.grammar = &g;
    h = ask(e, &b, texts[0], &o);
    assert_string_equal(h->text, "{}");
    assert_string_equal(h->reason, "stop");
    assert_int_equal(h->usage.completion_tokens, 3);
    assert_int_equal(h->n_ids, 2); /* the end is no token of the text */
    engine_close(e);
    assert_int_equal(closed, 1);
    free_heard(h);
    close_base(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_artel_run),
        cmocka_unit_test(tokens_that_route_themselves_tell_of_the_whole_answer),
        cmocka_unit_test(H28_stop_strings_end_the_text_and_do_not_leak),
        cmocka_unit_test(answers_end_where_they_must),
        cmocka_unit_test(what_has_no_room_or_no_meaning_is_refused),
        cmocka_unit_test(log_probabilities_are_the_models_own),
        cmocka_unit_test(prompts_tell_their_log_probabilities),
        cmocka_unit_test(an_embedding_is_no_answer),
        cmocka_unit_test(below_the_threshold_the_base_answers_or_nobody),
        cmocka_unit_test(a_grammar_decides_what_may_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
