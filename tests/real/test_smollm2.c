/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The demo's model against transformers in fp32 on the dequantised weights, and
 * token ids against llama.cpp (tests/golden/make_reference.py). Needs the model:
 * ARTEL_TEST_MODEL names it.
 */
#include "artel.h"
#include "check.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "data/corpus.h"
#include "decoder/session.h"
#include "decoder/decoder.h"
#include "text/tokenizer.h"

static json_t *golden;
static struct artel_model *model;
static struct corpus *corpus;

static int open_all(void **state)
{
    const char *path = getenv("ARTEL_TEST_MODEL");
    const struct corpus_options o = {.keep_text = true};
    struct artel_error err;

    (void)state;
    if (!path || !*path)
        return 0;
    golden =
        json_load_file(ARTEL_SOURCE "/tests/golden/smollm2_reference.json", 0, NULL);
    if (!golden || cpu_set_threads(0, &err) < 0 || model_open(&model, path, &err) < 0 ||
        model_prepare(model, PRECISION_FP32, MATRIX_DECODE | MATRIX_FORWARD, 1024,
                      &err) < 0 ||
        corpus_open(&corpus, ARTEL_SOURCE "/tests/golden/smollm2_rows.jsonl",
                    model->tokenizer, model->chat, &o, &err) < 0) {
        print_error("%s: %s: %s\n", err.file, err.where, err.reason);
        return -1;
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    json_decref(golden);
    corpus_close(corpus);
    model_close(model);
    return 0;
}

static void skip_without_model(void)
{
    if (!model)
        skip();
}

/* Rows of messages become the reference's ids, and the answer starts where it does. */
static void rows_become_the_reference_ids(void **state)
{
    const json_t *rows = json_object_get(golden, "rows");

    (void)state;
    skip_without_model();
    assert_int_equal(corpus_count(corpus), json_array_size(rows));
    for (size_t i = 0; i < corpus_count(corpus); i++) {
        const struct example *e = corpus_at(corpus, i);
        const json_t *row = json_array_get(rows, i), *ids = json_object_get(row, "ids");

        assert_int_equal(e->n, json_array_size(ids));
        assert_int_equal(e->n_prompt,
                         json_integer_value(json_object_get(row, "answer_start")));
        for (size_t t = 0; t < e->n; t++)
            assert_int_equal(e->ids[t], json_integer_value(json_array_get(ids, t)));
    }
}

static void answers_have_the_reference_likelihood(void **state)
{
    const json_t *rows = json_object_get(golden, "rows");
    struct pass_options o = {.routing = ROUTE_GIVEN, .max_rows = 1024, .max_seqs = 1};
    struct decoder_pass *p;
    struct artel_error err;

    (void)state;
    skip_without_model();
    assert_int_equal(pass_open(&p, model, NULL, &o, &err), 0);
    for (size_t i = 0; i < corpus_count(corpus); i++) {
        const struct example *e = corpus_at(corpus, i);
        const double want =
            json_number_value(json_object_get(json_array_get(rows, i), "nll"));
        const struct sequence s = {
            .ids = e->ids, .n = e->n, .loss = e->loss, .expert = -1};
        const struct block block = {.seqs = &s, .n_seqs = 1, .n_rows = e->n};
        struct block_loss loss;

        decoder_forward(p, &block);
        decoder_loss(p, &loss, NULL);
        assert_near(loss.nll, want, 1e-3 + 1e-4 * fabs(want));
    }
    pass_close(p);
}

static size_t argmax(const float *x, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static void greedy_answers_are_the_reference(void **state)
{
    const json_t *prompts = json_object_get(golden, "prompts");
    struct artel_session *s;
    struct artel_error err;
    size_t compared = 0;

    (void)state;
    skip_without_model();
    assert_int_equal(session_open(&s, model, NULL, 512, &err), 0);
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *prompt = json_array_get(prompts, i);
        const json_t *ids = json_object_get(prompt, "ids");
        const json_t *greedy = json_object_get(prompt, "greedy");
        const json_t *gaps = json_object_get(prompt, "gaps");
        const size_t n = json_array_size(ids);
        int32_t *tokens = malloc(n * sizeof(*tokens));

        for (size_t t = 0; t < n; t++)
            tokens[t] = (int32_t)json_integer_value(json_array_get(ids, t));
        assert_int_equal(session_prefill(s, tokens, n, EXPERT_BASE, 0, 1, &err), 0);
        for (size_t t = 0; t < json_array_size(greedy); t++) {
            const size_t best =
                argmax(session_logits(s), model->weights->config.n_vocab);

            if (json_number_value(json_array_get(gaps, t)) < 1e-3)
                break; /* the two best are too close to call */
            assert_int_equal(best, json_integer_value(json_array_get(greedy, t)));
            compared++;
            assert_int_equal(session_step(s, (int32_t)best, &err), 0);
        }
        free(tokens);
    }
    assert_true(compared > 200);
    session_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_become_the_reference_ids),
        cmocka_unit_test(answers_have_the_reference_likelihood),
        cmocka_unit_test(greedy_answers_are_the_reference),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
