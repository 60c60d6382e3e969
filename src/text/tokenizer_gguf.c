/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tokenizer from GGUF metadata:
 *
 *     tokenizer.ggml.model       "gpt2" is byte-level BPE, all that is read here
 *     tokenizer.ggml.pre         name of the pre-tokenizer
 *     tokenizer.ggml.tokens      spellings by id
 *     tokenizer.ggml.token_type  1 normal 2 unknown 3 control 4 user 5 unused 6 byte
 *     tokenizer.ggml.merges      "left right" by rank
 *     tokenizer.ggml.*_token_id  bos eos eot eom
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/gguf.h"
#include "text/tokenizer_parts.h"

#define KEY(name) "tokenizer.ggml." name

/* The array KEY with elements OF and, where N is not NULL, *N of them. */
static int need_array(struct gguf_value *out, const struct gguf *g, const char *key,
                      enum gguf_kind of, const size_t *n, struct artel_error *err)
{
    *out = gguf_get(g, key);
    if (out->kind == GGUF_ABSENT)
        return error_set(err, ARTEL_EFORMAT, "TOK01", key, "there is no such key");
    if (out->kind != GGUF_ARRAY || (out->length && out->of != of))
        return error_set(err, ARTEL_EFORMAT, "TOK01", key, "is not an array of %s",
                         of == GGUF_STRING ? "strings"
                         : of == GGUF_INT  ? "integers"
                                           : "floats");
    if (n && out->length != *n)
        return error_set(err, ARTEL_EFORMAT, "TOK03", key,
                         "has %zu elements, but there are %zu tokens", out->length, *n);
    return 0;
}

/* Kind of a token from its type number; absent types mean normal. */
static int kind_of(enum token_kind *kind, int64_t type, const char *text, size_t n,
                   size_t id, struct artel_error *err)
{
    char where[64];

    if (type < 0 || type > 6) {
        snprintf(where, sizeof(where), KEY("token_type") "[%zu]", id);
        return error_set(err, ARTEL_EFORMAT, "TOK14", where,
                         "type %lld is not one of 1 to 6", (long long)type);
    }
    *kind = type == 2 || type == 3 ? TOKEN_CONTROL
            : type == 4            ? TOKEN_USER
                                   : TOKEN_NORMAL;
    /* Some files forget the type of the token that ends a turn. */
    if (text_ends_generation(text, n))
        *kind = TOKEN_CONTROL;
    return 0;
}

static int read_tokens(struct tokenizer *t, const struct gguf *g,
                       struct artel_error *err)
{
    struct gguf_value tokens, types = {0}, token, type;
    size_t at = 0, type_at = 0;
    int rc;

    rc = need_array(&tokens, g, KEY("tokens"), GGUF_STRING, NULL, err);
    if (rc == 0 && gguf_get(g, KEY("token_type")).kind != GGUF_ABSENT)
        rc = need_array(&types, g, KEY("token_type"), GGUF_INT, &tokens.length, err);
    if (rc == 0 && gguf_get(g, KEY("scores")).kind != GGUF_ABSENT)
        rc = need_array(&token, g, KEY("scores"), GGUF_FLOAT, &tokens.length, err);
    if (rc == 0)
        rc = vocabulary_init(&t->vocabulary, tokens.length, err);
    for (size_t id = 0; rc == 0 && gguf_next(&tokens, &at, &token); id++) {
        enum token_kind kind = TOKEN_NORMAL;
        bool literal;

        if (types.kind == GGUF_ARRAY && !gguf_next(&types, &type_at, &type))
            return error_set(err, ARTEL_EFORMAT, "TOK03", KEY("token_type"),
                             "ends at %zu", id);
        rc = kind_of(&kind, types.kind == GGUF_ARRAY ? type.i : 1, token.text,
                     token.length, id, err);
        literal = kind != TOKEN_NORMAL;
        if (rc == 0)
            rc = vocabulary_set(&t->vocabulary, id, token.text, token.length, kind,
                                literal, err);
    }
    if (rc == 0)
        rc = vocabulary_index(&t->vocabulary, err);
    if (rc < 0 && err && !err->where[0])
        snprintf(err->where, sizeof(err->where), KEY("tokens"));
    return rc;
}

static int read_merges(struct tokenizer *t, const struct gguf *g,
                       struct artel_error *err)
{
    struct gguf_value merges, merge;
    size_t at = 0;
    int rc;

