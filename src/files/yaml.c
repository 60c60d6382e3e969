/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From libyaml's events to a tree of nodes.
 *
 *     YAML01 syntax           YAML02 duplicate key   YAML03 anchor or alias  YAML04 tag
 *     YAML05 second document  YAML06 too deep        YAML07 key not a scalar YAML08 empty
 *     YAML09 too large        YAML10 NUL in a scalar YAML11 bad assignment
 */
#include "files/yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/error.h"
#include "base/map.h"

#define MAX_DEPTH 64
#define MAX_BYTES ((size_t)4 << 20)
#define KEY_BYTES 200 /* escaped, a key still fits libyaml's 1024 characters */

struct builder {
    yaml_parser_t parser;
    struct yaml_node *open[MAX_DEPTH];  /* maps and lists around the place */
    struct yaml_node **tail[MAX_DEPTH]; /* where their next child goes */
    size_t depth;
    struct yaml_node *root;
    char *key; /* read, waiting for its value; owned */
    yaml_mark_t key_mark;
};

static int refuse(const yaml_mark_t *at, const char *code, const char *reason,
                  struct artel_error *err)
{
    char where[64];

    snprintf(where, sizeof(where), "%zu:%zu", at->line + 1, at->column + 1);
    return error_set(err, ARTEL_EFORMAT, code, where, "%s", reason);
}

static int refuse_syntax(const yaml_parser_t *p, struct artel_error *err)
{
    char reason[200];
    const bool reading = p->error == YAML_READER_ERROR;
    yaml_mark_t at = p->problem_mark;

    if (p->error == YAML_MEMORY_ERROR)
        return error_nomem(err, sizeof(struct yaml_node));
    if (reading) { /* has no mark, only an offset */
        snprintf(reason, sizeof(reason), "%s at byte %zu",
                 p->problem ? p->problem : "not text", p->problem_offset);
        return error_set(err, ARTEL_EFORMAT, "YAML01", NULL, "%s", reason);
    }
    snprintf(reason, sizeof(reason), "%s%s%s", p->context ? p->context : "",
             p->context ? ": " : "", p->problem ? p->problem : "bad syntax");
    return refuse(&at, "YAML01", reason, err);
}

void yaml_close(struct yaml_node *root)
{
    /* Flattened as it is freed: a long list must not be a deep recursion. */
    while (root) {
        struct yaml_node *node = root;

        if (node->child) { /* put the children in front of the siblings */
            struct yaml_node *last = node->child;

            while (last->next)
                last = last->next;
            last->next = node->next;
            node->next = node->child;
        }
        root = node->next;
        free(node->key);
        free(node->text);
        free(node);
    }
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    if (!map || map->kind != YAML_MAP)
        return NULL;
    for (const struct yaml_node *n = map->child; n; n = n->next)
        if (!strcmp(n->key, key))
            return n;
    return NULL;
}

/* A terminated copy of a scalar, or NULL with the error set. */
static int take_text(char **out, const yaml_event_t *e, struct artel_error *err)
{
    const char *text = (const char *)e->data.scalar.value;
    const size_t n = e->data.scalar.length;

    *out = NULL;
    if (memchr(text, '\0', n))
        return refuse(&e->start_mark, "YAML10", "a scalar holds NUL", err);
    *out = malloc(n + 1);
    if (!*out)
        return error_nomem(err, n + 1);
    memcpy(*out, text, n);
    (*out)[n] = '\0';
    return 0;
}

static int take_key(struct builder *b, const yaml_event_t *e, struct artel_error *err)
{
    const struct yaml_node *first;
    char reason[224], shown[140];
    int rc;

    if (e->type != YAML_SCALAR_EVENT)
        return refuse(&e->start_mark, "YAML07", "a key must be a plain word", err);
    if (e->data.scalar.length > KEY_BYTES)
        return refuse(&e->start_mark, "YAML07", "a key of more than 200 bytes", err);
    rc = take_text(&b->key, e, err);
    if (rc < 0)
        return rc;
    b->key_mark = e->start_mark;
    first = yaml_get(b->open[b->depth - 1], b->key);
    if (!first)
        return 0;
    snprintf(reason, sizeof(reason), "key '%s' again, first in line %zu",
             escape_text(shown, sizeof(shown), b->key, strlen(b->key)), first->line);
    return refuse(&e->start_mark, "YAML02", reason, err);
}

