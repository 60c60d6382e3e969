/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools, strings with origins, lists, dicts, truth, equality and order.
 */
#include "text/jinja_value.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define CHUNK_BYTES       ((size_t)16 << 10)
#define MAX_COMPARE_DEPTH 64

struct jinja_chunk {
    struct jinja_chunk *next;
    size_t used, size;
    _Alignas(16) char bytes[];
};

void jinja_fail(struct pool *p, const char *code, const char *fmt, ...)
{
    char where[48], reason[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(reason, sizeof(reason), fmt, args);
    va_end(args);
    snprintf(where, sizeof(where), "%u:%u", p->line, p->column);
    p->rc = error_set(p->err, ARTEL_EFORMAT, code, where, "%s", reason);
    longjmp(p->back, 1);
}

void *pool_take(struct pool *p, size_t n_bytes)
{
    const size_t take = (n_bytes + 15) & ~(size_t)15;
    struct jinja_chunk *c = p->last;

    if (take < n_bytes || take > p->limit - p->used)
        jinja_fail(p, "TPL15", "the template needs more than %zu MB of memory",
                   p->limit >> 20);
    if (!c || take > c->size - c->used) {
        const size_t size = take > CHUNK_BYTES ? take : CHUNK_BYTES;

        c = malloc(sizeof(*c) + size);
        if (!c) {
            p->rc = error_nomem(p->err, size);
            longjmp(p->back, 1);
        }
        c->used = 0;
        c->size = size;
        c->next = p->last;
        p->last = c;
    }
    p->used += take;
    c->used += take;
    return memset(c->bytes + c->used - take, 0, take);
}

void pool_steps(struct pool *p, size_t n)
{
    if (n >= p->max_steps - p->steps)
        jinja_fail(p, "TPL12", "the template takes more than %llu steps",
                   (unsigned long long)p->max_steps);
    p->steps += n;
}

void pool_release(struct pool *p)
{
    while (p->last) {
        struct jinja_chunk *next = p->last->next;

        free(p->last);
        p->last = next;
    }
    p->used = 0;
}

void build_bytes(struct builder *b, const char *at, size_t n, enum origin from)
{
    if (b->limit && n > b->limit - b->n)
        jinja_fail(b->pool, "TPL13", "the template writes more than %zu MB",
                   b->limit >> 20);
    if (n > b->room - b->n) {
        const size_t room = b->room + (n > b->room ? n : b->room) + 64;
        char *text = pool_take(b->pool, room);
        unsigned char *marks = pool_take(b->pool, room);

        if (b->n) {
            memcpy(text, b->at, b->n);
            memcpy(marks, b->from, b->n);
        }
        b->at = text;
        b->from = marks;
        b->room = room;
    }
    if (!n)
        return;
    memcpy(b->at + b->n, at, n);
    memset(b->from + b->n, from, n);
    b->n += n;
}

void build_str(struct builder *b, const struct str *s)
{
    const size_t start = b->n;

    build_bytes(b, s->at, s->n, s->origin);
    if (s->from && s->n)
        memcpy(b->from + start, s->from, s->n);
}

void build_text(struct builder *b, const char *text)
{
    build_bytes(b, text, strlen(text), FROM_TEMPLATE);
}

struct value built(const struct builder *b)
{
    return value_str(b->pool, (struct str){b->at, b->from, b->n, FROM_TEMPLATE});
}

struct value value_str(struct pool *p, struct str s)
{
    struct str *copy = pool_take(p, sizeof(*copy));

    *copy = s;
    if (!copy->at)
        copy->at = "";
    return (struct value){.type = V_STRING, .str = copy};
}

struct value value_text(struct pool *p, const char *text)
{
    return value_str(p, (struct str){text, NULL, strlen(text), FROM_TEMPLATE});
}

struct value value_int(int64_t n)
{
    return (struct value){.type = V_INT, .num = n};
}

struct value value_bool(bool flag)
{
    return (struct value){.type = V_BOOL, .flag = flag};
}

struct value value_none(void)
{
    return (struct value){.type = V_NONE};
}

struct value value_undefined(const char *name)
{
    return (struct value){.type = V_UNDEFINED, .name = name};
}

struct value value_list(struct pool *p, enum value_type type, size_t room)
{
    struct list *l = pool_take(p, sizeof(*l));

    l->at = pool_take(p, room * sizeof(*l->at));
    l->room = room;
    return (struct value){.type = (unsigned char)type, .list = l};
}

struct value value_dict(struct pool *p, enum value_type type)
{
    return (struct value){.type = (unsigned char)type,
                          .dict = pool_take(p, sizeof(struct dict))};
}

void list_push(struct pool *p, struct list *l, struct value v)
{
    if (l->n == l->room) {
        const size_t room = 2 * l->room + 4;
        struct value *at = pool_take(p, room * sizeof(*at));

        if (l->n)
            memcpy(at, l->at, l->n * sizeof(*at));
        l->at = at;
        l->room = room;
    }
    l->at[l->n++] = v;
}

const struct value *dict_get(const struct dict *d, const char *key, size_t n)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct value k = d->keys[i];

        if (k.type == V_STRING && k.str->n == n && !memcmp(k.str->at, key, n))
            return &d->values[i];
    }
    return NULL;
}

