/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers in GGUF metadata that are not what they should be. Each is the tiny
 * model's with one thing changed.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

#include "artel.h"
#include "files/gguf.h"
#include "model/weights.h"
#include "support/tiny_model.h"
#include "text/tokenizer.h"

#define KEY(name) "tokenizer.ggml." name

struct fixture {
    struct tiny_gguf file;
    struct tiny_bytes bytes;
    struct gguf *gguf;
    struct tokenizer *t;
    struct artel_error err;
};

static int setup(void **state)
{
    static struct fixture f;
    struct tiny_model m;

    memset(&f, 0, sizeof(f));
    tiny_model_default(&m);
    tiny_model_gguf(&m, &f.file);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    tokenizer_close(f->t);
    gguf_close(f->gguf);
    tiny_bytes_release(&f->bytes);
    tiny_gguf_release(&f->file);
    return 0;
}

static int open_tokenizer(struct fixture *f)
{
    tiny_gguf_layout(&f->file);
    tiny_gguf_pack(&f->file, &f->bytes);
    assert_int_equal(
        gguf_parse(&f->gguf, f->bytes.data, f->bytes.size, "tiny.gguf", &f->err), 0);
    return tokenizer_from_gguf(&f->t, f->gguf, &f->err);
}

static void refused(struct fixture *f, const char *code, const char *where)
{
    assert_error(open_tokenizer(f), ARTEL_EFORMAT, f->err, code);
    assert_null(f->t);
    assert_int_equal(f->err.exit, 3);
    assert_string_equal(f->err.file, "tiny.gguf");
    assert_string_equal(f->err.where, where);
}

static void says(const struct fixture *f, const char *part)
{
    if (!strstr(f->err.reason, part))
        fail_msg("'%s' is not in '%s'", part, f->err.reason);
}

static void unchanged_it_opens(void **state)
{
    struct fixture *f = *state;
    struct ids ids = {0};

    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_size(f->t), TINY_VOCAB);
    assert_int_equal(tokenizer_eos(f->t), 2);
    assert_int_equal(tokenizer_encode(f->t, &ids, " the", 4, false, &f->err), 0);
    assert_int_equal(ids.n, 1);
    ids_release(&ids);
}

static void llama_bpe_puts_bos_first_unless_told_otherwise(void **state)
{
    struct fixture *f = *state;

    tiny_gguf_text(&f->file, KEY("pre"), "llama-bpe");
    tiny_gguf_drop_key(&f->file, KEY("add_bos_token"));
    assert_int_equal(open_tokenizer(f), 0);
    assert_true(tokenizer_adds_bos(f->t));
}

static void missing_ids_are_those_of_the_reference(void **state)
{
    struct fixture *f = *state;

    tiny_gguf_drop_key(&f->file, KEY("bos_token_id"));
    tiny_gguf_u32(&f->file, KEY("eos_token_id"), UINT32_MAX);
    tiny_gguf_u32(&f->file, KEY("eot_token_id"), 50);
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_bos(f->t), 11);
    assert_int_equal(tokenizer_eos(f->t), -1);
    assert_true(tokenizer_is_end(f->t, 50));
}

static void other_kinds_of_tokenizer_are_refused(void **state)
{
    struct fixture *f = *state;

    tiny_gguf_text(&f->file, KEY("model"), "llama");
    refused(f, "TOK01", KEY("model"));
    says(f, "'llama'");
}

static void a_file_without_tokenizer_is_refused(void **state)
{
    tiny_gguf_drop_key(&((struct fixture *)*state)->file, KEY("model"));
    refused(*state, "TOK01", KEY("model"));
}

static void unknown_pre_tokenizer_is_refused_by_name(void **state)
{
    struct fixture *f = *state;

    tiny_gguf_text(&f->file, KEY("pre"), "tek\x1bken");
    refused(f, "TOK02", KEY("pre"));
    says(f, "'tek\\x1Bken'");
}

static void missing_pre_tokenizer_is_refused(void **state)
{
    tiny_gguf_drop_key(&((struct fixture *)*state)->file, KEY("pre"));
    refused(*state, "TOK02", KEY("pre"));
}

static void tokens_of_another_type_are_refused(void **state)
{
    const uint32_t numbers[2] = {1, 2};

    tiny_gguf_numbers(&((struct fixture *)*state)->file, KEY("tokens"), TINY_U32,
                      numbers, 2);
    refused(*state, "TOK01", KEY("tokens"));
}

