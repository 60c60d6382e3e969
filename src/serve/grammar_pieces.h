/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every piece of a vocabulary in one tree of bytes, laid out as a walk through it goes:
 * a node, then all below it, so that what need not be looked at is stepped over.
 */
#ifndef ARTEL_SERVE_GRAMMAR_PIECES_H
#define ARTEL_SERVE_GRAMMAR_PIECES_H

#include "serve/grammar.h"

#define PIECE_BYTES 64 /* longer pieces are never allowed */

struct piece_node {
    uint32_t end; /* the node behind all that lie below this one */
    int32_t id;   /* of the piece that ends here, -1: none */
    uint8_t byte;
    uint8_t depth; /* from 1 */
};

struct grammar_pieces {
    const struct tokenizer *tok; /* borrowed */
    struct piece_node *nodes;    /* (n_nodes) */
    int32_t *twins;              /* (n_ids) another id of the same bytes, -1: none */
    int32_t *ends;               /* (n_ends) tokens that end a turn */
    size_t n_nodes, n_ids, n_ends;
    bool has[256]; /* bytes that are a piece of their own */
};

#endif
