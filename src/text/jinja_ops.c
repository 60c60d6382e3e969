/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators, attributes, items and slices, as Python and Jinja define them.
 *
 * x.a looks for a method first and then for the key, x['a'] the other way round;
 * what is not there is undefined, and anything done with undefined but printing,
 * testing and iterating is an error. Nothing but the values of this language can
 * be reached.
 */
#define _GNU_SOURCE /* memmem */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/jinja_run.h"

static _Noreturn void fail_undefined(struct run *r, struct value v)
{
    jinja_fail(r->pool, "TPL16", "'%.64s' is undefined", v.name ? v.name : "a value");
}

struct list *run_items(struct run *r, struct value v)
{
    struct list *items;
    int32_t code;

    if (v.type == V_LIST || v.type == V_TUPLE)
        return v.list;
    items = value_list(r->pool, V_LIST, 0).list;
    if (v.type == V_DICT) {
        for (size_t i = 0; i < v.dict->n; i++)
            list_push(r->pool, items, v.dict->keys[i]);
    } else if (v.type == V_STRING) {
        for (size_t i = 0; i < v.str->n;) {
            const size_t len = char_bytes(v.str->at + i, v.str->n - i, &code);

            list_push(r->pool, items, value_str(r->pool, str_part(v.str, i, i + len)));
            i += len;
        }
    } else if (v.type != V_UNDEFINED) {
        jinja_fail(r->pool, "TPL10", "a %s cannot be iterated", value_type_name(v));
    }
    run_steps(r, items->n / 8);
    return items;
}

static struct value loop_attribute(const struct loop *l, const char *name)
{
    const size_t n = l->items->n, i = l->i;

    if (!strcmp(name, "index"))
        return value_int((int64_t)i + 1);
    if (!strcmp(name, "index0"))
        return value_int((int64_t)i);
    if (!strcmp(name, "revindex"))
        return value_int((int64_t)(n - i));
    if (!strcmp(name, "revindex0"))
        return value_int((int64_t)(n - i) - 1);
    if (!strcmp(name, "first"))
        return value_bool(i == 0);
    if (!strcmp(name, "last"))
        return value_bool(i + 1 == n);
    if (!strcmp(name, "length"))
        return value_int((int64_t)n);
    if (!strcmp(name, "depth"))
        return value_int(1); /* only recursive loops nest, and there are none */
    if (!strcmp(name, "depth0"))
        return value_int(0);
    if (!strcmp(name, "previtem") && i > 0)
        return l->items->at[i - 1];
    if (!strcmp(name, "nextitem") && i + 1 < n)
        return l->items->at[i + 1];
    return value_undefined(name);
}

static struct value method(struct run *r, struct value v, const char *name)
{
    const enum function_kind kind = v.type == V_STRING ? IS_STR_METHOD
                                    : v.type == V_DICT ? IS_DICT_METHOD
                                                       : IS_LOOP_METHOD;
    const struct function *f = jinja_function(kind, name);
    struct bound *b;

    if (!f)
        return value_undefined(name);
    b = pool_take(r->pool, sizeof(*b));
    b->self = v;
    b->method = f;
    return (struct value){.type = V_METHOD, .bound = b};
}

struct value run_attribute(struct run *r, struct value v, const char *name, size_t n)
{
    const struct value *found = NULL;
    struct value m = value_undefined(name);

    if (v.type == V_UNDEFINED)
        fail_undefined(r, v);
    if (v.type == V_LOOP)
        m = loop_attribute(v.loop, name);
    if (m.type == V_UNDEFINED &&
        (v.type == V_STRING || v.type == V_DICT || v.type == V_LOOP))
        m = method(r, v, name);
    if (m.type != V_UNDEFINED)
        return m;
    if (v.type == V_DICT || v.type == V_NAMESPACE) {
        run_steps(r, v.dict->n / 8);
        found = dict_get(v.dict, name, n);
    }
    return found ? *found : m;
}

/* The byte where character I of S begins; I may be the number of characters. */
static size_t char_place(const struct str *s, size_t i)
{
    size_t at = 0;
    int32_t code;

    while (i-- > 0 && at < s->n)
        at += char_bytes(s->at + at, s->n - at, &code);
    return at;
}

static struct value item_at(struct run *r, struct value v, int64_t i)
{
    const bool is_str = v.type == V_STRING;
    const size_t n = is_str ? str_chars(v.str) : v.list->n;
    size_t first;
    int32_t code;

    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (size_t)i >= n)
        return value_undefined("item out of range");
    if (!is_str)
        return v.list->at[i];
    run_steps(r, v.str->n / 16);
    first = char_place(v.str, (size_t)i);
    return value_str(r->pool, str_part(v.str, first,
                                       first + char_bytes(v.str->at + first,
                                                          v.str->n - first, &code)));
}

