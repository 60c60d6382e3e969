/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces of JSON text that a schema's net is made of: strings, keys, values that are
 * given, numbers, and strings of a pattern.
 */
#ifndef ARTEL_SERVE_GRAMMAR_TEXT_H
#define ARTEL_SERVE_GRAMMAR_TEXT_H

#include <jansson.h>

#include "serve/grammar_net.h"

/* Texts that share their beginnings. Zeroed is empty. */
struct spelling {
    uint32_t child, next; /* 0: none */
    unsigned char byte;
    bool end;
};
struct spellings {
    struct spelling *at; /* (n) 0 is the root */
    size_t n, room;
};
void spellings_release(struct spellings *s);

/* FROM to TO: one blank, or none. */
void text_blank(struct net_build *b, uint32_t from, uint32_t to);
/* A whole string of MIN to MAX (or NET_NO_LIMIT) characters. */
void text_string(struct net_build *b, uint32_t from, uint32_t to, uint32_t min,
                 uint32_t max);
/* VALUE as it may be written: one spelling, blanks where they may be. The states
 * where one ends end the value. */
int text_spell(struct net_build *b, struct spellings *s, const json_t *value);
void text_spellings(struct net_build *b, uint32_t from, const struct spellings *s);
/* NAME and the quotes around it, as text_key() would write it. */
void text_name(struct net_build *b, uint32_t from, uint32_t to, const char *name);
/* A string with its quotes that is none of the keys of NAMES (may be NULL). */
void text_key(struct net_build *b, uint32_t from, uint32_t to, const json_t *names);
/* One character of FIRST to LAST within a string. */
void text_characters(struct net_build *b, uint32_t from, uint32_t to, uint32_t first,
                     uint32_t last);

/* A number, or an integer, that ends the value, as minimum, maximum, exclusiveMinimum, exclusiveMaximum and
 * multipleOf of SCHEMA want it. */
int text_number(struct net_build *b, uint32_t from, const json_t *schema, bool integer,
                const char *place);

/* A string with its quotes that PATTERN (UTF-8) matches somewhere, of MIN to MAX
 * characters. KEYWORD is named in errors. */
int text_pattern(struct net_build *b, uint32_t from, uint32_t to, const char *pattern,
                 uint32_t min, uint32_t max, const char *place, const char *keyword);

/* The same refusal everywhere: SRV07 at PLACE/KEYWORD. Keeps it in B, too. */
int schema_refused(struct net_build *b, const char *place, const char *keyword,
                   const char *why, ...) __attribute__((format(printf, 4, 5)));

#endif
