/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates in the style of published ones, and one template a feature, rendered as
 * Jinja2 rendered them (tests/golden/make_template_golden.py).
 */
#include "check.h"

#include <stdio.h>

#include "base/error.h"
#include "files/lines.h"
#include "text/chat.h"

static json_t *parse_line(const char *text, size_t n)
{
    json_error_t where;
    json_t *row = json_loadb(text, n, 0, &where);

    if (!row)
        fail_msg("golden row: %s", where.text);
    return row;
}

static const json_t *given(const json_t *row, const char *key)
{
    const json_t *v = json_object_get(row, key);

    return v && !json_is_null(v) ? v : NULL;
}

/* 1: as Jinja2 did it. */
static int agrees(const struct chat_template *t, const json_t *row, const char *name)
{
    const char *want = json_string_value(json_object_get(row, "text"));
    struct artel_error err = {0};
    struct rendered r;
    const int rc =
        chat_render(t, &r, json_object_get(row, "messages"), given(row, "tools"),
                    given(row, "extra"), json_is_true(json_object_get(row, "generate")),
                    "<s>", "</s>", &err);
    int same;

    if (rc < 0) {
        if (want)
            print_error("%s: %s: %s\n", name, err.where, err.reason);
        return !want;
    }
    same = want && !strcmp(r.text, want) && r.n == strlen(want);
    if (!same)
        print_error("%s:\n got |%s|\nwant |%s|\n", name, r.text,
                    want ? want : "an error");
    rendered_release(&r);
    return same;
}

static void renders_what_jinja2_renders(void **state)
{
    struct chat_template *t = NULL;
    struct artel_error err = {0};
    char name[64] = "";
    struct lines l;
    const char *text;
    size_t n, cases = 0, bad = 0;

    (void)state;
    assert_int_equal(lines_open(&l, ARTEL_TESTS "/golden/templates.jsonl", &err), 0);
    while (lines_next(&l, &text, &n, &err) == 1) {
        json_t *row = parse_line(text, n);
        const json_t *source = json_object_get(row, "template");

        if (source) {
            chat_close(t);
            t = NULL;
            snprintf(name, sizeof(name), "%s",
                     json_string_value(json_object_get(row, "name")));
            if (chat_parse(&t, json_string_value(source), json_string_length(source),
                           name, &err) < 0)
                print_error("%s: %s: %s\n", name, err.where, err.reason);
        } else {
            cases++;
            bad += !t || !agrees(t, row, name);
        }
        json_decref(row);
    }
    chat_close(t);
    lines_release(&l);
    assert_true(cases > 300);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_what_jinja2_renders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
