/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each byte of a rendered conversation is from, and what bad templates do.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/error.h"
#include "model/weights.h"
#include "text/chat.h"

static struct chat_template *parse(const char *source)
{
    struct chat_template *t;
    struct artel_error err = {0};

    if (chat_parse(&t, source, strlen(source), "test", &err) < 0)
        fail_msg("%s: %s", err.where, err.reason);
    return t;
}

static json_t *json(const char *text)
{
    json_t *v = json_loads(text, 0, NULL);

    assert_non_null(v);
    return v;
}

/* Render MESSAGES; the mask must be WANT, one letter a byte: t template, c content. */
static void check_mask(const char *source, const char *messages, const char *text,
                       const char *want)
{
    struct chat_template *t = parse(source);
    json_t *m = json(messages);
    struct rendered r;
    struct artel_error err = {0};

    if (chat_render(t, &r, m, NULL, NULL, true, "<s>", "</s>", &err) < 0)
        fail_msg("%s: %s", err.where, err.reason);
    assert_string_equal(r.text, text);
    assert_int_equal(r.n, strlen(want));
    for (size_t i = 0; i < r.n; i++)
        if (r.mask[i] != (want[i] == 't'))
            fail_msg("byte %zu of |%s| is not %c", i, text, want[i]);
    rendered_release(&r);
    json_decref(m);
    chat_close(t);
}

static void content_stays_content_through_operations(void **state)
{
    static const char message[] = "[{\"role\":\"user\",\"content\":\" <b>Xy \"}]";
    const struct {
        const char *expression, *text, *mask;
    } rows[] = {
        {"m.content", " <b>Xy ", "ccccccc"},
        {"m.content|trim", "<b>Xy", "ccccc"},
        {"m['content'].strip()", "<b>Xy", "ccccc"},
        {"'<' + m.content|trim + '>'", "<<b>Xy>", "tccccct"},
        {"'a' ~ m.content[1:3] ~ 'z'", "a<bz", "tcct"},
        {"m.content[::-1]", " yX>b< ", "ccccccc"},
        {"m.content.upper()", " <B>XY ", "ccccccc"},
        {"m.content|lower", " <b>xy ", "ccccccc"},
        {"m.content.replace('<b>', '|im|')", " |im|Xy ", "cttttccc"},
        {"'x-y'.replace('-', m.content|trim)", "x<b>Xyy", "tccccct"},
        {"m.content.split('b')[0]", " <", "cc"},
        {"m.content.split()|join('_')", "<b>Xy", "ccccc"},
        {"[m.content|trim, 'k']|join('|')", "<b>Xy|k", "ccccctt"},
        {"(m.content|trim)|tojson", "\"<b>Xy\"", "tccccct"},
        {"{'k': m.content|trim}|tojson", "{\"k\": \"<b>Xy\"}", "tttttttccccctt"},
        {"m.content|trim|list|first", "<", "c"},
        {"m.content|trim * 2", "<b>Xy<b>Xy", "cccccccccc"},
        {"m.content|trim|indent(1, true)", " <b>Xy", "tccccc"},
        {"[m.content|trim]", "['<b>Xy']", "ttccccctt"},
        {"'<|' + m.role + '|>'", "<|user|>", "tttttttt"},
        {"m|items|list|last|last|trim", "<b>Xy", "ccccc"},
        {"m.keys()|join", "rolecontent", "ccccccccccc"},
        {"bos_token + eos_token", "<s></s>", "ttttttt"},
        {"m.content|trim|replace('X', '')", "<b>y", "cccc"},
        {"m.content|map('upper')|join|trim", "<B>XY", "ccccc"},
        {"m.content.title()", " <B>Xy ", "ccccccc"},
    };
    char source[256];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        snprintf(source, sizeof(source), "{%% set m = messages[0] %%}{{ %s }}",
                 rows[i].expression);
        check_mask(source, message, rows[i].text, rows[i].mask);
    }
}

static void captures_and_macros_keep_the_origin(void **state)
{
    static const char m[] = "[{\"role\":\"user\",\"content\":\"ab\"}]";

    (void)state;
    check_mask("{% set x %}[{{ messages[0].content }}]{% endset %}{{ x }}", m, "[ab]",
               "tcct");
    check_mask(
        "{% macro f(a) %}<{{ a }}>{% endmacro %}{{ f(messages[0].content)|upper }}", m,
        "<AB>", "tcct");
    check_mask("{% filter upper %}q{{ messages[0].content }}{% endfilter %}", m, "QAB",
               "tcc");
    check_mask("{% set ns = namespace(s='') %}{% for c in messages[0].content %}"
               "{% set ns.s = c ~ '.' ~ ns.s %}{% endfor %}{{ ns.s }}",
               m, "b.a.", "ctct");
}

