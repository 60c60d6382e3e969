/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where text is cut: by hand for a few texts, and against golden pieces (which
 * llama.cpp and the published patterns agree on) for many random ones.
 */
#include "check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "artel.h"
#include "files/json.h"
#include "files/lines.h"
#include "text/pretokenizer.h"

static const char *const names[N_PRETOKENIZERS] = {"gpt-2", "smollm", "llama-bpe",
                                                   "qwen2"};

/* TEXT with its pieces in brackets, into OUT (SIZE bytes). */
static void bracket(char *out, size_t size, enum pretokenizer_kind kind,
                    const char *text)
{
    const size_t n = strlen(text);
    struct pretokenizer *p;
    struct splitter *s;
    struct artel_error err;
    size_t used = 0;

    assert_int_equal(pretokenizer_open(&p, kind, &err), 0);
    assert_int_equal(splitter_open(&s, p, &err), 0);
    for (size_t i = 0; i < n;) {
        size_t piece = 0;

        assert_int_equal(splitter_next(s, &piece, text, n, i, &err), 0);
        assert_true(piece > 0 && piece <= n - i && used + piece + 3 < size);
        out[used++] = '[';
        memcpy(out + used, text + i, piece);
        used += piece;
        out[used++] = ']';
        i += piece;
    }
    out[used] = '\0';
    splitter_close(s);
    pretokenizer_close(p);
}

static void check(enum pretokenizer_kind kind, const char *text, const char *want)
{
    char got[512];

    bracket(got, sizeof(got), kind, text);
    assert_string_equal(got, want);
}

static void published_examples_are_cut_as_published(void **state)
{
    const char *one = "I'm here, IT'S 12345 x_1  ok  ";
    const char *two = "a\n\n  b\tc--d  (e) 3.14 café 你好!";

    (void)state;
    check(PRETOKENIZER_GPT2, one,
          "[I]['m][ here][,][ IT]['][S][ 12345][ x][_][1][ ][ ok][  ]");
    check(PRETOKENIZER_SMOLLM, one,
          "[I]['m][ here][,][ IT]['][S][ ][1][2][3][4][5][ x][_][1][ ][ ok][  ]");
    check(PRETOKENIZER_LLAMA3, one,
          "[I]['m][ here][,][ IT]['S][ ][123][45][ x][_][1][ ][ ok][  ]");
    check(PRETOKENIZER_QWEN2, one,
          "[I]['m][ here][,][ IT]['S][ ][1][2][3][4][5][ x][_][1][ ][ ok][  ]");
    check(PRETOKENIZER_GPT2, two,
          "[a][\n\n ][ b][\t][c][--][d][ ][ (][e][)][ 3][.][14][ café][ 你好][!]");
    check(PRETOKENIZER_LLAMA3, two,
          "[a][\n\n][ ][ b][\tc][--][d][ ][ (][e][)][ ][3][.][14][ café][ 你好][!]");
    check(PRETOKENIZER_QWEN2, two,
          "[a][\n\n][ ][ b][\tc][--][d][ ][ (][e][)][ ][3][.][1][4][ café][ 你好][!]");
}

static void number_like_characters_are_numbers(void **state)
{
    (void)state;
    check(PRETOKENIZER_SMOLLM, "x½² ①", "[x][½][²][ ][①]");
    check(PRETOKENIZER_GPT2, "x½² ①", "[x][½²][ ①]");
    check(PRETOKENIZER_LLAMA3, "½²①1", "[½²①][1]");
    check(PRETOKENIZER_SMOLLM, "ab  1", "[ab][  ][1]");
}

static void space_is_that_of_unicode_without_u180e(void **state)
{
    (void)state;
    check(PRETOKENIZER_GPT2, "a\u180e\u180eb", "[a][\u180e\u180e][b]");
    check(PRETOKENIZER_GPT2, "a\u3000\u00a0b", "[a][\u3000][\u00a0][b]");
    check(PRETOKENIZER_LLAMA3, "'\u017fx", "['\u017fx]");
}

/* Ends of the ranges that Unicode 15 and 15.1 added, as UTF-8. */
static void characters_newer_than_the_library_have_their_class(void **state)
{
    static const char *const letters[] = {
        "\U0001123f", "\U00011240", "\U00011f02", "\U00011f04", "\U00011f10",
        "\U00011f12", "\U00011f33", "\U0001342f", "\U00013441", "\U00013446",
        "\U0001b132", "\U0001b155", "\U0001df25", "\U0001df2a", "\U0001e030",
        "\U0001e06d", "\U0001e4d0", "\U0001e4eb", "\U0002b739", "\U0002ebf0",
        "\U0002ee5d", "\U00031350", "\U000323af"};
    static const char *const numbers[] = {"\U00011f50", "\U00011f59", "\U0001d2c0",
                                          "\U0001d2d3", "\U0001e4f0", "\U0001e4f9"};
    char text[32], want[32];

    (void)state;
    for (size_t i = 0; i < sizeof(letters) / sizeof(*letters); i++) {
        snprintf(text, sizeof(text), "!%sa!", letters[i]);
        snprintf(want, sizeof(want), "[!][%sa][!]", letters[i]);
        check(PRETOKENIZER_GPT2, text, want);
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        snprintf(text, sizeof(text), "%s1a", numbers[i]);
        snprintf(want, sizeof(want), "[%s1][a]", numbers[i]);
        check(PRETOKENIZER_LLAMA3, text, want);
    }
    check(PRETOKENIZER_GPT2, "a\U00011f11a", "[a][\U00011f11][a]"); /* none of them */
}

