/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters, as Jinja defines them; tojson as chat templates have it: no HTML
 * escapes, UTF-8 as it is, keys in the order of insertion.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_text.h"

static const struct value *arg(const char *filter, const struct args *args, size_t i)
{
    const struct value *v = arg_at(jinja_function(IS_FILTER, filter), args, i);

    return v && v->type != V_NONE ? v : NULL;
}

static const struct str *as_str(struct run *r, struct value v)
{
    const struct str *s = value_as_str(r->pool, v);

    run_steps(r, s->n / 64);
    return s;
}

static struct value f_tojson(struct run *r, struct value v, const struct args *args)
{
    const struct value *ascii = arg("tojson", args, 0),
                       *indent = arg("tojson", args, 1);
    const struct value *marks = arg("tojson", args, 2),
                       *sorted = arg("tojson", args, 3);
    struct builder b = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};
    struct str separators[2];
    int width = -1;

    if (indent && (indent->type != V_INT || indent->num < 0 || indent->num > 64))
        jinja_fail(r->pool, "TPL10", "tojson's indent is a whole number from 0 to 64");
    if (indent)
        width = (int)indent->num;
    if (marks) {
        const struct list *two = run_items(r, *marks);

        if (two->n != 2)
            jinja_fail(r->pool, "TPL10", "tojson takes two separators");
        separators[0] = *need_str(r, &two->at[0], "tojson");
        separators[1] = *need_str(r, &two->at[1], "tojson");
    }
    build_json(&b, v, width, ascii && value_true(*ascii), sorted && value_true(*sorted),
               marks ? separators : NULL);
    run_steps(r, b.n / 16);
    return built(&b);
}

static struct value f_trim(struct run *r, struct value v, const struct args *args)
{
    const struct value *chars = arg("trim", args, 0);

    return value_str(r->pool,
                     text_strip(as_str(r, v), chars ? need_str(r, chars, "trim") : NULL,
                                true, true));
}

static struct value f_length(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    switch ((enum value_type)v.type) {
    case V_UNDEFINED:
        return value_int(0);
    case V_STRING:
        run_steps(r, v.str->n / 16);
        return value_int((int64_t)str_chars(v.str));
    case V_LIST:
    case V_TUPLE:
        return value_int((int64_t)v.list->n);
    case V_DICT:
        return value_int((int64_t)v.dict->n);
    default:
        jinja_fail(r->pool, "TPL10", "a %s has no length", value_type_name(v));
    }
}

static struct value f_string(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    return value_str(r->pool, *as_str(r, v));
}

static struct value f_list(struct run *r, struct value v, const struct args *args)
{
    const struct list *items = run_items(r, v);
    struct value out = value_list(r->pool, V_LIST, items->n);

    (void)args;
    for (size_t i = 0; i < items->n; i++)
        list_push(r->pool, out.list, items->at[i]);
    run_steps(r, items->n / 8);
    return out;
}

static struct value f_items(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    if (v.type == V_UNDEFINED)
        return value_list(r->pool, V_LIST, 0);
    if (v.type != V_DICT)
        jinja_fail(r->pool, "TPL10", "items needs a dict, not a %s",
                   value_type_name(v));
    return dict_items(r, v.dict);
}

/* Follow ATTRIBUTE, "a.b" or a number, from V; OTHERWISE where it ends early. */
static struct value follow(struct run *r, struct value v, const struct value *attribute,
                           const struct value *otherwise)
{
    const struct str *path;
    size_t at = 0;

    if (attribute->type == V_INT)
        return run_item(r, v, *attribute);
    path = need_str(r, attribute, "attribute");
    while (at <= path->n) {
        const char *dot = memchr(path->at + at, '.', path->n - at);
        const size_t end = dot ? (size_t)(dot - path->at) : path->n;
        const struct str part = str_part(path, at, end);
        char number[20];

        if (part.n && part.n < 18 && strspn(part.at, "0123456789") >= part.n) {
            memcpy(number, part.at, part.n);
            number[part.n] = '\0';
            v = run_item(r, v, value_int(atoll(number)));
        } else {
            v = run_item(r, v, value_str(r->pool, part));
        }
        if (v.type == V_UNDEFINED && otherwise)
            v = *otherwise;
        at = end + 1;
    }
    return v;
}

