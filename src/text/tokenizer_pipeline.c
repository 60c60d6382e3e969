/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps round the model in tokenizer.json, recognised by their structure:
 *
 *     normalizer      none or NFC
 *     pre_tokenizer   stages that together are one of the four known
 *     post_processor  ByteLevel (offsets only), or a template that puts BOS first
 *     decoder         ByteLevel
 *     truncation      checked and else ignored, as padding is
 *
 * Anything else is refused by the name of its type: it would change ids.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "text/tokenizer_parts.h"

#define QUOTED     192
#define MAX_STAGES 4

/* What a pre-tokenizer does to the text, one after the other. */
enum stage { STAGE_NUMBER, STAGE_GPT2, STAGE_LLAMA3, STAGE_QWEN2, STAGE_BYTES };

#define MODERN(ends, number)                                                           \
    ends "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" number                                      \
         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define FOLDED  "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPELLED "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define PUBLISHED                                                                      \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"

/* Patterns as published files spell them. */
static const struct {
    const char *pattern;
    enum stage stage;
} known_patterns[] = {
    {"\\p{N}", STAGE_NUMBER},
    {PUBLISHED, STAGE_GPT2},
    {PUBLISHED "|\\s+", STAGE_GPT2},
    {MODERN(FOLDED, "\\p{N}{1,3}"), STAGE_LLAMA3},
    {MODERN(SPELLED, "\\p{N}{1,3}"), STAGE_LLAMA3},
    {MODERN(FOLDED, "\\p{N}"), STAGE_QWEN2},
    {MODERN(SPELLED, "\\p{N}"), STAGE_QWEN2},
};

/* What the walk over a step's parts gathers. */
struct walk {
    const char *key;  /* "pre_tokenizer" */
    const char *list; /* where a Sequence of this step has its parts */
    enum stage stages[MAX_STAGES];
    size_t n_stages;
    struct tokenizer *t;
    const char *bos_name;
};

typedef int part_reader(struct walk *w, const json_t *part, const char *type,
                        struct artel_error *err);

static int refuse_type(const struct walk *w, const char *type, struct artel_error *err)
{
    char quoted[QUOTED];

    return error_set(err, ARTEL_EFORMAT, "TOK07", w->key, "type '%s' is not supported",
                     escape_text(quoted, sizeof(quoted), type, strlen(type)));
}

/* READ each part of NODE, which may be null, one part or a Sequence of them. The
 * depth is that of the JSON, which is bounded. */
static int walk_parts(struct walk *w, const json_t *node, part_reader *read,
                      struct artel_error *err)
{
    const char *type = json_string_value(json_object_get(node, "type"));
    json_t *part;
    size_t i;

