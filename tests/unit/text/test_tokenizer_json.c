/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokenizers in a Hugging Face folder that are not what they should be. Each is a
 * small one with one thing changed: PATCH sets a value at a dotted path.
 */
#include "check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "artel.h"
#include "files/json.h"
#include "model/weights.h"
#include "text/tokenizer_parts.h"

/* 0 to 2 letters, 3 and 4 merged, 5 and 6 added. */
static const char base[] =
    "{'version':'1.0','truncation':null,'padding':null,'added_tokens':["
    "{'id':5,'content':'<|eot|>','single_word':false,'lstrip':false,'rstrip':false,"
    "'normalized':false,'special':true},"
    "{'id':6,'content':'<x>','single_word':false,'lstrip':false,'rstrip':false,"
    "'normalized':false,'special':false}],"
    "'normalizer':null,'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false,"
    "'trim_offsets':true,'use_regex':true},'post_processor':null,"
    "'decoder':{'type':'ByteLevel'},"
    "'model':{'type':'BPE','dropout':null,'unk_token':null,"
    "'continuing_subword_prefix':null,'end_of_word_suffix':null,'fuse_unk':false,"
    "'byte_fallback':false,'ignore_merges':false,"
    "'vocab':{'a':0,'b':1,'c':2,'ab':3,'abc':4},'merges':['a b','ab c']}}";

struct fixture {
    json_t *tokenizer, *config, *map, *generation;
    struct tokenizer *t;
    struct artel_error err;
};

/* TEXT with ' for ". */
static json_t *json_of(const char *text)
{
    char *copy = strdup(text);
    struct artel_error err;
    json_t *value = NULL;

    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    if (json_parse(&value, copy, strlen(copy), "test", 0, &err) < 0)
        fail_msg("%s: %s", copy, err.reason);
    free(copy);
    return value;
}

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    f.tokenizer = json_of(base);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    tokenizer_close(f->t);
    json_decref(f->tokenizer);
    json_decref(f->config);
    json_decref(f->map);
    json_decref(f->generation);
    return 0;
}

/* Set what stands at PATH ("model.vocab", "added_tokens.0.id") to VALUE. */
static void patch(struct fixture *f, const char *path, const char *value)
{
    json_t *at = f->tokenizer;
    char *wrapped = malloc(strlen(value) + 16), *copy = strdup(path);
    json_t *list;

    assert_true(wrapped && copy);
    sprintf(wrapped, "{'x':%s}", value);
    list = json_of(wrapped);
    for (char *part = strtok(copy, "."), *next; part; part = next) {
        next = strtok(NULL, ".");
        if (next)
            at = json_is_array(at) ? json_array_get(at, (size_t)atoi(part))
                                   : json_object_get(at, part);
        else if (json_is_array(at))
            json_array_set(at, (size_t)atoi(part), json_object_get(list, "x"));
        else
            json_object_set(at, part, json_object_get(list, "x"));
        assert_non_null(at);
    }
    json_decref(list);
    free(wrapped);
    free(copy);
}

static int open_tokenizer(struct fixture *f)
{
    const struct tokenizer_files files = {
        {f->tokenizer, "tokenizer.json"},
        {f->config, "tokenizer_config.json"},
        {f->map, "special_tokens_map.json"},
        {f->generation, "generation_config.json"},
    };

    tokenizer_close(f->t);
    return tokenizer_from_files(&f->t, &files, &f->err);
}

static void refused(struct fixture *f, const char *code, const char *file,
                    const char *where)
{
    assert_error(open_tokenizer(f), ARTEL_EFORMAT, f->err, code);
    assert_null(f->t);
    assert_int_equal(f->err.exit, 3);
    assert_string_equal(f->err.file, file);
    assert_string_equal(f->err.where, where);
}

static void says(const struct fixture *f, const char *part)
{
    if (!strstr(f->err.reason, part))
        fail_msg("'%s' is not in '%s'", part, f->err.reason);
}

