/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bare toy models against transformers: logits, losses, greedy continuation
 * and token ids, each from GGUF and from a Hugging Face folder.
 *
 * Bounds: logits reach about 10 and both sides compute in float, so rounding
 * leaves some 1e-5; a wrong pair in a rotation, a wrong head or a missing scale is
 * off by more than 1e-2.
 */
#include "golden/golden.h"

#include "decoder/session.h"
#include "text/tokenizer.h"

#define LOGIT_BOUND 1e-4
#define NLL_BOUND   2e-4 /* of a row: up to nine tokens */

static const json_t *facts_of(const char *name)
{
    return json_object_get(json_object_get(golden.facts, "models"), name);
}

static void check_forward(const char *name, struct artel_model *model)
{
    const struct pass_options o = {.routing = ROUTE_GIVEN,
                                   .max_rows = GOLDEN_ROWS * GOLDEN_MAX_ROW,
                                   .max_seqs = GOLDEN_ROWS};
    struct golden_rows rows;
    struct decoder_pass *pass;
    struct artel_error err;
    struct block_loss loss;
    double nll[GOLDEN_ROWS];
    float logits[GOLDEN_VOCAB];
    const float *want;
    char tensor[64];

    golden_fill(&rows, name, -1);
    assert_int_equal(pass_open(&pass, model, NULL, &o, &err), 0);
    decoder_forward(pass, &rows.block);
    snprintf(tensor, sizeof(tensor), "%s/logits", name);
    want = golden_tensor(tensor, rows.seqs[0].n * GOLDEN_VOCAB);
    for (size_t t = 0; t < rows.seqs[0].n; t++) {
        pass_logits(pass, logits, t);
        for (size_t v = 0; v < GOLDEN_VOCAB; v++)
            assert_near(logits[v], want[t * GOLDEN_VOCAB + v], LOGIT_BOUND);
    }
    decoder_loss(pass, &loss, nll);
    for (size_t i = 0; i < GOLDEN_ROWS; i++)
        assert_near(nll[i],
                    json_number_value(
                        json_array_get(json_object_get(facts_of(name), "nll"), i)),
                    NLL_BOUND);
    assert_int_equal(loss.n_tokens, rows.n_loss);
    assert_near(loss.scaled, json_number_value(json_object_get(facts_of(name), "loss")),
                1e-4);
    pass_close(pass);
}

static void check_greedy(const char *name, const struct artel_model *model)
{
    const json_t *greedy = json_object_get(facts_of(name), "greedy");
    struct golden_rows rows;
    struct artel_session *s;
    struct artel_error err;

    golden_fill(&rows, name, -1);
    assert_int_equal(session_open(&s, model, NULL, 64, &err), 0);
    assert_int_equal(session_prefill(s, rows.ids[1], rows.answer_start[1], EXPERT_BASE,
                                     0, rows.answer_start[1], &err),
                     0);
    for (size_t i = 0; i < json_array_size(json_object_get(greedy, "ids")); i++) {
        golden_greedy(session_logits(s), greedy, i);
        assert_int_equal(session_step(s,
                                      (int32_t)json_integer_value(json_array_get(
                                          json_object_get(greedy, "ids"), i)),
                                      &err),
                         0);
    }
    session_close(s);
}

static void check_tokens(const char *name, const struct artel_model *model)
{
    const json_t *probe;
    size_t i;

    json_array_foreach(json_object_get(facts_of(name), "tokens"), i, probe)
    {
        const json_t *text = json_object_get(probe, "text");
        const json_t *want = json_object_get(probe, "ids");
        struct ids ids = {0};
        struct artel_error err;

        assert_int_equal(tokenizer_encode(model->tokenizer, &ids,
                                          json_string_value(text),
                                          json_string_length(text), true, &err),
                         0);
        assert_int_equal(ids.n, json_array_size(want));
        for (size_t k = 0; k < ids.n; k++)
            assert_int_equal(ids.at[k], json_integer_value(json_array_get(want, k)));
        ids_release(&ids);
    }
    assert_true(i > 5);
}

static void check_model(const char *name, const char *file)
{
    struct artel_model *model = golden_model(file, MATRIX_FORWARD | MATRIX_DECODE);

    check_forward(name, model);
    check_greedy(name, model);
    check_tokens(name, model);
    model_close(model);
}

static void tied_gguf_agrees_with_transformers(void **state)
{
    (void)state;
    check_model("toy-tied", "toy-tied.gguf");
}

static void tied_folder_agrees_with_transformers(void **state)
{
    (void)state;
    check_model("toy-tied", "toy-tied");
}

static void scaled_rope_in_bf16_gguf_agrees_with_transformers(void **state)
{
    (void)state;
    check_model("toy-untied", "toy-untied.gguf");
}

static void scaled_rope_in_shards_agrees_with_transformers(void **state)
{
    (void)state;
    check_model("toy-untied", "toy-untied");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tied_gguf_agrees_with_transformers),
        cmocka_unit_test(tied_folder_agrees_with_transformers),
        cmocka_unit_test(scaled_rope_in_bf16_gguf_agrees_with_transformers),
        cmocka_unit_test(scaled_rope_in_shards_agrees_with_transformers),
    };

    return cmocka_run_group_tests(tests, golden_open, golden_close);
}
