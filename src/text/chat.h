/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model's own chat template: a Jinja template in the subset that published
 * templates use, rendered with a mark on every byte that came from a message.
 */
#ifndef ARTEL_TEXT_CHAT_H
#define ARTEL_TEXT_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "files/digest.h"

struct artel_error;
struct weights;
struct chat_template;

/* From GGUF metadata, chat_template.jinja or tokenizer_config.json. A model without
 * one gives *OUT = NULL and 0. A template that does not parse: ARTEL_EFORMAT, line:column. */
int chat_open(struct chat_template **out, const struct weights *w,
              struct artel_error *err);
int chat_parse(struct chat_template **out, const char *source, size_t n,
               const char *name, struct artel_error *err);
void chat_close(struct chat_template *t);

/* A rendered text and where each byte is from. */
struct rendered {
    char *text;          /* (n) terminated too; owned */
    unsigned char *mask; /* (n) 1: the template wrote it, 0: message content; owned */
    size_t n;
    /* Bytes pool_first .. pool_end-1 span the content of the last user message;
     * equal where there is none in the text. */
    size_t pool_first, pool_end;
};
void rendered_release(struct rendered *r);

/*
 * Strings of messages, tools and EXTRA are content; of a message's role only names
 * that no one can abuse (user, assistant, system, tool, ...) count as the template's.
 * MESSAGES is a JSON array of {"role", "content", ...}; TOOLS an array or NULL;
 * EXTRA an object of further variables or NULL (bos_token and eos_token are set
 * from BOS and EOS, which may be NULL). Step and output limits: ARTEL_EFORMAT.
 */
int chat_render(const struct chat_template *t, struct rendered *out,
                const json_t *messages, const json_t *tools, const json_t *extra,
                bool add_generation_prompt, const char *bos, const char *eos,
                struct artel_error *err);

void chat_digest(const struct chat_template *t,
                 char out[DIGEST_SIZE]); /* t may be NULL */

#endif