/* PATH set to VALUE is refused, and then put back. */
static void refused_with(struct fixture *f, const char *path, const char *value,
                         const char *code, const char *where)
{
    json_t *kept = json_deep_copy(f->tokenizer);

    patch(f, path, value);
    refused(f, code, "tokenizer.json", where);
    json_decref(f->tokenizer);
    f->tokenizer = kept;
}

static void check_ids(struct fixture *f, const char *text, bool special,
                      const char *want)
{
    struct ids ids = {0};
    char got[128] = "";
    size_t used = 0;

    assert_int_equal(tokenizer_encode(f->t, &ids, text, strlen(text), special, &f->err),
                     0);
    for (size_t i = 0; i < ids.n; i++)
        used += (size_t)snprintf(got + used, sizeof(got) - used, "%d ", ids.at[i]);
    ids_release(&ids);
    assert_string_equal(got, want);
}

static void unchanged_it_opens(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_size(f->t), 7);
    check_ids(f, "abcab<|eot|>a<x>", true, "4 3 5 0 6 ");
    check_ids(f, "abca<x>c", false, "4 0 6 2 ");
    assert_int_equal(tokenizer_bos(f->t), -1);
    assert_int_equal(tokenizer_eos(f->t), -1);
    assert_true(tokenizer_is_control(f->t, 5));
    assert_false(tokenizer_is_control(f->t, 6));
}

static void merges_may_be_pairs(void **state)
{
    struct fixture *f = *state;

    patch(f, "model.merges", "[['a','b'],['ab','c']]");
    assert_int_equal(open_tokenizer(f), 0);
    check_ids(f, "abcab", true, "4 3 ");
}

static void lower_ranks_merge_first_and_ignoring_merges_is_heeded(void **state)
{
    struct fixture *f = *state;

    patch(f, "model.vocab", "{'a':0,'b':1,'c':2,'bc':3,'abc':4}");
    patch(f, "model.merges", "['b c']");
    assert_int_equal(open_tokenizer(f), 0);
    check_ids(f, "abc", true, "0 3 ");
    patch(f, "model.ignore_merges", "true");
    assert_int_equal(open_tokenizer(f), 0);
    check_ids(f, "abc", true, "4 ");
}

static void added_tokens_spelled_like_control_are_control(void **state)
{
    struct fixture *f = *state;

    patch(f, "added_tokens.1.content", "'<|fim|>'");
    assert_int_equal(open_tokenizer(f), 0);
    assert_true(tokenizer_is_control(f->t, 6));
}

static void nfc_composes_where_asked(void **state)
{
    struct fixture *f = *state;
    /* e and U+0301 compose to the bytes c3 a9, spelled \u00c3 and \u00a9. */
    patch(f, "model.vocab", "{'e':0,'\u00c3':1,'\u00a9':2,'\u00cc':3,'\u0123':4}");
    patch(f, "model.merges", "[]");
    assert_int_equal(open_tokenizer(f), 0);
    check_ids(f, "e\u0301", true, "0 3 4 ");
    patch(f, "normalizer", "{'type':'NFC'}");
    assert_int_equal(open_tokenizer(f), 0);
    check_ids(f, "e\u0301", true, "1 2 ");
    check_ids(f, "e\u0301\xcc", true, "1 2 3 "); /* what is no UTF-8 stays */
}

