/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of an evaluation: whole, without anything from outside that could run, and
 * without a number that was not measured. Tables and means beside it.
 */
#include "check.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artel.h"
#include "eval/compared.h"
#include "eval/scale.h"
#include "files/write.h"

#define HOSTILE "a<script>alert(1)</script>&\\\"'"

static const char results[] =
    "{\"methods\": ["
    "{\"name\": \"base\", \"path\": \"m.gguf\", \"seed\": null, \"domains\": {"
    " \"math\": {\"rows\": 10, \"perplexity\": 4.0, \"score\": 0.125, \"score_name\": "
    "\"exact\"},"
    " \"" HOSTILE "\": {\"rows\": 10, \"perplexity\": 16.0, \"score\": null}},"
    " \"routing_accuracy\": null, \"general\": {\"mmlu\": {\"score\": 0.3, \"change\": "
    "null, \"ci95\": null, \"perplexity\": null}, \"wiki\": {\"score\": 21.5, "
    "\"perplexity\": 21.5, \"change\": null}}},"
    "{\"name\": \"moa\", \"path\": \"nowhere/moa\", \"seed\": 1, \"domains\": {"
    " \"math\": {\"rows\": 10, \"perplexity\": 2.0, \"score\": 0.625, \"score_name\": "
    "\"exact\"},"
    " \"" HOSTILE "\": {\"rows\": 10, \"perplexity\": 8.0, \"score\": null}},"
    " \"routing_accuracy\": 0.95, \"trainable_parameters\": 1234567,"
    " \"confusion\": {\"math\": {\"math\": 9, \"" HOSTILE "\": 1}},"
    " \"experts\": [\"math\", \"" HOSTILE "\"],"
    " \"routing\": {\"math\": [[0.75, 0.25], [0.99, 0.01]]},"
    " \"general\": {\"mmlu\": {\"score\": 0.28, \"change\": -0.02, \"ci95\": [-0.05, "
    "0.01], \"perplexity\": null}, \"wiki\": {\"score\": 22.5, \"perplexity\": 22.5, "
    "\"change\": 1.0, \"ci95\": [0.5, 1.5]}}},"
    "{\"name\": \"moa\", \"path\": \"nowhere/moa-2\", \"seed\": 2, \"domains\": {"
    " \"math\": {\"rows\": 10, \"perplexity\": 2.5, \"score\": 0.5}},"
    " \"general\": {}}]}";

static char *render(const char *json, const char *kind)
{
    struct artel_error err = {0};
    char *out = NULL;

    if (artel_eval_table(&out, json, kind, &err) < 0)
        fail_msg("%s: %s", kind, err.reason);
    assert_non_null(out);
    return out;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

/* ---- a page is well formed ---- */

static bool is_void(const char *name)
{
    return !strcmp(name, "meta") || !strcmp(name, "br") || !strcmp(name, "!DOCTYPE");
}

/* One tag from after its '<': every attribute's value is quoted. Returns what follows. */
static const char *read_tag(const char *p, char name[32], bool *closes, bool *empty)
{
    size_t n = 0;

    *closes = *p == '/';
    p += *closes;
    while (*p && !isspace((unsigned char)*p) && *p != '>' && *p != '/' && n < 31)
        name[n++] = *p++;
    name[n] = '\0';
    *empty = false;
    while (*p && *p != '>') {
        *empty = *p == '/';
        if (*p == '=') {
            assert_int_equal(p[1], '"');
            p = strchr(p + 2, '"');
            assert_non_null(p);
        }
        assert_int_not_equal(*p, '<');
        p++;
    }
    assert_int_equal(*p, '>');
    return p + 1;
}

static void check_nesting(const char *page)
{
    char open[64][32], name[32];
    size_t depth = 0;
    bool closes, empty;

    for (const char *p = page; (p = strchr(p, '<'));) {
        p = read_tag(p + 1, name, &closes, &empty);
        if (is_void(name) || empty)
            continue;
        if (!closes) {
            assert_true(depth < 64);
            strcpy(open[depth++], name);
        } else {
            assert_true(depth > 0);
            assert_string_equal(open[--depth], name);
        }
    }
    assert_int_equal(depth, 0);
}

/* Every PREFIX"NAME" names an id of the page, and an id is there once. */
static void check_references(const char *page, const char *prefix)
{
    for (const char *p = page; (p = strstr(p, prefix));) {
        char id[80];
        const char *end;

        p += strlen(prefix);
        end = strchr(p, '"');
        assert_non_null(end);
        snprintf(id, sizeof(id), " id=\"%.*s\"", (int)(end - p), p);
        if (count(page, id) != 1)
            fail_msg("%zu times %s", count(page, id), id);
    }
}

static void check_page(const char *page)
{
    const char *const body = strstr(page, "<body>");

    check_nesting(page);
    check_references(page, "href=\"#");
    check_references(page, "aria-labelledby=\"");
    assert_int_equal(count(page, "<table>"), count(page, "<caption "));
    assert_int_equal(count(page, "<h1>"), 1);
    assert_int_equal(count(page, "<th"),
                     count(page, "<thead>") + count(page, "scope=\""));
    assert_non_null(strstr(page, "<html lang=\"en\">"));
    assert_non_null(strstr(page, "default-src 'none'"));
    assert_non_null(strstr(page, "prefers-color-scheme: dark"));
    assert_non_null(strstr(page, "width=device-width"));
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "url("));
    assert_null(strstr(page, "://"));
    assert_null(strstr(page, "@import"));
    assert_non_null(body);
    assert_null(strstr(body, "nan"));
    assert_null(strstr(body, "inf%"));
}

