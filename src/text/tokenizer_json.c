/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens and merges of tokenizer.json:
 *
 *     added_tokens  [{"id", "content", "special", ...}]  literal text
 *     model         {"type": "BPE", "vocab": {spelling: id}, "merges": [...]}
 *
 * An added token may stand in the vocabulary too, under the same id. Memory
 * follows the number of tokens: an id far above it is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "text/tokenizer_parts.h"

#define QUOTED 192

static const char *quote(char out[QUOTED], const json_t *text)
{
    return escape_text(out, QUOTED, json_string_value(text), json_string_length(text));
}

/* ID as an index below LIMIT. KEY and TEXT tell whose it is. */
static int check_id(size_t *out, const json_t *id, size_t limit, const char *key,
                    const char *text, struct artel_error *err)
{
    char quoted[QUOTED];
    json_int_t value;

    if (!json_is_integer(id))
        return error_set(err, ARTEL_EFORMAT, "TOK05", key,
                         "the id of '%s' is not an integer",
                         escape_text(quoted, sizeof(quoted), text, strlen(text)));
    value = json_integer_value(id);
    if (value < 0 || (unsigned long long)value >= limit)
        return error_set(err, ARTEL_EFORMAT, "TOK05", key,
                         "id %lld of '%s' is out of range for this many tokens",
                         (long long)value,
                         escape_text(quoted, sizeof(quoted), text, strlen(text)));
    *out = (size_t)value;
    return 0;
}

/* Fields of an added token that change what it matches. */
static int check_added(const json_t *token, size_t i, struct artel_error *err)
{
    static const char *const unsupported[] = {"single_word", "lstrip", "rstrip"};
    const json_t *content = json_object_get(token, "content");
    char where[48], quoted[QUOTED];

    snprintf(where, sizeof(where), "added_tokens[%zu]", i);
    if (!json_is_string(content))
        return error_set(err, ARTEL_EFORMAT, "TOK15", where,
                         "is not an object with a string 'content'");
    if (!json_string_length(content))
        return error_set(err, ARTEL_EFORMAT, "TOK09", where, "its content is empty");
    for (size_t k = 0; k < sizeof(unsupported) / sizeof(*unsupported); k++) {
        const json_t *flag = json_object_get(token, unsupported[k]);

        if (flag && !json_is_false(flag))
            return error_set(err, ARTEL_EFORMAT, "TOK09", where,
                             "'%s' has %s, which is not supported",
                             quote(quoted, content), unsupported[k]);
    }
    return 0;
}

/* Control is what the file calls special, and what is spelled like it: some files
 * forget to say so. */
static enum token_kind added_kind(const json_t *token)
{
    const json_t *content = json_object_get(token, "content");
    const char *text = json_string_value(content);
    const size_t n = json_string_length(content);

    if (json_is_true(json_object_get(token, "special")) ||
        text_ends_generation(text, n))
        return TOKEN_CONTROL;
    return n > 4 && !memcmp(text, "<|", 2) && !memcmp(text + n - 2, "|>", 2)
               ? TOKEN_CONTROL
               : TOKEN_USER;
}

/* One past the largest id, every id in range. */
static int count_ids(size_t *n_ids, const json_t *added, json_t *vocab,
                     struct artel_error *err)
{
    const size_t limit = 2 * (json_object_size(vocab) + json_array_size(added)) + 256;
    const char *text;
    json_t *value;
    size_t i, id = 0;
    int rc = 0;

    *n_ids = 0;
    json_array_foreach(added, i, value)
    {
        rc = check_added(value, i, err);
        if (rc == 0)
            rc = check_id(&id, json_object_get(value, "id"), limit, "added_tokens",
                          json_string_value(json_object_get(value, "content")), err);
        if (rc < 0)
            return rc;
        *n_ids = id >= *n_ids ? id + 1 : *n_ids;
    }
    json_object_foreach(vocab, text, value)
    {
        rc = check_id(&id, value, limit, "model.vocab", text, err);
        if (rc < 0)
            return rc;
        *n_ids = id >= *n_ids ? id + 1 : *n_ids;
    }
    return 0;
}