static void the_four_pre_tokenizers_are_recognised(void **state)
{
    struct fixture *f = *state;
    static const char modern[] =
        "{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'Regex':"
        "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{"
        "N}"
        "%s| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
        "\\\\s+(?!\\\\S)|\\\\s+\"},'behavior':'Isolated','invert':false},"
        "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}]}";
    char text[640];

    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(f->t->kind, PRETOKENIZER_GPT2);
    patch(f, "pre_tokenizer",
          "{'type':'Sequence','pretokenizers':[{'type':'Digits',"
          "'individual_digits':true},{'type':'ByteLevel','add_prefix_space':false,"
          "'use_regex':true}]}");
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(f->t->kind, PRETOKENIZER_SMOLLM);
    for (int i = 0; i < 2; i++) {
        json_error_t where;
        json_t *value;

        /* The pattern has quotes of both kinds, so those of the JSON are replaced. */
        snprintf(text, sizeof(text), modern, i ? "" : "{1,3}");
        for (char *c = text, *in = NULL; *c; c++) {
            if (*c == '"')
                in = in ? NULL : c;
            else if (*c == '\'' && !in)
                *c = '"';
        }
        value = json_loads(text, 0, &where);
        assert_non_null(value);
        json_object_set_new(f->tokenizer, "pre_tokenizer", value);
        assert_int_equal(open_tokenizer(f), 0);
        assert_int_equal(f->t->kind, i ? PRETOKENIZER_QWEN2 : PRETOKENIZER_LLAMA3);
    }
}

static void J15_an_embedding_of_fewer_rows_is_refused(void **state)
{
    const char *folder = ARTEL_SOURCE "/tests/golden/toy-tied";
    struct fixture *f = *state;
    char copy[512];
    struct weights w = {.folder = copy, .path = copy};

    snprintf(copy, sizeof(copy), "%s", folder);
    w.config.n_vocab = 400; /* rows beyond the tokens are padding */
    assert_int_equal(tokenizer_open(&f->t, &w, &f->err), 0);
    tokenizer_close(f->t);
    w.config.n_vocab = 319;
    assert_error(tokenizer_open(&f->t, &w, &f->err), ARTEL_EFORMAT, f->err, "TOK03");
    says(f, "320 tokens, the embedding 319 rows");
}

static void J16_ids_must_be_ids(void **state)
{
    struct fixture *f = *state;

    refused_with(f, "model.vocab.abc", "-1", "TOK05", "model.vocab");
    says(f, "id -1 of 'abc'");
    refused_with(f, "model.vocab.abc", "3", "TOK05", "model.vocab");
    refused_with(f, "model.vocab.abc", "4000000000", "TOK05", "model.vocab");
    refused_with(f, "model.vocab.abc", "9223372036854775807", "TOK05", "model.vocab");
    refused_with(f, "model.vocab.abc", "4.5", "TOK05", "model.vocab");
    refused_with(f, "model.vocab.abc", "'4'", "TOK05", "model.vocab");
    refused_with(f, "added_tokens.0.id", "-5", "TOK05", "added_tokens");
}

static void J16_gaps_among_ids_are_no_tokens(void **state)
{
    struct fixture *f = *state;
    size_t n;

    patch(f, "added_tokens.1.id", "100");
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_size(f->t), 101);
    check_ids(f, "a<x>", true, "0 100 ");
    assert_string_equal(tokenizer_piece(f->t, 50, &n), "");
    assert_int_equal(n, 0);
    f->generation = json_of("{'eos_token_id':50}");
    refused(f, "TOK04", "generation_config.json", "eos_token_id");
}

static void J17_bad_merges_are_refused_by_number(void **state)
{
    struct fixture *f = *state;

    refused_with(f, "model.merges.1", "'ab z'", "TOK06", "model.merges[1]");
    says(f, "merge 1: the right part 'z'");
    refused_with(f, "model.merges.1", "'abc'", "TOK06", "model.merges[1]");
    refused_with(f, "model.merges.0", "'b c'", "TOK06", "model.merges[0]");
    says(f, "the result 'bc'");
    refused_with(f, "model.merges.0", "['a','b','c']", "TOK06", "model.merges[0]");
    refused_with(f, "model.merges.0", "7", "TOK06", "model.merges[0]");
    refused_with(f, "model.merges.0", "['a','']", "TOK06", "model.merges[0]");
    refused_with(f, "model.merges", "null", "TOK15", "model.merges");
}

static void J18_merge_longer_than_any_token_is_refused(void **state)
{
    refused_with(*state, "model.merges.1", "'abc abc'", "TOK06", "model.merges[1]");
    says(*state, "'abcabc'");
}

