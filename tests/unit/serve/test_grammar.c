/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a schema lets through: random tokens that it allows are always a text of it, its
 * texts are let through token by token, and others stop at the byte that is wrong.
 */
#include "support/grammar_case.h"

#include "support/schema_check.h"

static const char *const schemas[] = {
    "{\"type\":\"object\"}",
    "{}",
    "true",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"
    "\"age\":{\"type\":\"integer\"},\"ok\":{\"type\":\"boolean\"}},"
    "\"required\":[\"name\",\"ok\"]}",
    "{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{},\"c\":{\"type\":\"number\"}}}",
    "{\"properties\":{\"a\":{\"type\":\"null\"},\"ab\":{\"type\":\"boolean\"}},"
    "\"required\":[\"a\"],\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"required\":[\"x\"],\"additionalProperties\":true}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":5}",
    "{\"type\":\"string\",\"minLength\":70}",
    "{\"type\":[\"string\",\"null\"],\"maxLength\":2}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":-12,"
    "\"maximum\":305},\"minItems\":2,\"maxItems\":4}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"}]"
    ","
    "\"items\":{\"type\":\"null\"},\"minItems\":1,\"maxItems\":4}",
    "{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"items\":false}",
    "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}"
    ","
    "\"minItems\":1},\"minItems\":3}",
    "{\"enum\":[\"red\",\"green\",\"gr\\\"ey\",12,1.5,null,{\"a\":[1,2]},[],\"r\"]}",
    "{\"const\":{\"deep\":[{\"k\":\"\\u00e9\\n\"}]}}",
    "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"array\",\"items\":{\"type\":"
    "\"string\"}},{\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},"
    "{\"properties\":{\"k\":{\"const\":2},\"l\":{\"type\":\"string\"}},\"required\":"
    "[\"k\",\"l\"]}]}",
    "{\"oneOf\":[{\"type\":\"boolean\"},{\"type\":\"null\"}]}",
    "{\"properties\":{\"value\":{\"type\":\"integer\"},\"left\":{\"$ref\":\"#\"},"
    "\"right\":{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}},"
    "\"required\":[\"value\"],\"type\":\"object\"}",
    "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":"
    "\"string\",\"maxLength\":4},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":"
    "\"#/$defs/node\"}}},\"required\":[\"name\",\"children\"],"
    "\"additionalProperties\":false}},\"$ref\":\"#/$defs/node\"}",
    "{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"number\"}},\"required\":[\"a\"]},"
    "{\"properties\":{\"a\":{\"minimum\":2,\"maximum\":3},\"b\":{\"type\":\"null\"}}}],"
    "\"type\":\"object\",\"properties\":{\"a\":true,\"b\":true}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
    "\"integer\"}},\"anyOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
    "{\"type\":\"integer\",\"minimum\":-5,\"exclusiveMaximum\":17}",
    "{\"type\":\"integer\",\"minimum\":98,\"maximum\":1203,\"multipleOf\":7}",
    "{\"type\":\"integer\",\"exclusiveMinimum\":-1000,\"maximum\":-99}",
    "{\"type\":\"number\",\"multipleOf\":5}",
    "{\"type\":\"number\",\"minimum\":-0.25,\"exclusiveMaximum\":1.5}",
    "{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":1}",
    "{\"type\":\"number\",\"minimum\":99.5,\"maximum\":1000.125}",
    "{\"type\":\"number\",\"exclusiveMinimum\":-3,\"exclusiveMaximum\":-2.9}",
    "{\"type\":\"string\",\"pattern\":\"^[A-Z]{2,3}-\\\\d+$\"}",
    "{\"type\":\"string\",\"pattern\":\"^(ab|c)*[^a-y\\\"]?$\",\"minLength\":2,"
    "\"maxLength\":7}",
    "{\"type\":\"string\",\"pattern\":\"b.d\",\"maxLength\":9}",
    "{\"type\":\"string\",\"pattern\":\"^\\\\w+\\\\s\\\\S$|^x?$\"}",
    "{\"type\":\"string\",\"pattern\":\"^(a{4})*$\",\"minLength\":5,\"maxLength\":9}",
    "{\"type\":\"string\",\"pattern\":\"^[\\u00e0-\\u4e2d]+[^\\\\x00-\\u007f]$\"}",
    "{\"type\":\"string\",\"pattern\":\"^(a|b{0,2}c)*\\\\\\\\\\\\t$\"}",
};

