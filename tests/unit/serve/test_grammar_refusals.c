/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schemas that cannot be kept: each is refused with the place and the keyword (H30).
 */
#include "support/grammar_case.h"

static void assert_refused(const struct fixture *f, const char *schema,
                           const char *where)
{
    struct artel_error err = {0};
    struct grammar *g;
    json_t *s = json_loads(schema, JSON_DECODE_ANY, NULL);

    assert_non_null(s);
    if (grammar_open(&g, f->pieces, s, &err) == 0)
        fail_msg("not refused: %s", schema);
    assert_null(g);
    assert_string_equal(err.code, "SRV07");
    if (strcmp(err.where, where))
        fail_msg("%s: at %s (%s), expected %s", schema, err.where, err.reason, where);
    assert_true(strlen(err.reason) > 5);
    json_decref(s);
}

static void h30_what_is_not_supported_is_named_with_its_place(void **state)
{
    static const char *const cases[][2] = {
        {"{\"not\":{}}", "#/not"},
        {"{\"properties\":{\"a\":{\"type\":\"array\",\"uniqueItems\":true}}}",
         "#/properties/a/uniqueItems"},
        {"{\"type\":\"object\",\"patternProperties\":{}}", "#/patternProperties"},
        {"{\"type\":\"objekt\"}", "#/type"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"if\":{}}]}", "#/anyOf/1/if"},
        {"{\"type\":\"string\",\"format\":\"iri\"}", "#/format"},
        {"{\"type\":\"number\",\"multipleOf\":0.1}", "#/multipleOf"},
        {"{\"type\":\"integer\",\"multipleOf\":0}", "#/multipleOf"},
        {"{\"type\":\"integer\",\"minimum\":\"1\"}", "#/minimum"},
        {"{\"type\":\"integer\",\"exclusiveMinimum\":true}", "#/exclusiveMinimum"},
        {"{\"type\":\"integer\",\"minimum\":1e300}", "#/minimum"},
        {"{\"type\":\"number\",\"maximum\":1e-300}", "#/maximum"},
        {"{\"type\":\"string\",\"minLength\":-1}", "#/minLength"},
        {"{\"type\":\"string\",\"minLength\":39999999999999}", "#/minLength"},
        {"{\"type\":\"array\",\"items\":[{}]}", "#/items"},
        {"{\"enum\":[\"a\"],\"pattern\":\"a\"}", "#/pattern"},
        {"{\"$ref\":\"https://example.org/s\"}", "#/$ref"},
        {"{\"$ref\":\"#/$defs/none\"}", "#/$ref"},
        {"{\"properties\":[]}", "#/properties"},
        {"{\"required\":[1]}", "#/required"},
        {"[1]", "#"},
        {"{\"items\":3}", "#/items"},
        {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", "#/pattern"},
        {"{\"allOf\":[{\"additionalProperties\":false},{\"properties\":{\"a\":{}}}]}",
         "#/additionalProperties"},
        {"{\"oneOf\":[],\"type\":\"null\"}", "#/oneOf"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_refused(*state, cases[i][0], cases[i][1]);
}

static void h30_schemas_without_a_text_are_refused(void **state)
{
    static const char *const cases[][2] = {
        {"false", "#"},
        {"{\"enum\":[]}", "#/enum"},
        {"{\"enum\":[1,\"a\"],\"type\":\"null\"}", "#/enum"},
        {"{\"enum\":[1],\"const\":2}", "#/enum"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "#/minLength"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "#/minItems"},
        {"{\"type\":\"array\",\"items\":false,\"minItems\":1}", "#"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "#"},
        {"{\"type\":\"integer\",\"minimum\":0.2,\"maximum\":0.9}", "#"},
        {"{\"type\":\"number\",\"minimum\":1,\"exclusiveMaximum\":1}", "#"},
        {"{\"type\":\"integer\",\"minimum\":11,\"maximum\":12,\"multipleOf\":5}", "#"},
        {"{\"type\":\"string\",\"pattern\":\"^abc$\",\"maxLength\":2}", "#"},
        {"{\"type\":\"string\",\"pattern\":\"^(a{4})*$\",\"minLength\":5,"
         "\"maxLength\":7}",
         "#"},
        {"{\"type\":\"string\",\"pattern\":\"[]\"}", "#"},
        {"{\"required\":[\"b\"],\"properties\":{\"a\":{}}}", "#/required"},
        {"{\"properties\":{\"a\":{\"enum\":[]}}}", "#/properties/a/enum"},
        {"{\"$ref\":\"#\"}", "#"},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "#/properties/a"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "#/type"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_refused(*state, cases[i][0], cases[i][1]);
}

static void h30_patterns_are_refused_at_their_byte(void **state)
{
    static const char *const patterns[] = {
        "(",   "a)",    "[a",        "a**",     "*a",      "a{2,1}", "a{1001}",
        "a{",  "\\b",   "\\p{L}",    "(?=a)",   "(?<n>a)", "a\\1",   "(a$)b",
        "a^b", "[b-a]", "[\\d-z]x{", "\\ud800", "\\xg0",   "a\\",    "(?i)a",
    };

    for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
        struct artel_error err = {0};
        struct grammar *g;
        json_t *s = json_pack("{s:s,s:s}", "type", "string", "pattern", patterns[i]);

        if (grammar_open(&g, ((struct fixture *)*state)->pieces, s, &err) == 0)
            fail_msg("not refused: %s", patterns[i]);
        assert_string_equal(err.where, "#/pattern");
        assert_non_null(strstr(err.reason, "byte "));
        json_decref(s);
    }
}

static void h30_deep_and_large_schemas_are_refused(void **state)
{
    struct artel_error err = {0};
    struct fixture *f = *state;
    json_t *s = json_pack("{s:s}", "type", "null"), *optional = json_object();
    struct grammar *g;

    for (size_t i = 0; i < 70; i++)
        s = json_pack("{s:o}", "items", s);
    assert_error(grammar_open(&g, f->pieces, s, &err), ARTEL_EUSAGE, err, "SRV07");
    json_decref(s);
    for (size_t i = 0; i < 200; i++) {
        char name[24];

        snprintf(name, sizeof(name), "p%zu", i);
        json_object_set_new(optional, name, json_true());
    }
    s = json_pack("{s:o}", "properties", optional);
    assert_error(grammar_open(&g, f->pieces, s, &err), ARTEL_EUSAGE, err, "SRV07");
    assert_string_equal(err.where, "#/properties");
    json_decref(s);
    assert_refused(f, "{\"type\":\"string\",\"pattern\":\"^((a{1000}){1000}){1000}$\"}",
                   "#/pattern");
    assert_refused(f,
                   "{\"type\":\"string\",\"pattern\":\"^(.{9}b){90}\","
                   "\"maxLength\":100000000}",
                   "#/pattern");
}

static void notes_are_passed_over(void **state)
{
    struct grammar *g = grammar_of(
        *state,
        "{\"$schema\":\"s\",\"$id\":\"i\",\"title\":\"t\",\"description\":\"d\","
        "\"default\":1,\"examples\":[],\"x-own\":1,\"type\":\"null\"}");

    grammar_close(g);
    assert_takes(*state, "{\"type\":\"null\",\"minLength\":3}", "null");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(h30_what_is_not_supported_is_named_with_its_place),
        cmocka_unit_test(h30_schemas_without_a_text_are_refused),
        cmocka_unit_test(h30_patterns_are_refused_at_their_byte),
        cmocka_unit_test(h30_deep_and_large_schemas_are_refused),
        cmocka_unit_test(notes_are_passed_over),
    };

    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