static void J19_unknown_parts_are_refused_by_type(void **state)
{
    static const char *const keys[] = {"normalizer", "pre_tokenizer", "decoder",
                                       "post_processor", "model"};
    struct fixture *f = *state;

    for (size_t i = 0; i < 5; i++) {
        refused_with(f, keys[i], "{'type':'Fancy','vocab':{},'merges':[]}", "TOK07",
                     keys[i]);
        says(f, "type 'Fancy'");
    }
    refused_with(f, "normalizer",
                 "{'type':'Sequence','normalizers':[{'type':'NFC'},"
                 "{'type':'Lowercase'}]}",
                 "TOK07", "normalizer");
    says(f, "'Lowercase'");
    refused_with(f, "normalizer", "{'type':'Sequence'}", "TOK15", "normalizer");
    refused_with(f, "decoder", "{'kind':'ByteLevel'}", "TOK15", "decoder");
}

static void J19_known_parts_in_an_unknown_way_are_refused(void **state)
{
    struct fixture *f = *state;

    refused_with(f, "pre_tokenizer", "null", "TOK07", "pre_tokenizer");
    refused_with(f, "pre_tokenizer.use_regex", "false", "TOK07", "pre_tokenizer");
    refused_with(f, "pre_tokenizer.add_prefix_space", "true", "TOK07", "pre_tokenizer");
    refused_with(f, "pre_tokenizer", "{'type':'Digits','individual_digits':false}",
                 "TOK07", "pre_tokenizer");
    refused_with(f, "pre_tokenizer",
                 "{'type':'Split','pattern':{'Regex':'\\\\p{N}'},"
                 "'behavior':'MergedWithNext','invert':false}",
                 "TOK07", "pre_tokenizer");
    says(f, "MergedWithNext");
    refused_with(f, "pre_tokenizer",
                 "{'type':'Sequence','pretokenizers':["
                 "{'type':'ByteLevel','add_prefix_space':false},"
                 "{'type':'ByteLevel','add_prefix_space':false},"
                 "{'type':'ByteLevel','add_prefix_space':false}]}",
                 "TOK07", "pre_tokenizer");
    refused_with(f, "model.dropout", "0.1", "TOK07", "model.dropout");
    refused_with(f, "model.end_of_word_suffix", "'</w>'", "TOK07", "model");
    refused_with(f, "post_processor",
                 "{'type':'TemplateProcessing','single':[{'Sequence':{'id':'A'}},"
                 "{'SpecialToken':{'id':'<|eot|>'}}],'special_tokens':{}}",
                 "TOK07", "post_processor");
}

static void J20_hostile_patterns_are_never_compiled(void **state)
{
    static const char *const patterns[] = {"(a+)+$", "(?<=a{1,100})b", "\\\\p{L}+", ""};
    struct fixture *f = *state;
    const size_t n = 1 << 20;
    char *text = malloc(n + 128);

    assert_non_null(text);
    for (size_t i = 0; i < 4; i++) {
        snprintf(text, 128,
                 "{'type':'Split','pattern':{'Regex':'%s'},'behavior':'Isolated',"
                 "'invert':false}",
                 patterns[i]);
        refused_with(f, "pre_tokenizer", text, "TOK08", "pre_tokenizer");
    }
    strcpy(text, "{'type':'Split','behavior':'Isolated','pattern':{'Regex':'");
    memset(text + strlen(text), '(', n);
    strcpy(text + 58 + n, "'}}");
    refused_with(f, "pre_tokenizer", text, "TOK08", "pre_tokenizer");
    says(f, "1048576 bytes");
    free(text);
}

