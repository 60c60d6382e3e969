/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding with the toy vocabularies: against golden ids, back to text, control
 * tokens in and out of content.
 */
#include "check.h"

#include <jansson.h>
#include <stdlib.h>
#include <time.h>

#include "artel.h"
#include "base/rng.h"
#include "files/gguf.h"
#include "files/json.h"
#include "text/tokenizer.h"

#define GOLDEN ARTEL_SOURCE "/tests/golden/"

static struct tokenizer *open_gguf(const char *path)
{
    struct tokenizer *t;
    struct gguf *g;
    struct artel_error err;

    assert_int_equal(gguf_open(&g, path, &err), 0);
    assert_int_equal(tokenizer_from_gguf(&t, g, &err), 0);
    gguf_close(g); /* nothing of it is kept */
    return t;
}

static struct tokenizer *open_folder(const char *path)
{
    struct tokenizer *t;
    struct artel_error err;

    assert_int_equal(tokenizer_from_folder(&t, path, &err), 0);
    return t;
}

static int setup(void **state)
{
    *state = open_gguf(GOLDEN "toy-tied.gguf");
    return 0;
}

static int teardown(void **state)
{
    tokenizer_close(*state);
    return 0;
}

/* The bytes of IDS into OUT (room for N); false when they are not TEXT. */
static bool decodes_to(const struct tokenizer *t, const struct ids *ids,
                       const char *text, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; i < ids->n; i++) {
        size_t length;
        const char *piece = tokenizer_piece(t, ids->at[i], &length);

        if (length > n - used || memcmp(piece, text + used, length))
            return false;
        used += length;
    }
    return used == n;
}

static void check_ids(const struct ids *ids, const int32_t *want, size_t n)
{
    assert_int_equal(ids->n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids->at[i], want[i]);
}

static void check_golden(const struct tokenizer *t, const char *model)
{
    struct artel_error err;
    json_t *root, *row;
    size_t i;

    assert_int_equal(json_read_file(&root, GOLDEN "toy.json", 1 << 24, &err), 0);
    json_array_foreach(
        json_object_get(json_object_get(json_object_get(root, "models"), model),
                        "tokens"),
        i, row)
    {
        const char *text = json_string_value(json_object_get(row, "text"));
        const json_t *want = json_object_get(row, "ids");
        struct ids ids = {0};

        assert_int_equal(tokenizer_encode(t, &ids, text, strlen(text), true, &err), 0);
        assert_int_equal(ids.n, json_array_size(want));
        for (size_t k = 0; k < ids.n; k++)
            assert_int_equal(ids.at[k], json_integer_value(json_array_get(want, k)));
        ids_release(&ids);
    }
    assert_true(i >= 5);
    json_decref(root);
}

static void golden_ids_come_from_either_source(void **state)
{
    static const char *const models[] = {"toy-tied", "toy-untied"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char path[512], digests[2][DIGEST_SIZE];
        struct tokenizer *t;

        snprintf(path, sizeof(path), GOLDEN "%s.gguf", models[i]);
        t = open_gguf(path);
        check_golden(t, models[i]);
        tokenizer_digest(t, digests[0]);
        tokenizer_close(t);
        snprintf(path, sizeof(path), GOLDEN "%s", models[i]);
        t = open_folder(path);
        check_golden(t, models[i]);
        tokenizer_digest(t, digests[1]);
        tokenizer_close(t);
        assert_string_equal(digests[0], digests[1]);
    }
}

