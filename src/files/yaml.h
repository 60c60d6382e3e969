/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML for recipes: libyaml does the syntax, the scalars stay text and are
 * read by whoever knows what they should be ("1e-4" is a number, whatever YAML
 * 1.1 says). Anchors and aliases, tags, several documents, duplicate keys and
 * depth above 64 are refused. Every node knows its line.
 */
#ifndef ARTEL_FILES_YAML_H
#define ARTEL_FILES_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct artel_error;

enum yaml_kind { YAML_SCALAR, YAML_MAP, YAML_LIST };

struct yaml_node {
    enum yaml_kind kind;
    size_t line, column;     /* from 1 */
    char *key;               /* inside a map, or NULL; owned */
    char *text;              /* scalar, or NULL; owned */
    bool quoted;             /* a quoted scalar is a string, never null or a number */
    struct yaml_node *child; /* first of a map or list; owned */
    struct yaml_node *next;  /* sibling; owned */
};

int yaml_read_file(struct yaml_node **out, const char *path, struct artel_error *err);
int yaml_parse(struct yaml_node **out, const char *text, size_t n, const char *name,
               struct artel_error *err);
void yaml_close(struct yaml_node *root);
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);

/* "key=value" of the command line: VALUE parsed as YAML, set at the dotted KEY. */
int yaml_override(struct yaml_node *root, const char *assignment,
                  struct artel_error *err);
/* Back to YAML text, for recipe.yaml "as used". Caller frees *OUT. */
int yaml_print(char **out, const struct yaml_node *root, struct artel_error *err);
/* TEXT in double quotes, so that YAML reads the same bytes again: JSON's escapes do
 * not suffice, since YAML folds U+0085, U+2028 and U+2029 as it folds a line's end. */
void yaml_print_quoted(FILE *f, const char *text);

#endif