static void the_page_is_whole_and_fetches_nothing(void **state)
{
    char *page = render(results, "html");

    (void)state;
    check_page(page);
    assert_non_null(strstr(page, "The base alone and 2 methods on 2 domains and 2 "
                                 "general sets"));
    assert_non_null(strstr(page, "1,234,567"));
    assert_non_null(strstr(page, "+1 <small>[+0.5, +1.5]</small>"));
    assert_non_null(strstr(page, "-2.0 <small>[-5.0, +1.0]</small>"));
    assert_non_null(strstr(page, "moa, seed 2"));
    free(page);
}

static void what_users_wrote_is_text(void **state)
{
    char *page = render(results, "html");

    (void)state;
    assert_true(count(page, "a&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;") >=
                4);
    assert_null(strstr(page, "alert(1)</script>"));
    free(page);
}

static void what_was_not_measured_is_not_there(void **state)
{
    static const char plain[] =
        "{\"methods\": [{\"name\": \"moa\", \"path\": \"x\", \"domains\": {\"math\": "
        "{\"perplexity\": 2.0, \"score\": null}}}]}";
    static const char *const absent[] = {"score",  "measures",  "general",
                                         "layers", "confusion", "training"};
    char *page = render(plain, "html"), id[40];

    (void)state;
    check_page(page);
    assert_non_null(strstr(page, "id=\"perplexity\""));
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        snprintf(id, sizeof(id), "id=\"%s\"", absent[i]);
        assert_null(strstr(page, id));
    }
    assert_null(strstr(page, "minutes"));
    free(page);
}

static void strange_results_make_a_page_too(void **state)
{
    static const char *const odd[] = {
        "{\"methods\": []}",
        "{\"methods\": [{}]}",
        "{\"methods\": [1, null, \"x\"]}",
        "{\"methods\": [{\"name\": 3, \"path\": [], \"domains\": {\"\": 4, \"x\": "
        "{\"perplexity\": -1, \"score\": 1e300}}, \"general\": {\"g\": {\"score\": 0, "
        "\"change\": 0.5, \"ci95\": [1]}}, \"confusion\": {\"x\": 3}, \"routing\": "
        "{\"x\": [[]]}, \"experts\": [4]}]}",
        "{\"methods\": [{\"name\": \"base\", \"domains\": {\"x\": {\"perplexity\": "
        "2}}}, {\"name\": \"\\u001b[31m\\u202e\", \"domains\": {\"y\": "
        "{\"perplexity\": 2}}}]}",
    };
    struct artel_error err = {0};
    char *out;

    (void)state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        static const char *const kinds[] = {"text", "markdown", "csv"};

        out = render(odd[i], "html");
        check_page(out);
        free(out);
        for (size_t k = 0; k < 3; k++) {
            out = render(odd[i], kinds[k]);
            if (k < 2)
                assert_null(strchr(out, 27));
            free(out);
        }
    }
    assert_int_equal(artel_eval_table(&out, "{\"rows\": []}", "html", &err),
                     ARTEL_EFORMAT);
    assert_string_equal(err.code, "EVL03");
}

