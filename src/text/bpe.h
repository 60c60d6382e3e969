/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One piece of text to ids: start from its bytes, then merge the adjacent pair
 * of lowest rank, leftmost on ties, until no pair has a rank.
 */
#ifndef ARTEL_TEXT_BPE_H
#define ARTEL_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;
struct ids;
struct vocabulary;

/* Scratch, grown as pieces need it. Zeroed is empty. */
struct bpe_work {
    int32_t *id; /* (room) token of a symbol; -1: a byte without one, -2: merged away */
    int32_t *prev;  /* (room) symbol before, -1: none */
    int32_t *next;  /* (room) symbol after, -1: none */
    uint64_t *heap; /* (3 room) rank << 32 | left symbol */
    size_t room;    /* symbols */
};

void bpe_work_release(struct bpe_work *w);

/* Append the ids of BYTES (N). A byte that the vocabulary lacks stands in the way of
 * merges and gives no id, as in the reference. IGNORE_MERGES: a piece that is a
 * token is that token. More than BPE_MAX_PIECE bytes: TOK13. */
#define BPE_MAX_PIECE ((size_t)1 << 30)
int bpe_encode(const struct vocabulary *v, struct ids *ids, struct bpe_work *w,
               const char *bytes, size_t n, bool ignore_merges,
               struct artel_error *err);

#endif
