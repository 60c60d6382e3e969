/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A regular expression as a tree, in the part of ECMA-262 that docs/SERVING.md states.
 */
#ifndef ARTEL_SERVE_GRAMMAR_PATTERN_H
#define ARTEL_SERVE_GRAMMAR_PATTERN_H

#include "serve/grammar_text.h"

#define PATTERN_POSITIONS 1024 /* characters, with their repetitions */
#define PATTERN_WORDS     (PATTERN_POSITIONS / 64)
#define PATTERN_ENDLESS   UINT32_MAX
#define PATTERN_TIMES     1000 /* the highest number in {} */
#define PATTERN_NESTING   50   /* groups */

enum pattern_kind {
    PATTERN_EMPTY,
    PATTERN_CLASS,  /* a: index of the class */
    PATTERN_THEN,   /* a, then b */
    PATTERN_OR,     /* a or b */
    PATTERN_REPEAT, /* a, min to max times */
};

struct pattern_node {
    enum pattern_kind kind;
    bool listed;   /* made as the rest of a longer list: b goes on */
    uint32_t a, b; /* nodes */
    uint32_t min, max;
};

struct pattern_range {
    uint32_t lo, hi; /* characters */
};

struct pattern_class {
    size_t first, n; /* ranges, in order, none beside another */
};

struct pattern {
    struct pattern_node *nodes; /* (n_nodes) 0 is empty */
    struct pattern_class *classes;
    struct pattern_range *ranges;
    size_t n_nodes, n_classes, n_ranges;
    size_t room_nodes, room_classes, room_ranges;
    uint32_t root;
};

/* TEXT is UTF-8; what a match may have around it where anchors do not stand is part of
 * the tree. Refusals are B's, at PLACE/KEYWORD. */
int pattern_parse(struct net_build *b, struct pattern *out, const char *text,
                  const char *place, const char *keyword);
void pattern_release(struct pattern *p);

#endif