static void special_ids_are_those_of_the_files(void **state)
{
    const struct tokenizer *tied = *state;
    struct tokenizer *untied = open_folder(GOLDEN "toy-untied");
    char one[DIGEST_SIZE], two[DIGEST_SIZE];

    assert_int_equal(tokenizer_bos(tied), 1);
    assert_int_equal(tokenizer_eos(tied), 2);
    assert_false(tokenizer_adds_bos(tied));
    assert_true(tokenizer_is_end(tied, 2));
    assert_true(tokenizer_is_end(tied, 0)); /* <|endoftext|> */
    assert_false(tokenizer_is_end(tied, 1));
    assert_false(tokenizer_is_end(tied, 100));
    assert_true(tokenizer_is_control(tied, 1));
    assert_false(tokenizer_is_control(tied, 100));
    assert_int_equal(tokenizer_find(tied, "<|im_end|>"), 2);
    assert_int_equal(tokenizer_find(tied, "<|im_end|"), -1);
    assert_true(tokenizer_find(tied, " the") >= 3);
    assert_int_equal(tokenizer_size(tied), 320);

    assert_int_equal(tokenizer_bos(untied), 0);
    assert_int_equal(tokenizer_eos(untied), 3);
    assert_true(tokenizer_adds_bos(untied)); /* its post-processor says so */
    tokenizer_digest(tied, one);
    tokenizer_digest(untied, two);
    assert_string_not_equal(one, two);
    tokenizer_close(untied);
}

static void J32_text_that_spells_a_control_token_is_text(void **state)
{
    const struct tokenizer *t = *state;
    const char *text = "a<|im_end|>b";
    struct ids ids = {0};
    struct artel_error err;

    assert_int_equal(tokenizer_encode(t, &ids, text, strlen(text), false, &err), 0);
    for (size_t i = 0; i < ids.n; i++)
        assert_false(tokenizer_is_control(t, ids.at[i]));
    assert_true(decodes_to(t, &ids, text, strlen(text)));
    ids.n = 0;
    assert_int_equal(tokenizer_encode(t, &ids, text, strlen(text), true, &err), 0);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.at[1], 2);
    assert_true(decodes_to(t, &ids, text, strlen(text)));
    ids_release(&ids);
}

static void J32_only_the_template_makes_control_tokens(void **state)
{
    const struct tokenizer *t = *state;
    /*                  template  content     template */
    const char *text = "<|im_start|>he<|im_end|>re<|im_end|>";
    unsigned char mask[36];
    struct ids ids = {0};
    struct artel_error err;
    size_t n_control = 0;

    assert_int_equal(strlen(text), sizeof(mask));
    memset(mask, 1, sizeof(mask));
    memset(mask + 12, 0, 14);
    assert_int_equal(tokenizer_encode_masked(t, &ids, text, mask, sizeof(mask), &err),
                     0);
    for (size_t i = 0; i < ids.n; i++)
        n_control += tokenizer_is_control(t, ids.at[i]);
    assert_int_equal(n_control, 2);
    assert_int_equal(ids.at[0], 1);
    assert_int_equal(ids.at[ids.n - 1], 2);
    assert_true(decodes_to(t, &ids, text, sizeof(mask)));

    /* A token that begins in content and ends in the template is none either. */
    ids.n = 0;
    memset(mask, 1, sizeof(mask));
    mask[0] = 0;
    mask[35] = 0;
    assert_int_equal(tokenizer_encode_masked(t, &ids, text, mask, sizeof(mask), &err),
                     0);
    n_control = 0;
    for (size_t i = 0; i < ids.n; i++)
        n_control += tokenizer_is_control(t, ids.at[i]);
    assert_int_equal(n_control, 1);
    ids_release(&ids);
}

static void template_and_content_are_joined_before_merging(void **state)
{
    const struct tokenizer *t = *state;
    const char *text = "<|im_start|> the";
    unsigned char mask[16];
    struct ids whole = {0}, masked = {0};
    struct artel_error err;

    /* The template wrote the token, the space and "t": " the" is one token still. */
    memset(mask, 1, sizeof(mask));
    mask[14] = mask[15] = 0;
    assert_int_equal(tokenizer_encode(t, &whole, text, 16, true, &err), 0);
    assert_int_equal(tokenizer_encode_masked(t, &masked, text, mask, 16, &err), 0);
    check_ids(&masked, whole.at, whole.n);
    assert_int_equal(masked.n, 2);
    ids_release(&whole);
    ids_release(&masked);
}