static void J21_added_tokens_must_not_conflict(void **state)
{
    struct fixture *f = *state;

    refused_with(f, "added_tokens.1.content", "''", "TOK09", "added_tokens[1]");
    refused_with(f, "added_tokens.1.content", "'<|eot|>'", "TOK09", "added_tokens");
    says(f, "'<|eot|>' has two ids, 5 and 6");
    refused_with(f, "added_tokens.1.id", "5", "TOK09", "added_tokens");
    refused_with(f, "added_tokens.1.content", "'abc'", "TOK09", "added_tokens");
    refused_with(f, "added_tokens.1.id", "4", "TOK05", "model.vocab");
    refused_with(f, "added_tokens.1.lstrip", "true", "TOK09", "added_tokens[1]");
    refused_with(f, "added_tokens.1.single_word", "true", "TOK09", "added_tokens[1]");
    refused_with(f, "added_tokens.1", "7", "TOK15", "added_tokens[1]");
    refused_with(f, "added_tokens", "7", "TOK15", "added_tokens");
}

static void J21_an_added_token_may_stand_in_the_vocabulary_too(void **state)
{
    struct fixture *f = *state;

    patch(f, "added_tokens.1.content", "'abc'");
    patch(f, "added_tokens.1.id", "4");
    assert_int_equal(open_tokenizer(f), 0);
    check_ids(f, "cabcc", false, "2 4 2 ");
}

/* The toy's 256 byte-level tokens, and <0x00> to <0xFF> but for three. */
static void J22_incomplete_byte_fallback_is_refused(void **state)
{
    static const int missing[] = {0x41, 0x7f, 0xfe};
    struct fixture *f = *state;
    json_t *vocab;

    json_decref(f->tokenizer);
    assert_int_equal(json_read_file(&f->tokenizer,
                                    ARTEL_SOURCE
                                    "/tests/golden/toy-tied/tokenizer.json",
                                    1 << 24, &f->err),
                     0);
    patch(f, "model.byte_fallback", "true");
    vocab = json_object_get(json_object_get(f->tokenizer, "model"), "vocab");
    for (int b = 0; b < 256; b++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", b);
        if (b != missing[0] && b != missing[1] && b != missing[2])
            json_object_set_new(vocab, name, json_integer(320 + b));
    }
    refused(f, "TOK10", "tokenizer.json", "model.byte_fallback");
    says(f, "3 of 256 bytes have no token: <0x41> <0x7F> <0xFE>");
    for (int i = 0; i < 3; i++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)missing[i]);
        json_object_set_new(vocab, name, json_integer(320 + missing[i]));
    }
    assert_int_equal(open_tokenizer(f), 0);
}

static void J23_broken_tables_are_refused(void **state)
{
    struct fixture *f = *state;

    refused_with(f, "normalizer", "{'type':'Precompiled','precompiled_charsmap':'AAA'}",
                 "TOK07", "normalizer");
    refused_with(f, "truncation", "{'max_length':8,'stride':8}", "TOK11",
                 "truncation.stride");
    refused_with(f, "truncation", "{'max_length':0,'stride':0}", "TOK11",
                 "truncation.max_length");
    refused_with(f, "padding", "{'strategy':{'Fixed':0}}", "TOK11", "padding.strategy");
    refused_with(f, "post_processor",
                 "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<s>'}},"
                 "{'Sequence':{'id':'A'}}],'special_tokens':{'<s>':{'ids':[5]}}}",
                 "TOK11", "post_processor");
    says(f, "'<s>'");
    refused_with(f, "post_processor",
                 "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<s>'}},"
                 "{'Sequence':{'id':'A'}}],'special_tokens':{}}",
                 "TOK11", "post_processor");
    patch(f, "truncation", "{'max_length':8,'stride':2}");
    patch(f, "padding", "{'strategy':'BatchLongest'}");
    assert_int_equal(open_tokenizer(f), 0);
}

