/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which control and user tokens are found, where they overlap too.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "artel.h"
#include "text/specials.h"
#include "text/vocabulary.h"

static const char *const texts[] = {"<a>", "<b>",  "bcd", "ab",
                                    "  ",  "    ", "xy",  "yz"};
#define N_CONTROL 2 /* the first of them */

struct fixture {
    struct vocabulary v;
    struct specials s;
    struct special_list list;
};

static int setup(void **state)
{
    static struct fixture f;
    struct artel_error err;

    memset(&f, 0, sizeof(f));
    assert_int_equal(vocabulary_init(&f.v, 8, &err), 0);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(vocabulary_set(&f.v, i, texts[i], strlen(texts[i]),
                                        i < N_CONTROL ? TOKEN_CONTROL : TOKEN_USER,
                                        true, &err),
                         0);
    assert_int_equal(vocabulary_index(&f.v, &err), 0);
    assert_int_equal(specials_init(&f.s, &f.v, &err), 0);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    special_list_release(&f->list);
    specials_release(&f->s);
    vocabulary_release(&f->v);
    return 0;
}

/* WANT: "start:text" of each token found, with a space after it. */
static void check(struct fixture *f, const char *text, const char *mask, bool control,
                  const char *want)
{
    const size_t n = strlen(text);
    unsigned char bits[64];
    char got[128] = "";
    size_t used = 0;
    struct artel_error err;

    for (size_t i = 0; mask && i < n; i++)
        bits[i] = mask[i] == '1';
    assert_int_equal(specials_find(&f->s, &f->list, &f->v, text, mask ? bits : NULL, n,
                                   control, &err),
                     0);
    for (size_t i = 0; i < f->list.n; i++) {
        const struct special *found = &f->list.at[i];

        assert_int_equal(found->length, strlen(texts[found->id]));
        used += (size_t)snprintf(got + used, sizeof(got) - used, "%zu:%s|",
                                 found->start, texts[found->id]);
    }
    assert_string_equal(got, want);
}

static void tokens_are_found_in_order(void **state)
{
    check(*state, "x<a>y<b><a>", NULL, true, "1:<a>|5:<b>|8:<a>|");
    check(*state, "<a<a>", NULL, true, "2:<a>|");
    check(*state, "", NULL, true, "");
}

static void control_tokens_are_found_where_asked_only(void **state)
{
    check(*state, "<a>ab<b>", NULL, false, "3:ab|");
    check(*state, "<a>ab<b>", "11100110", true, "0:<a>|3:ab|");
    check(*state, "<a>", "110", true, "");
}

static void the_longest_of_overlapping_tokens_wins(void **state)
{
    check(*state, "abcd", NULL, true, "1:bcd|");
    check(*state, "xyz", NULL, true, "0:xy|");
    check(*state, "       ", NULL, true, "0:    |4:  |");
    check(*state, "xyzxyab", NULL, true, "0:xy|3:xy|5:ab|");
}

static void lookup_wants_the_whole_text(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(specials_lookup(&f->s, "<b>", 3), 1);
    assert_int_equal(specials_lookup(&f->s, "<b", 2), -1);
    assert_int_equal(specials_lookup(&f->s, "<b>>", 4), -1);
    assert_int_equal(specials_lookup(&f->s, "", 0), -1);
}

/* 100,000 tokens, each a part of others, in a megabyte of the worst text. */
static void J21_many_tokens_keep_the_search_linear(void **state)
{
    const size_t n_tokens = 100000, n = 1 << 20;
    struct vocabulary v;
    struct specials s;
    struct special_list list = {0};
    struct artel_error err;
    char *text = malloc(n);
    clock_t start;

    (void)state;
    assert_non_null(text);
    assert_int_equal(vocabulary_init(&v, n_tokens, &err), 0);
    for (size_t i = 0; i < n_tokens; i++) {
        char name[48];
        int length = snprintf(name, sizeof(name), "a%zu", i);

        if (i < 40) { /* aa, aaa, aaaa, ... */
            length = (int)i + 2;
            memset(name, 'a', (size_t)length);
        }
        assert_int_equal(
            vocabulary_set(&v, i, name, (size_t)length, TOKEN_USER, true, &err), 0);
    }
    assert_int_equal(vocabulary_index(&v, &err), 0);
    assert_int_equal(specials_init(&s, &v, &err), 0);
    memset(text, 'a', n);
    start = clock();
    assert_int_equal(specials_find(&s, &list, &v, text, NULL, n, true, &err), 0);
    assert_true((double)(clock() - start) < 4.0 * CLOCKS_PER_SEC);
    assert_int_equal(list.n, n / 41);
    special_list_release(&list);
    specials_release(&s);
    vocabulary_release(&v);
    free(text);
}

static void J21_two_tokens_of_one_text_are_refused(void **state)
{
    struct vocabulary v;
    struct specials s;
    struct artel_error err;

    (void)state;
    assert_int_equal(vocabulary_init(&v, 2, &err), 0);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(vocabulary_set(&v, i, "\u4f60", 3, TOKEN_CONTROL, true, &err),
                         0);
    assert_int_equal(vocabulary_index(&v, &err), 0);
    assert_error(specials_init(&s, &v, &err), ARTEL_EFORMAT, err, "TOK09");
    specials_release(&s);
    vocabulary_release(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tokens_are_found_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(control_tokens_are_found_where_asked_only,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_longest_of_overlapping_tokens_wins, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(lookup_wants_the_whole_text, setup, teardown),
        cmocka_unit_test(J21_many_tokens_keep_the_search_linear),
        cmocka_unit_test(J21_two_tokens_of_one_text_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