static int set_added(struct tokenizer *t, const json_t *added, const json_t *vocab,
                     struct artel_error *err)
{
    json_t *seen = json_object(), *value;
    char quoted[QUOTED];
    size_t i;
    int rc = seen ? 0 : error_nomem(err, 1);

    json_array_foreach(added, i, value)
    {
        const json_t *content = json_object_get(value, "content");
        const char *text = json_string_value(content);
        const json_int_t id = json_integer_value(json_object_get(value, "id"));
        const json_t *other = json_object_get(seen, text);

        if (rc < 0)
            break;
        if (!other)
            other = json_object_get(vocab, text);
        if (other && json_integer_value(other) != id)
            rc = error_set(err, ARTEL_EFORMAT, "TOK09", "added_tokens",
                           "'%s' has two ids, %lld and %lld", quote(quoted, content),
                           (long long)json_integer_value(other), (long long)id);
        else if (t->vocabulary.tokens[id].kind != TOKEN_ABSENT)
            rc = error_set(err, ARTEL_EFORMAT, "TOK09", "added_tokens",
                           "id %lld is given twice, the second time to '%s'",
                           (long long)id, quote(quoted, content));
        else if (json_object_set_new(seen, text, json_integer(id)) < 0)
            rc = error_nomem(err, 1);
        if (rc == 0)
            rc = vocabulary_set(&t->vocabulary, (size_t)id, text,
                                json_string_length(content), added_kind(value), true,
                                err);
    }
    json_decref(seen);
    return rc;
}

static int set_vocabulary(struct tokenizer *t, json_t *vocab, struct artel_error *err)
{
    struct vocabulary *v = &t->vocabulary;
    const char *text;
    json_t *value;

    json_object_foreach(vocab, text, value)
    {
        const size_t id = (size_t)json_integer_value(value), n = strlen(text);
        const struct token *token = &v->tokens[id];
        int rc;

        if (token->kind == TOKEN_ABSENT) {
            rc = vocabulary_set(v, id, text, n, TOKEN_NORMAL, false, err);
            if (rc < 0)
                return rc;
        } else if (token->kind == TOKEN_NORMAL || token->length != n ||
                   memcmp(v->bytes + token->start, text, n)) {
            char quoted[QUOTED];

            return error_set(err, ARTEL_EFORMAT, "TOK05", "model.vocab",
                             "id %zu is given twice, once to '%s'", id,
                             escape_text(quoted, sizeof(quoted), text, n));
        }
    }
    return vocabulary_index(v, err);
}

/* The two parts of "left right" or ["left", "right"]; false: it is neither. */
static bool split_merge(const json_t *merge, const char **left, size_t *n_left,
                        const char **right, size_t *n_right)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        const size_t n = json_string_length(merge);
        const char *space = n > 1 ? memchr(text + 1, ' ', n - 1) : NULL;

        if (!space)
            return false;
        *left = text;
        *n_left = (size_t)(space - text);
        *right = space + 1;
        *n_right = n - *n_left - 1;
        return true;
    }
    if (json_array_size(merge) != 2 || !json_is_string(json_array_get(merge, 0)) ||
        !json_is_string(json_array_get(merge, 1)))
        return false;
    *left = json_string_value(json_array_get(merge, 0));
    *n_left = json_string_length(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    *n_right = json_string_length(json_array_get(merge, 1));
    return true;
}

static int read_merges(struct tokenizer *t, const json_t *merges,
                       struct artel_error *err)
{
    json_t *merge;
    size_t i;