static void random_texts_are_cut_as_the_golden_pieces_say(void **state)
{
    struct lines lines;
    struct artel_error err;
    const char *line;
    size_t n, n_lines = 0;

    (void)state;
    assert_int_equal(lines_open(&lines,
                                ARTEL_SOURCE "/tests/golden/pretokenizer_pieces.jsonl",
                                &err),
                     0);
    while (lines_next(&lines, &line, &n, &err) == 1) {
        json_t *row;
        char got[1024], want[1024];

        assert_int_equal(json_parse(&row, line, n, "golden", lines.number, &err), 0);
        for (int kind = 0; kind < N_PRETOKENIZERS; kind++) {
            const char *text = json_string_value(json_object_get(row, "text"));
            const json_t *pieces =
                json_object_get(json_object_get(row, "pieces"), names[kind]);
            json_t *length;
            size_t i, used = 0;

            bracket(got, sizeof(got), (enum pretokenizer_kind)kind, text);
            json_array_foreach(pieces, i, length)
            {
                const int bytes = (int)json_integer_value(length);

                used += (size_t)snprintf(want + used, sizeof(want) - used, "[%.*s]",
                                         bytes, text);
                text += bytes;
            }
            assert_true(*text == '\0');
            assert_string_equal(got, want);
        }
        json_decref(row);
        n_lines++;
    }
    lines_release(&lines);
    assert_true(n_lines >= 200);
}

static void aliases_lead_to_the_four(void **state)
{
    (void)state;
    assert_int_equal(pretokenizer_alias("starcoder", 9)->kind, PRETOKENIZER_SMOLLM);
    assert_int_equal(pretokenizer_alias("deepseek-r1-qwen", 16)->kind,
                     PRETOKENIZER_QWEN2);
    assert_true(pretokenizer_alias("llama3", 6)->ignore_merges);
    assert_false(pretokenizer_alias("gpt-2", 5)->adds_bos);
    assert_null(pretokenizer_alias("gpt-", 4));
    assert_null(pretokenizer_alias("default", 7));
    for (int kind = 0; kind < N_PRETOKENIZERS; kind++)
        assert_string_equal(pretokenizer_name((enum pretokenizer_kind)kind),
                            names[kind]);
}

/* Splits a megabyte made of UNIT; a minute would mean it is not linear. */
static void split_megabyte(enum pretokenizer_kind kind, const char *unit)
{
    const size_t n_unit = strlen(unit), n = (1 << 20) / n_unit * n_unit;
    char *text = malloc(n);
    struct pretokenizer *p;
    struct splitter *s;
    struct artel_error err;
    const clock_t start = clock();

    assert_non_null(text);
    for (size_t i = 0; i < n; i += n_unit)
        memcpy(text + i, unit, n_unit);
    assert_int_equal(pretokenizer_open(&p, kind, &err), 0);
    assert_int_equal(splitter_open(&s, p, &err), 0);
    for (size_t i = 0; i < n;) {
        size_t piece = 0;

        assert_int_equal(splitter_next(s, &piece, text, n, i, &err), 0);
        assert_true(piece > 0);
        i += piece;
    }
    assert_true((double)(clock() - start) < 2.0 * CLOCKS_PER_SEC);
    splitter_close(s);
    pretokenizer_close(p);
    free(text);
}

static void J29_a_megabyte_of_anything_is_split_in_linear_time(void **state)
{
    static const char *const units[] = {
        "a", " ",      ".",      "1",  "\n",        " \n",     "\u0301",
        "'", "\u4f60", "\u3000", "a ", "\r\n \t\r", "\u200d😀", "  x"};

    (void)state;
    for (int kind = 0; kind < N_PRETOKENIZERS; kind++)
        for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
            split_megabyte((enum pretokenizer_kind)kind, units[i]);
}

static void valid_utf8_is_told_from_the_rest(void **state)
{
    (void)state;
    assert_int_equal(utf8_prefix("a\u00e9\u4f60\U0001f600z", 11), 11);
    assert_int_equal(utf8_prefix("a\0b", 3), 3);
    assert_int_equal(utf8_prefix("ab\x80", 3), 2);
    assert_int_equal(utf8_prefix("\xc0\x80", 2), 0);         /* longer than need be */
    assert_int_equal(utf8_prefix("\xe0\x9f\xbf", 3), 0);     /* the same */
    assert_int_equal(utf8_prefix("x\xed\xa0\x80", 4), 1);    /* a surrogate */
    assert_int_equal(utf8_prefix("\xf4\x90\x80\x80", 4), 0); /* above U+10FFFF */
    assert_int_equal(utf8_prefix("\xf4\x8f\xbf\xbf", 4), 4);
    assert_int_equal(utf8_prefix("ab\xe4\xbd", 4), 2); /* cut short */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_examples_are_cut_as_published),
        cmocka_unit_test(number_like_characters_are_numbers),
        cmocka_unit_test(space_is_that_of_unicode_without_u180e),
        cmocka_unit_test(characters_newer_than_the_library_have_their_class),
        cmocka_unit_test(random_texts_are_cut_as_the_golden_pieces_say),
        cmocka_unit_test(aliases_lead_to_the_four),
        cmocka_unit_test(J29_a_megabyte_of_anything_is_split_in_linear_time),
        cmocka_unit_test(valid_utf8_is_told_from_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