static void G23_types_of_another_length_are_refused(void **state)
{
    struct fixture *f = *state;
    const int32_t types[3] = {1, 1, 1};

    tiny_gguf_numbers(&f->file, KEY("token_type"), TINY_I32, types, 3);
    refused(f, "TOK03", KEY("token_type"));
    says(f, "has 3 elements");
    says(f, "300 tokens");
}

static void G23_scores_of_another_length_are_refused(void **state)
{
    const float scores[2] = {0.0f, 1.0f};

    tiny_gguf_numbers(&((struct fixture *)*state)->file, KEY("scores"), TINY_F32,
                      scores, 2);
    refused(*state, "TOK03", KEY("scores"));
}

static void G23_bos_past_the_end_is_refused(void **state)
{
    struct fixture *f = *state;

    tiny_gguf_u32(&f->file, KEY("bos_token_id"), TINY_VOCAB);
    refused(f, "TOK04", KEY("bos_token_id"));
    says(f, "id 300 is not one of the 300 tokens");
}

static void G23_eos_past_the_end_is_refused(void **state)
{
    tiny_gguf_u32(&((struct fixture *)*state)->file, KEY("eos_token_id"), 4000000000u);
    refused(*state, "TOK04", KEY("eos_token_id"));
}

static void G23_an_embedding_of_other_rows_is_refused(void **state)
{
    struct fixture *f = *state;
    char path[] = "tiny.gguf";
    struct weights w = {.path = path};
    struct tokenizer *t;

    assert_int_equal(open_tokenizer(f), 0);
    w.gguf = f->gguf;
    w.config.n_vocab = TINY_VOCAB;
    assert_int_equal(tokenizer_open(&t, &w, &f->err), 0);
    tokenizer_close(t);
    w.config.n_vocab = TINY_VOCAB - 1;
    assert_error(tokenizer_open(&t, &w, &f->err), ARTEL_EFORMAT, f->err, "TOK03");
    assert_null(t);
    says(f, "300 tokens, the embedding 299 rows");
}

static void J17_merge_without_space_is_refused(void **state)
{
    struct fixture *f = *state;
    const char *merges[] = {"h e", "in"};

    tiny_gguf_texts(&f->file, KEY("merges"), merges, 2);
    refused(f, "TOK06", KEY("merges") "[1]");
    says(f, "merge 1");
}

static void J17_merge_of_unknown_part_is_refused(void **state)
{
    struct fixture *f = *state;
    const char *merges[] = {"h e", "r xyz"};

    tiny_gguf_texts(&f->file, KEY("merges"), merges, 2);
    refused(f, "TOK06", KEY("merges") "[1]");
    says(f, "the right part 'xyz'");
}

static void J17_merge_into_no_token_is_refused(void **state)
{
    struct fixture *f = *state;
    const char *merges[] = {"q q"};

    tiny_gguf_texts(&f->file, KEY("merges"), merges, 1);
    refused(f, "TOK06", KEY("merges") "[0]");
    says(f, "the result 'qq'");
}

static void J17_merge_with_an_empty_part_is_refused(void **state)
{
    const char *merges[] = {"q "};

    tiny_gguf_texts(&((struct fixture *)*state)->file, KEY("merges"), merges, 1);
    refused(*state, "TOK06", KEY("merges") "[0]");
}

static void J18_merge_longer_than_any_token_is_refused(void **state)
{
    const char *merges[] = {"\u0120and \u0120and"};

    tiny_gguf_texts(&((struct fixture *)*state)->file, KEY("merges"), merges, 1);
    refused(*state, "TOK06", KEY("merges") "[0]");
}

static void missing_merges_are_refused(void **state)
{
    tiny_gguf_drop_key(&((struct fixture *)*state)->file, KEY("merges"));
    refused(*state, "TOK01", KEY("merges"));
}

static void token_given_twice_is_refused(void **state)
{
    struct fixture *f = *state;
    const char *tokens[] = {"a", "b", "a"};

    tiny_gguf_texts(&f->file, KEY("tokens"), tokens, 3);
    tiny_gguf_drop_key(&f->file, KEY("token_type"));
    refused(f, "TOK14", KEY("tokens"));
    says(f, "tokens 0 and 2 are the same: 'a'");
}