static struct value f_join(struct run *r, struct value v, const struct args *args)
{
    const struct value *d = arg("join", args, 0), *attribute = arg("join", args, 1);
    const struct list *items = run_items(r, v);
    struct builder b = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};

    for (size_t i = 0; i < items->n; i++) {
        run_steps(r, 1);
        if (i && d)
            build_str(&b, as_str(r, *d));
        build_value(&b, attribute ? follow(r, items->at[i], attribute, NULL)
                                  : items->at[i]);
    }
    return built(&b);
}

static struct value f_default(struct run *r, struct value v, const struct args *args)
{
    const struct function *f = jinja_function(IS_FILTER, "default");
    const struct value *other = arg_at(f, args, 0), *boolean = arg_at(f, args, 1);

    if (v.type != V_UNDEFINED && !(boolean && value_true(*boolean) && !value_true(v)))
        return v;
    return other ? *other : value_text(r->pool, "");
}

static struct value f_first(struct run *r, struct value v, const struct args *args)
{
    const struct list *items = run_items(r, v);

    (void)args;
    return items->n ? items->at[0] : value_undefined("first of nothing");
}

static struct value f_last(struct run *r, struct value v, const struct args *args)
{
    const struct list *items = run_items(r, v);

    (void)args;
    return items->n ? items->at[items->n - 1] : value_undefined("last of nothing");
}

/* Call the filter or test named by ARGS[I] on V with the arguments behind it. */
static struct value apply(struct run *r, enum function_kind kind, struct value v,
                          const struct args *args, size_t i)
{
    const struct str *s = need_str(r, &args->at[i], "the name of a filter or test");
    struct args rest = {0};
    char name[32] = "";
    const struct function *f;

    if (s->n < sizeof(name))
        memcpy(name, s->at, s->n);
    f = jinja_function(kind, name);
    if (!f)
        jinja_fail(r->pool, "TPL02", "unknown %s '%.*s'",
                   kind == IS_FILTER ? "filter" : "test", (int)(s->n < 64 ? s->n : 64),
                   s->at);
    for (size_t k = i + 1; k < args->n; k++) {
        rest.names[rest.n] = args->names[k];
        rest.at[rest.n++] = args->at[k];
    }
    if (!arg_fits(f, &rest))
        jinja_fail(r->pool, "TPL10", "'%s' does not take these arguments", name);
    return f->call(r, v, &rest);
}

/* selectattr, rejectattr, select and reject: items whose test is WANTED. */
static struct value choose(struct run *r, struct value v, const struct args *args,
                           bool by_attribute, bool wanted)
{
    const struct list *items = run_items(r, v);
    struct value out = value_list(r->pool, V_LIST, 0);
    const size_t test = by_attribute ? 1 : 0;

    for (size_t i = 0; i < items->n; i++) {
        struct value item = items->at[i];

        run_steps(r, 1);
        if (by_attribute)
            item = follow(r, item, &args->at[0], NULL);
        if (args->n > test)
            item = apply(r, IS_TEST, item, args, test);
        if (value_true(item) == wanted)
            list_push(r->pool, out.list, items->at[i]);
    }
    return out;
}

static struct value f_selectattr(struct run *r, struct value v, const struct args *args)
{
    return choose(r, v, args, true, true);
}

static struct value f_rejectattr(struct run *r, struct value v, const struct args *args)
{
    return choose(r, v, args, true, false);
}

static struct value f_select(struct run *r, struct value v, const struct args *args)
{
    return choose(r, v, args, false, true);
}

static struct value f_reject(struct run *r, struct value v, const struct args *args)
{
    return choose(r, v, args, false, false);
}