static void curves_come_from_the_run(void **state)
{
    char folder[] = "/tmp/artel-report-XXXXXX", path[200], json[400];
    char *page;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/moa", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/moa/mixture.json", folder);
    f = fopen(path, "w");
    fputs("{\"base\": {\"path\": \"/a/b.gguf\", \"digest\": \"d1g35t\"}, \"settings\": "
          "{\"train\": {\"seed\": 7}}}",
          f);
    assert_int_equal(fclose(f), 0);
    snprintf(path, sizeof(path), "%s/train/expert-<b>", folder);
    assert_int_equal(make_folder(path, NULL), 0);
    snprintf(path, sizeof(path), "%s/train/expert-<b>/log.jsonl", folder);
    f = fopen(path, "w");
    for (int i = 1; i <= 500; i++)
        fprintf(f, "{\"step\": %d, \"loss\": %g}\n", i, 4.0 / i);
    fputs("{\"step\": 500, \"eval_loss\": 1.5}\n{\"step\": 501, \"lo", f);
    assert_int_equal(fclose(f), 0);
    snprintf(json, sizeof(json),
             "{\"methods\": [{\"name\": \"moa\", \"path\": \"%s/moa\", \"domains\": "
             "{}}]}",
             folder);
    page = render(json, "html");
    check_page(page);
    assert_non_null(strstr(page, "id=\"training\""));
    assert_non_null(strstr(page, "expert-&lt;b&gt;"));
    assert_int_equal(count(page, "class=\"c1\""), 1);
    assert_int_equal(count(page, "class=\"c2 second\""), 1);
    assert_non_null(strstr(page, "d1g35t"));
    assert_non_null(strstr(page, "train.seed = <bdi>7</bdi>"));
    free(page);
    for (size_t i = 0; i < 6; i++) {
        static const char *const made[] = {"/train/expert-<b>/log.jsonl",
                                           "/train/expert-<b>",
                                           "/train",
                                           "/moa/mixture.json",
                                           "/moa",
                                           ""};

        snprintf(path, sizeof(path), "%s%s", folder, made[i]);
        assert_int_equal(remove(path), 0);
    }
}

/* ---- tables, means, axes ---- */

static void tables_tell_change_and_interval(void **state)
{
    char *table = render(results, "markdown");

    (void)state;
    assert_non_null(strstr(table, "moa, seed 1 ppl"));
    assert_non_null(strstr(table, "-2 [-5, +1]"));
    assert_non_null(strstr(table, "+1 [+0.5, +1.5]"));
    free(table);
    table = render(results, "csv");
    assert_int_equal(strncmp(table,
                             "method,path,set,group,score_name,rows,perplexity,"
                             "score,change,routing_accuracy,seed,ci95_low,"
                             "ci95_high,",
                             90),
                     0);
    assert_non_null(strstr(table, "moa,nowhere/moa,mmlu,general,,,,0.28,-0.02,,1,-0.05,"
                                  "0.01,"));
    free(table);
    table = render("{\"methods\": [{\"name\": \"m\", \"domains\": {\"a|b\": "
                   "{\"perplexity\": 2}}}]}",
                   "markdown");
    assert_non_null(strstr(table, "a\\|b"));
    free(table);
}

static void a_mean_needs_every_set(void **state)
{
    struct artel_error err = {0};
    struct compared c;

    (void)state;
    assert_int_equal(compared_open(&c, results, &err), 0);
    assert_int_equal(c.n, 3);
    assert_int_equal(c.base, 0);
    assert_int_equal(json_array_size(c.domains), 2);
    assert_near(compared_mean(&c, 0, "domains", "perplexity", true), 8, 1e-12);
    assert_near(compared_mean(&c, 1, "domains", "perplexity", true), 4, 1e-12);
    assert_true(isnan(compared_mean(&c, 2, "domains", "perplexity", true)));
    assert_near(compared_mean(&c, 2, "domains", "score", false), 0.5, 1e-12);
    assert_true(compared_is_share(&c, "mmlu"));
    assert_false(compared_is_share(&c, "wiki"));
    assert_near(compared_change(&c, 1), -0.02, 1e-12);
    assert_near(compared_change(&c, 0), 0, 1e-12);
    assert_true(isnan(compared_change(&c, 2)));
    assert_string_equal(c.label[1], "moa, seed 1");
    compared_release(&c);
}