static void random_texts_are_of_the_schema(void **state)
{
    const struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(schemas) / sizeof(*schemas); i++) {
        json_t *schema = json_loads(schemas[i], JSON_DECODE_ANY, NULL);

        for (uint64_t seed = 0; seed < 25; seed++) {
            struct grammar *g = grammar_of(f, schemas[i]);
            struct rng r;
            char *text;
            json_t *value;

            rng_init(&r, seed, i);
            text = random_text(f, g, &r, 10 + 4 * seed);
            value = json_loads(text, JSON_DECODE_ANY, NULL);
            if (!value || !schema_lets(schema, schema, value))
                fail_msg("%s: %s", schemas[i], text);
            json_decref(value);
            free(text);
            grammar_close(g);
        }
        json_decref(schema);
    }
}

static void texts_of_a_schema_are_taken(void **state)
{
    static const char *const texts[][2] = {
        {NULL, "{}"},
        {NULL, "{\"a\": [1, -2.5e-3, {\"b\": null}], \"\\u00e9\": \"\\ud83d\\ude00\"}"},
        {NULL,
         "{\"a\":\"\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80 \\\" \\\\ \\/ \\u00Ff\"}"},
        {"{}", "[true, false, null, \"\", 0, -1, 1.50, 1E+5]"},
        {"{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}}}",
         "{\"b\": \"x\"}"},
        {"{\"properties\":{\"ab\":{\"type\":\"integer\"}},\"additionalProperties\":"
         "{\"type\":\"string\"}}",
         "{\"ab\": 3, \"a\": \"x\", \"abc\": \"y\", \"a\\nb\":\"\"}"},
        {"{\"type\":\"string\",\"maxLength\":3}",
         "\"\xf0\x9f\x98\x80\\ud83d\\ude00\\n\""},
        {"{\"type\":\"integer\",\"minimum\":10,\"maximum\":12}", "12"},
        {"{\"type\":\"number\",\"minimum\":0.5,\"maximum\":10}", "0.5000"},
        {"{\"type\":\"number\",\"minimum\":0.5,\"maximum\":10}", "10.0"},
        {"{\"enum\":[\"a\",\"ab\",{\"k\":[1,2]}]}", "{\"k\": [1, 2]}"},
        {"{\"format\":\"date\",\"type\":\"string\"}", "\"2024-02-29\""},
        {"{\"format\":\"date-time\",\"type\":\"string\"}",
         "\"1999-12-31T23:59:59.5Z\""},
        {"{\"format\":\"time\",\"type\":\"string\"}", "\"00:00:00+05:30\""},
        {"{\"format\":\"uuid\",\"type\":\"string\"}",
         "\"123e4567-e89b-12d3-a456-426614174000\""},
        {"{\"format\":\"email\",\"type\":\"string\"}", "\"a.b+c@mail.example.org\""},
        {"{\"format\":\"ipv4\",\"type\":\"string\"}", "\"127.0.255.1\""},
        {"{\"format\":\"uri\",\"minLength\":1,\"type\":\"string\"}",
         "\"https://example.org/a/b?c=d\""},
        {"{\"type\":\"string\",\"pattern\":\"lo w\"}", "\"hello world\""},
        {"{\"type\":\"string\",\"pattern\":\"^a?b+c*d{2}(e|f)[g-i]\\\\.$\"}",
         "\"bbddfh.\""},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        assert_takes(*state, texts[i][0], texts[i][1]);
}

static void other_texts_stop_at_the_wrong_byte(void **state)
{
    static const struct {
        const char *schema, *text;
        size_t at;
    } cases[] = {
        {NULL, "[", 0},
        {NULL, " {", 0},
        {NULL, "{\n", 1},
        {NULL, "{\"a\":  1", 6},
        {NULL, "{\"a\":1 }", 6},
        {NULL, "{\"a\":1,}", 7},
        {NULL, "{\"a\":01}", 6},
        {NULL, "{\"a\":tru}", 8},
        {NULL, "{\"a\":\"\\x", 7},
        {NULL, "{\"a\":\"\\u0000", 11},
        {NULL, "{\"a\":\"\\ud83d\\n", 13},
        {NULL, "{\"a\":\"\\udc00", 9},
        {NULL, "{\"a\":\"\xc0", 6},
        {NULL, "{\"a\":\"\xed\xa0", 7},
        {NULL, "{\"a\":\"\t", 6},
        {NULL, "{\"a\":1", 6},
        {NULL, "{}{", 2},
        {"{\"properties\":{\"a\":{},\"b\":{}}}", "{\"b\":1,", 6},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"b\"]}", "{\"a\":1}", 6},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"a\"]}", "{\"b\"", 2},
        {"{\"properties\":{\"ab\":false},\"additionalProperties\":true}", "{\"ab\"", 4},
        {"{\"properties\":{\"ab\":true},\"additionalProperties\":true}",
         "{\"ab\":1,\"ab\"", 11},
        {"{\"properties\":{\"ab\":true},\"additionalProperties\":true}", "{\"\\u", 3},
        {"{\"type\":\"string\",\"maxLength\":2}", "\"a\\nb", 4},
        {"{\"type\":\"string\",\"minLength\":2}", "\"\xc3\xa9\"", 3},
        {"{\"type\":\"array\",\"maxItems\":1}", "[1,", 2},
        {"{\"type\":\"array\",\"minItems\":1}", "[]", 1},
        {"{\"type\":\"array\",\"maxItems\":0}", "[1", 1},
        {"{\"type\":\"integer\",\"minimum\":10,\"maximum\":12}", "13", 1},
        {"{\"type\":\"integer\",\"minimum\":10,\"maximum\":12}", "1", 1},
        {"{\"type\":\"integer\",\"minimum\":10,\"maximum\":12}", "10.", 2},
        {"{\"type\":\"integer\"}", "-0", 1},
        {"{\"type\":\"number\",\"minimum\":0.5}", "0.4", 2},
        {"{\"type\":\"number\",\"maximum\":0.5}", "0.51", 3},
        {"{\"type\":\"number\",\"exclusiveMaximum\":0.5}", "0.5", 2},
        {"{\"enum\":[\"a\",\"ab\"]}", "\"abc", 3},
        {"{\"format\":\"date\",\"type\":\"string\"}", "\"2023-02-29", 10},
        {"{\"format\":\"time\",\"type\":\"string\"}", "\"24", 2},
        {"{\"type\":\"string\",\"pattern\":\"^a$\"}", "\"ab", 2},
        {"{\"type\":\"string\",\"pattern\":\"^(a{4})*$\",\"maxLength\":7}", "\"aaaaa",
         5},
        {"{\"type\":\"string\",\"pattern\":\"^.$\"}", "\"\\n", 2},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_stops(*state, cases[i].schema, cases[i].text, cases[i].at);
}