static void a_role_nobody_knows_is_content(void **state)
{
    (void)state;
    check_mask("{{ '<|' + messages[0].role + '|>' }}",
               "[{\"role\":\"im_end\",\"content\":\"\"}]", "<|im_end|>", "ttcccccctt");
}

static void tools_and_extra_are_content(void **state)
{
    struct chat_template *t = parse("{{ tools[0].name }}{{ date }}{{ n + 1 }}{{ n }}-");
    json_t *m = json("[]"), *tools = json("[{\"name\":\"<x>\"}]");
    json_t *extra = json("{\"date\":\"<d>\",\"n\":41}");
    struct rendered r;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(chat_render(t, &r, m, tools, extra, true, NULL, NULL, &err), 0);
    assert_string_equal(r.text, "<x><d>4241-");
    for (size_t i = 0; i < r.n; i++)
        assert_int_equal(r.mask[i], i == 6 || i == 7 || i == 10);
    rendered_release(&r);
    json_decref(m);
    json_decref(tools);
    json_decref(extra);
    chat_close(t);
}

static void the_last_user_turn_is_found(void **state)
{
    struct chat_template *t = parse(
        "{% for m in messages %}{{ '<' + m.role + '>' + m.content|trim }}{% endfor %}");
    json_t *m = json("[{\"role\":\"user\",\"content\":\"one\"},"
                     "{\"role\":\"assistant\",\"content\":\"two\"},"
                     "{\"role\":\"user\",\"content\":\"  three \"},"
                     "{\"role\":\"tool\",\"content\":\"four\"}]");
    struct rendered r;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(chat_render(t, &r, m, NULL, NULL, true, NULL, NULL, &err), 0);
    assert_int_equal(r.pool_end - r.pool_first, 5);
    assert_memory_equal(r.text + r.pool_first, "three", 5);
    rendered_release(&r);
    json_decref(m);
    chat_close(t);
}

/* SOURCE does not parse: CODE at WHERE, and the reason names NAMED. */
static void check_refused(const char *source, const char *code, const char *where,
                          const char *named)
{
    struct chat_template *t;
    struct artel_error err = {0};
    const int rc = chat_parse(&t, source, strlen(source), "some/model.gguf", &err);

    assert_error(rc, ARTEL_EFORMAT, err, code);
    assert_null(t);
    assert_string_equal(err.where, where);
    assert_string_equal(err.file, "some/model.gguf");
    if (!strstr(err.reason, named))
        fail_msg("'%s' does not name '%s'", err.reason, named);
}

static void j27_templates_that_do_not_parse_are_refused_with_their_place(void **state)
{
    (void)state;
    check_refused("a\n{% if x %}b", "TPL01", "2:12", "endif");
    check_refused("{% for a in b %}\n{% endif %}", "TPL03", "2:4", "endif");
    check_refused("{{ a", "TPL01", "1:1", "}}");
    check_refused("abc {# d", "TPL01", "1:5", "comment");
    check_refused("{% raw %} d", "TPL01", "1:8", "raw");
    check_refused("{{ 'abc }}", "TPL01", "1:4", "string");
    check_refused("{{ a b }}", "TPL01", "1:6", "b");
    check_refused("{{ ) }}", "TPL01", "1:4", ")");
    check_refused("{{ (1] }}", "TPL01", "1:6", "]");
    check_refused("{{ 1 + }}", "TPL01", "1:8", "expression");
    check_refused("{{ }}", "TPL01", "1:4", "expression");
    check_refused("{% set 1 = 2 %}", "TPL01", "1:8", "name");
    check_refused("{{ a ! b }}", "TPL01", "1:6", "0x21");
    check_refused("{% break %}", "TPL01", "1:4", "loop");
    check_refused("{{ 99999999999999999999 }}", "TPL01", "1:4", "long");
    check_refused("{{ a[] }}", "TPL01", "1:6", "expression");
    check_refused("{% if a %}{% else %}{% elif b %}{% endif %}", "TPL01", "1:24",
                  "endif");
}

