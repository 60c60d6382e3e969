/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary of a real model (ARTEL_TEST_MODEL, else skipped): ids against
 * llama.cpp's, and how long it takes.
 */
#include "check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "artel.h"
#include "files/gguf.h"
#include "files/json.h"
#include "files/lines.h"
#include "text/tokenizer.h"

#define GOLDEN ARTEL_SOURCE "/tests/golden/tokenizer_smollm.jsonl"

static struct tokenizer *tokenizer;

static int setup(void **state)
{
    const char *path = getenv("ARTEL_TEST_MODEL");
    struct gguf *g;
    struct artel_error err;

    (void)state;
    if (!path || !*path)
        return 0;
    if (gguf_open(&g, path, &err) < 0)
        return -1;
    if (tokenizer_from_gguf(&tokenizer, g, &err) < 0)
        print_error("%s: %s\n", err.where, err.reason);
    gguf_close(g);
    return tokenizer ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

/* The bytes that ROW's text stands for; *N of them. Caller frees. */
static char *row_text(const json_t *row, size_t *n)
{
    const char *hex = json_string_value(json_object_get(row, "hex"));
    const char *text = json_string_value(json_object_get(row, "text"));
    char *bytes = calloc(1, 1 + strlen(hex ? hex : text));

    assert_non_null(bytes);
    *n = hex ? strlen(hex) / 2 : strlen(text);
    for (size_t i = 0; i < *n; i++) {
        unsigned byte = (unsigned char)(hex ? 0 : text[i]);

        if (hex)
            assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (char)byte;
    }
    return bytes;
}

static void ids_are_those_of_the_reference(void **state)
{
    struct lines lines;
    struct artel_error err;
    const char *line;
    size_t n, n_lines = 0;

    (void)state;
    if (!tokenizer)
        skip();
    assert_int_equal(lines_open(&lines, GOLDEN, &err), 0);
    while (lines_next(&lines, &line, &n, &err) == 1) {
        json_t *row, *want;
        struct ids ids = {0};
        size_t n_text;
        char *text;

        assert_int_equal(json_parse(&row, line, n, "golden", lines.number, &err), 0);
        text = row_text(row, &n_text);
        want = json_object_get(row, "ids");
        assert_int_equal(tokenizer_encode(tokenizer, &ids, text, n_text,
                                          json_is_true(json_object_get(row, "special")),
                                          &err),
                         0);
        if (ids.n != json_array_size(want))
            fail_msg("line %zu: %zu ids, expected %zu", lines.number, ids.n,
                     json_array_size(want));
        for (size_t i = 0; i < ids.n; i++)
            if (ids.at[i] != json_integer_value(json_array_get(want, i)))
                fail_msg("line %zu: id %zu is %d", lines.number, i, ids.at[i]);
        ids_release(&ids);
        free(text);
        json_decref(row);
        n_lines++;
    }
    lines_release(&lines);
    assert_true(n_lines >= 100);
}

static void J29_a_megabyte_of_one_letter_takes_no_two_seconds(void **state)
{
    static const char letters[] = "a .1";
    const size_t n = 1 << 20;
    struct artel_error err;
    char *text;

    (void)state;
    if (!tokenizer)
        skip();
    text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0; letters[i]; i++) {
        struct ids ids = {0};
        const clock_t start = clock();

        memset(text, letters[i], n);
        assert_int_equal(tokenizer_encode(tokenizer, &ids, text, n, true, &err), 0);
        assert_true((double)(clock() - start) < 2.0 * CLOCKS_PER_SEC);
        assert_true(ids.n > 0 && ids.n <= n);
        ids_release(&ids);
    }
    free(text);
}

/* SmolLM's vocabulary lacks 21 of the 256 bytes: they give no id, as in the reference. */
static void a_byte_without_a_token_gives_none(void **state)
{
    struct ids ids = {0};
    struct artel_error err;

    (void)state;
    if (!tokenizer || tokenizer_find(tokenizer, "\x04") >= 0)
        skip();
    assert_int_equal(tokenizer_encode(tokenizer, &ids, "\x04\xf5", 2, true, &err), 0);
    assert_int_equal(ids.n, 0);
    ids_release(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_reference),
        cmocka_unit_test(J29_a_megabyte_of_one_letter_takes_no_two_seconds),
        cmocka_unit_test(a_byte_without_a_token_gives_none),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