/* A set whose change nobody could tell (bleu is of all answers together) hides no other. */
static void a_set_without_a_change_is_left_out_of_their_mean(void **state)
{
    static const char some[] =
        "{\"methods\": [{\"name\": \"base\", \"general\": {\"a\": {\"score\": 0.5, "
        "\"perplexity\": 3, \"change\": null}, \"b\": {\"score\": 0.2, \"perplexity\": "
        "4, \"change\": null}}}, {\"name\": \"moa\", \"general\": {\"a\": {\"score\": "
        "0.25, \"perplexity\": 2, \"change\": -0.25}, \"b\": {\"score\": 0.3, "
        "\"perplexity\": 4, \"change\": null}}}]}";
    struct artel_error err = {0};
    struct compared c;

    (void)state;
    assert_int_equal(compared_open(&c, some, &err), 0);
    assert_near(compared_change(&c, 0), 0, 0);
    assert_near(compared_change(&c, 1), -0.25, 0);
    compared_release(&c);
}

/* Of two bases each mixture is held against the one that it is over. */
static void a_gain_is_over_a_methods_own_base(void **state)
{
    static const char two[] =
        "{\"methods\": ["
        "{\"name\": \"base\", \"path\": \"a\", \"base\": \"a\", \"domains\": {\"x\": "
        "{\"score\": 0.1}}, \"general\": {\"g\": {\"score\": 0.5}}},"
        "{\"name\": \"base\", \"path\": \"b\", \"base\": \"b\", \"domains\": {\"x\": "
        "{\"score\": 0.4}}, \"general\": {\"g\": {\"score\": 0.3}}},"
        "{\"name\": \"moa\", \"path\": \"m\", \"base\": \"b\", \"domains\": {\"x\": "
        "{\"score\": 0.6}}, \"general\": {\"g\": {\"score\": 0.35, \"change\": 0.05}}},"
        "{\"name\": \"mixed\", \"path\": \"n\", \"domains\": {\"x\": "
        "{\"score\": 0.6}}, \"general\": {\"g\": {\"score\": 0.4, \"change\": "
        "-0.1}}}]}";
    char *page = render(two, "html");

    (void)state;
    check_page(page);
    assert_non_null(strstr(page, "2 bases alone and 2 methods"));
    assert_non_null(strstr(page, "moa: gain 20.0, change +5.0"));
    assert_non_null(strstr(page, "mixed: gain 50.0, change -10.0"));
    assert_int_equal(count(page, ": gain 0.0, change +0.0"), 2);
    free(page);
}

static void ticks_are_round_and_within(void **state)
{
    static const struct {
        double low, high;
        bool logarithmic;
    } cases[] = {{0, 1, false},      {1.17, 323.6, true}, {2, 2, false},
                 {0, 0, false},      {-3.9, 2.2, false},  {5, 5, true},
                 {1e-9, 1e12, true}, {2, 2.2, true}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scale s;

        scale_fit(&s, cases[i].low, cases[i].high, cases[i].logarithmic, 6);
        assert_true(s.n_ticks >= 2);
        for (size_t k = 0; k < s.n_ticks; k++) {
            const double at = scale_at(&s, s.tick[k]);

            assert_true(at >= 0 && at <= 100);
            assert_true(!k || s.tick[k] > s.tick[k - 1]);
        }
        assert_true(scale_at(&s, cases[i].low) >= 0);
        assert_true(scale_at(&s, cases[i].low) <= scale_at(&s, cases[i].high));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_whole_and_fetches_nothing),
        cmocka_unit_test(what_users_wrote_is_text),
        cmocka_unit_test(what_was_not_measured_is_not_there),
        cmocka_unit_test(strange_results_make_a_page_too),
        cmocka_unit_test(curves_come_from_the_run),
        cmocka_unit_test(tables_tell_change_and_interval),
        cmocka_unit_test(a_mean_needs_every_set),
        cmocka_unit_test(a_set_without_a_change_is_left_out_of_their_mean),
        cmocka_unit_test(a_gain_is_over_a_methods_own_base),
        cmocka_unit_test(ticks_are_round_and_within),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
