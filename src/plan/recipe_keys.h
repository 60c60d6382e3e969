/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of a recipe: one table of every key with its type, range and place
 * in struct recipe, and one of the other spellings that are accepted.
 */
#ifndef ARTEL_PLAN_RECIPE_KEYS_H
#define ARTEL_PLAN_RECIPE_KEYS_H

#include <stddef.h>

#include "plan/recipe.h"

enum key_kind {
    KEY_PATH,      /* char *, made absolute */
    KEY_TEXT,      /* char * */
    KEY_COUNT,     /* uint64_t or size_t (the same size here) */
    KEY_REAL,      /* double */
    KEY_FLOAT,     /* float */
    KEY_BOOL,      /* bool */
    KEY_CHOICE,    /* an enum */
    KEY_TARGETS,   /* lora: which linears */
    KEY_LAYERS,    /* struct layer_list */
    KEY_METHODS,   /* a name or a list of them */
    KEY_SECTION,   /* a map with keys of its own */
    KEY_DOMAINS,   /* a map of names to domains */
    KEY_UNIVERSAL, /* text of no domain, and its expert */
    KEY_GENERAL    /* a map of names to paths */
};

struct key_choice {
    const char *name; /* NULL ends the list; the first of equal values is printed */
    int value;
};

struct recipe_key {
    const char
        *section; /* "", "lora", "domain", "universal", "train", "router", "slim",
                     "mixlora", "modula" */
    const char *name;
    enum key_kind kind;
    size_t offset;   /* in the section's struct */
    double min, max; /* of numbers, both allowed unless OPEN */
    int open; /* OR of KEY_ABOVE (min itself is too small), KEY_BELOW (max too big) */
    const struct key_choice *choices; /* of a count: names for some numbers, or NULL */
};

enum { KEY_ABOVE = 1, KEY_BELOW = 2 };

size_t recipe_key_count(void);
const struct recipe_key *recipe_key_at(size_t i);
/* The key that NAME means in SECTION, other spellings included, or NULL. */
const struct recipe_key *recipe_key_find(const char *section, const char *name);
/* The known name nearest to NAME in SECTION, or NULL where none is near. */
const char *recipe_key_nearest(const char *section, const char *name);
/* The nearest of N names, or NULL. */
const char *nearest_name(const char *name, const char *const *names, size_t n);

#endif