    if (!json_is_array(merges))
        return error_set(err, ARTEL_EFORMAT, "TOK15", "model.merges",
                         "is missing or not an array");
    json_array_foreach(merges, i, merge)
    {
        const char *left, *right;
        size_t n_left, n_right;
        char where[48];
        int rc;

        if (!split_merge(merge, &left, &n_left, &right, &n_right)) {
            snprintf(where, sizeof(where), "model.merges[%zu]", i);
            return error_set(err, ARTEL_EFORMAT, "TOK06", where,
                             "merge %zu is neither \"left right\" nor two strings", i);
        }
        rc = vocabulary_add_merge(&t->vocabulary, "model.merges", i, left, n_left,
                                  right, n_right, err);
        if (rc < 0)
            return rc;
    }
    return vocabulary_index_merges(&t->vocabulary, err);
}

/* Fields of the model that change ids and that we do not have. */
static int check_model(const json_t *model, struct artel_error *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix",
                                          "end_of_word_suffix"};
    const json_t *type = json_object_get(model, "type");
    const json_t *dropout = json_object_get(model, "dropout");
    char quoted[QUOTED];

    if (!json_is_object(model))
        return error_set(err, ARTEL_EFORMAT, "TOK15", "model",
                         "is missing or not an object");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE")))
        return error_set(err, ARTEL_EFORMAT, "TOK07", "model",
                         "type '%s' is not supported; 'BPE' is",
                         json_is_string(type) ? quote(quoted, type) : "");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return error_set(err, ARTEL_EFORMAT, "TOK07", "model.dropout",
                         "is not supported");
    for (size_t i = 0; i < 2; i++) {
        const json_t *affix = json_object_get(model, affixes[i]);

        if (affix && !json_is_null(affix) && json_string_length(affix))
            return error_set(err, ARTEL_EFORMAT, "TOK07", "model",
                             "%s is not supported", affixes[i]);
    }
    if (!json_is_object(json_object_get(model, "vocab")))
        return error_set(err, ARTEL_EFORMAT, "TOK15", "model.vocab",
                         "is missing or not an object");
    return 0;
}

/* With byte_fallback all of <0x00> to <0xFF> must be there. They are never used here:
 * every byte then has its byte-level token too. */
static int check_fallback(const struct tokenizer *t, const json_t *model,
                          struct artel_error *err)
{
    const json_t *vocab = json_object_get(model, "vocab");
    char missing[160] = "";
    size_t n_missing = 0, used = 0;

    if (!json_is_true(json_object_get(model, "byte_fallback")))
        return 0;
    for (unsigned b = 0; b < 256; b++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", b);
        if (json_object_get(vocab, name) && t->vocabulary.byte_id[b] >= 0)
            continue;
        if (used + sizeof(name) + 2 < sizeof(missing))
            used +=
                (size_t)snprintf(missing + used, sizeof(missing) - used, " %s", name);
        n_missing++;
    }
    if (!n_missing)
        return 0;
    return error_set(err, ARTEL_EFORMAT, "TOK10", "model.byte_fallback",
                     "%zu of 256 bytes have no token:%s", n_missing, missing);
}

int read_model(struct tokenizer *t, const json_t *root, struct artel_error *err)
{
    const json_t *model = json_object_get(root, "model");
    const json_t *added = json_object_get(root, "added_tokens");
    json_t *vocab;
    size_t n_ids = 0;
    int rc;

    rc = check_model(model, err);
    if (rc == 0 && added && !json_is_array(added))
        rc = error_set(err, ARTEL_EFORMAT, "TOK15", "added_tokens", "is not an array");
    if (rc < 0)
        return rc;
    vocab = json_object_get(model, "vocab");
    rc = count_ids(&n_ids, added, vocab, err);
    if (rc == 0)
        rc = vocabulary_init(&t->vocabulary, n_ids, err);
    if (rc == 0)
        rc = set_added(t, added, vocab, err);
    if (rc == 0)
        rc = set_vocabulary(t, vocab, err);
    if (rc == 0)
        rc = check_fallback(t, model, err);
    if (rc == 0)
        rc = read_merges(t, json_object_get(model, "merges"), err);
    if (rc == 0)
        rc = json_want_bool(model, "ignore_merges", &t->ignore_merges, err);
    return rc;
}
