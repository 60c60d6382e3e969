/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text that must be JSON, or JSON of a schema: which tokens may come next.
 *
 * A grammar runs over bytes; a token may come if all of its bytes may, in order. The end
 * of turn may come where the text is complete.
 */
#ifndef ARTEL_SERVE_GRAMMAR_H
#define ARTEL_SERVE_GRAMMAR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;
struct tokenizer;
struct grammar;

/* The pieces of a tokenizer, which must outlive them, sorted for grammars: made once,
 * shared by all of them, from any thread. A tokenizer without an end of turn: SRV07. */
struct grammar_pieces;
int grammar_pieces_open(struct grammar_pieces **out, const struct tokenizer *tok,
                        struct artel_error *err);
void grammar_pieces_close(struct grammar_pieces *p);

/* SCHEMA NULL: any JSON object. A keyword that cannot be kept is ARTEL_EUSAGE SRV07 and
 * named with its place in the schema; depth at most 64. PIECES must outlive it. */
int grammar_open(struct grammar **out, const struct grammar_pieces *pieces,
                 const json_t *schema, struct artel_error *err);
void grammar_close(struct grammar *g);

/* 1 bit a token of (V + 7) / 8 bytes: those that may come next, the end of turn where the
 * text may end here. Borrowed until the next call. Never all 0. */
const unsigned char *grammar_allowed(struct grammar *g);
/* Token ID (allowed) has come. */
void grammar_accept(struct grammar *g, int32_t id);
bool grammar_complete(const struct grammar *g); /* the text may end here */

#endif