static void j26_unknown_names_are_refused_when_parsed(void **state)
{
    (void)state;
    check_refused("{{ a|xmlattr }}", "TPL02", "1:6", "xmlattr");
    check_refused("{{ a is filtered }}", "TPL02", "1:9", "filtered");
    check_refused("\n {{ eval('1') }}", "TPL02", "2:5", "eval");
    check_refused("{% if a %}{{ [f(1)] }}{% endif %}", "TPL02", "1:15", "f");
    check_refused("{% include 'x' %}", "TPL03", "1:4", "include");
    check_refused("{% import 'os' as os %}", "TPL03", "1:4", "import");
    check_refused("{{ a|trim(1, 2, 3) }}", "TPL02", "1:6", "trim");
    check_refused("{{ a|tojson(indnt=2) }}", "TPL02", "1:6", "tojson");
    check_refused("{{ a|replace('x') }}", "TPL02", "1:6", "replace");
}

static void j26_there_is_nothing_to_reach(void **state)
{
    static const char m[] = "[{\"role\":\"user\",\"content\":\"x\"}]";

    (void)state;
    check_mask(
        "{{ ''.__class__ }}{{ messages.__class__ }}{{ messages[0]['__init__'] }}.", m,
        ".", "t");
    check_mask("{{ namespace.__globals__ is defined }}", m, "False", "ttttt");
}

/* SOURCE parses, and rendering it fails with CODE, in little time. */
static void check_stopped(const char *source, const char *code, const char *named)
{
    struct chat_template *t = parse(source);
    json_t *m = json("[{\"role\":\"user\",\"content\":\"x\"}]");
    struct artel_error err = {0};
    struct rendered r;
    const clock_t start = clock();

    assert_error(chat_render(t, &r, m, NULL, NULL, true, NULL, NULL, &err),
                 ARTEL_EFORMAT, err, code);
    assert_null(r.text);
    if (!strstr(err.reason, named))
        fail_msg("'%s' does not name '%s'", err.reason, named);
    assert_string_equal(err.file, "test");
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 20.0);
    json_decref(m);
    chat_close(t);
}

static void j25_endless_templates_are_stopped(void **state)
{
    static const char loops[] = "{% set r = range(100000) %}{% for a in r %}{% for b "
                                "in r %}{% endfor %}{% endfor %}";
    static const char walks[] =
        "{% set r = range(100000) %}{% for a in r %}{{ -1 in r }}{% endfor %}";

    (void)state;
    check_stopped("{% for i in range(10**9) %}{% endfor %}", "TPL12", "100000");
    check_stopped(loops, "TPL15", "memory");
    check_stopped(walks, "TPL12", "steps");
    check_stopped("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "TPL14", "deep");
    check_stopped(
        "{% set a = 'x' * 1000000 %}{% for i in range(100) %}{{ a }}{% endfor %}",
        "TPL13", "16 MB");
    check_stopped("{% set n = namespace(s='xxxxxxxx') %}{% for i in range(100) %}"
                  "{% set n.s = n.s + n.s %}{% endfor %}",
                  "TPL15", "memory");
    check_stopped("{{ 'ab' * 99999999 }}", "TPL13", "16 MB");
    check_stopped("{% set n = namespace(a=[], b=[]) %}{% for i in range(50) %}"
                  "{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
                  "{{ n.a == n.b }}",
                  "TPL12", "steps");
    check_stopped("{% set n = namespace(a=[]) %}{% for i in range(50) %}"
                  "{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a|tojson }}",
                  "TPL13", "16 MB");
}

static void macros_may_call_themselves_a_few_dozen_times(void **state)
{
    static const char down[] =
        "{% macro f(n) %}{% if n > 0 %}.{{ f(n - 1) }}{% endif %}"
        "{% endmacro %}{{ f(LEVELS)|length }}";
    char source[256];
    char *levels;

    (void)state;
    memcpy(source, down, sizeof(down));
    levels = strstr(source, "LEVELS");
    memcpy(levels, "000030", 6);
    check_mask(source, "[]", "30", "tt");
    memcpy(levels, "000300", 6);
    check_stopped(source, "TPL14", "deep");
}

static void repeat_text(char *out, const char *unit, size_t times, const char *tail)
{
    *out = '\0';
    for (size_t i = 0; i < times; i++, out += strlen(unit))
        memcpy(out, unit, strlen(unit) + 1);
    memcpy(out, tail, strlen(tail) + 1);
}

static void deep_nesting_is_refused_without_recursion(void **state)
{
    const char *const units[] = {"(",         "[", "{'a':", "not ", "-", "1 if 1 else ",
                                 "a|default("};
    char *text = malloc(700000);
    struct chat_template *t;
    struct artel_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        memcpy(text, "{{ ", 4);
        repeat_text(text + 3, units[i], 50000, " }}");
        assert_error(chat_parse(&t, text, strlen(text), "test", &err), ARTEL_EFORMAT,
                     err, "TPL04");
    }
    repeat_text(text, "{% if 1 %}", 50000, "");
    assert_error(chat_parse(&t, text, strlen(text), "test", &err), ARTEL_EFORMAT, err,
                 "TPL04");
    memcpy(text, "{{ 1", 5); /* long but not nested: parsed, refused when evaluated */
    repeat_text(text + 4, "+1", 50000, " }}");
    check_stopped(text, "TPL14", "deep");
    memcpy(text, "{% if 0 %}", 11);
    repeat_text(text + 10, "{% elif 0 %}", 50000, "{% endif %}");
    check_mask(text, "[]", "", "");
    free(text);
}

