/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tokenizer from GGUF metadata as the files of a Hugging Face folder.
 */
#ifndef ARTEL_TEXT_TOKENIZER_EXPORT_H
#define ARTEL_TEXT_TOKENIZER_EXPORT_H

#include <jansson.h>

struct artel_error;
struct gguf;
struct tokenizer;

/* tokenizer.json, a new reference. T was read from G. ARTEL_EFORMAT (TOK16) where JSON
 * cannot spell a token. */
int tokenizer_json_new(json_t **out, const struct tokenizer *t, const struct gguf *g,
                       struct artel_error *err);
/* tokenizer_config.json with the chat template, where there is one. */
int tokenizer_config_new(json_t **out, const struct tokenizer *t, const struct gguf *g,
                         size_t context, struct artel_error *err);

#endif