static struct value f_map(struct run *r, struct value v, const struct args *args)
{
    const struct list *items = run_items(r, v);
    struct value out = value_list(r->pool, V_LIST, items->n);
    const struct value *attribute = NULL, *otherwise = NULL;

    for (size_t k = 0; k < args->n; k++) {
        if (args->names[k] && !strcmp(args->names[k], "attribute"))
            attribute = &args->at[k];
        else if (args->names[k] && !strcmp(args->names[k], "default"))
            otherwise = &args->at[k];
    }
    for (size_t i = 0; i < items->n; i++) {
        run_steps(r, 1);
        list_push(r->pool, out.list,
                  attribute ? follow(r, items->at[i], attribute, otherwise)
                            : apply(r, IS_FILTER, items->at[i], args, 0));
    }
    return out;
}

static struct value f_lower(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    return text_case(r, as_str(r, v), CASE_LOWER);
}

static struct value f_upper(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    return text_case(r, as_str(r, v), CASE_UPPER);
}

static struct value f_capitalize(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    return text_case(r, as_str(r, v), CASE_CAPITAL);
}

static struct value f_title(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    return text_case(r, as_str(r, v), CASE_WORDS);
}

static struct value f_replace(struct run *r, struct value v, const struct args *args)
{
    const struct value *count = arg("replace", args, 2);

    return text_replace(
        r, as_str(r, v),
        as_str(r, *arg_at(jinja_function(IS_FILTER, "replace"), args, 0)),
        as_str(r, *arg_at(jinja_function(IS_FILTER, "replace"), args, 1)),
        count && count->type == V_INT ? count->num : -1);
}

/* V as a number of Python's int() or float(); false: it is none. */
static bool to_real(struct run *r, struct value v, double *out)
{
    char text[64], *end;
    struct str s;

    if (value_is_number(v)) {
        *out = value_real(v);
        return true;
    }
    if (v.type != V_STRING)
        return false;
    s = text_strip(v.str, NULL, true, true);
    if (!s.n || s.n >= sizeof(text) || memchr(s.at, 'x', s.n) || memchr(s.at, 'X', s.n))
        return false;
    memcpy(text, s.at, s.n);
    text[s.n] = '\0';
    *out = strtod(text, &end);
    (void)r;
    return !*end;
}

static struct value f_int(struct run *r, struct value v, const struct args *args)
{
    const struct value *other = arg("int", args, 0);
    double x;

    if (v.type == V_INT)
        return v;
    if (v.type == V_STRING) {
        const struct str s = text_strip(v.str, NULL, true, true);
        char text[24], *end;

        if (s.n && s.n < 19) {
            memcpy(text, s.at, s.n);
            text[s.n] = '\0';
            v.num = strtoll(text, &end, 10);
            if (!*end)
                return value_int(v.num);
            v = value_str(r->pool, s);
        }
    }
    if (to_real(r, v, &x) && fabs(x) < 9e18)
        return value_int((int64_t)x);
    return other ? *other : value_int(0);
}

static struct value f_float(struct run *r, struct value v, const struct args *args)
{
    const struct value *other = arg("float", args, 0);
    double x = 0.0;

    if (!to_real(r, v, &x) && other)
        return *other;
    return (struct value){.type = V_FLOAT, .real = x};
}

static struct value f_abs(struct run *r, struct value v, const struct args *args)
{
    (void)args;
    if (!value_is_number(v))
        jinja_fail(r->pool, "TPL10", "abs needs a number, not a %s",
                   value_type_name(v));
    return value_real(v) < 0 ? run_binary(r, '-', value_int(0), v) : v;
}

/* What an item is ordered by: its attribute, in lower case unless CASED. */
static struct value sort_key(struct run *r, struct value v,
                             const struct value *attribute, bool cased)
{
    if (attribute)
        v = follow(r, v, attribute, NULL);
    return v.type == V_STRING && !cased ? text_case(r, v.str, CASE_LOWER) : v;
}

