/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hashed character n-grams as a Python script computes them from their description alone
 * (make_ngrams_golden.py), whatever pieces the bytes come in.
 */
#include "check.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "experts/ngrams.h"
#include "files/json.h"
#include "files/lines.h"

static size_t from_hex(char *out, size_t room, const char *hex)
{
    const size_t n = strlen(hex) / 2;

    assert_true(n <= room);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;

        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (char)byte;
    }
    return n;
}

static void check_values(const struct ngrams *g, const json_t *row)
{
    const json_t *const at = json_object_get(row, "at");
    const json_t *const value = json_object_get(row, "value");

    if (g->n != json_array_size(at))
        fail_msg("%zu buckets, not %zu, of %s", g->n, json_array_size(at),
                 json_string_value(json_object_get(row, "text")));
    for (size_t i = 0; i < json_array_size(at); i++) {
        const uint32_t bucket = (uint32_t)json_integer_value(json_array_get(at, i));
        size_t k = 0;

        while (k < g->n && g->at[k] != bucket)
            k++;
        if (k == g->n)
            fail_msg("bucket %u is empty", bucket);
        assert_true(fabs((double)g->value[k] -
                         json_number_value(json_array_get(value, i))) < 1e-7);
    }
}

static void check_row(const json_t *row)
{
    const struct ngram_options o = {
        .min = (size_t)json_integer_value(json_object_get(row, "min")),
        .max = (size_t)json_integer_value(json_object_get(row, "max")),
        .buckets = (size_t)json_integer_value(json_object_get(row, "buckets")),
        .lowercase = json_is_true(json_object_get(row, "lowercase"))};
    struct arena arena = {0};
    struct artel_error err;
    struct ngrams g = {0};
    char text[2048];
    const size_t n =
        from_hex(text, sizeof(text), json_string_value(json_object_get(row, "text")));

    ngrams_carve(&g, &arena, &o);
    assert_int_equal(arena_init(&arena, arena.used, &err), 0);
    ngrams_carve(&g, &arena, &o);
    ngrams_begin(&g);
    ngrams_add(&g, text, n);
    ngrams_end(&g);
    check_values(&g, row);
    ngrams_begin(&g); /* a text that is given up leaves nothing */
    ngrams_add(&g, "given up", 8);
    for (size_t step = 1; step < 4; step++) {
        ngrams_begin(&g);
        for (size_t i = 0; i < n; i += step)
            ngrams_add(&g, text + i, n - i < step ? n - i : step);
        ngrams_end(&g);
        check_values(&g, row);
    }
    arena_release(&arena);
}

static void ngrams_are_those_of_the_description(void **state)
{
    struct artel_error err;
    struct lines lines;
    const char *text;
    size_t n, n_rows = 0;

    (void)state;
    assert_int_equal(lines_open(&lines, ARTEL_TESTS "/golden/ngrams.jsonl", &err), 0);
    while (lines_next(&lines, &text, &n, &err) == 1) {
        json_t *row = NULL;

        assert_int_equal(
            json_parse(&row, text, n, "ngrams.jsonl", lines.number - 1, &err), 0);
        check_row(row);
        json_decref(row);
        n_rows++;
    }
    lines_release(&lines);
    assert_true(n_rows > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ngrams_are_those_of_the_description),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
