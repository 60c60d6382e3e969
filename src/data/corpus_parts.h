/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A corpus while it is filled: examples hold places until the blocks stop growing.
 */
#ifndef ARTEL_DATA_CORPUS_PARTS_H
#define ARTEL_DATA_CORPUS_PARTS_H

#include "data/corpus.h"
#include "data/rows.h"
#include "data/turns.h"

/* What was asked to be kept of one row. */
struct kept_text {
    char *prompt, *answer;
    json_t *messages;
    struct choice_row choices; /* n_choices 0: none */
};

struct corpus {
    struct corpus_stats stats;
    struct example *rows;   /* (n) */
    size_t *first;          /* (n) where its tokens begin in IDS and LOSS */
    struct kept_text *kept; /* (n), or NULL */
    size_t n, room;
    int32_t *ids;        /* (n_ids) */
    unsigned char *loss; /* (n_ids) */
    size_t n_ids, ids_room;
};

/*
 * Append what T holds, cut to CUTOFF tokens (0: not). TEXT, which may be NULL, becomes
 * the corpus's. A row without loss is dropped and counted, and TEXT released, unless
 * it is a prompt: KEEP_PROMPT.
 */
int corpus_append(struct corpus *c, const struct turns *t, size_t cutoff,
                  bool keep_prompt, uint32_t domain, size_t row, struct kept_text *text,
                  struct artel_error *err);
void corpus_settle(struct corpus *c); /* examples get their pointers */
void kept_text_release(struct kept_text *k);

/* Read PATH into C (corpus_read.c). */
int corpus_read(struct corpus *c, const char *path, const struct tokenizer *tok,
                const struct chat_template *chat, const struct corpus_options *o,
                struct artel_error *err);

#endif