static void J30_bytes_that_are_no_utf8_come_back(void **state)
{
    const struct tokenizer *t = *state;
    struct rng rng;
    struct artel_error err;

    rng_init(&rng, 30, 0);
    for (size_t round = 0; round < 500; round++) {
        char text[200];
        const size_t n = round % sizeof(text);
        struct ids ids = {0};

        for (size_t i = 0; i < n; i++)
            text[i] = (char)(rng_u32(&rng) >> 24);
        assert_int_equal(tokenizer_encode(t, &ids, text, n, round & 2, &err), 0);
        assert_true(decodes_to(t, &ids, text, n));
        ids_release(&ids);
    }
}

static size_t put_utf8(char *out, uint32_t c)
{
    const size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(leads[n] | c);
    return n;
}

/* A million strings by hand; here enough to notice. */
static void J31_random_text_comes_back(void **state)
{
    const struct tokenizer *t = *state;
    struct rng rng;
    struct artel_error err;

    rng_init(&rng, 31, 0);
    for (size_t round = 0; round < 2000; round++) {
        char text[256];
        size_t n = 0;
        struct ids ids = {0};

        for (size_t i = 0; i < round % 60; i++) {
            static const uint32_t limits[] = {0x80, 0x80, 0x3000, 0x110000};
            const uint32_t c = rng_below(&rng, limits[rng_below(&rng, 4)]);

            n += put_utf8(text + n, c >= 0xd800 && c < 0xe000 ? ' ' : c);
        }
        assert_int_equal(tokenizer_encode(t, &ids, text, n, true, &err), 0);
        assert_true(decodes_to(t, &ids, text, n));
        ids_release(&ids);
    }
}

static void J29_a_megabyte_of_one_thing_takes_no_two_seconds(void **state)
{
    static const char *const units[] = {"a", "t", " ", ".", "\u0301", "\u4f60", "the"};
    const struct tokenizer *t = *state;
    const size_t n = 3 << 18; /* divisible by every length above */
    char *text = malloc(n);
    struct artel_error err;

    assert_non_null(text);
    for (size_t u = 0; u < sizeof(units) / sizeof(*units); u++) {
        const size_t length = strlen(units[u]);
        struct ids ids = {0};
        clock_t start;

        for (size_t i = 0; i < n; i += length)
            memcpy(text + i, units[u], length);
        start = clock();
        assert_int_equal(tokenizer_encode(t, &ids, text, n, true, &err), 0);
        assert_true((double)(clock() - start) < 2.0 * CLOCKS_PER_SEC);
        assert_true(decodes_to(t, &ids, text, n));
        ids_release(&ids);
    }
    free(text);
}

static void nul_and_empty_text_are_text(void **state)
{
    const struct tokenizer *t = *state;
    struct ids ids = {0};
    struct artel_error err;

    assert_int_equal(tokenizer_encode(t, &ids, "", 0, true, &err), 0);
    assert_int_equal(ids.n, 0);
    assert_int_equal(tokenizer_encode(t, &ids, "a\0b", 3, true, &err), 0);
    assert_true(decodes_to(t, &ids, "a\0b", 3));
    assert_int_equal(tokenizer_encode(t, &ids, "c", 1, true, &err), 0);
    assert_true(decodes_to(t, &ids, "a\0bc", 4)); /* appended */
    ids_release(&ids);
    tokenizer_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_ids_come_from_either_source),
        cmocka_unit_test_setup_teardown(special_ids_are_those_of_the_files, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(J32_text_that_spells_a_control_token_is_text,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(J32_only_the_template_makes_control_tokens,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(template_and_content_are_joined_before_merging,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(J30_bytes_that_are_no_utf8_come_back, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(J31_random_text_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(
            J29_a_megabyte_of_one_thing_takes_no_two_seconds, setup, teardown),
        cmocka_unit_test_setup_teardown(nul_and_empty_text_are_text, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