/* Each bit against the token's bytes, one after the other. */
static void masks_agree_with_the_bytes_of_tokens(void **state)
{
    static const char *const cases[][2] = {
        {NULL, ""},
        {NULL, "{\"a\":\"x"},
        {NULL, "{\"a\":\"\xe4"},
        {"{\"type\":\"string\",\"maxLength\":3}", "\"a"},
        {"{\"properties\":{\"the\":{},\"then\":{}},\"additionalProperties\":true}",
         "{\"t"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "[1"},
        {"{\"enum\":[\"the\",\"there\"]}", "\"t"},
    };
    const struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const size_t n_before = strlen(cases[i][1]);
        struct grammar *g = grammar_of(f, cases[i][0]);
        const unsigned char *mask;

        for (const char *c = cases[i][1]; *c; c++)
            grammar_accept(g, f->byte_id[(unsigned char)*c]);
        mask = grammar_allowed(g);
        for (int32_t id = 0; id < (int32_t)tokenizer_size(f->tok); id++) {
            char text[256];
            size_t n;
            const char *piece = tokenizer_piece(f->tok, id, &n);

            if (tokenizer_is_end(f->tok, id) || tokenizer_is_control(f->tok, id)) {
                assert_int_equal(is_allowed(mask, id),
                                 tokenizer_is_end(f->tok, id) && grammar_complete(g));
                continue;
            }
            if (memchr(piece, 0, n)) {
                assert_false(is_allowed(mask, id));
                continue;
            }
            snprintf(text, sizeof(text), "%s%.*s", cases[i][1], (int)n, piece);
            assert_int_equal(is_allowed(mask, id),
                             taken(f, cases[i][0], text) >= n_before + n);
        }
        grammar_close(g);
    }
}

