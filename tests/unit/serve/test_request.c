/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#include "artel.h"
#include "serve/api_request.h"

static const struct request_limits limits = {.n_vocab = 320, .max_choices = 16};
static const struct request_limits strict = {
    .n_vocab = 320, .max_choices = 16, .strict = true};

typedef int parser(struct request *r, const struct request_limits *l, const char *body,
                   size_t n, struct artel_error *err);

/* BODY is refused because of PARAM. */
static void refuse(parser *parse, const char *body, const char *param)
{
    struct artel_error err = {0};
    struct request r;
    const int rc = parse(&r, &limits, body, strlen(body), &err);

    if (rc != ARTEL_EUSAGE || strcmp(err.where, param) != 0)
        fail_msg("%s: %d, '%s', expected '%s'", body, rc, err.where, param);
}

/* The same with a chat's other fields around FIELDS. */
static void refuse_chat(const char *fields, const char *param)
{
    char body[4096];

    snprintf(body, sizeof(body),
             "{\"model\":\"auto\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
             "%s}",
             fields);
    refuse(request_chat, body, param);
}

static struct request accept(parser *parse, const char *body)
{
    struct artel_error err = {0};
    struct request r;
    const int rc = parse(&r, &limits, body, strlen(body), &err);

    if (rc < 0)
        fail_msg("%s: %s: %s", body, err.where, err.reason);
    return r;
}

#define CHAT "{\"model\":\"auto\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"
#define TEXT "{\"model\":\"auto\",\"prompt\":\"a\""

static void a_chat_is_read_whole(void **state)
{
    struct request r =
        accept(request_chat, CHAT
               ",\"max_tokens\":7,\"temperature\":0,\"top_p\":0.5,\"top_k\":-1,"
               "\"min_p\":0.1,\"seed\":-3,\"n\":2,\"stream\":true,"
               "\"stream_options\":{\"include_usage\":true},\"stop\":[\"x\",\"yy\"],"
               "\"logprobs\":true,\"top_logprobs\":3,\"logit_bias\":{\"5\":-100},"
               "\"presence_penalty\":1,\"frequency_penalty\":-2,\"user\":\"me\","
               "\"repetition_penalty\":1.5,\"artel\":{\"threshold\":0.6,\"below\":"
               "\"refused\",\"layers\":true}}");

    (void)state;
    assert_string_equal(r.model, "auto");
    assert_int_equal(r.max_tokens, 7);
    assert_near(r.temperature, 0, 0);
    assert_near(r.top_p, 0.5, 0);
    assert_int_equal(r.top_k, 0);
    assert_near(r.min_p, 0.1, 1e-7);
    assert_true(r.has_seed && r.seed == (uint64_t)-3);
    assert_int_equal(r.n, 2);
    assert_true(r.stream && r.include_usage && r.layers);
    assert_int_equal(r.n_stop, 2);
    assert_string_equal(r.stop[1], "yy");
    assert_int_equal(r.top_logprobs, 3);
    assert_int_equal(r.n_bias, 1);
    assert_int_equal(r.bias[0].id, 5);
    assert_near(r.bias[0].bias, -100, 0);
    assert_near(r.repetition_penalty, 1.5, 0);
    assert_near(r.threshold, 0.6, 1e-7);
    assert_int_equal(r.below, BELOW_REFUSED);
    assert_string_equal(r.ignored, "");
    request_release(&r);
    r = accept(request_chat, CHAT ",\"max_tokens\":7,\"max_completion_tokens\":5}");
    assert_int_equal(r.max_tokens, 5);
    assert_true(r.temperature < 0 && r.top_k == SIZE_MAX && r.top_logprobs == -1);
    request_release(&r);
}