static int add_node(struct builder *b, const yaml_event_t *e, struct artel_error *err)
{
    struct yaml_node *n = calloc(1, sizeof(*n));
    int rc = 0;

    if (!n)
        return error_nomem(err, sizeof(*n));
    n->line = (b->key ? b->key_mark.line : e->start_mark.line) + 1;
    n->column = (b->key ? b->key_mark.column : e->start_mark.column) + 1;
    n->key = b->key;
    b->key = NULL;
    if (!b->depth) {
        b->root = n;
    } else {
        *b->tail[b->depth - 1] = n;
        b->tail[b->depth - 1] = &n->next;
    }
    if (e->type == YAML_SCALAR_EVENT) {
        n->kind = YAML_SCALAR;
        n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        return take_text(&n->text, e, err);
    }
    n->kind = e->type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST;
    if (b->depth == MAX_DEPTH)
        rc = refuse(&e->start_mark, "YAML06", "nested deeper than 64 levels", err);
    if (rc < 0)
        return rc;
    b->open[b->depth] = n;
    b->tail[b->depth++] = &n->child;
    return 0;
}

/* What YAML can say and a recipe may not. */
static int refuse_features(const yaml_event_t *e, struct artel_error *err)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (e->type == YAML_ALIAS_EVENT)
        return refuse(&e->start_mark, "YAML03", "aliases (*name) are not supported",
                      err);
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    }
    if (anchor)
        return refuse(&e->start_mark, "YAML03", "anchors (&name) are not supported",
                      err);
    if (tag)
        return refuse(&e->start_mark, "YAML04", "tags (!name) are not supported", err);
    return 0;
}

static int take_event(struct builder *b, const yaml_event_t *e, struct artel_error *err)
{
    int rc = refuse_features(e, err);

    if (rc < 0)
        return rc;
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->root)
            return refuse(&e->start_mark, "YAML05", "a second document in one file",
                          err);
        return 0;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return 0;
    case YAML_SCALAR_EVENT:
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        if (b->depth && b->open[b->depth - 1]->kind == YAML_MAP && !b->key)
            return take_key(b, e, err);
        return add_node(b, e, err);
    default:
        return 0;
    }
}

static int build(struct builder *b, struct artel_error *err)
{
    const yaml_mark_t start = {0, 0, 0};
    yaml_event_t e;
    bool over = false;
    int rc = 0;

    while (!over && rc == 0) {
        if (!yaml_parser_parse(&b->parser, &e))
            return refuse_syntax(&b->parser, err);
        over = e.type == YAML_STREAM_END_EVENT;
        rc = take_event(b, &e, err);
        yaml_event_delete(&e);
    }
    if (rc == 0 && !b->root)
        rc = refuse(&start, "YAML08", "the text is empty", err);
    return rc;
}

int yaml_parse(struct yaml_node **out, const char *text, size_t n, const char *name,
               struct artel_error *err)
{
    struct builder b = {.depth = 0};
    int rc;

    *out = NULL;
    if (n > MAX_BYTES)
        return error_in(err,
                        error_set(err, ARTEL_EFORMAT, "YAML09", NULL,
                                  "%zu bytes, at most %zu are accepted", n, MAX_BYTES),
                        name);
    if (!yaml_parser_initialize(&b.parser))
        return error_in(err, error_nomem(err, sizeof(b.parser)), name);
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, n);
    rc = build(&b, err);
    yaml_parser_delete(&b.parser);
    free(b.key);
    if (rc < 0) {
        yaml_close(b.root);
        return error_in(err, rc, name);
    }
    *out = b.root;
    return 0;
}

int yaml_read_file(struct yaml_node **out, const char *path, struct artel_error *err)
{
    struct map map;
    int rc;

    *out = NULL;
    rc = map_open(&map, path, err);
    if (rc < 0)
        return rc;
    rc = yaml_parse(out, map.data ? (const char *)map.data : "", map.size, path, err);
    map_release(&map);
    return rc;
}
