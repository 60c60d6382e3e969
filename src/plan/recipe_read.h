/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scalars of a recipe as values, each checked against its key's type and range.
 */
#ifndef ARTEL_PLAN_RECIPE_READ_H
#define ARTEL_PLAN_RECIPE_READ_H

#include "files/yaml.h"
#include "plan/recipe_keys.h"

struct artel_error;

/* FMT at NODE: WHERE is "line:column", or the key for what has no line. */
int recipe_fault(struct artel_error *err, const struct yaml_node *node,
                 const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Absent, "~" or "null": as if the key were not written. */
bool recipe_is_null(const struct yaml_node *node);
/* NODE into the place of KEY in the struct at BASE. FOLDER is what paths are relative to. */
int recipe_read_value(void *base, const struct recipe_key *key,
                      const struct yaml_node *node, const char *folder,
                      struct artel_error *err);
/* ABSOLUTE or FOLDER/TEXT in new memory. */
char *recipe_path(const char *folder, const char *text);

#endif