struct value run_item(struct run *r, struct value v, struct value key)
{
    const struct value *found = NULL;
    char name[64];

    if (v.type == V_UNDEFINED)
        fail_undefined(r, v);
    if (v.type == V_DICT) {
        run_steps(r, v.dict->n / 8);
        found = dict_find(r->pool, v.dict, key);
        if (found)
            return *found;
    }
    if ((v.type == V_STRING || v.type == V_LIST || v.type == V_TUPLE) &&
        (key.type == V_INT || key.type == V_BOOL))
        return item_at(r, v, key.type == V_INT ? key.num : key.flag);
    if (key.type == V_STRING && key.str->n < sizeof(name) &&
        !memchr(key.str->at, 0, key.str->n)) {
        memcpy(name, key.str->at, key.str->n);
        name[key.str->n] = '\0';
        v = run_attribute(r, v, name, key.str->n);
        if (v.type == V_UNDEFINED)
            v.name = "item"; /* NAME does not outlive this call */
        return v;
    }
    return value_undefined("item");
}

/* One end of a slice of N items, as Python clips it. */
static int64_t slice_end(struct run *r, struct value v, int64_t n, bool back,
                         int64_t missing)
{
    int64_t i;

    if (v.type == V_NONE || v.type == V_UNDEFINED)
        return missing;
    if (v.type != V_INT && v.type != V_BOOL)
        jinja_fail(r->pool, "TPL10", "a slice needs whole numbers, not a %s",
                   value_type_name(v));
    i = v.type == V_INT ? v.num : v.flag;
    if (i < 0)
        i = i < -n ? (back ? -1 : 0) : i + n;
    else if (i >= n)
        i = back ? n - 1 : n;
    return i;
}

struct value run_slice(struct run *r, struct value v, const struct value part[3])
{
    const int64_t step = slice_end(r, part[2], INT32_MAX, false, 1);
    const bool given = part[2].type == V_INT && part[2].num < 0;
    const int64_t by =
        given ? (part[2].num < -INT32_MAX ? -INT32_MAX : part[2].num) : step;
    struct builder b = {.pool = r->pool};
    struct list *items;
    int64_t n, i, end;
    struct value out;

    if (v.type == V_UNDEFINED)
        fail_undefined(r, v);
    if (v.type != V_STRING && v.type != V_LIST && v.type != V_TUPLE)
        return value_undefined("slice");
    if (by == 0)
        jinja_fail(r->pool, "TPL10", "a slice's step is 0");
    n = (int64_t)(v.type == V_STRING ? str_chars(v.str) : v.list->n);
    i = slice_end(r, part[0], n, by < 0, by < 0 ? n - 1 : 0);
    end = slice_end(r, part[1], n, by < 0, by < 0 ? -1 : n);
    run_steps(r, (size_t)n / 16);
    if (v.type == V_STRING && by == 1)
        return value_str(r->pool, i >= end
                                      ? (struct str){"", NULL, 0, FROM_TEMPLATE}
                                      : str_part(v.str, char_place(v.str, (size_t)i),
                                                 char_place(v.str, (size_t)end)));
    items = run_items(r, v);
    out = value_list(r->pool, v.type == V_TUPLE ? V_TUPLE : V_LIST, 0);
    for (; by > 0 ? i < end : i > end; i += by) {
        if (v.type == V_STRING)
            build_str(&b, items->at[i].str);
        else
            list_push(r->pool, out.list, items->at[i]);
    }
    return v.type == V_STRING ? built(&b) : out;
}

bool run_contains(struct run *r, struct value item, struct value in)
{
    struct list *items;

    if (in.type == V_STRING) {
        if (item.type != V_STRING)
            jinja_fail(r->pool, "TPL10", "'in <string>' needs a string, not a %s",
                       value_type_name(item));
        run_steps(r, in.str->n / 16);
        return !item.str->n || memmem(in.str->at, in.str->n, item.str->at, item.str->n);
    }
    if (in.type == V_DICT) {
        run_steps(r, in.dict->n / 8);
        return dict_find(r->pool, in.dict, item) != NULL;
    }
    items = run_items(r, in);
    run_steps(r, items->n / 8);
    for (size_t i = 0; i < items->n; i++)
        if (value_equal(r->pool, items->at[i], item))
            return true;
    return false;
}

static struct value join_two(struct run *r, const struct str *a, const struct str *b)
{
    struct builder out = {.pool = r->pool};

