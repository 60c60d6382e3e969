/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template as tokens, then as a tree. Everything lies in the template's pool.
 */
#ifndef ARTEL_TEXT_JINJA_TREE_H
#define ARTEL_TEXT_JINJA_TREE_H

#include "text/jinja_value.h"

enum token_type {
    T_TEXT,
    T_BLOCK,     /* {% */
    T_BLOCK_END, /* %} */
    T_PRINT,     /* {{ */
    T_PRINT_END, /* }} */
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP,
    T_END
};

struct token {
    enum token_type type;
    uint32_t line, column; /* from 1 */
    const char *at;        /* (n) as written; a string: decoded */
    size_t n;
    int64_t num;
    double real;
};

/* The source as tokens, T_END last: newlines made one kind, blocks trimmed. */
struct token *jinja_tokens(struct pool *p, const char *source, size_t n);

enum node_type {
    N_CONST,
    N_NAME,    /* name */
    N_LIST,    /* list: items */
    N_TUPLE,   /* list: items */
    N_DICT,    /* list: N_PAIR */
    N_PAIR,    /* a: key, b: value */
    N_ATTR,    /* a.name */
    N_ITEM,    /* a[b] */
    N_SLICE,   /* a[b:c:d] */
    N_CALL,    /* a(list) of N_ARG */
    N_ARG,     /* a, name: keyword or NULL */
    N_FILTER,  /* a | builtin(list) */
    N_TEST,    /* a is builtin(list); op '!': is not */
    N_NEGATE,  /* - a */
    N_PLUS,    /* + a */
    N_BINARY,  /* a op b */
    N_CONCAT,  /* a ~ b */
    N_COMPARE, /* a, list: N_OPERAND */
    N_OPERAND, /* op a */
    N_AND,
    N_OR,
    N_NOT,
    N_COND, /* b if a else c */

    N_TEXT,       /* constant */
    N_OUTPUT,     /* a */
    N_IF,         /* a, list: then, b: the else branch, itself a list or an N_IF */
    N_FOR,        /* a: target, b: items, c: condition, list: body, d: else */
    N_SET,        /* a: target, b: value */
    N_SET_BLOCK,  /* a: target, b: filters over N_BODY, list: body */
    N_BODY,       /* stands for a captured body inside filters */
    N_FILTERED,   /* b: filters over N_BODY, list: body */
    N_MACRO,      /* name, c: parameters (N_PARAM), list: body */
    N_PARAM,      /* name, a: default or NULL */
    N_ATTR_SET,   /* target: name, text: attribute of a namespace */
    N_GENERATION, /* list: body */
    N_BREAK,
    N_CONTINUE
};

struct node {
    unsigned char type; /* enum node_type */
    unsigned char op;   /* one letter, see jinja_expr.c */
    uint32_t line, column;
    const char *name; /* interned: equal names are equal pointers */
    struct value constant;
    const struct function *builtin;
    struct node *a, *b, *c, *d;
    struct node *list; /* first of several */
    struct node *next; /* sibling */
};

#define NAME_BUCKETS 1024
struct interned;

struct parser {
    struct pool *pool;
    struct token *at; /* the token looked at */
    unsigned depth, loops;
    struct interned **names; /* (NAME_BUCKETS) */
};

const char *jinja_intern(struct parser *p, const char *at, size_t n);
/* NULL: the template does not use this name. */
const char *jinja_interned(struct interned *const *names, const char *at, size_t n);
/* Is an interned name bound by some set, for, macro or parameter? */
bool jinja_is_assigned(const char *name);
void jinja_mark_assigned(const char *name);

/* Expressions (jinja_expr.c). */
enum { NESTING_MAX = 100 };
struct node *parse_expression(struct parser *p);
struct node *parse_tuple(struct parser *p, bool with_condition, const char *end);
struct node *parse_target(struct parser *p, bool with_attribute);
struct node *parse_filters(struct parser *p, struct node *inner);

struct node *new_node(struct parser *p, enum node_type type);
void parse_enter(struct parser *p); /* nesting limit */
bool token_is(const struct token *t, enum token_type type, const char *text);
bool take(struct parser *p, enum token_type type, const char *text);
void expect(struct parser *p, enum token_type type, const char *text);
_Noreturn void parse_fail(struct parser *p, const char *expected);

/* A whole template (jinja_parse.c): the list of its statements. */
struct node *parse_template(struct parser *p, const char *source, size_t n);

#endif