/* Merge sort of KEYS with ITEMS beside it: stable, also where it is reversed. */
static void merge_sort(struct run *r, struct value *keys, struct value *items, size_t n,
                       bool reverse)
{
    struct value *spare = pool_take(r->pool, 2 * n * sizeof(*spare));

    for (size_t width = 1; width < n; width *= 2) {
        for (size_t first = 0; first < n; first += 2 * width) {
            const size_t middle = first + width < n ? first + width : n;
            const size_t end = first + 2 * width < n ? first + 2 * width : n;
            size_t a = first, b = middle;

            run_steps(r, end - first);
            for (size_t k = first; k < end; k++) {
                bool left = b >= end;

                if (!left && a < middle) {
                    const int order = value_order(r->pool, keys[a], keys[b]);

                    left = reverse ? order >= 0 : order <= 0;
                }
                spare[2 * k] = left ? keys[a] : keys[b];
                spare[2 * k + 1] = left ? items[a++] : items[b++];
            }
        }
        for (size_t k = 0; k < n; k++) {
            keys[k] = spare[2 * k];
            items[k] = spare[2 * k + 1];
        }
    }
}

static struct value sorted(struct run *r, const struct list *items,
                           const struct value *attribute, bool cased, bool reverse)
{
    struct value keys = value_list(r->pool, V_LIST, items->n);
    struct value out = value_list(r->pool, V_LIST, items->n);

    for (size_t i = 0; i < items->n; i++) {
        list_push(r->pool, keys.list, sort_key(r, items->at[i], attribute, cased));
        list_push(r->pool, out.list, items->at[i]);
    }
    merge_sort(r, keys.list->at, out.list->at, items->n, reverse);
    return out;
}

static bool is_set(const struct value *v)
{
    return v && value_true(*v);
}

static struct value f_sort(struct run *r, struct value v, const struct args *args)
{
    return sorted(r, run_items(r, v), arg("sort", args, 2),
                  is_set(arg("sort", args, 1)), is_set(arg("sort", args, 0)));
}

static struct value f_dictsort(struct run *r, struct value v, const struct args *args)
{
    const struct value *by = arg("dictsort", args, 1);
    const bool by_value = by && by->type == V_STRING && str_is(by->str, "value");
    const struct value column = value_int(by_value ? 1 : 0);
    struct value pairs;

    if (v.type != V_DICT)
        jinja_fail(r->pool, "TPL10", "dictsort needs a dict, not a %s",
                   value_type_name(v));
    pairs = dict_items(r, v.dict);
    return sorted(r, pairs.list, &column, is_set(arg("dictsort", args, 0)),
                  is_set(arg("dictsort", args, 2)));
}

static struct value f_unique(struct run *r, struct value v, const struct args *args)
{
    const bool cased = is_set(arg("unique", args, 0));
    const struct value *attribute = arg("unique", args, 1);
    const struct list *items = run_items(r, v);
    struct value out = value_list(r->pool, V_LIST, 0);
    struct value seen = value_list(r->pool, V_LIST, 0);

    for (size_t i = 0; i < items->n; i++) {
        const struct value key = sort_key(r, items->at[i], attribute, cased);

        if (run_contains(r, key, seen))
            continue;
        list_push(r->pool, seen.list, key);
        list_push(r->pool, out.list, items->at[i]);
    }
    return out;
}

static struct value f_reverse(struct run *r, struct value v, const struct args *args)
{
    const struct value back[3] = {value_none(), value_none(), value_int(-1)};

    (void)args;
    if (v.type != V_STRING)
        v = (struct value){.type = V_LIST, .list = run_items(r, v)};
    return run_slice(r, v, back);
}

