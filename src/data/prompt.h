/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation as the token ids a model answers to, tokenised as in training:
 * chat, serving and evaluation call this, so that a router sees the same pool.
 */
#ifndef ARTEL_DATA_PROMPT_H
#define ARTEL_DATA_PROMPT_H

#include <jansson.h>
#include <stddef.h>

#include "text/tokenizer.h"

struct artel_error;
struct chat_template;

struct prompt {
    struct ids ids; /* the template with its generation prompt */
    size_t pool_first,
        pool_n; /* tokens that hold the last user turn's content; n > 0 */
};

/* TOOLS and EXTRA may be NULL (text/chat.h). P is zeroed or reused (emptied first). */
int prompt_encode(struct prompt *p, const struct tokenizer *tok,
                  const struct chat_template *chat, const json_t *messages,
                  const json_t *tools, const json_t *extra, struct artel_error *err);
/* Without template: TEXT as it is, with the BOS the model wants; all of it is the pool. */
int prompt_encode_raw(struct prompt *p, const struct tokenizer *tok, const char *text,
                      size_t n, struct artel_error *err);
void prompt_release(struct prompt *p);

#endif