    if (!node || json_is_null(node))
        return 0;
    if (!type)
        return error_set(err, ARTEL_EFORMAT, "TOK15", w->key, "has no type");
    if (strcmp(type, "Sequence"))
        return read(w, node, type, err);
    if (!json_is_array(json_object_get(node, w->list)))
        return error_set(err, ARTEL_EFORMAT, "TOK15", w->key,
                         "a Sequence has no array '%s'", w->list);
    json_array_foreach(json_object_get(node, w->list), i, part)
    {
        const int rc = walk_parts(w, part, read, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_normalizer(struct walk *w, const json_t *part, const char *type,
                           struct artel_error *err)
{
    (void)part;
    if (strcmp(type, "NFC"))
        return refuse_type(w, type, err);
    w->t->nfc = true;
    return 0;
}

static int read_decoder(struct walk *w, const json_t *part, const char *type,
                        struct artel_error *err)
{
    (void)part;
    return strcmp(type, "ByteLevel") ? refuse_type(w, type, err) : 0;
}

static int add_stage(struct walk *w, enum stage stage, struct artel_error *err)
{
    if (w->n_stages == MAX_STAGES)
        return error_set(err, ARTEL_EFORMAT, "TOK07", w->key,
                         "a Sequence of more than %d parts is not supported",
                         MAX_STAGES);
    w->stages[w->n_stages++] = stage;
    return 0;
}

static int read_split(struct walk *w, const json_t *part, struct artel_error *err)
{
    const json_t *pattern = json_object_get(json_object_get(part, "pattern"), "Regex");
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    const bool invert = json_is_true(json_object_get(part, "invert"));
    char quoted[QUOTED];

    if (!json_is_string(pattern))
        return error_set(err, ARTEL_EFORMAT, "TOK07", w->key,
                         "a Split without a Regex is not supported");
    for (size_t i = 0; i < sizeof(known_patterns) / sizeof(*known_patterns); i++) {
        const enum stage stage = known_patterns[i].stage;

        if (strcmp(json_string_value(pattern), known_patterns[i].pattern))
            continue;
        /* Those that match all text may be written as removing what does not match. */
        if (behavior &&
            ((!invert && !strcmp(behavior, "Isolated")) ||
             (invert && stage != STAGE_NUMBER && !strcmp(behavior, "Removed"))))
            return add_stage(w, stage, err);
        return error_set(
            err, ARTEL_EFORMAT, "TOK07", w->key,
            "a Split with behavior '%s'%s is not supported",
            behavior ? escape_text(quoted, sizeof(quoted), behavior, strlen(behavior))
                     : "",
            invert ? ", inverted," : "");
    }
    return error_set(err, ARTEL_EFORMAT, "TOK08", w->key,
                     "the pattern '%s' (%zu bytes) is none of the known ones",
                     escape_text(quoted, 128, json_string_value(pattern),
                                 json_string_length(pattern)),
                     json_string_length(pattern));
}

static int read_pre_tokenizer(struct walk *w, const json_t *part, const char *type,
                              struct artel_error *err)
{
    bool use_regex = true;
    int rc;

    if (!strcmp(type, "Split"))
        return read_split(w, part, err);
    if (!strcmp(type, "Digits")) {
        if (!json_is_true(json_object_get(part, "individual_digits")))
            return error_set(err, ARTEL_EFORMAT, "TOK07", w->key,
                             "Digits without individual_digits is not supported");
        return add_stage(w, STAGE_NUMBER, err);
    }
    if (strcmp(type, "ByteLevel"))
        return refuse_type(w, type, err);
    if (!json_is_false(json_object_get(part, "add_prefix_space")))
        return error_set(err, ARTEL_EFORMAT, "TOK07", w->key,
                         "ByteLevel is supported with add_prefix_space false only");
    rc = json_want_bool(part, "use_regex", &use_regex, err);
    if (rc == 0 && use_regex)
        rc = add_stage(w, STAGE_GPT2, err);
    return rc == 0 ? add_stage(w, STAGE_BYTES, err) : rc;
}

json_t *pre_tokenizer_new(enum pretokenizer_kind kind)
{
    const bool modern = kind == PRETOKENIZER_LLAMA3 || kind == PRETOKENIZER_QWEN2;
    json_t *list = json_array();

    if (kind == PRETOKENIZER_SMOLLM)
        json_array_append_new(
            list, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    if (modern)
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type",
                                              "Split", "pattern", "Regex",
                                              kind == PRETOKENIZER_LLAMA3
                                                  ? MODERN(FOLDED, "\\p{N}{1,3}")
                                                  : MODERN(FOLDED, "\\p{N}"),
                                              "behavior", "Isolated", "invert", 0));
    json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel",
                                          "add_prefix_space", 0, "trim_offsets", 1,
                                          "use_regex", (int)!modern));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

/* The stages must be exactly those of a known pre-tokenizer. */
static int choose_kind(struct walk *w, struct artel_error *err)
{
    static const struct {
        enum stage stages[3];
        size_t n;
        enum pretokenizer_kind kind;
    } known[] = {
        {{STAGE_GPT2, STAGE_BYTES}, 2, PRETOKENIZER_GPT2},
        {{STAGE_NUMBER, STAGE_GPT2, STAGE_BYTES}, 3, PRETOKENIZER_SMOLLM},
        {{STAGE_LLAMA3, STAGE_BYTES}, 2, PRETOKENIZER_LLAMA3},
        {{STAGE_QWEN2, STAGE_BYTES}, 2, PRETOKENIZER_QWEN2},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (known[i].n == w->n_stages &&
            !memcmp(known[i].stages, w->stages, w->n_stages * sizeof(*w->stages))) {
            w->t->kind = known[i].kind;
            return 0;
        }
    return error_set(
        err, ARTEL_EFORMAT, "TOK07", w->key,
        "its %zu stages are not those of gpt-2, smollm, llama-bpe or qwen2",
        w->n_stages);
}

/* "single" of a template: at most one special token, then the sequence A. */
static int read_template(struct walk *w, const json_t *part, struct artel_error *err)
{
    const json_t *single = json_object_get(part, "single");
    const json_t *tokens = json_object_get(part, "special_tokens");
    const size_t n = json_array_size(single);
    const json_t *first = json_object_get(json_array_get(single, 0), "SpecialToken");
    const json_t *last = json_object_get(json_array_get(single, n - 1), "Sequence");
    const char *name = json_string_value(json_object_get(first, "id"));
    const json_t *ids, *id;
    char quoted[QUOTED];

    if (n < 1 || n > 2 || !last || (n == 2 && !name))
        return error_set(err, ARTEL_EFORMAT, "TOK07", w->key,
                         "a template other than one token before the text is not "
                         "supported");
    if (n == 1)
        return 0;
    ids = json_object_get(json_object_get(tokens, name), "ids");
    id = json_array_get(ids, 0);
    if (json_array_size(ids) != 1 || !json_is_integer(id) ||
        json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
        return error_set(err, ARTEL_EFORMAT, "TOK11", w->key,
                         "special_tokens gives no single id for '%s' of the template",
                         escape_text(quoted, sizeof(quoted), name, strlen(name)));
    w->bos_name = name;
    w->t->bos = (int32_t)json_integer_value(id);
    w->t->adds_bos = true;
    return 0;
}

static int read_post_processor(struct walk *w, const json_t *part, const char *type,
                               struct artel_error *err)
{
    if (!strcmp(type, "ByteLevel"))
        return 0;
    return strcmp(type, "TemplateProcessing") ? refuse_type(w, type, err)
                                              : read_template(w, part, err);
}

/* Lengths that a caller may set anew; broken ones tell of a broken file. */
static int check_lengths(const json_t *root, struct artel_error *err)
{
    const json_t *truncation = json_object_get(root, "truncation");
    const json_t *padding = json_object_get(root, "padding");
    const json_t *fixed =
        json_object_get(json_object_get(padding, "strategy"), "Fixed");

    if (truncation && !json_is_null(truncation)) {
        const json_t *length = json_object_get(truncation, "max_length");
        const json_t *stride = json_object_get(truncation, "stride");

        if (!json_is_integer(length) || json_integer_value(length) < 1)
            return error_set(err, ARTEL_EFORMAT, "TOK11", "truncation.max_length",
                             "is not a positive integer");
        if (stride && (!json_is_integer(stride) || json_integer_value(stride) < 0 ||
                       json_integer_value(stride) >= json_integer_value(length)))
            return error_set(err, ARTEL_EFORMAT, "TOK11", "truncation.stride",
                             "%lld is not below the length, %lld",
                             (long long)json_integer_value(stride),
                             (long long)json_integer_value(length));
    }
    if (fixed && (!json_is_integer(fixed) || json_integer_value(fixed) < 1))
        return error_set(err, ARTEL_EFORMAT, "TOK11", "padding.strategy",
                         "the fixed length is not a positive integer");
    return 0;
}

int read_pipeline(struct tokenizer *t, const json_t *root, const char **bos_name,
                  struct artel_error *err)
{
    struct walk steps[] = {
        {.key = "normalizer", .list = "normalizers", .t = t},
        {.key = "pre_tokenizer", .list = "pretokenizers", .t = t},
        {.key = "post_processor", .list = "processors", .t = t},
        {.key = "decoder", .list = "decoders", .t = t},
    };
    part_reader *const readers[] = {read_normalizer, read_pre_tokenizer,
                                    read_post_processor, read_decoder};
    int rc = check_lengths(root, err);

    for (size_t i = 0; i < 4 && rc == 0; i++)
        rc =
            walk_parts(&steps[i], json_object_get(root, steps[i].key), readers[i], err);
    if (rc == 0)
        rc = choose_kind(&steps[1], err);
    *bos_name = steps[2].bos_name;
    return rc;
}
