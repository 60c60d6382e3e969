/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

#include "artel.h"
#include "eval/opened.h"
#include "serve/api_counts.h"
#include "serve/api_reply.h"

#define TOY ARTEL_SOURCE "/tests/golden/toy-tied.gguf"

static const struct tokenizer *tok;

static json_t *tools_of(const char *text)
{
    json_t *const tools = json_loads(text, 0, NULL);

    assert_non_null(tools);
    return tools;
}

#define TWO_TOOLS                                                                      \
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{\"type\":" \
    "\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/n\"}},\"$defs\":{\"n\":"     \
    "{\"type\":\"integer\"}}}}},{\"type\":\"function\",\"function\":{\"name\":\"now\"" \
    "}}]"

static size_t calls_in(const char *text)
{
    json_t *const tools = tools_of(TWO_TOOLS);
    json_t *const calls = tool_calls_of(text, strlen(text), tools, "id", 0);
    const size_t n = json_array_size(calls);

    json_decref(calls);
    json_decref(tools);
    return n;
}

static void a_call_is_a_call_only_as_a_whole(void **state)
{
    json_t *const tools = tools_of(TWO_TOOLS);
    json_t *calls;
    const char *const text = " {\"name\": \"add\", \"arguments\": {\"x\": 1}}\n";

    (void)state;
    calls = tool_calls_of(text, strlen(text), tools, "id", 0);
    assert_string_equal(
        json_string_value(json_object_get(
            json_object_get(json_array_get(calls, 0), "function"), "arguments")),
        "{\"x\":1}");
    json_decref(calls);
    json_decref(tools);
    assert_int_equal(calls_in("<tool_call>\n{\"name\":\"now\",\"arguments\":{}}\n"
                              "</tool_call>\n<tool_call>{\"name\":\"add\","
                              "\"arguments\":{}}</tool_call>"),
                     2);
    assert_int_equal(calls_in("<tool_call>{\"name\":\"now\",\"arguments\":{}}"), 1);
    assert_int_equal(calls_in("[{\"name\":\"now\",\"parameters\":{}}]"), 1);
    assert_int_equal(calls_in("Sure: {\"name\":\"now\",\"arguments\":{}}"), 0);
    assert_int_equal(calls_in("{\"name\":\"now\",\"arguments\":{}} done"), 0);
    assert_int_equal(calls_in("{\"name\":\"rm\",\"arguments\":{}}"), 0);
    assert_int_equal(calls_in("{\"name\":\"now\",\"arguments\":\"x\"}"), 0);
    assert_int_equal(calls_in("{\"name\":\"now\",\"arguments\":{},\"more\":1}"), 0);
    assert_int_equal(calls_in("<tool_call>"), 0);
    assert_int_equal(calls_in("[]"), 0);
    assert_int_equal(calls_in(""), 0);
}

static void what_may_become_a_call_is_held_back(void **state)
{
    (void)state;
    assert_true(tool_call_begins("", 0));
    assert_true(tool_call_begins(" \n", 2));
    assert_true(tool_call_begins("{", 1));
    assert_true(tool_call_begins("<tool", 5));
    assert_true(tool_call_begins("<tool_call>{", 12));
    assert_false(tool_call_begins("<b>", 3));
    assert_false(tool_call_begins("Hello", 5));
}

static void definitions_of_tools_do_not_meet(void **state)
{
    json_t *const tools = tools_of(TWO_TOOLS);
    json_t *schema = tool_schema(tools, NULL);
    char *text = json_dumps(schema, JSON_COMPACT | JSON_SORT_KEYS);

    (void)state;
    assert_int_equal(json_array_size(json_object_get(schema, "anyOf")), 2);
    assert_non_null(strstr(text, "\"$ref\":\"#/$defs/t0_n\""));
    assert_non_null(json_object_get(json_object_get(schema, "$defs"), "t0_n"));
    free(text);
    json_decref(schema);
    schema = tool_schema(tools, "now");
    assert_string_equal(
        json_string_value(json_object_get(
            json_object_get(json_object_get(schema, "properties"), "name"), "const")),
        "now");
    json_decref(schema);
    json_decref(tools);
}

/* H33: a token may be part of a character; its text is valid all the same. */
static void h33_pieces_of_characters_are_valid_text(void **state)
{
    int32_t part = 0;
    struct job_token t = {.logprob = -0.5f};
    json_t *o, *lists = completion_logprobs();
    const char *name;
    size_t n;

    (void)state;
    for (int32_t id = 0; id < (int32_t)tokenizer_size(tok) && !part; id++) {
        const unsigned char *const piece =
            (const unsigned char *)tokenizer_piece(tok, id, &n);

        if (n == 1 && piece[0] == 0xe2)
            part = id;
    }
    assert_true(part > 0);
    t.id = part;
    o = chat_logprob(&t, tok, 0);
    assert_string_equal(json_string_value(json_object_get(o, "token")), "\xef\xbf\xbd");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(o, "bytes"), 0)),
                     0xe2);
    json_decref(o);
    completion_logprob(lists, &t, tok, 1, 3);
    name = json_string_value(json_array_get(json_object_get(lists, "tokens"), 0));
    assert_string_equal(name, "bytes:\\xe2");
    json_decref(lists);
    o = text_json("a\xe2\x82", 3);
    assert_string_equal(json_string_value(o), "a\xef\xbf\xbd");
    json_decref(o);
}

