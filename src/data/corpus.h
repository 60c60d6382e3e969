/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole data file, its format found by looking, as examples of token ids.
 *
 * JSONL or a JSON array of objects: "messages", "prompt" and "completion",
 * Alpaca, ShareGPT, "text", or multiple choice; anything else that is text is
 * plain text, cut into chunks.
 *
 * The prompt is the template with its generation prompt, tokenised alone; the
 * answer is the rest of the full render up to and including the first token that
 * ends a turn, tokenised alone. Every assistant turn carries loss unless it has
 * "weight": 0. Control tokens count only where the template itself wrote them.
 */
#ifndef ARTEL_DATA_CORPUS_H
#define ARTEL_DATA_CORPUS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/example.h"
#include "files/digest.h"

struct artel_error;
struct chat_template;
struct tokenizer;
struct corpus;

struct corpus_options {
    size_t max_rows;   /* 0: all; else only the first rows of the file are read */
    size_t cutoff_len; /* tokens of a row, the end of its answer is cut; 0: no bound */
    size_t skip_bad; /* so many malformed rows are skipped and counted, then refused */
    uint32_t domain; /* copied into every example */
    bool keep_text;  /* keep prompt text, answer text and messages */
    bool prompts_only; /* rows may end in a user turn and then carry no loss */
};

struct corpus_stats {
    const char *format; /* "messages", "prompt/completion", "alpaca", ... */
    size_t rows, kept;  /* rows read (bad ones included), examples */
    size_t n_tokens, n_answer_tokens; /* over the kept rows; answer: carry loss */
    size_t dropped_too_long;          /* cut until no answer token was left */
    size_t dropped_empty;             /* the answer was empty */
    size_t truncated;                 /* kept, but the end was cut */
    size_t skipped_bad;
    size_t special_text_rows; /* content spells a control token; kept as plain text */
    char digest[DIGEST_SIZE]; /* of the file */
};

/* CHAT may be NULL: then prompt/completion rows are joined as they are and rows of
 * messages are refused. Malformed rows: ARTEL_EFORMAT with line:column; no example
 * left: ARTEL_EFORMAT too. TOK and CHAT are not needed afterwards. */
int corpus_open(struct corpus **out, const char *path, const struct tokenizer *tok,
                const struct chat_template *chat, const struct corpus_options *o,
                struct artel_error *err);
void corpus_close(struct corpus *c);

size_t corpus_count(const struct corpus *c);
const struct example *corpus_at(const struct corpus *c, size_t i);
const struct corpus_stats *corpus_stats(const struct corpus *c);

/* With keep_text only, else NULL; borrowed from the corpus. */
const char *corpus_prompt_text(const struct corpus *c,
                               size_t i); /* last user content */
const char *corpus_answer_text(const struct corpus *c, size_t i); /* last answer */
const json_t *corpus_messages(const struct corpus *c, size_t i); /* before the answer */

/* Multiple choice rows carry no loss; their example is the question as a user turn. */
struct choice_row {
    const char *question;
    const char *const *choices; /* (n_choices) */
    size_t n_choices, answer;   /* answer counts from 0 */
    const char *domain;         /* "mmlu/anatomy", or "" */
};
const struct choice_row *corpus_choices(const struct corpus *c, size_t i); /* or NULL */

/* The first row that carries no loss, or NULL. */
const struct example *corpus_without_loss(const struct corpus *c);

/* Rows of A whose tokens are also a row of B: training and validation overlap. */
size_t corpus_overlap(const struct corpus *a, const struct corpus *b);

#endif