const struct value *dict_find(struct pool *p, const struct dict *d, struct value key)
{
    if (key.type == V_STRING)
        return dict_get(d, key.str->at, key.str->n);
    for (size_t i = 0; i < d->n; i++)
        if (value_equal(p, d->keys[i], key))
            return &d->values[i];
    return NULL;
}

static void dict_append(struct pool *p, struct dict *d, struct value key,
                        struct value v)
{
    if (d->n == d->room) {
        const size_t room = 2 * d->room + 4;
        struct value *both = pool_take(p, 2 * room * sizeof(*both));

        if (d->n) {
            memcpy(both, d->keys, d->n * sizeof(*both));
            memcpy(both + room, d->values, d->n * sizeof(*both));
        }
        d->keys = both;
        d->values = both + room;
        d->room = room;
    }
    d->keys[d->n] = key;
    d->values[d->n++] = v;
}

void dict_set(struct pool *p, struct dict *d, struct value key, struct value v)
{
    const struct value *old = dict_find(p, d, key);

    if (old)
        d->values[old - d->values] = v;
    else
        dict_append(p, d, key, v);
}

struct value value_from_json(struct pool *p, const json_t *v, enum origin from)
{
    struct value out = value_none();
    const unsigned char mark = (unsigned char)from;

    switch (json_typeof(v)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *item;

        out = value_dict(p, V_DICT);
        json_object_foreach((json_t *)(size_t)v, key, item)
        {
            const struct str name = {key, NULL, strlen(key), mark};

            /* jansson's keys are distinct, so no look-up is needed */
            dict_append(p, out.dict, value_str(p, name),
                        value_from_json(p, item, from));
        }
        return out;
    }
    case JSON_ARRAY:
        out = value_list(p, V_LIST, json_array_size(v));
        for (size_t i = 0; i < json_array_size(v); i++)
            list_push(p, out.list, value_from_json(p, json_array_get(v, i), from));
        return out;
    case JSON_STRING:
        return value_str(
            p, (struct str){json_string_value(v), NULL, json_string_length(v), mark});
    case JSON_INTEGER:
        return (struct value){
            .type = V_INT, .origin = mark, .num = json_integer_value(v)};
    case JSON_REAL:
        return (struct value){
            .type = V_FLOAT, .origin = mark, .real = json_real_value(v)};
    case JSON_TRUE:
    case JSON_FALSE:
        return (struct value){.type = V_BOOL, .origin = mark, .flag = json_is_true(v)};
    case JSON_NULL:
        break;
    }
    return out;
}

bool value_true(struct value v)
{
    switch ((enum value_type)v.type) {
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.flag;
    case V_INT:
        return v.num != 0;
    case V_FLOAT:
        return v.real != 0.0;
    case V_STRING:
        return v.str->n > 0;
    case V_LIST:
    case V_TUPLE:
        return v.list->n > 0;
    case V_DICT:
        return v.dict->n > 0;
    default:
        return true;
    }
}

