/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens of a byte-level BPE and its merges, made for looking up.
 *
 * A file spells every byte of a piece as a printable character (0x20 is U+0120);
 * here a piece is its bytes. Two hash tables: bytes to id, pair of ids to rank.
 */
#ifndef ARTEL_TEXT_VOCABULARY_H
#define ARTEL_TEXT_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/index.h"

struct artel_error;

enum token_kind {
    TOKEN_ABSENT,  /* a gap among the ids */
    TOKEN_NORMAL,  /* made by merges alone */
    TOKEN_CONTROL, /* recognised only in what a template wrote */
    TOKEN_USER     /* recognised literally in any text, before BPE */
};

struct token {
    size_t start;    /* of its bytes in BYTES */
    uint32_t length; /* bytes */
    uint8_t kind;    /* enum token_kind */
    bool spelled;    /* reachable by merges: its bytes are what its spelling says */
};

struct merge {
    int32_t left, right, result; /* ids; result -1: a control token, never made */
};

struct token_slot {
    uint32_t hash;
    int32_t id; /* -1: empty */
};

struct vocabulary {
    struct token *tokens; /* (n_tokens) by id */
    size_t n_tokens;
    char *bytes; /* (n_bytes) every piece, each terminated */
    size_t n_bytes, room;
    struct token_slot *slots; /* (n_slots) a power of two */
    size_t n_slots;
    int32_t byte_id[256]; /* id of a single byte, -1: the vocabulary lacks it */
    struct merge *merges; /* (n_merges) by rank */
    size_t n_merges, merge_room;
    struct index ranks; /* of pairs (left << 32 | right) */
};

int vocabulary_init(struct vocabulary *v, size_t n_tokens, struct artel_error *err);
void vocabulary_release(struct vocabulary *v);

/* Set token ID from its spelling in a file. LITERAL: the text is not byte-spelled
 * (control and user tokens). KIND as above. */
int vocabulary_set(struct vocabulary *v, size_t id, const char *text, size_t n,
                   enum token_kind kind, bool literal, struct artel_error *err);
/* After the last token: the table of bytes. Two tokens of equal bytes: TOK14. */
int vocabulary_index(struct vocabulary *v, struct artel_error *err);

/* Id of the mergeable token with these bytes, or -1. */
int32_t vocabulary_lookup(const struct vocabulary *v, const char *bytes, size_t n);

/* A merge as a file spells it; ranks count up. LIST names the list in errors (TOK06).
 * NUMBER is its place there. A pair that was given before keeps its first rank. */
int vocabulary_add_merge(struct vocabulary *v, const char *list, size_t number,
                         const char *left, size_t n_left, const char *right,
                         size_t n_right, struct artel_error *err);
/* After the last merge. */
int vocabulary_index_merges(struct vocabulary *v, struct artel_error *err);

/* Rank of the pair, or -1. */
int64_t vocabulary_rank(const struct vocabulary *v, int32_t left, int32_t right);

static inline const char *vocabulary_piece(const struct vocabulary *v, int32_t id,
                                           size_t *n)
{
    *n = v->tokens[id].length;
    return v->bytes + v->tokens[id].start;
}

/* Bytes of a byte-level spelling into OUT (room for N). False: it is none. */
bool spelling_to_bytes(char *out, size_t *n_out, const char *text, size_t n);

#endif
