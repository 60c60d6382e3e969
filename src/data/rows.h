/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON object of a data file as one row, whatever its format: messages, or a
 * plain text, or ids. The first row of a file tells the format of all.
 */
#ifndef ARTEL_DATA_ROWS_H
#define ARTEL_DATA_ROWS_H

#include <jansson.h>
#include <stdbool.h>

struct artel_error;

enum row_kind {
    ROW_UNKNOWN,
    ROW_MESSAGES,
    ROW_PROMPT,
    ROW_ALPACA,
    ROW_SHAREGPT,
    ROW_TEXT,
    ROW_CHOICES,
    ROW_IDS
};

const char *
row_kind_name(enum row_kind kind); /* "messages", "prompt/completion", ... */

struct row {
    enum row_kind kind;
    json_t *messages;           /* owned; NULL for text, ids and choices */
    const json_t *tools;        /* borrowed from the object, or NULL */
    char *prompt;               /* owned: the whole prompt where there is no template */
    const char *answer;         /* borrowed: the last answer, or NULL */
    const char *text;           /* borrowed: ROW_TEXT; the question of ROW_CHOICES */
    size_t text_n;              /* bytes */
    const json_t *ids, *labels; /* borrowed: ROW_IDS, labels may be NULL */
};

/*
 * Fill OUT from OBJECT, which must outlive it. *KIND is the file's format, set by the
 * first row. With PROMPTS_ONLY a row may end in a user turn. With PLAIN there is no chat
 * template: OUT->prompt is made where the format has a prompt of its own. Errors have
 * no place yet: the caller knows the line.
 */
int row_read(struct row *out, enum row_kind *kind, const json_t *object,
             bool prompts_only, bool plain, struct artel_error *err);
void row_release(struct row *r);

#endif