bool value_is_number(struct value v)
{
    return v.type == V_INT || v.type == V_FLOAT || v.type == V_BOOL;
}

double value_real(struct value v)
{
    return v.type == V_FLOAT ? v.real : v.type == V_BOOL ? v.flag : (double)v.num;
}

static int64_t whole(struct value v)
{
    return v.type == V_BOOL ? v.flag : v.num;
}

static bool equal(struct pool *p, struct value a, struct value b, int depth);

static bool equal_lists(struct pool *p, const struct list *a, const struct list *b,
                        int depth)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!equal(p, a->at[i], b->at[i], depth))
            return false;
    return true;
}

static bool equal_dicts(struct pool *p, const struct dict *a, const struct dict *b,
                        int depth)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct value *other = dict_find(p, b, a->keys[i]);

        if (!other || !equal(p, a->values[i], *other, depth))
            return false;
    }
    return true;
}

static bool equal(struct pool *p, struct value a, struct value b, int depth)
{
    if (depth)
        pool_steps(p, 1); /* lists that share their parts are trees to a walker */
    if (depth > MAX_COMPARE_DEPTH)
        return false;
    if (value_is_number(a) && value_is_number(b)) {
        if (a.type == V_FLOAT || b.type == V_FLOAT)
            return value_real(a) == value_real(b);
        return whole(a) == whole(b);
    }
    if (a.type != b.type)
        return false;
    switch ((enum value_type)a.type) {
    case V_UNDEFINED:
    case V_NONE:
        return true;
    case V_STRING:
        return a.str->n == b.str->n && !memcmp(a.str->at, b.str->at, a.str->n);
    case V_LIST:
    case V_TUPLE:
        return a.list == b.list || equal_lists(p, a.list, b.list, depth + 1);
    case V_DICT:
        return a.dict == b.dict || equal_dicts(p, a.dict, b.dict, depth + 1);
    default:
        return a.dict == b.dict;
    }
}

bool value_equal(struct pool *p, struct value a, struct value b)
{
    return equal(p, a, b, 0);
}

/* The order of UTF-8 bytes is the order of code points. */
static int order_str(const struct str *a, const struct str *b)
{
    const int by_bytes = memcmp(a->at, b->at, a->n < b->n ? a->n : b->n);

    return by_bytes ? by_bytes : (a->n > b->n) - (a->n < b->n);
}

static int order(struct pool *p, struct value a, struct value b, int depth)
{
    if (value_is_number(a) && value_is_number(b)) {
        const double x = value_real(a), y = value_real(b);

        if (a.type != V_FLOAT && b.type != V_FLOAT)
            return (whole(a) > whole(b)) - (whole(a) < whole(b));
        return (x > y) - (x < y);
    }
    if (a.type == V_STRING && b.type == V_STRING)
        return order_str(a.str, b.str);
    if (a.type == b.type && (a.type == V_LIST || a.type == V_TUPLE) &&
        depth < MAX_COMPARE_DEPTH) {
        for (size_t i = 0; i < a.list->n && i < b.list->n; i++)
            if (!value_equal(p, a.list->at[i], b.list->at[i]))
                return order(p, a.list->at[i], b.list->at[i], depth + 1);
        return (a.list->n > b.list->n) - (a.list->n < b.list->n);
    }
    jinja_fail(p, "TPL10", "%s and %s have no order", value_type_name(a),
               value_type_name(b));
}

int value_order(struct pool *p, struct value a, struct value b)
{
    return order(p, a, b, 0);
}

const char *value_type_name(struct value v)
{
    static const char *const names[] = {
        "undefined", "None", "bool",      "int",   "float",    "str",    "list",
        "tuple",     "dict", "Namespace", "macro", "function", "method", "loop"};

    return names[v.type];
}

const struct str *value_as_str(struct pool *p, struct value v)
{
    struct builder b = {.pool = p};

    if (v.type == V_STRING)
        return v.str;
    build_value(&b, v);
    return built(&b).str;
}
