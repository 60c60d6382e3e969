/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies that are wrong (H20 to H32): each is a 400 in OpenAI's form whose "param" names
 * the field, and the next request is answered.
 */
#include "api_case.h"

#include <stdio.h>

struct wrong {
    const char *body, *param; /* NULL: no field is at fault */
};

#define CHAT          "/v1/chat/completions"
#define HEAD          "{\"model\":\"base\",\"max_tokens\":1,"
#define SAID(message) "\"messages\":[" message "]}"

static void refuse_all(const char *path, const struct wrong *all, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *param;

        if (api_post(&c, path, all[i].body) != 400)
            fail_msg("%s: %d %s", all[i].body, c.raw.status, c.raw.body);
        param = at(c.json, "error.param");
        if (all[i].param ? strcmp(text_of(c.json, "error.param"), all[i].param) != 0
                         : !json_is_null(param))
            fail_msg("%s: %s", all[i].body, c.raw.body);
        assert_string_equal(text_of(c.json, "error.type"), "invalid_request_error");
        assert_true(json_is_string(at(c.json, "error.message")));
        assert_non_null(at(c.json, "error.code"));
    }
    assert_int_equal(api_post(&c, CHAT, HEAD USER("a") "}"), 200);
}
#define REFUSE(path, all) refuse_all(path, all, sizeof(all) / sizeof((all)[0]))

static void h20_what_is_no_json_names_its_field(void **state)
{
    static const struct wrong all[] = {
        {"", NULL},
        {"[]", NULL},
        {"{", NULL},
        {"{}x", NULL},
        {"{\"model\":\"base\",}", NULL},
        {"{\"model\":\"base\"", NULL},
        {"{'a':1}", NULL},
        {HEAD "\"temperature\":NaN," USER("a") "}", "temperature"},
        {HEAD "\"top_p\":-Infinity," USER("a") "}", "top_p"},
        {HEAD "\"top_p\":1e999," USER("a") "}", "top_p"},
        {HEAD "\"n\":01," USER("a") "}", "n"},
        {HEAD "\"n\":1,\"seed\":1,\"n\":2," USER("a") "}", "n"},
        {HEAD "\n\"stop\":[\"a\",\n{\"x\":NaN}]," USER("a") "}", "stop"},
        {HEAD "\"user\":\"a\\\"b\",\"stop\":\"\\ud800\"," USER("a") "}", "stop"},
        {HEAD "\"stop\":\"\xff\"," USER("a") "}", "stop"},
        {HEAD SAID("{\"role\":\"user\",\"role\":\"system\",\"content\":\"a\"}"),
         "messages"},
        {HEAD SAID("{\"role\":\"user\",\"content\":nul}"), "messages"},
    };

    (void)state;
    REFUSE(CHAT, all);
    assert_int_equal(api_post(&c, CHAT, "{\"a\":1,\n \"temperature\":NaN}"), 400);
    assert_non_null(strstr(text_of(c.json, "error.message"), "2:16"));
}

#define CALL(call)                                                                     \
    SAID("{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":[" call "]}")