static void unknown_type_of_token_is_refused(void **state)
{
    struct fixture *f = *state;
    const char *tokens[] = {"a", "b"};
    const int32_t types[] = {1, 7};

    tiny_gguf_texts(&f->file, KEY("tokens"), tokens, 2);
    tiny_gguf_numbers(&f->file, KEY("token_type"), TINY_I32, types, 2);
    refused(f, "TOK14", KEY("token_type") "[1]");
}

/* "a" "b" and a control token "ab" that a merge would make. */
static void J32_merges_never_make_a_control_token(void **state)
{
    struct fixture *f = *state;
    const char *tokens[] = {"a", "b", "ab"}, *merges[] = {"a b"};
    const int32_t types[] = {1, 1, 3};
    struct ids ids = {0};

    tiny_gguf_texts(&f->file, KEY("tokens"), tokens, 3);
    tiny_gguf_numbers(&f->file, KEY("token_type"), TINY_I32, types, 3);
    tiny_gguf_texts(&f->file, KEY("merges"), merges, 1);
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_encode(f->t, &ids, "ab", 2, false, &f->err), 0);
    assert_int_equal(ids.n, 2);
    ids.n = 0;
    assert_int_equal(tokenizer_encode(f->t, &ids, "ab", 2, true, &f->err), 0);
    assert_int_equal(ids.n, 1);
    ids_release(&ids);
}

/* A byte without a token gives none, and keeps its neighbours apart. */
static void bytes_outside_the_vocabulary_give_no_token(void **state)
{
    struct fixture *f = *state;
    const char *tokens[] = {"a", "b", "ab"}, *merges[] = {"a b"};
    struct ids ids = {0};

    tiny_gguf_texts(&f->file, KEY("tokens"), tokens, 3);
    tiny_gguf_drop_key(&f->file, KEY("token_type"));
    tiny_gguf_texts(&f->file, KEY("merges"), merges, 1);
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_encode(f->t, &ids, "abazb\xff", 6, false, &f->err), 0);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.at[0], 2);
    assert_int_equal(ids.at[1], 0);
    assert_int_equal(ids.at[2], 1);
    ids_release(&ids);
}

/* User tokens are literal text, found before BPE in any text. */
static void user_tokens_count_in_any_text(void **state)
{
    struct fixture *f = *state;
    const char *tokens[] = {"a", "b", "a b"};
    const int32_t types[] = {1, 1, 4};
    struct ids ids = {0};
    size_t n;

    tiny_gguf_texts(&f->file, KEY("tokens"), tokens, 3);
    tiny_gguf_numbers(&f->file, KEY("token_type"), TINY_I32, types, 3);
    tiny_gguf_texts(&f->file, KEY("merges"), NULL, 0);
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_encode(f->t, &ids, "ba b", 4, false, &f->err), 0);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.at[1], 2);
    assert_string_equal(tokenizer_piece(f->t, 2, &n), "a b");
    assert_int_equal(n, 3);
    assert_false(tokenizer_is_control(f->t, 2));
    ids_release(&ids);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unchanged_it_opens),
        TEST(llama_bpe_puts_bos_first_unless_told_otherwise),
        TEST(missing_ids_are_those_of_the_reference),
        TEST(other_kinds_of_tokenizer_are_refused),
        TEST(a_file_without_tokenizer_is_refused),
        TEST(unknown_pre_tokenizer_is_refused_by_name),
        TEST(missing_pre_tokenizer_is_refused),
        TEST(tokens_of_another_type_are_refused),
        TEST(G23_types_of_another_length_are_refused),
        TEST(G23_scores_of_another_length_are_refused),
        TEST(G23_bos_past_the_end_is_refused),
        TEST(G23_eos_past_the_end_is_refused),
        TEST(G23_an_embedding_of_other_rows_is_refused),
        TEST(J17_merge_without_space_is_refused),
        TEST(J17_merge_of_unknown_part_is_refused),
        TEST(J17_merge_into_no_token_is_refused),
        TEST(J17_merge_with_an_empty_part_is_refused),
        TEST(J18_merge_longer_than_any_token_is_refused),
        TEST(missing_merges_are_refused),
        TEST(token_given_twice_is_refused),
        TEST(unknown_type_of_token_is_refused),
        TEST(J32_merges_never_make_a_control_token),
        TEST(bytes_outside_the_vocabulary_give_no_token),
        TEST(user_tokens_count_in_any_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