static void impossible_tokens_have_a_number_that_json_can_say(void **state)
{
    const struct candidate top[] = {{-0.25f, 40}, {-INFINITY, 41}};
    const struct job_token t = {.id = 40, .logprob = -0.25f, .top = top, .n_top = 2};
    const struct job_token first = {.id = 40, .logprob = NAN};
    json_t *o = chat_logprob(&t, tok, 2), *lists = completion_logprobs();
    const json_t *const tops = json_object_get(o, "top_logprobs");

    (void)state;
    assert_int_equal(json_array_size(tops), 2);
    assert_near(json_number_value(json_object_get(json_array_get(tops, 1), "logprob")),
                -9999, 0);
    json_decref(o);
    completion_logprob(lists, &first, tok, 1, 0);
    completion_logprob(lists, &t, tok, 1, 5);
    assert_true(
        json_is_null(json_array_get(json_object_get(lists, "token_logprobs"), 0)));
    assert_true(
        json_is_null(json_array_get(json_object_get(lists, "top_logprobs"), 0)));
    assert_int_equal(
        json_object_size(json_array_get(json_object_get(lists, "top_logprobs"), 1)), 1);
    assert_int_equal(
        json_integer_value(json_array_get(json_object_get(lists, "text_offset"), 1)),
        5);
    json_decref(lists);
}

static void embeddings_have_length_one(void **state)
{
    const float x[3] = {3, 0, -4};
    json_t *list = embedding_json(x, 3, false);
    json_t *const text = embedding_json(x, 3, true);

    (void)state;
    assert_near(json_number_value(json_array_get(list, 0)), 0.6, 1e-7);
    assert_near(json_number_value(json_array_get(list, 2)), -0.8, 1e-7);
    /* The floats 0.6, 0, -0.8, lowest byte first. */
    assert_string_equal(json_string_value(text), "mpkZPwAAAADNzEy/");
    json_decref(list);
    json_decref(text);
}

/* A line is a comment of known form or a sample; buckets grow; counts agree. */
static void histograms_are_cumulative(void **state)
{
    struct api_counts *const c = counts_open();
    unsigned long long last = 0, count = 0, n;
    char *text, *line;

    (void)state;
    counts_observe(c, SECONDS_REQUEST, 0.0005, 1);
    counts_observe(c, SECONDS_REQUEST, 0.3, 2);
    counts_observe(c, SECONDS_REQUEST, 1e9, 1);
    counts_answer(c, "law");
    counts_answer(c, "law");
    counts_answer(c, "base");
    text = counts_text(c);
    assert_non_null(strstr(text, "artel_answers_total{expert=\"law\"} 2\n"));
    assert_non_null(strstr(text, "artel_request_seconds_count 4\n"));
    for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (sscanf(line, "artel_request_seconds_bucket{le=\"%*[^\"]\"} %llu", &n) ==
            1) {
            assert_true(n >= last);
            last = n;
            count++;
        }
    }
    assert_int_equal(last, 4);
    assert_int_equal(count, 15);
    free(text);
    counts_let_go(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_is_a_call_only_as_a_whole),
        cmocka_unit_test(what_may_become_a_call_is_held_back),
        cmocka_unit_test(definitions_of_tools_do_not_meet),
        cmocka_unit_test(h33_pieces_of_characters_are_valid_text),
        cmocka_unit_test(impossible_tokens_have_a_number_that_json_can_say),
        cmocka_unit_test(embeddings_have_length_one),
        cmocka_unit_test(histograms_are_cumulative),
    };
    struct artel_model *model;
    int rc;

    if (artel_model_open(&model, TOY, NULL) < 0)
        return 1;
    tok = model->tokenizer;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    artel_model_close(model);
    return rc;
}