static void values_within_each_other_end_at_64(void **state)
{
    char text[200] = "{\"a\":";

    for (size_t i = 0; i < 63; i++)
        strcat(text, "[");
    strcat(text, "1");
    for (size_t i = 0; i < 63; i++)
        strcat(text, "]");
    strcat(text, "}");
    /* The brackets are 64; what they hold would be the 65th value. */
    assert_stops(*state, NULL, text, 5 + 63);
    memmove(text + 5 + 63, text + 5 + 64, strlen(text + 5 + 64) + 1);
    assert_int_equal(taken(*state, NULL, text), strlen(text) + 1);
}

/* A tree whose node always holds a list: near the limit only an empty one may come. */
static void recursion_always_has_an_end(void **state)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"c\":{\"anyOf\":[{\"$ref\":\"#\"},"
        "{\"type\":\"array\",\"maxItems\":0}]}},\"required\":[\"c\"]}";
    const struct fixture *f = *state;
    struct grammar *g = grammar_of(f, schema);
    size_t opened = 0, n = 0;

    while (!grammar_complete(g)) {
        static const char wanted[] = "{\"c:[]}";
        const unsigned char *mask = grammar_allowed(g);
        const char *c = wanted;

        while (!is_allowed(mask, f->byte_id[(unsigned char)*c]))
            c++;
        opened += *c == '{';
        grammar_accept(g, f->byte_id[(unsigned char)*c]);
        assert_true(++n < 1000);
    }
    assert_int_equal(opened, 63);
    grammar_close(g);
}

/* Many ways to read the same text: more places than are kept, and still an end. */
static void ambiguous_schemas_stay_bounded(void **state)
{
    static const char schema[] =
        "{\"$defs\":{\"n\":{\"anyOf\":[{\"properties\":{\"v\":{\"$ref\":\"#/$defs/"
        "n\"}}},"
        "{\"properties\":{\"v\":{\"$ref\":\"#/$defs/n\"},\"w\":{}}},{\"properties\":{"
        "\"v\":{\"$ref\":\"#/$defs/n\"},\"x\":{}}}]}},\"$ref\":\"#/$defs/n\"}";
    const struct fixture *f = *state;
    struct grammar *g = grammar_of(f, schema);
    static const char step[] = "{\"v\":";

    for (size_t i = 0; i < 60; i++)
        for (const char *c = step; *c; c++) {
            assert_true(is_allowed(grammar_allowed(g), f->byte_id[(unsigned char)*c]));
            grammar_accept(g, f->byte_id[(unsigned char)*c]);
        }
    for (size_t i = 0; i < 60; i++) {
        const char *close = i ? "}" : "{}}";

        for (; *close; close++) {
            assert_true(
                is_allowed(grammar_allowed(g), f->byte_id[(unsigned char)*close]));
            grammar_accept(g, f->byte_id[(unsigned char)*close]);
        }
    }
    assert_true(grammar_complete(g));
    grammar_close(g);
}

/* More sets than are kept: a long string whose characters are counted. */
static void forgotten_sets_are_found_again(void **state)
{
    const struct fixture *f = *state;
    struct grammar *g =
        grammar_of(f, "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\","
                      "\"minLength\":9000,\"maxLength\":9001}},\"required\":[\"a\"]}");

    for (const char *c = "{\"a\":\""; *c; c++)
        grammar_accept(g, f->byte_id[(unsigned char)*c]);
    for (size_t i = 0; i < 9001; i++) {
        assert_int_equal(is_allowed(grammar_allowed(g), f->byte_id['"']), i >= 9000);
        grammar_accept(g, f->byte_id['x']);
    }
    assert_false(is_allowed(grammar_allowed(g), f->byte_id['x']));
    grammar_accept(g, f->byte_id['"']);
    assert_true(is_allowed(grammar_allowed(g), f->byte_id['}']));
    grammar_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_texts_are_of_the_schema),
        cmocka_unit_test(texts_of_a_schema_are_taken),
        cmocka_unit_test(other_texts_stop_at_the_wrong_byte),
        cmocka_unit_test(masks_agree_with_the_bytes_of_tokens),
        cmocka_unit_test(values_within_each_other_end_at_64),
        cmocka_unit_test(recursion_always_has_an_end),
        cmocka_unit_test(ambiguous_schemas_stay_bounded),
        cmocka_unit_test(forgotten_sets_are_found_again),
    };

    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