static struct value extreme(struct run *r, struct value v, const struct args *args,
                            bool reverse)
{
    const struct function *f = jinja_function(IS_FILTER, reverse ? "max" : "min");
    const struct value *cased = arg_at(f, args, 0), *attribute = arg_at(f, args, 1);
    const struct list *items = run_items(r, v);

    if (!items->n)
        return value_undefined("extreme of nothing");
    return sorted(r, items, attribute, is_set(cased), reverse).list->at[0];
}

static struct value f_min(struct run *r, struct value v, const struct args *args)
{
    return extreme(r, v, args, false);
}

static struct value f_max(struct run *r, struct value v, const struct args *args)
{
    return extreme(r, v, args, true);
}

static struct value f_sum(struct run *r, struct value v, const struct args *args)
{
    const struct value *attribute = arg("sum", args, 0), *start = arg("sum", args, 1);
    const struct list *items = run_items(r, v);
    struct value total = start ? *start : value_int(0);

    for (size_t i = 0; i < items->n; i++) {
        const struct value item = items->at[i];

        run_steps(r, 1);
        total = run_binary(r, '+', total,
                           attribute ? follow(r, item, attribute, NULL) : item);
    }
    return total;
}

static struct value f_indent(struct run *r, struct value v, const struct args *args)
{
    const struct value *width = arg("indent", args, 0);
    const bool first = is_set(arg("indent", args, 1)),
               blank = is_set(arg("indent", args, 2));
    const int64_t n = width && width->type == V_INT ? width->num : 4;
    const struct str *s = as_str(r, v);
    struct builder b = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};
    size_t at = 0;

    if (n < 0 || n > 1024)
        jinja_fail(r->pool, "TPL10", "indent's width is from 0 to 1024");
    for (size_t line = 0;; line++) {
        const char *end = memchr(s->at + at, '\n', s->n - at);
        const size_t stop = end ? (size_t)(end - s->at) : s->n;
        const bool indented = line ? blank || stop > at : first;

        for (int64_t i = 0; indented && i < n; i++)
            width && width->type == V_STRING ? build_str(&b, width->str)
                                             : build_text(&b, " ");
        build_str(&b, &(struct str){s->at + at, s->from ? s->from + at : NULL,
                                    stop - at + (end != NULL), s->origin});
        if (!end)
            return built(&b);
        at = stop + 1;
    }
}

const struct function jinja_filters[] = {
    {"tojson", f_tojson, "ensure_ascii indent separators sort_keys", 0},
    {"trim", f_trim, "chars", 0},
    {"length", f_length, "", 0},
    {"count", f_length, "", 0},
    {"string", f_string, "", 0},
    {"safe", f_string, "", 0},
    {"list", f_list, "", 0},
    {"items", f_items, "", 0},
    {"join", f_join, "d attribute", 0},
    {"default", f_default, "default_value boolean", 0},
    {"d", f_default, "default_value boolean", 0},
    {"first", f_first, "", 0},
    {"last", f_last, "", 0},
    {"selectattr", f_selectattr, "..", 1},
    {"rejectattr", f_rejectattr, "..", 1},
    {"select", f_select, "..", 0},
    {"reject", f_reject, "..", 0},
    {"map", f_map, "..", 1},
    {"lower", f_lower, "", 0},
    {"upper", f_upper, "", 0},
    {"capitalize", f_capitalize, "", 0},
    {"title", f_title, "", 0},
    {"replace", f_replace, "old new count", 2},
    {"int", f_int, "default base", 0},
    {"float", f_float, "default", 0},
    {"abs", f_abs, "", 0},
    {"sort", f_sort, "reverse case_sensitive attribute", 0},
    {"dictsort", f_dictsort, "case_sensitive by reverse", 0},
    {"unique", f_unique, "case_sensitive attribute", 0},
    {"reverse", f_reverse, "", 0},
    {"min", f_min, "case_sensitive attribute", 0},
    {"max", f_max, "case_sensitive attribute", 0},
    {"sum", f_sum, "attribute start", 0},
    {"indent", f_indent, "width first blank", 0},
    {NULL, NULL, NULL, 0},
};
