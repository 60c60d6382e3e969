/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template being rendered: scopes, limits, output, and the table of filters,
 * tests, functions and methods that templates may name.
 */
#ifndef ARTEL_TEXT_JINJA_RUN_H
#define ARTEL_TEXT_JINJA_RUN_H

#include "text/jinja_tree.h"

#define JINJA_MAX_STEPS  ((uint64_t)20000000)
#define JINJA_MAX_OUTPUT ((size_t)16 << 20)  /* bytes */
#define JINJA_MAX_MEMORY ((size_t)128 << 20) /* bytes of one rendering */
#define JINJA_MAX_DEPTH  400                 /* of nested evaluations */
#define JINJA_MAX_RANGE  100000
#define MAX_ARGS         16

struct binding {
    const char *name; /* interned */
    struct value value;
    struct binding *next;
};

struct scope {
    struct scope *up;
    struct binding *first;
};

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

struct run {
    struct pool *pool;
    struct builder *out;
    struct scope *scope;
    unsigned depth;
    enum flow flow;
    const struct value *body; /* what N_BODY stands for */
    struct interned *const *names;
};

/* The arguments of one call, positional first. */
struct args {
    size_t n;
    struct value at[MAX_ARGS];
    const char *names[MAX_ARGS]; /* NULL: positional */
};

enum function_kind {
    IS_FILTER,
    IS_TEST,
    IS_GLOBAL,
    IS_STR_METHOD,
    IS_DICT_METHOD,
    IS_LOOP_METHOD
};

struct function {
    const char *name;
    struct value (*call)(struct run *r, struct value self, const struct args *args);
    const char *params; /* "chars" or "a b": names; "*": any keywords; "..": anything */
    unsigned min_args;
};

/* NULL: no such name. */
const struct function *jinja_function(enum function_kind kind, const char *name);
/* Argument I, or that of the name at this place of the parameters; NULL: not given. */
const struct value *arg_at(const struct function *f, const struct args *args, size_t i);
bool arg_fits(const struct function *f, const struct args *args); /* counts and names */

extern const struct function jinja_filters[], jinja_tests[], jinja_globals[],
    jinja_str_methods[], jinja_dict_methods[], jinja_loop_methods[]; /* ended by NULL */

void run_statements(struct run *r, const struct node *list);
struct value run_value(struct run *r, const struct node *n);
void run_steps(struct run *r, size_t n); /* work done: bytes walked, items looked at */
struct value run_call(struct run *r, struct value callee, const struct args *args);
void run_bind(struct run *r, const char *name, struct value v);

/* The items of what can be iterated: list, tuple, dict, string, undefined. */
struct list *run_items(struct run *r, struct value v);
struct value run_attribute(struct run *r, struct value v, const char *name, size_t n);
struct value run_item(struct run *r, struct value v, struct value key);
struct value run_slice(struct run *r, struct value v, const struct value part[3]);
struct value run_binary(struct run *r, unsigned char op, struct value a,
                        struct value b);
bool run_contains(struct run *r, struct value item, struct value container);

#endif
