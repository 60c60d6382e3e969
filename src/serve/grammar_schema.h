/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Schema to a net: each part of the schema is compiled once, however often it is
 * referred to, and nothing that limits a value is passed over.
 */
#ifndef ARTEL_SERVE_GRAMMAR_SCHEMA_H
#define ARTEL_SERVE_GRAMMAR_SCHEMA_H

#include <jansson.h>

#include "serve/grammar_net.h"

#define SCHEMA_PARTS 8192 /* at most, that are compiled */
#define SCHEMA_DEPTH 64   /* of the schema's own brackets, and of allOf and $ref */
#define SCHEMA_OPTIONAL                                                                \
    128                  /* optional properties in a row: what a set of places holds */
#define SCHEMA_PLACE 160 /* bytes of a place that are told */

/* A schema (borrowed) and the state where a value of it begins. */
struct schema_part {
    const json_t *schema;
    char *place; /* a JSON pointer */
    uint32_t start;
};

struct schema_compiler {
    struct net_build b;
    const json_t *root;
    json_t *any;               /* a schema of any value */
    json_t *made;              /* array: schemas that were merged */
    struct schema_part *parts; /* (n_parts) of which n_done are compiled */
    size_t n_parts, n_done, room;
};

/* The net of SCHEMA over the bytes that HAS (256) tokens of their own; *START is where
 * a text begins. ARTEL_EUSAGE SRV07. */
int schema_compile(struct net *out, uint32_t *start, const json_t *schema,
                   const bool *has, struct artel_error *err);

/* For the parts of the compiler. */
bool schema_is_note(const char *keyword); /* says nothing about values */
bool schema_only_notes(const json_t *schema, const char *but);
/* SCHEMA without $ref and allOf, borrowed from it or C. NULL: refused. */
const json_t *schema_flat(struct schema_compiler *c, const json_t *schema,
                          const char *place, unsigned depth);
/* Of two flat ones, what both let through. */
const json_t *schema_both(struct schema_compiler *c, const json_t *a, const json_t *b,
                          const char *place);
const json_t *schema_without(struct schema_compiler *c, const json_t *schema,
                             const char *keyword, const char *other);
const json_t *schema_ref(struct schema_compiler *c, const json_t *schema,
                         const char *place);
/* A schema at PLACE/KEYWORD, or PLACE/KEYWORD/NAME: the state where a value begins. */
uint32_t schema_inner(struct schema_compiler *c, const json_t *schema,
                      const char *place, const char *keyword, const char *name);
/* KEYWORD as a count, or OTHERWISE. */
uint32_t schema_count(struct schema_compiler *c, const json_t *schema,
                      const char *keyword, uint32_t otherwise, const char *place);
void schema_object(struct schema_compiler *c, const json_t *schema, uint32_t start,
                   const char *place);
void schema_array(struct schema_compiler *c, const json_t *schema, uint32_t start,
                  const char *place);

#endif
