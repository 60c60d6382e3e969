/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON text token by token: strict grammar and UTF-8, no recursion, no memory.
 * Both the reader of documents (json.c) and that of safetensors headers, which
 * may list a million tensors, stand on it.
 */
#ifndef ARTEL_FILES_JSON_SCAN_H
#define ARTEL_FILES_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#define JSON_SCAN_DEPTH 64

enum json_token {
    JSON_TOKEN_BAD, /* the text is wrong at ERROR_AT, WHAT tells how */
    JSON_TOKEN_END, /* the text is over and was one whole value */
    JSON_TOKEN_OBJECT,
    JSON_TOKEN_OBJECT_END,
    JSON_TOKEN_ARRAY,
    JSON_TOKEN_ARRAY_END,
    JSON_TOKEN_KEY, /* a string before a colon */
    JSON_TOKEN_STRING,
    JSON_TOKEN_NUMBER,
    JSON_TOKEN_TRUE,
    JSON_TOKEN_FALSE,
    JSON_TOKEN_NULL
};

struct json_scan {
    const char *text; /* (n), borrowed */
    size_t n;
    size_t at;         /* next byte */
    size_t start, end; /* of the last token; a string's without its quotes */
    bool integer;      /* a number without fraction and exponent */
    size_t depth;
    char open[JSON_SCAN_DEPTH]; /* '{' or '[' around the place */
    int expect;                 /* what may come next */
    size_t error_at;
    const char *what; /* constant text */
    char culprit;     /* the bad byte, where SHOW_CULPRIT */
    bool show_culprit;
};

void json_scan_init(struct json_scan *s, const char *text, size_t n);
enum json_token json_scan_next(struct json_scan *s);
/* Pass over the value whose first token was just read. False: the text is wrong. */
bool json_scan_skip(struct json_scan *s, enum json_token first);
/* The string or key just read, unescaped into OUT, which has room for END - START
 * bytes. Returns its length. */
size_t json_scan_string(const struct json_scan *s, char *out);
/* The number just read; infinite where it is beyond a double. */
double json_scan_number(const struct json_scan *s);

/* Line and column, both from 1, of byte AT. Columns count bytes. */
void text_position(const char *text, size_t at, size_t *line, size_t *column);

/* Length of the valid UTF-8 sequence that starts TEXT (N bytes left), or 0. */
size_t utf8_sequence(const char *text, size_t n);

#endif