static void h23_messages_are_checked_field_by_field(void **state)
{
    static const struct wrong all[] = {
        {HEAD "\"messages\":null}", "messages"},
        {HEAD "\"messages\":[]}", "messages"},
        {HEAD "\"messages\":\"a\"}", "messages"},
        {HEAD SAID("null"), "messages[0]"},
        {HEAD SAID("{\"content\":\"a\"}"), "messages[0].role"},
        {HEAD SAID("{\"role\":\"king\",\"content\":\"a\"}"), "messages[0].role"},
        {HEAD SAID("{\"role\":1,\"content\":\"a\"}"), "messages[0].role"},
        {HEAD SAID("{\"role\":\"user\",\"content\":null}"), "messages[0].content"},
        {HEAD SAID("{\"role\":\"user\",\"content\":[]}"), "messages[0].content"},
        {HEAD SAID("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
         "messages[0].content[0].type"},
        {HEAD SAID("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}"),
         "messages[0].content[0].text"},
        {HEAD SAID("{\"role\":\"user\",\"content\":\"a\",\"name\":1}"),
         "messages[0].name"},
        {HEAD SAID("{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":\"x\"}"),
         "messages[0].tool_calls"},
        {HEAD CALL("{}"), "messages[0].tool_calls[0].function.name"},
        {HEAD CALL("{\"type\":\"x\",\"function\":{\"name\":\"f\"}}"),
         "messages[0].tool_calls[0].type"},
        {HEAD CALL("{\"id\":1,\"function\":{\"name\":\"f\"}}"),
         "messages[0].tool_calls[0].id"},
        {HEAD CALL("{\"function\":{\"name\":\"f\",\"arguments\":5}}"),
         "messages[0].tool_calls[0].function.arguments"},
        {HEAD CALL("{\"function\":{\"name\":\"f\",\"arguments\":[1]}}"),
         "messages[0].tool_calls[0].function.arguments"},
    };

    (void)state;
    REFUSE(CHAT, all);
    assert_int_equal(
        api_post(&c, CHAT,
                 HEAD CALL("{\"function\":{\"name\":\"f\",\"arguments\":null}}")),
        200);
    assert_int_equal(
        api_post(&c, CHAT,
                 HEAD SAID("{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":[]}")),
        200);
}

#define TOOL(rest) "{\"type\":\"function\",\"function\":{\"name\":\"f\"" rest "}}"
#define FORM(rest)                                                                     \
    HEAD "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":"  \
         "{\"type\":\"object\"}" rest "}}," USER("a") "}"

static void h30_tools_and_forms_are_checked(void **state)
{
    static const struct wrong all[] = {
        {HEAD "\"tools\":{}," USER("a") "}", "tools"},
        {HEAD "\"tools\":[1]," USER("a") "}", "tools[0].type"},
        {HEAD "\"tools\":[" TOOL(",\"description\":1") "]," USER("a") "}",
         "tools[0].function.description"},
        {HEAD "\"tools\":[" TOOL(",\"strict\":1") "]," USER("a") "}",
         "tools[0].function.strict"},
        {HEAD "\"tools\":[" TOOL(",\"parameters\":1") "]," USER("a") "}",
         "tools[0].function.parameters"},
        {HEAD "\"tools\":[" TOOL("") "," TOOL("") "]," USER("a") "}",
         "tools[1].function.name"},
        {HEAD "\"tools\":[" TOOL("") "],\"tool_choice\":1," USER("a") "}",
         "tool_choice"},
        {HEAD "\"response_format\":1," USER("a") "}", "response_format"},
        {HEAD "\"response_format\":{\"type\":\"x\"}," USER("a") "}",
         "response_format.type"},
        {FORM(",\"name\":1"), "response_format.json_schema.name"},
        {FORM(",\"description\":[]"), "response_format.json_schema.description"},
        {FORM(",\"strict\":1"), "response_format.json_schema.strict"},
    };

    (void)state;
    REFUSE(CHAT, all);
    assert_int_equal(api_post(&c, CHAT, FORM(",\"name\":\"n\",\"strict\":true")), 200);
}

static void h24_to_h29_numbers_have_types_and_bounds(void **state)
{
    static const struct wrong all[] = {
        {HEAD "\"temperature\":true," USER("a") "}", "temperature"},
        {HEAD "\"temperature\":\"1\"," USER("a") "}", "temperature"},
        {HEAD "\"temperature\":1e308," USER("a") "}", "temperature"},
        {HEAD "\"top_p\":0," USER("a") "}", "top_p"},
        {HEAD "\"n\":0," USER("a") "}", "n"},
        {HEAD "\"n\":1000000000," USER("a") "}", "n"},
        {HEAD "\"n\":1.5," USER("a") "}", "n"},
        {HEAD "\"max_completion_tokens\":1000000000000," USER("a") "}",
         "max_completion_tokens"},
        {HEAD "\"max_completion_tokens\":\"10\"," USER("a") "}",
         "max_completion_tokens"},
        {HEAD "\"seed\":9223372036854775808," USER("a") "}", "seed"},
        {HEAD "\"seed\":99999999999999999999999," USER("a") "}", "seed"},
        {HEAD "\"stream\":1," USER("a") "}", "stream"},
        {HEAD "\"stop\":\"\"," USER("a") "}", "stop"},
        {HEAD "\"stop\":[null]," USER("a") "}", "stop[0]"},
        {HEAD "\"logit_bias\":{\"x\":1}," USER("a") "}", "logit_bias.x"},
        {HEAD "\"logit_bias\":{\"1\":null}," USER("a") "}", "logit_bias.1"},
        {HEAD "\"logprobs\":1," USER("a") "}", "logprobs"},
        {HEAD "\"top_logprobs\":2," USER("a") "}", "top_logprobs"},
    };

    (void)state;
    REFUSE(CHAT, all);
}

static void h32_prompts_are_checked_one_by_one(void **state)
{
    static const struct wrong prompts[] = {
        {HEAD "\"prompt\":null}", "prompt"},
        {HEAD "\"prompt\":{}}", "prompt"},
        {HEAD "\"prompt\":\"\"}", "prompt"},
        {HEAD "\"prompt\":[\"a\",\"\"]}", "prompt[1]"},
        {HEAD "\"prompt\":[\"a\",1]}", "prompt[1]"},
        {HEAD "\"prompt\":[-1]}", "prompt[0]"},
        {HEAD "\"prompt\":[1000000000]}", "prompt[0]"},
    };
    static const struct wrong inputs[] = {
        {"{\"model\":\"base\"}", "input"},
        {"{\"model\":\"base\",\"input\":\"\"}", "input"},
        {"{\"model\":\"base\",\"input\":[\"a\",\"\"]}", "input[1]"},
        {"{\"model\":\"base\",\"input\":[[1],[true]]}", "input[1][0]"},
    };

    (void)state;
    REFUSE("/v1/completions", prompts);
    REFUSE("/v1/embeddings", inputs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(h20_what_is_no_json_names_its_field),
        cmocka_unit_test(h23_messages_are_checked_field_by_field),
        cmocka_unit_test(h30_tools_and_forms_are_checked),
        cmocka_unit_test(h24_to_h29_numbers_have_types_and_bounds),
        cmocka_unit_test(h32_prompts_are_checked_one_by_one),
    };

    return cmocka_run_group_tests(tests, open_case, close_case);
}
