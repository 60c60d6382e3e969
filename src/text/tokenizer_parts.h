/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a tokenizer is made of, for the files that read one. A reader fills a
 * zeroed struct from its source, tokenizer_complete() checks and finishes it.
 */
#ifndef ARTEL_TEXT_TOKENIZER_PARTS_H
#define ARTEL_TEXT_TOKENIZER_PARTS_H

#include <jansson.h>

#include "text/pretokenizer.h"
#include "text/specials.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

struct tokenizer {
    struct vocabulary vocabulary;
    struct specials specials;
    enum pretokenizer_kind kind;
    struct pretokenizer *pretokenizer;
    bool ignore_merges; /* a piece that is a token is that token */
    bool nfc;           /* text is composed first, as tokenizer.json asks */
    bool adds_bos;
    int32_t bos, eos; /* -1: none */
    bool *ends;       /* (n_tokens) ends a generation */
};

/* Indexes, pattern, end tokens by their spelling. KIND, merges and ids are set. */
int tokenizer_complete(struct tokenizer *t, struct artel_error *err);

/* Control tokens that end a generation, by their text. */
bool text_ends_generation(const char *text, size_t n);

/* ID names a special token in KEY: it must be a token (TOK04). */
int tokenizer_check_id(const struct tokenizer *t, const char *key, int64_t id,
                       struct artel_error *err);

/* A JSON file that may be absent (ROOT is NULL then). */
struct json_source {
    const json_t *root;
    const char *path; /* for messages */
};

/* The files of a Hugging Face folder that say something about tokens. */
struct tokenizer_files {
    struct json_source tokenizer;   /* tokenizer.json; never absent */
    struct json_source config;      /* tokenizer_config.json */
    struct json_source special_map; /* special_tokens_map.json */
    struct json_source generation;  /* generation_config.json */
};

int tokenizer_from_files(struct tokenizer **out, const struct tokenizer_files *f,
                         struct artel_error *err);

/* tokenizer_json.c: the vocabulary and merges of ROOT into T. */
int read_model(struct tokenizer *t, const json_t *root, struct artel_error *err);
/* tokenizer_pipeline.c: normalizer to padding. *BOS_NAME is the token that the
 * post-processor puts first (borrowed), or NULL. */
int read_pipeline(struct tokenizer *t, const json_t *root, const char **bos_name,
                  struct artel_error *err);
/* The pre_tokenizer of tokenizer.json that KIND is read from, a new reference. */
json_t *pre_tokenizer_new(enum pretokenizer_kind kind);

/* tokenizer_folder.c: bos, eos, end tokens, agreement of the files. */
int read_special_names(struct tokenizer *t, const struct tokenizer_files *f,
                       const char *bos_name, struct artel_error *err);

#endif
