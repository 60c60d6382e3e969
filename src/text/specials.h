/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds control and user tokens in text. As in the reference the longest token
 * wins, wherever it begins, then the leftmost; what is left is searched on.
 */
#ifndef ARTEL_TEXT_SPECIALS_H
#define ARTEL_TEXT_SPECIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/index.h"

struct artel_error;
struct vocabulary;

/* A trie. */
struct specials {
    struct index edges; /* (node << 8 | byte) to node */
    int32_t *ids;       /* (n_nodes) token that ends at the node, or -1 */
    size_t n_nodes;     /* node 0 is the root */
    bool first[256];    /* bytes that some token begins with */
};

/* A token where it stands in a text. */
struct special {
    size_t start, length; /* bytes */
    int32_t id;
};

struct special_list {
    struct special *at;
    size_t n, room;
};

/* From every control and user token of V, which must outlive it. */
int specials_init(struct specials *s, const struct vocabulary *v,
                  struct artel_error *err);
void specials_release(struct specials *s);

/* Id of the token with exactly this text, or -1. */
int32_t specials_lookup(const struct specials *s, const char *text, size_t n);

/*
 * The tokens in TEXT (N bytes) in order of place, without overlap, into LIST
 * (emptied first). User tokens count everywhere; control tokens only where CONTROL,
 * and where MASK (N, or NULL for everywhere) is 1 for each of their bytes.
 */
int specials_find(const struct specials *s, struct special_list *list,
                  const struct vocabulary *v, const char *text,
                  const unsigned char *mask, size_t n, bool control,
                  struct artel_error *err);
void special_list_release(struct special_list *list);

#endif