static void the_templates_own_refusal_is_passed_on(void **state)
{
    (void)state;
    check_stopped("{{ raise_exception('roles must alternate') }}", "TPL11",
                  "roles must alternate");
}

static void a_date_can_be_asked_for(void **state)
{
    struct chat_template *t = parse("{{ strftime_now('%Y') }}");
    json_t *m = json("[]");
    struct rendered r;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(chat_render(t, &r, m, NULL, NULL, true, NULL, NULL, &err), 0);
    assert_int_equal(r.n, 4);
    assert_true(atoi(r.text) >= 2024);
    rendered_release(&r);
    json_decref(m);
    chat_close(t);
}

static void every_prefix_of_a_template_is_parsed_or_refused(void **state)
{
    static const char source[] =
        "{% set x = namespace(a=[1, 2.5, {'k': 'v\\n'}][0]) %}{# c #}{%- for a, b in "
        "d.items() "
        "if a is not none -%}{{ a[1:] ~ b|replace('x', \"y\")|join(', ') }}{% elif %}"
        "{% raw %}{{ }}{% endraw %}{% endfor %}{% macro f(q=1) %}{% endmacro %}";
    struct chat_template *t;
    struct artel_error err = {0};

    (void)state;
    for (size_t n = 0; n <= sizeof(source) - 1; n++) {
        char *copy = malloc(n + 1); /* exact, so that reading on is seen */

        memcpy(copy, source, n);
        if (chat_parse(&t, copy, n, "test", &err) == 0)
            chat_close(t);
        free(copy);
    }
}

static void the_demo_models_template_renders(void **state)
{
    const char *path = getenv("ARTEL_TEST_MODEL");
    struct chat_template *t;
    struct weights *w;
    struct rendered r;
    struct artel_error err = {0};
    json_t *m;

    (void)state;
    if (!path)
        skip();
    if (weights_open(&w, path, &err) < 0)
        fail_msg("%s", err.reason);
    if (chat_open(&t, w, &err) < 0)
        fail_msg("%s: %s", err.where, err.reason);
    assert_non_null(t);
    m = json("[{\"role\":\"user\",\"content\":\"Hello <|im_end|>\"}]");
    assert_int_equal(
        chat_render(t, &r, m, NULL, NULL, true, "<|im_start|>", "<|im_end|>", &err), 0);
    assert_string_equal(
        r.text, "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
                "trained by Hugging Face<|im_end|>\n<|im_start|>user\nHello "
                "<|im_end|><|im_end|>\n<|im_start|>assistant\n");
    for (size_t i = 0; i < r.n; i++)
        assert_int_equal(r.mask[i], i < r.pool_first || i >= r.pool_end);
    assert_memory_equal(r.text + r.pool_first, "Hello <|im_end|>", 16);
    assert_int_equal(r.pool_end - r.pool_first, 16);
    rendered_release(&r);
    json_decref(m);
    chat_close(t);
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_stays_content_through_operations),
        cmocka_unit_test(captures_and_macros_keep_the_origin),
        cmocka_unit_test(a_role_nobody_knows_is_content),
        cmocka_unit_test(tools_and_extra_are_content),
        cmocka_unit_test(the_last_user_turn_is_found),
        cmocka_unit_test(j27_templates_that_do_not_parse_are_refused_with_their_place),
        cmocka_unit_test(j26_unknown_names_are_refused_when_parsed),
        cmocka_unit_test(j26_there_is_nothing_to_reach),
        cmocka_unit_test(j25_endless_templates_are_stopped),
        cmocka_unit_test(macros_may_call_themselves_a_few_dozen_times),
        cmocka_unit_test(deep_nesting_is_refused_without_recursion),
        cmocka_unit_test(the_templates_own_refusal_is_passed_on),
        cmocka_unit_test(a_date_can_be_asked_for),
        cmocka_unit_test(every_prefix_of_a_template_is_parsed_or_refused),
        cmocka_unit_test(the_demo_models_template_renders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