static void h20_bodies_that_are_no_json_object(void **state)
{
    static const char *const bodies[] = {
        "",      "{",          "{\"model\":",    "[]",     "null", "\"text\"", "1",
        "{} {}", "{\"a\":1,}", "\xef\xbb\xbf{}", "{'a':1}"};
    static const char *const fields[] = {"{\"a\":NaN}", "{\"a\":1,\"a\":2}",
                                         "{\"a\":01}"};
    const size_t depth = 100000;
    char *const deep = malloc(depth + 8);
    struct artel_error err;
    struct request r;

    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        assert_int_equal(request_chat(&r, &limits, bodies[i], strlen(bodies[i]), &err),
                         ARTEL_EFORMAT);
        assert_non_null(strchr(err.where, ':')); /* line:column */
        assert_null(r.body);
    }
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        assert_int_equal(request_chat(&r, &limits, fields[i], strlen(fields[i]), &err),
                         ARTEL_EUSAGE);
        assert_string_equal(err.where, "a");
        assert_memory_equal(err.reason, "1:", 2);
        assert_null(r.body);
    }
    memset(deep, '[', depth);
    assert_int_equal(request_chat(&r, &limits, deep, depth, &err), ARTEL_EFORMAT);
    free(deep);
}

static void h20_a_million_keys_are_listed_shortly(void **state)
{
    char *const body = malloc(16u << 20);
    size_t n = (size_t)sprintf(body, CHAT);
    struct artel_error err;
    struct request r;

    (void)state;
    for (size_t i = 0; i < 200000; i++)
        n += (size_t)sprintf(body + n, ",\"k%zu\":%zu", i, i);
    body[n++] = '}';
    assert_int_equal(request_chat(&r, &limits, body, n, &err), 0);
    assert_true(strlen(r.ignored) < sizeof(r.ignored));
    request_release(&r);
    free(body);
}

static void h21_bad_text(void **state)
{
    struct artel_error err;
    struct request r;
    const char *const bad[] = {"{\"model\":\"\xff\"}", "{\"model\":\"\xed\xa0\x80\"}",
                               "{\"model\":\"\\ud800\"}", "{\"model\":\"a\nb\"}"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(request_chat(&r, &limits, bad[i], strlen(bad[i]), &err),
                         ARTEL_EUSAGE);
        assert_string_equal(err.where, "model");
    }
    assert_true(request_chat(&r, &limits, "{\"model\":\"a\\u0000b\"}", 19, &err) < 0);
}

static void h22_model_names(void **state)
{
    (void)state;
    refuse(request_chat, "{\"messages\":[]}", "model");
    refuse(request_chat, "{\"model\":5,\"messages\":[]}", "model");
    refuse(request_chat, "{\"model\":null,\"messages\":[]}", "model");
}

static void refuse_messages(const char *messages, const char *param)
{
    char body[2048];

    snprintf(body, sizeof(body), "{\"model\":\"auto\",\"messages\":%s}", messages);
    refuse(request_chat, body, param);
}

static void h23_messages_are_named_by_place(void **state)
{
    size_t n = 100000;
    char *const many = malloc(n * 40 + 100);
    size_t used = (size_t)sprintf(many, "{\"model\":\"auto\",\"messages\":[");

    (void)state;
    refuse(request_chat, "{\"model\":\"auto\"}", "messages");
    refuse_messages("[]", "messages");
    refuse_messages("\"hello\"", "messages");
    refuse_messages("{}", "messages");
    refuse_messages("[1]", "messages[0]");
    refuse_messages("[{}]", "messages[0].role");
    refuse_messages("[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"wizard\","
                    "\"content\":\"b\"}]",
                    "messages[1].role");
    refuse_messages("[{\"role\":\"user\"}]", "messages[0].content");
    refuse_messages("[{\"role\":\"user\",\"content\":null}]", "messages[0].content");
    refuse_messages("[{\"role\":\"assistant\",\"content\":null}]",
                    "messages[0].content");
    refuse_messages("[{\"role\":\"user\",\"content\":5}]", "messages[0].content");
    refuse_messages("[{\"role\":\"user\",\"content\":[]}]", "messages[0].content");
    refuse_messages("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]",
                    "messages[0].content[0].type");
    refuse_messages(
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}]",
        "messages[0].content[0].text");
    refuse_messages("[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]",
                    "messages[0].tool_calls[0].function.name");
    for (size_t i = 0; i < n; i++)
        used += (size_t)sprintf(many + used, "%s{\"role\":\"user\",\"content\":\"\"}",
                                i ? "," : "");
    sprintf(many + used, "]}");
    refuse(request_chat, many, "messages");
    free(many);
}

