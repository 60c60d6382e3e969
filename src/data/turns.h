/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation as one row of tokens with its answers marked.
 *
 *     full render   prompt of turn 1 | answer 1 | ... prompt of turn 2 | answer 2
 *
 * Each bar is a place where the tokens on both sides are made apart. The prompt of
 * a turn is the render of the messages before it with the generation prompt; where
 * the full render goes on differently inside the generation prompt (templates that
 * open a thought there), the last turn keeps the generation prompt, as generation
 * will see it.
 */
#ifndef ARTEL_DATA_TURNS_H
#define ARTEL_DATA_TURNS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "text/tokenizer.h"

struct artel_error;
struct chat_template;
struct rendered;

/* One answer inside a row. */
struct turn {
    size_t start;              /* token index of its first token */
    size_t pool_first, pool_n; /* tokens of the user turn before it; n > 0 */
};

/* Reused from row to row. Zeroed is empty. */
struct turns {
    struct ids ids;
    unsigned char *loss; /* (ids.n) */
    size_t *byte_at;     /* (ids.n) where the token begins in the full render */
    size_t room;
    struct turn *turn; /* (n) answers, in order */
    size_t n, turn_room;
};

/* All of the full render; corpus_append() drops what follows the last answer. */
int turns_encode(struct turns *t, const struct tokenizer *tok,
                 const struct chat_template *chat, const json_t *messages,
                 const json_t *tools, struct artel_error *err);
void turns_clear(struct turns *t);
void turns_release(struct turns *t);

/* Append a text of its own; with LOSS all of its tokens carry loss. MASK may be NULL:
 * then nothing in it is a control token. */
int turns_add(struct turns *t, const struct tokenizer *tok, const char *text,
              const unsigned char *mask, size_t n, bool loss, struct artel_error *err);
int turns_push(struct turns *t, int32_t id, bool loss, struct artel_error *err);
/* The next token begins an answer; its pool is given. */
int turns_open(struct turns *t, size_t pool_first, size_t pool_n,
               struct artel_error *err);

/* Render MESSAGES with the tokenizer's own bos and eos. */
int turns_render(struct rendered *out, const struct tokenizer *tok,
                 const struct chat_template *chat, const json_t *messages,
                 const json_t *tools, const json_t *extra, bool generate,
                 struct artel_error *err);
/* Tokens of T that hold bytes FIRST .. END-1; all of them where there are none. */
void turns_pool(const struct turns *t, size_t first, size_t end, size_t *pool_first,
                size_t *pool_n);

#endif