    if (!a->n)
        return value_str(r->pool, *b);
    if (!b->n)
        return value_str(r->pool, *a);
    run_steps(r, (a->n + b->n) / 64);
    build_str(&out, a);
    build_str(&out, b);
    return built(&out);
}

static struct value repeat(struct run *r, struct value v, int64_t times)
{
    struct builder out = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};

    for (int64_t i = 0; i < times && v.str->n; i++) {
        run_steps(r, 1 + v.str->n / 64);
        build_str(&out, v.str);
    }
    return built(&out);
}

static struct value real_op(struct run *r, unsigned char op, double a, double b)
{
    double y;

    if ((op == '/' || op == 'f' || op == '%') && b == 0.0)
        jinja_fail(r->pool, "TPL10", "division by zero");
    switch (op) {
    case '+':
        y = a + b;
        break;
    case '-':
        y = a - b;
        break;
    case '*':
        y = a * b;
        break;
    case '/':
        y = a / b;
        break;
    case 'f':
        y = floor(a / b);
        break;
    case '%':
        y = fmod(a, b);
        if (y != 0.0 && (y < 0.0) != (b < 0.0))
            y += b;
        break;
    default:
        y = pow(a, b);
    }
    return (struct value){.type = V_FLOAT, .real = y};
}

static struct value whole_op(struct run *r, unsigned char op, int64_t a, int64_t b)
{
    int64_t y = 0;
    bool over = false;

    if ((op == '/' || op == 'f' || op == '%') && b == 0)
        jinja_fail(r->pool, "TPL10", "division by zero");
    if (op == '/' || (op == 'p' && b < 0))
        return real_op(r, op, (double)a, (double)b);
    if (op == '+') {
        over = __builtin_add_overflow(a, b, &y);
    } else if (op == '-') {
        over = __builtin_sub_overflow(a, b, &y);
    } else if (op == '*') {
        over = __builtin_mul_overflow(a, b, &y);
    } else if (op == 'p') {
        y = 1;
        for (int64_t i = 0; i < b && !over && y != 0 && (a != 1); i++) {
            run_steps(r, 1);
            over = __builtin_mul_overflow(y, a, &y);
        }
    } else if (b == -1) {
        over = op == 'f' && __builtin_sub_overflow((int64_t)0, a, &y);
    } else {
        const int64_t rest = a % b != 0 && (a % b < 0) != (b < 0) ? a % b + b : a % b;

        y = op == '%' ? rest : (a - rest) / b;
    }
    if (over)
        jinja_fail(r->pool, "TPL10", "a whole number does not fit 64 bits");
    return value_int(y);
}

static struct value join_lists(struct run *r, struct value a, struct value b)
{
    struct value out =
        value_list(r->pool, (enum value_type)a.type, a.list->n + b.list->n);

    for (size_t i = 0; i < a.list->n; i++)
        list_push(r->pool, out.list, a.list->at[i]);
    for (size_t i = 0; i < b.list->n; i++)
        list_push(r->pool, out.list, b.list->at[i]);
    run_steps(r, out.list->n / 8);
    return out;
}

static int64_t whole(struct value v)
{
    return v.type == V_BOOL ? v.flag : v.num;
}

struct value run_binary(struct run *r, unsigned char op, struct value a, struct value b)
{
    if (op == '~')
        return join_two(r, value_as_str(r->pool, a), value_as_str(r->pool, b));
    if (a.type == V_UNDEFINED)
        fail_undefined(r, a);
    if (b.type == V_UNDEFINED)
        fail_undefined(r, b);
    if (value_is_number(a) && value_is_number(b))
        return a.type == V_FLOAT || b.type == V_FLOAT
                   ? real_op(r, op, value_real(a), value_real(b))
                   : whole_op(r, op, whole(a), whole(b));
    if (op == '+' && a.type == V_STRING && b.type == V_STRING)
        return join_two(r, a.str, b.str);
    if (op == '+' && a.type == b.type && (a.type == V_LIST || a.type == V_TUPLE))
        return join_lists(r, a, b);
    if (op == '*' && a.type == V_STRING && b.type == V_INT)
        return repeat(r, a, b.num);
    if (op == '*' && a.type == V_INT && b.type == V_STRING)
        return repeat(r, b, a.num);
    jinja_fail(r->pool, "TPL10", "operator %s does not join %s and %s",
               op == 'f'   ? "//"
               : op == 'p' ? "**"
               : op == '+' ? "+"
               : op == '-' ? "-"
               : op == '*' ? "*"
               : op == '/' ? "/"
                           : "%",
               value_type_name(a), value_type_name(b));
}
