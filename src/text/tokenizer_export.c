/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens and merges stand in GGUF as tokenizer.json spells them; the steps round them
 * follow from the pre-tokenizer's name. Read back, the files give the same tokenizer.
 */
#include "text/tokenizer_export.h"

#include <stdio.h>

#include "base/error.h"
#include "files/gguf.h"
#include "text/tokenizer_parts.h"

static json_t *added_new(const struct tokenizer *t, int32_t id)
{
    size_t n;
    const char *piece = tokenizer_piece(t, id, &n);
    const int special = t->vocabulary.tokens[id].kind == TOKEN_CONTROL;

    return json_pack("{s:i, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content",
                     piece, n, "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized",
                     0, "special", special);
}

static json_t *all_added_new(const struct tokenizer *t)
{
    json_t *list = json_array();

    for (size_t id = 0; list && id < t->vocabulary.n_tokens; id++) {
        const uint8_t kind = t->vocabulary.tokens[id].kind;

        if ((kind == TOKEN_CONTROL || kind == TOKEN_USER) &&
            json_array_append_new(list, added_new(t, (int32_t)id))) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* {spelling: id} of every token. */
static int vocab_new(json_t **out, const struct gguf *g, struct artel_error *err)
{
    const struct gguf_value tokens = gguf_get(g, "tokenizer.ggml.tokens");
    struct gguf_value token;
    size_t at = 0;
    char where[64];

    *out = json_object();
    for (size_t id = 0; *out && gguf_next(&tokens, &at, &token); id++) {
        snprintf(where, sizeof(where), "tokenizer.ggml.tokens[%zu]", id);
        if (json_object_setn_new(*out, token.text, token.length,
                                 json_integer((json_int_t)id)))
            return error_set(err, ARTEL_EFORMAT, "TOK16", where,
                             "JSON cannot spell this token");
    }
    return *out ? 0 : error_nomem(err, 0);
}

static json_t *merges_new(const struct gguf *g)
{
    const struct gguf_value merges = gguf_get(g, "tokenizer.ggml.merges");
    struct gguf_value merge;
    json_t *list = json_array();
    size_t at = 0;

    while (list && gguf_next(&merges, &at, &merge))
        if (json_array_append_new(list, json_stringn(merge.text, merge.length))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

/* What puts BOS first, or null. */
static json_t *post_processor_new(const struct tokenizer *t)
{
    size_t n;
    const char *bos = t->adds_bos ? tokenizer_piece(t, t->bos, &n) : NULL;

    if (!bos)
        return json_null();
    return json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                     " s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}, {s:{s:s, s:i}}],"
                     " s:{s:{s:s, s:[i], s:[s]}}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", bos,
                     "type_id", 0, "Sequence", "id", "A", "type_id", 0, "pair",
                     "SpecialToken", "id", bos, "type_id", 0, "Sequence", "id", "A",
                     "type_id", 0, "Sequence", "id", "B", "type_id", 1,
                     "special_tokens", bos, "id", bos, "ids", (int)t->bos, "tokens",
                     bos);
}

int tokenizer_json_new(json_t **out, const struct tokenizer *t, const struct gguf *g,
                       struct artel_error *err)
{
    json_t *vocab, *model;
    int rc = vocab_new(&vocab, g, err);

    *out = NULL;
    if (rc < 0) {
        json_decref(vocab);
        return rc;
    }
    model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type",
                      "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                      "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                      "ignore_merges", (int)t->ignore_merges, "vocab", vocab, "merges",
                      merges_new(g));
    *out = json_pack(
        "{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:{s:s, s:b, s:b, s:b}, s:o}", "version",
        "1.0", "truncation", "padding", "added_tokens", all_added_new(t), "normalizer",
        "pre_tokenizer", pre_tokenizer_new(t->kind), "post_processor",
        post_processor_new(t), "decoder", "type", "ByteLevel", "add_prefix_space", 1,
        "trim_offsets", 1, "use_regex", 1, "model", model);
    return *out ? 0
                : error_set(err, ARTEL_EFORMAT, "TOK16", NULL,
                            "no memory, or JSON cannot spell a token");
}

static int set_token(json_t *root, const char *key, const struct tokenizer *t,
                     int32_t id)
{
    size_t n;
    const char *piece = id >= 0 ? tokenizer_piece(t, id, &n) : NULL;

    return piece ? json_object_set_new(root, key, json_stringn(piece, n)) : 0;
}

int tokenizer_config_new(json_t **out, const struct tokenizer *t, const struct gguf *g,
                         size_t context, struct artel_error *err)
{
    const struct gguf_value chat = gguf_get(g, "tokenizer.chat_template");
    json_t *root =
        json_pack("{s:s, s:I, s:b, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                  "model_max_length", (json_int_t)context,
                  "clean_up_tokenization_spaces", 0, "add_bos_token", (int)t->adds_bos);
    int failed = !root || set_token(root, "bos_token", t, t->bos) ||
                 set_token(root, "eos_token", t, t->eos);

    if (!failed && chat.kind == GGUF_STRING)
        failed = json_object_set_new(root, "chat_template",
                                     json_stringn(chat.text, chat.length));
    *out = root;
    if (!failed)
        return 0;
    json_decref(root);
    *out = NULL;
    return error_set(err, ARTEL_EFORMAT, "TOK16", NULL,
                     "no memory, or a token or template that JSON cannot spell");
}