static void the_other_files_name_the_special_tokens(void **state)
{
    struct fixture *f = *state;

    patch(f, "post_processor",
          "{'type':'Sequence','processors':[{'type':'ByteLevel'},"
          "{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'<|eot|>'}},"
          "{'Sequence':{'id':'A'}}],'special_tokens':{'<|eot|>':{'ids':[5]}}}]}");
    f->config = json_of("{'eos_token':{'content':'<x>'},'added_tokens_decoder':"
                        "{'5':{'content':'<|eot|>'}}}");
    f->map = json_of("{'bos_token':'<|eot|>','eos_token':'<x>'}");
    f->generation = json_of("{'eos_token_id':[6,4]}");
    assert_int_equal(open_tokenizer(f), 0);
    assert_int_equal(tokenizer_bos(f->t), 5);
    assert_int_equal(tokenizer_eos(f->t), 6);
    assert_true(tokenizer_adds_bos(f->t));
    assert_true(tokenizer_is_end(f->t, 4));
    assert_true(tokenizer_is_end(f->t, 6));
    assert_false(tokenizer_is_end(f->t, 5));
    json_object_set_new(f->config, "add_bos_token", json_false());
    assert_int_equal(open_tokenizer(f), 0);
    assert_false(tokenizer_adds_bos(f->t));
}

static void J24_files_that_disagree_are_refused(void **state)
{
    struct fixture *f = *state;
    const char *config = "tokenizer_config.json";

    f->config = json_of("{'added_tokens_decoder':{'4':{'content':'<|eot|>'}}}");
    refused(f, "TOK12", config, "added_tokens_decoder");
    says(f, "'<|eot|>' is 4 here, but 5 in tokenizer.json");
    json_decref(f->config);
    f->config = json_of("{'added_tokens_decoder':{'9':{'content':'<y>'}}}");
    refused(f, "TOK12", config, "added_tokens_decoder");
    json_decref(f->config);
    f->config = json_of("{'eos_token':'<y>'}");
    refused(f, "TOK12", config, "eos_token");
    json_decref(f->config);
    f->config = json_of("{'eos_token':'<x>'}");
    f->map = json_of("{'eos_token':'<|eot|>'}");
    refused(f, "TOK12", "special_tokens_map.json", "eos_token");
    says(f, "'<|eot|>' here, but '<x>'");
}

static void J24_end_ids_must_be_tokens(void **state)
{
    struct fixture *f = *state;

    f->generation = json_of("{'eos_token_id':[6,7]}");
    refused(f, "TOK04", "generation_config.json", "eos_token_id");
    json_decref(f->generation);
    f->generation = json_of("{'eos_token_id':'<x>'}");
    refused(f, "TOK04", "generation_config.json", "eos_token_id");
}

static void a_folder_without_tokenizer_json_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_error(tokenizer_from_folder(&f->t, ARTEL_SOURCE "/tests/unit", &f->err),
                 ARTEL_EFORMAT, f->err, "TOK01");
    assert_null(f->t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unchanged_it_opens),
        TEST(merges_may_be_pairs),
        TEST(lower_ranks_merge_first_and_ignoring_merges_is_heeded),
        TEST(added_tokens_spelled_like_control_are_control),
        TEST(nfc_composes_where_asked),
        TEST(the_four_pre_tokenizers_are_recognised),
        TEST(J15_an_embedding_of_fewer_rows_is_refused),
        TEST(J16_ids_must_be_ids),
        TEST(J16_gaps_among_ids_are_no_tokens),
        TEST(J17_bad_merges_are_refused_by_number),
        TEST(J18_merge_longer_than_any_token_is_refused),
        TEST(J19_unknown_parts_are_refused_by_type),
        TEST(J19_known_parts_in_an_unknown_way_are_refused),
        TEST(J20_hostile_patterns_are_never_compiled),
        TEST(J21_added_tokens_must_not_conflict),
        TEST(J21_an_added_token_may_stand_in_the_vocabulary_too),
        TEST(J22_incomplete_byte_fallback_is_refused),
        TEST(J23_broken_tables_are_refused),
        TEST(the_other_files_name_the_special_tokens),
        TEST(J24_files_that_disagree_are_refused),
        TEST(J24_end_ids_must_be_tokens),
        TEST(a_folder_without_tokenizer_json_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