static const char *text_at(const struct request *r, size_t i, const char *key)
{
    return json_string_value(json_object_get(json_array_get(r->messages, i), key));
}

static void messages_become_what_templates_read(void **state)
{
    struct request r = accept(
        request_chat,
        "{\"model\":\"auto\",\"messages\":["
        "{\"role\":\"developer\",\"content\":\"d\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}],\"colour\":\"red\"},"
        "{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":"
        "[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"x\\\":1}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"2\"}]}");
    const json_t *call;

    (void)state;
    assert_string_equal(text_at(&r, 0, "role"), "system");
    assert_string_equal(text_at(&r, 1, "content"), "a\nb");
    assert_null(json_object_get(json_array_get(r.messages, 1), "colour"));
    assert_string_equal(r.ignored, "messages[1].colour");
    assert_string_equal(text_at(&r, 2, "content"), "");
    call =
        json_array_get(json_object_get(json_array_get(r.messages, 2), "tool_calls"), 0);
    assert_int_equal(
        json_integer_value(json_object_get(
            json_object_get(json_object_get(call, "function"), "arguments"), "x")),
        1);
    assert_string_equal(text_at(&r, 3, "tool_call_id"), "c1");
    request_release(&r);
}

static void h24_lengths(void **state)
{
    static const char *const bad[] = {"0",   "-1", "1.5", "\"10\"", "1000000000000",
                                      "true"};
    char field[80];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(field, sizeof(field), "\"max_tokens\":%s", bad[i]);
        refuse_chat(field, "max_tokens");
        snprintf(field, sizeof(field), "\"max_completion_tokens\":%s", bad[i]);
        refuse_chat(field, "max_completion_tokens");
    }
    refuse(request_completion, TEXT ",\"max_tokens\":0}", "max_tokens");
}

static void h25_sampler_values(void **state)
{
    static const struct {
        const char *field, *bad[6];
    } rows[] = {{"temperature", {"1e308", "-1", "\"1\"", "2.1", "[]", "true"}},
                {"top_p", {"0", "2", "-0.5", "\"a\"", "{}", "1e308"}},
                {"min_p", {"-1", "1.5", "\"0\"", "1e300", "[1]", "true"}},
                {"presence_penalty", {"-2.1", "3", "\"1\"", "1e308", "[]", "{}"}},
                {"frequency_penalty", {"-3", "2.5", "\"1\"", "1e308", "[]", "{}"}},
                {"repetition_penalty", {"0", "-1", "101", "\"1\"", "[]", "{}"}},
                {"top_k", {"-2", "1.5", "99999999999", "\"1\"", "[]", "{}"}}};
    char field[80];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (size_t k = 0; k < 6; k++) {
            snprintf(field, sizeof(field), "\"%s\":%s", rows[i].field, rows[i].bad[k]);
            refuse_chat(field, rows[i].field);
        }
}

static void h26_h27_integers_and_choices(void **state)
{
    struct artel_error err;
    struct request r;
    const char *const huge = CHAT ",\"seed\":9223372036854775808}";

    (void)state;
    refuse_chat("\"n\":0", "n");
    refuse_chat("\"n\":1000000000", "n");
    refuse_chat("\"n\":17", "n");
    refuse_chat("\"n\":1.5", "n");
    refuse_chat("\"seed\":1.5", "seed");
    refuse_chat("\"seed\":\"1\"", "seed");
    assert_true(request_chat(&r, &limits, huge, strlen(huge), &err) < 0);
    refuse(request_completion,
           "{\"model\":\"auto\",\"prompt\":[\"a\",\"b\",\"c\"],\"n\":9}", "n");
    refuse_chat("\"stream\":1", "stream");
    refuse_chat("\"stream_options\":{\"include_usage\":true}", "stream_options");
}