    rc = need_array(&merges, g, KEY("merges"), GGUF_STRING, NULL, err);
    for (size_t i = 0; rc == 0 && gguf_next(&merges, &at, &merge); i++) {
        const char *space =
            merge.length > 1 ? memchr(merge.text + 1, ' ', merge.length - 1) : NULL;
        size_t n_left;

        if (!space) {
            char where[64], quoted[192];

            snprintf(where, sizeof(where), KEY("merges") "[%zu]", i);
            return error_set(
                err, ARTEL_EFORMAT, "TOK06", where,
                "merge %zu: '%s' has no space between two parts", i,
                escape_text(quoted, sizeof(quoted), merge.text, merge.length));
        }
        n_left = (size_t)(space - merge.text);
        rc = vocabulary_add_merge(&t->vocabulary, KEY("merges"), i, merge.text, n_left,
                                  space + 1, merge.length - n_left - 1, err);
    }
    return rc == 0 ? vocabulary_index_merges(&t->vocabulary, err) : rc;
}

/* The id in KEY into *ID, which keeps its value where there is no such key. */
static int read_id(const struct tokenizer *t, const struct gguf *g, const char *key,
                   int32_t *id, struct artel_error *err)
{
    const struct gguf_value value = gguf_get(g, key);
    int rc;

    if (value.kind == GGUF_ABSENT)
        return 0;
    if (value.kind != GGUF_INT)
        return error_set(err, ARTEL_EFORMAT, "TOK01", key, "is not an integer");
    /* Converters write 2^32 - 1 for "none". */
    if (value.i == -1 || value.i == UINT32_MAX) {
        *id = -1;
        return 0;
    }
    rc = tokenizer_check_id(t, key, value.i, err);
    if (rc == 0)
        *id = (int32_t)value.i;
    return rc;
}

static int read_ids(struct tokenizer *t, const struct gguf *g, struct artel_error *err)
{
    const int32_t none = t->vocabulary.n_tokens > 11 ? 11 : -1;
    int32_t others[2] = {-1, -1};
    int rc;

    t->bos = t->eos = none; /* what the reference takes for byte-level BPE */
    rc = read_id(t, g, KEY("bos_token_id"), &t->bos, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("eos_token_id"), &t->eos, err);
    if (rc == 0)
        rc = read_id(t, g, KEY("eot_token_id"), &others[0], err);
    if (rc == 0)
        rc = read_id(t, g, KEY("eom_token_id"), &others[1], err);
    if (rc == 0)
        rc = gguf_want_bool(g, KEY("add_bos_token"), &t->adds_bos, err);
    if (rc == 0 && t->adds_bos && t->bos < 0)
        rc = error_set(err, ARTEL_EFORMAT, "TOK04", KEY("add_bos_token"),
                       "is true, but there is no bos_token_id");
    if (rc == 0)
        rc = tokenizer_complete(t, err);
    for (size_t i = 0; i < 2 && rc == 0; i++)
        if (others[i] >= 0)
            t->ends[others[i]] = true;
    return rc;
}

static int read_kind(struct tokenizer *t, const struct gguf *g, struct artel_error *err)
{
    const struct gguf_value model = gguf_get(g, KEY("model"));
    const struct gguf_value pre = gguf_get(g, KEY("pre"));
    const struct pretokenizer_alias *alias;
    char quoted[192];

    if (model.kind != GGUF_STRING)
        return error_set(err, ARTEL_EFORMAT, "TOK01", KEY("model"),
                         "there is no such string: the file holds no tokenizer");
    if (model.length != 4 || memcmp(model.text, "gpt2", 4))
        return error_set(err, ARTEL_EFORMAT, "TOK01", KEY("model"),
                         "'%s' is not supported; 'gpt2' (byte-level BPE) is",
                         escape_text(quoted, sizeof(quoted), model.text, model.length));
    alias = pre.kind == GGUF_STRING ? pretokenizer_alias(pre.text, pre.length) : NULL;
    if (!alias)
        return error_set(
            err, ARTEL_EFORMAT, "TOK02", KEY("pre"),
            "'%s' is not one of gpt-2, smollm, llama-bpe, qwen2 and their aliases",
            pre.kind == GGUF_STRING
                ? escape_text(quoted, sizeof(quoted), pre.text, pre.length)
                : "");
    t->kind = alias->kind;
    t->ignore_merges = alias->ignore_merges;
    t->adds_bos = alias->adds_bos;
    return 0;
}

int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g,
                        struct artel_error *err)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    int rc;

    *out = NULL;
    if (!t)
        return error_nomem(err, sizeof(*t));
    rc = read_kind(t, g, err);
    if (rc == 0)
        rc = read_tokens(t, g, err);
    if (rc == 0)
        rc = read_merges(t, g, err);
    if (rc == 0)
        rc = read_ids(t, g, err);
    if (rc < 0) {
        tokenizer_close(t);
        return error_in(err, rc, gguf_path(g));
    }
    *out = t;
    return 0;
}
