/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of the template language, and the memory they live in.
 *
 * A string carries where each of its bytes is from, and keeps it through every
 * operation: this is how content never becomes a control token. All memory of a
 * template or of one rendering is a pool that is freed at once; running out of it
 * and every other failure leaves through jinja_fail(), a longjmp. Inside an
 * interpreter that is the plain way: nothing between owns anything, and no
 * evaluation needs to test for failure.
 */
#ifndef ARTEL_TEXT_JINJA_VALUE_H
#define ARTEL_TEXT_JINJA_VALUE_H

#include <jansson.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;
struct jinja_chunk;
struct node;
struct scope;

struct pool {
    struct jinja_chunk *last;
    size_t used, limit;        /* bytes */
    uint64_t steps, max_steps; /* work done, see pool_steps() */
    uint32_t line, column; /* in the template, of what is being done: for messages */
    struct artel_error *err;
    int rc;
    jmp_buf back; /* where jinja_fail() goes */
};

void *pool_take(struct pool *p, size_t n_bytes); /* zeroed, never NULL */
void pool_release(struct pool *p);
/* N more pieces of work: nodes, items looked at, bytes walked over 16. */
void pool_steps(struct pool *p, size_t n);
_Noreturn void jinja_fail(struct pool *p, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

enum origin { FROM_TEMPLATE, FROM_CONTENT, FROM_LAST_USER };

struct str {
    const char *at;            /* (n) not terminated */
    const unsigned char *from; /* (n) enum origin, or NULL: all of it is ORIGIN */
    size_t n;
    unsigned char origin;
};

enum value_type {
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_NAMESPACE,
    V_MACRO,
    V_FUNCTION,
    V_METHOD,
    V_LOOP
};

struct value {
    unsigned char type;   /* enum value_type */
    unsigned char origin; /* of a number: where it is from */
    union {
        const char *name; /* undefined: what was looked for, or NULL */
        bool flag;
        int64_t num;
        double real;
        const struct str *str;
        struct list *list; /* list, tuple */
        struct dict *dict; /* dict, namespace */
        struct macro *macro;
        const struct function *function;
        struct bound *bound;
        struct loop *loop;
    };
};

struct list {
    struct value *at; /* (n) */
    size_t n, room;
};

/* In order of insertion, looked up by walking: objects of messages are small. */
struct dict {
    struct value *keys, *values; /* (n) */
    size_t n, room;
};

struct macro {
    const struct node *def;
    struct scope *closure;
};

/* A method of a string or a dict, taken but not yet called. */
struct bound {
    struct value self;
    const struct function *method;
};

struct loop {
    struct list *items;
    size_t i; /* from 0 */
};

/* A string being written. */
struct builder {
    struct pool *pool;
    char *at;
    unsigned char *from;
    size_t n, room;
    size_t limit; /* bytes, 0: only the pool's */
};

void build_bytes(struct builder *b, const char *at, size_t n, enum origin from);
void build_str(struct builder *b, const struct str *s);
void build_text(struct builder *b, const char *text); /* from the template */
/* As Python's str() and repr() write it. */
void build_value(struct builder *b, struct value v);
void build_repr(struct builder *b, struct value v);
void build_json(struct builder *b, struct value v, int indent, bool ascii, bool sorted,
                const struct str *separators); /* separators: NULL or 2 */
struct value built(const struct builder *b);

struct value value_str(struct pool *p, struct str s);
struct value value_text(struct pool *p, const char *text); /* TEXT is not copied */
struct value value_int(int64_t n);
struct value value_bool(bool flag);
struct value value_none(void);
struct value value_undefined(const char *name);
struct value value_list(struct pool *p, enum value_type type, size_t room);
struct value value_dict(struct pool *p, enum value_type type);
/* V and all in it; strings are borrowed from V, which must outlive the pool. */
struct value value_from_json(struct pool *p, const json_t *v, enum origin from);

void list_push(struct pool *p, struct list *l, struct value v);
void dict_set(struct pool *p, struct dict *d, struct value key, struct value v);
const struct value *dict_get(const struct dict *d, const char *key, size_t n);
const struct value *dict_find(struct pool *p, const struct dict *d, struct value key);

bool value_true(struct value v);
bool value_equal(struct pool *p, struct value a, struct value b);
int value_order(struct pool *p, struct value a, struct value b); /* <0, 0, >0 */
const char *value_type_name(struct value v);                     /* as Python's */
bool value_is_number(struct value v);                            /* booleans too */
double value_real(struct value v);
/* str(V), without a copy where V is a string. */
const struct str *value_as_str(struct pool *p, struct value v);

struct str str_part(const struct str *s, size_t first, size_t end); /* bytes */
bool str_is(const struct str *s, const char *text);
enum origin str_origin(const struct str *s, size_t i);
/* Bytes of the character at S (N left): 1 for a byte that is not UTF-8. */
size_t char_bytes(const char *s, size_t n, int32_t *code);
bool char_is_space(int32_t code); /* as Python's str.strip() sees it */
size_t str_chars(const struct str *s);

#endif