static void h28_stop_strings(void **state)
{
    char *const large = malloc(1 << 20);
    char *const body = malloc((1 << 20) + 200);

    (void)state;
    refuse_chat("\"stop\":\"\"", "stop");
    refuse_chat("\"stop\":[\"a\",\"\"]", "stop[1]");
    refuse_chat("\"stop\":5", "stop");
    refuse_chat("\"stop\":[1]", "stop[0]");
    refuse_chat("\"stop\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\","
                "\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]",
                "stop");
    memset(large, 'x', (1 << 20) - 1);
    large[(1 << 20) - 1] = '\0';
    sprintf(body, CHAT ",\"stop\":\"%s\"}", large);
    refuse(request_chat, body, "stop");
    free(large);
    free(body);
}

static void h29_biases_and_logprobs(void **state)
{
    char *const body = malloc(1 << 20);
    size_t n;
    struct artel_error err;
    struct request r;
    const char *const nan = CHAT ",\"logit_bias\":{\"1\":NaN}}";

    (void)state;
    refuse_chat("\"logit_bias\":{\"320\":1}", "logit_bias.320");
    refuse_chat("\"logit_bias\":{\"-1\":1}", "logit_bias.-1");
    refuse_chat("\"logit_bias\":{\"a\":1}", "logit_bias.a");
    refuse_chat("\"logit_bias\":{\"99999999999\":1}", "logit_bias.99999999999");
    refuse_chat("\"logit_bias\":{\"1\":101}", "logit_bias.1");
    refuse_chat("\"logit_bias\":{\"1\":\"5\"}", "logit_bias.1");
    refuse_chat("\"logit_bias\":[1]", "logit_bias");
    assert_true(request_chat(&r, &limits, nan, strlen(nan), &err) < 0);
    n = (size_t)sprintf(body, CHAT ",\"logit_bias\":{\"0\":1");
    for (size_t i = 1; i < 20000; i++)
        n += (size_t)sprintf(body + n, ",\"%zu\":1", i);
    sprintf(body + n, "}}");
    refuse(request_chat, body, "logit_bias");
    free(body);
    refuse_chat("\"logprobs\":1", "logprobs");
    refuse_chat("\"logprobs\":true,\"top_logprobs\":1000000", "top_logprobs");
    refuse_chat("\"logprobs\":true,\"top_logprobs\":21", "top_logprobs");
    refuse_chat("\"top_logprobs\":2", "top_logprobs");
    refuse(request_completion, TEXT ",\"logprobs\":6}", "logprobs");
    refuse(request_completion, TEXT ",\"logprobs\":true}", "logprobs");
}

#define TOOL                                                                           \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"   \
    "{\"type\":\"object\"}}}]"

static void h30_formats_and_tools(void **state)
{
    struct request r;

    (void)state;
    refuse_chat("\"response_format\":\"json\"", "response_format");
    refuse_chat("\"response_format\":{}", "response_format.type");
    refuse_chat("\"response_format\":{\"type\":\"grammar\"}", "response_format.type");
    refuse_chat("\"response_format\":{\"type\":\"json_schema\"}",
                "response_format.json_schema.schema");
    refuse_chat("\"tools\":{}", "tools");
    refuse_chat("\"tools\":[{}]", "tools[0].type");
    refuse_chat("\"tools\":[{\"type\":\"web\"}]", "tools[0].type");
    refuse_chat("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]",
                "tools[0].function.name");
    refuse_chat("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\","
                "\"parameters\":[]}}]",
                "tools[0].function.parameters");
    refuse_chat("\"tool_choice\":\"required\"", "tool_choice");
    refuse_chat(TOOL ",\"tool_choice\":\"maybe\"", "tool_choice");
    refuse_chat(TOOL ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
                     "\"g\"}}",
                "tool_choice.function.name");
    refuse_chat(TOOL ",\"tool_choice\":\"required\",\"response_format\":{\"type\":"
                     "\"json_object\"}",
                "response_format");
    refuse_chat("\"functions\":[]", "functions");
    r = accept(request_chat, CHAT "," TOOL "}");
    assert_int_equal(r.tool_choice, TOOLS_AUTO);
    request_release(&r);
    r = accept(request_chat, CHAT "," TOOL ",\"tool_choice\":{\"type\":\"function\","
                                  "\"function\":{\"name\":\"f\"}}}");
    assert_int_equal(r.tool_choice, TOOLS_REQUIRED);
    assert_string_equal(r.tool_name, "f");
    request_release(&r);
}

