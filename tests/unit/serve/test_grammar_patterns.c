/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Patterns against the C library's regular expressions: every text of two letters up to a
 * length, under patterns given and drawn. And what patterns of many repetitions cost.
 */
#include "support/grammar_case.h"

#include <regex.h>
#include <time.h>

#include "base/rng.h"

#define LETTERS "ab"
#define LONGEST 6
#define DRAWN   60

static struct grammar *open_pattern(const struct fixture *f, const char *pattern)
{
    struct grammar *g = NULL;
    struct artel_error err;
    json_t *s = json_pack("{s:s, s:s}", "type", "string", "pattern", pattern);

    if (grammar_open(&g, f->pieces, s, &err) < 0)
        fail_msg("%s: %s", pattern, err.reason);
    json_decref(s);
    return g;
}

/* Is the string TEXT, between quotes, let through? */
static bool takes(const struct fixture *f, const char *pattern, const char *text)
{
    struct grammar *g = open_pattern(f, pattern);
    char quoted[LONGEST + 3];
    bool taken = true;

    snprintf(quoted, sizeof(quoted), "\"%s\"", text);
    for (const char *c = quoted; taken && *c; c++) {
        const int32_t id = f->byte_id[(unsigned char)*c];

        taken = is_allowed(grammar_allowed(g), id);
        if (taken)
            grammar_accept(g, id);
    }
    taken = taken && grammar_complete(g);
    grammar_close(g);
    return taken;
}

/* All texts of up to LONGEST letters; returns how many the pattern takes. */
static size_t compare(const struct fixture *f, const char *pattern)
{
    char text[LONGEST + 1];
    size_t n_taken = 0;
    regex_t r;

    assert_int_equal(regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB), 0);
    for (size_t n = 0; n <= LONGEST; n++)
        for (size_t i = 0; i < (size_t)1 << n; i++) {
            bool want;

            for (size_t k = 0; k < n; k++)
                text[k] = LETTERS[i >> k & 1];
            text[n] = '\0';
            want = regexec(&r, text, 0, NULL, 0) == 0;
            if (takes(f, pattern, text) != want)
                fail_msg("%s: '%s' is %s", pattern, text, want ? "refused" : "taken");
            n_taken += want;
        }
    regfree(&r);
    return n_taken;
}

static void repetitions_are_those_of_the_library(void **state)
{
    static const char *const patterns[] = {
        "^a{0,3}b$",
        "^a{2,4}$",
        "^(ab|b){1,3}$",
        "^(a?){3}b$",
        "^(a?b?){2,3}$",
        "^(a?b?){2,}a$",
        "^(a|b{0,2}a)*$",
        "^(a{2}){1,2}b*$",
        "^((a{0,2}b){0,2}a){1,2}$",
        "^(a*b?){0,2}$",
        "^a{3,}b{0,1}$",
        "^(a{0,2}|b{0,3}){2}$",
        "^(a+|b{2}){2,3}a?$",
        "^(a{0}b)+$",
        "^b(a{1,2}){0}b$",
        "^((a?){2,3}b){2}$",
        "^(()|a){2,3}b{1,1}$",
    };

    for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
        assert_true(compare(*state, patterns[i]) > 0);
}

struct text {
    char at[400];
    size_t n;
};

static void say(struct text *t, const char *words)
{
    t->n += (size_t)snprintf(t->at + t->n, sizeof(t->at) - t->n, "%s", words);
}

static void draw(struct text *t, struct rng *r, size_t depth)
{
    static const char *const how_often[] = {"",     "",      "?",     "*",
                                            "+",    "{2}",   "{0,2}", "{1,3}",
                                            "{2,}", "{0,1}", "{3}",   "{2,3}"};
    const size_t parts = 1 + rng_below(r, 3);

    for (size_t i = 0; i < parts; i++) {
        if (i && rng_below(r, 3) == 0)
            say(t, "|");
        if (depth && rng_below(r, 2)) {
            say(t, "(");
            draw(t, r, depth - 1);
            say(t, ")");
        } else {
            say(t, rng_below(r, 4) ? (rng_below(r, 2) ? "a" : "b") : "[ab]");
        }
        say(t, how_often[rng_below(r, sizeof(how_often) / sizeof(*how_often))]);
    }
}

static void drawn_patterns_are_those_of_the_library(void **state)
{
    struct rng r;

    rng_init(&r, 5, 1);
    for (size_t i = 0; i < DRAWN; i++) {
        struct text t = {0};

        say(&t, "^(");
        draw(&t, &r, 2);
        say(&t, ")$");
        compare(*state, t.at);
    }
}

/* Edges in proportion to characters, and one place where a letter is one copy. */
static void many_repetitions_cost_little(void **state)
{
    static const char *const patterns[] = {"^.{0,200}$", "^[A-Za-z ]{0,1000}$",
                                           "^([A-Z]{0,100}|[a-z]{0,900})$",
                                           "^([a-zA-Z]{0,20} ?){0,45}$"};
    const struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
        struct grammar *g = open_pattern(f, patterns[i]);
        const clock_t start = clock();

        grammar_accept(g, f->byte_id['"']);
        for (size_t k = 0; k < 90; k++) {
            assert_true(is_allowed(grammar_allowed(g), f->byte_id['a']));
            grammar_accept(g, f->byte_id['a']);
        }
        assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
        grammar_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repetitions_are_those_of_the_library),
        cmocka_unit_test(drawn_patterns_are_those_of_the_library),
        cmocka_unit_test(many_repetitions_cost_little),
    };

    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