static void h31_unknown_fields(void **state)
{
    const char *const body =
        CHAT ",\"temprature\":1,\"a\\r\\nb\":2,\"artel\":{\"x\":1}}";
    struct artel_error err;
    struct request r = accept(request_chat, body);

    (void)state;
    assert_non_null(strstr(r.ignored, "temprature"));
    assert_non_null(strstr(r.ignored, "artel.x"));
    for (const char *c = r.ignored; *c; c++)
        assert_true((unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f);
    request_release(&r);
    assert_error(request_chat(&r, &strict, body, strlen(body), &err), ARTEL_EUSAGE, err,
                 "SRV08");
}

static void h32_token_prompts(void **state)
{
    struct request r;

    (void)state;
    refuse(request_completion, "{\"model\":\"auto\"}", "prompt");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":[]}", "prompt");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":5}", "prompt");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":[1,-1]}", "prompt[1]");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":[320]}", "prompt[0]");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":[[1],[1000000000]]}",
           "prompt[1][0]");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":[1,\"a\"]}",
           "prompt[1]");
    refuse(request_completion, "{\"model\":\"auto\",\"prompt\":[\"a\",1]}",
           "prompt[1]");
    refuse(request_completion, TEXT ",\"best_of\":3}", "best_of");
    refuse(request_completion, TEXT ",\"suffix\":\"end\"}", "suffix");
    r = accept(request_completion, "{\"model\":\"auto\",\"prompt\":[[1,2],[3]],"
                                   "\"echo\":true,\"max_tokens\":0,\"logprobs\":1}");
    assert_int_equal(r.n_prompts, 2);
    assert_int_equal(r.prompts[0].n, 2);
    assert_int_equal(r.prompts[1].ids[0], 3);
    assert_int_equal(r.max_tokens, 0);
    request_release(&r);
    r = accept(request_completion, TEXT "}");
    assert_int_equal(r.max_tokens, 16);
    request_release(&r);
}

static void embeddings_and_routes(void **state)
{
    struct request r;

    (void)state;
    refuse(request_embedding, "{\"model\":\"auto\"}", "input");
    refuse(request_embedding,
           "{\"model\":\"auto\",\"input\":\"a\",\"encoding_format\":"
           "\"int8\"}",
           "encoding_format");
    refuse(request_embedding, "{\"model\":\"auto\",\"input\":\"a\",\"dimensions\":8}",
           "dimensions");
    r = accept(request_embedding,
               "{\"model\":\"auto\",\"input\":[\"a\",\"b\"],\"encoding_format\":"
               "\"base64\"}");
    assert_true(r.base64 && r.n_prompts == 2);
    request_release(&r);
    refuse_chat("\"artel\":5", "artel");
    refuse_chat("\"artel\":{\"threshold\":2}", "artel.threshold");
    refuse_chat("\"artel\":{\"below\":\"expert\"}", "artel.below");
    refuse_chat("\"artel\":{\"layers\":1}", "artel.layers");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_is_read_whole),
        cmocka_unit_test(h20_bodies_that_are_no_json_object),
        cmocka_unit_test(h20_a_million_keys_are_listed_shortly),
        cmocka_unit_test(h21_bad_text),
        cmocka_unit_test(h22_model_names),
        cmocka_unit_test(h23_messages_are_named_by_place),
        cmocka_unit_test(messages_become_what_templates_read),
        cmocka_unit_test(h24_lengths),
        cmocka_unit_test(h25_sampler_values),
        cmocka_unit_test(h26_h27_integers_and_choices),
        cmocka_unit_test(h28_stop_strings),
        cmocka_unit_test(h29_biases_and_logprobs),
        cmocka_unit_test(h30_formats_and_tools),
        cmocka_unit_test(h31_unknown_fields),
        cmocka_unit_test(h32_token_prompts),
        cmocka_unit_test(embeddings_and_routes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
