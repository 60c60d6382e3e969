/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strings as Python sees them (characters, white space), and values written as
 * Python's str(), repr() and json.dumps() write them.
 */
#include "text/jinja_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define MAX_WRITE_DEPTH 100

struct str str_part(const struct str *s, size_t first, size_t end)
{
    return (struct str){s->at + first, s->from ? s->from + first : NULL, end - first,
                        s->origin};
}

bool str_is(const struct str *s, const char *text)
{
    return s->n == strlen(text) && !memcmp(s->at, text, s->n);
}

enum origin str_origin(const struct str *s, size_t i)
{
    return s->from ? s->from[i] : s->origin;
}

size_t char_bytes(const char *s, size_t n, int32_t *code)
{
    utf8proc_int32_t c;
    const utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)s,
                                                  n < 4 ? (utf8proc_ssize_t)n : 4, &c);

    if (len <= 0) {
        *code = (unsigned char)*s;
        return 1;
    }
    *code = c;
    return (size_t)len;
}

bool char_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t str_chars(const struct str *s)
{
    size_t n = 0;
    int32_t code;

    for (size_t i = 0; i < s->n; n++)
        i += char_bytes(s->at + i, s->n - i, &code);
    return n;
}

/* The shortest decimal that reads back as X, in Python's form. */
static void format_float(char out[40], double x)
{
    char digits[40];
    int exponent, n;

    if (isnan(x) || isinf(x)) {
        strcpy(out, isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision < 17; precision++) {
        snprintf(digits, sizeof(digits), "%.*e", precision, x);
        if (strtod(digits, NULL) == x)
            break;
    }
    exponent = atoi(strchr(digits, 'e') + 1);
    n = (int)(strchr(digits, 'e') - digits) - (digits[0] == '-');
    n = n > 1 ? n - 1 : 1; /* digits without the point */
    if (exponent < -4 || exponent >= 16)
        snprintf(out, 40, "%.*e", n - 1, x);
    else
        snprintf(out, 40, "%.*f", n - 1 > exponent ? n - 1 - exponent : 1, x);
}

static void build_number(struct builder *b, struct value v)
{
    char text[40];

    if (v.type == V_BOOL)
        strcpy(text, v.flag ? "True" : "False");
    else if (v.type == V_INT)
        snprintf(text, sizeof(text), "%lld", (long long)v.num);
    else
        format_float(text, v.real);
    build_bytes(b, text, strlen(text), v.origin);
}

static bool printable(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

static void repr_str(struct builder *b, const struct str *s)
{
    const bool twice = memchr(s->at, '\'', s->n) && !memchr(s->at, '"', s->n);
    const char *quote = twice ? "\"" : "'";
    char escape[16];

    build_text(b, quote);
    for (size_t i = 0; i < s->n;) {
        int32_t c;
        const size_t len = char_bytes(s->at + i, s->n - i, &c);

        if (c == '\\' || c == quote[0])
            snprintf(escape, sizeof(escape), "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(escape, sizeof(escape), "\\%c",
                     c == '\n'   ? 'n'
                     : c == '\r' ? 'r'
                                 : 't');
        else if (printable(c))
            escape[0] = '\0';
        else if (c < 0x100)
            snprintf(escape, sizeof(escape), "\\x%02x", (unsigned)c);
        else
            snprintf(escape, sizeof(escape), c < 0x10000 ? "\\u%04x" : "\\U%08x",
                     (unsigned)c);
        if (escape[0])
            build_bytes(b, escape, strlen(escape), str_origin(s, i));
        else
            build_bytes(b, s->at + i, len, str_origin(s, i));
        i += len;
    }
    build_text(b, quote);
}

static void repr(struct builder *b, struct value v, int depth);

static void repr_items(struct builder *b, const struct list *l, int depth)
{
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            build_text(b, ", ");
        repr(b, l->at[i], depth);
    }
}

static void repr(struct builder *b, struct value v, int depth)
{
    if (depth > MAX_WRITE_DEPTH)
        jinja_fail(b->pool, "TPL14", "a value is nested too deeply to be written");
    switch ((enum value_type)v.type) {
    case V_UNDEFINED:
        build_text(b, "Undefined");
        return;
    case V_NONE:
        build_text(b, "None");
        return;
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        build_number(b, v);
        return;
    case V_STRING:
        repr_str(b, v.str);
        return;
    case V_LIST:
    case V_TUPLE:
        build_text(b, v.type == V_LIST ? "[" : "(");
        repr_items(b, v.list, depth + 1);
        build_text(b, v.type == V_LIST ? "]" : v.list->n == 1 ? ",)" : ")");
        return;
    case V_DICT:
        build_text(b, "{");
        for (size_t i = 0; i < v.dict->n; i++) {
            if (i)
                build_text(b, ", ");
            repr(b, v.dict->keys[i], depth + 1);
            build_text(b, ": ");
            repr(b, v.dict->values[i], depth + 1);
        }
        build_text(b, "}");
        return;
    default:
        jinja_fail(b->pool, "TPL10", "a %s cannot be written", value_type_name(v));
    }
}

void build_repr(struct builder *b, struct value v)
{
    repr(b, v, 0);
}

void build_value(struct builder *b, struct value v)
{
    if (v.type == V_STRING)
        build_str(b, v.str);
    else if (v.type != V_UNDEFINED)
        repr(b, v, 0);
}

struct json_style {
    int indent; /* -1: one line */
    bool ascii, sorted;
    struct str item, key; /* separators */
};

static void json_str(struct builder *b, const struct str *s, bool ascii)
{
    char escape[16];

    build_text(b, "\"");
    for (size_t i = 0; i < s->n;) {
        static const char names[] = "\"\"\\\\\nn\rr\tt\ff\bb";
        int32_t c;
        const size_t len = char_bytes(s->at + i, s->n - i, &c);
        const char *name = NULL;

        for (size_t k = 0; k < sizeof(names) - 1; k += 2)
            if (c == names[k])
                name = &names[k + 1];
        escape[0] = '\0';
        if (name)
            snprintf(escape, sizeof(escape), "\\%c", *name);
        else if (c < 0x20 || (ascii && c > 0x7e && c < 0x10000))
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)c);
        else if (ascii && c >= 0x10000)
            snprintf(escape, sizeof(escape), "\\u%04x\\u%04x",
                     0xd800u + (((unsigned)c - 0x10000u) >> 10),
                     0xdc00u + ((unsigned)c & 0x3ffu));
        if (escape[0])
            build_bytes(b, escape, strlen(escape), str_origin(s, i));
        else
            build_bytes(b, s->at + i, len, str_origin(s, i));
        i += len;
    }
    build_text(b, "\"");
}

static void json_break(struct builder *b, const struct json_style *style, int depth)
{
    if (style->indent < 0)
        return;
    build_text(b, "\n");
    for (int i = 0; i < style->indent * depth; i++)
        build_text(b, " ");
}

static void json_scalar(struct builder *b, struct value v)
{
    char text[40];

    if (v.type == V_NONE) {
        build_text(b, "null");
    } else if (v.type == V_BOOL) {
        build_bytes(b, v.flag ? "true" : "false", v.flag ? 4 : 5, v.origin);
    } else if (v.type == V_FLOAT && (isnan(v.real) || isinf(v.real))) {
        build_text(b, isnan(v.real) ? "NaN" : v.real < 0 ? "-Infinity" : "Infinity");
    } else {
        if (v.type == V_INT)
            snprintf(text, sizeof(text), "%lld", (long long)v.num);
        else
            format_float(text, v.real);
        build_bytes(b, text, strlen(text), v.origin);
    }
}

static void json_key(struct builder *b, struct value key,
                     const struct json_style *style)
{
    if (key.type == V_STRING) {
        json_str(b, key.str, style->ascii);
        return;
    }
    build_text(b, "\"");
    json_scalar(b, key);
    build_text(b, "\"");
}

/* Indices of D's keys in order, by insertion: dicts in templates are small. */
static size_t *sorted_keys(struct pool *p, const struct dict *d)
{
    size_t *at = pool_take(p, (d->n + 1) * sizeof(*at));

    for (size_t i = 0; i < d->n; i++) {
        size_t k = i;

        for (; k > 0 && value_order(p, d->keys[at[k - 1]], d->keys[i]) > 0; k--)
            at[k] = at[k - 1];
        at[k] = i;
    }
    return at;
}

static void json_any(struct builder *b, struct value v, const struct json_style *style,
                     int depth)
{
    const bool is_dict = v.type == V_DICT;
    const size_t n = is_dict                                 ? v.dict->n
                     : v.type == V_LIST || v.type == V_TUPLE ? v.list->n
                                                             : 0;
    const size_t *at = is_dict && style->sorted ? sorted_keys(b->pool, v.dict) : NULL;

    if (depth > MAX_WRITE_DEPTH)
        jinja_fail(b->pool, "TPL14", "a value is nested too deeply for tojson");
    if (v.type == V_STRING) {
        json_str(b, v.str, style->ascii);
        return;
    }
    if (v.type == V_NONE || value_is_number(v)) {
        json_scalar(b, v);
        return;
    }
    if (!is_dict && v.type != V_LIST && v.type != V_TUPLE)
        jinja_fail(b->pool, "TPL10", "a value of type %s cannot be written as JSON",
                   value_type_name(v));
    build_text(b, is_dict ? "{" : "[");
    for (size_t i = 0; i < n; i++) {
        const size_t k = at ? at[i] : i;

        if (i)
            build_str(b, &style->item);
        json_break(b, style, depth + 1);
        if (is_dict) {
            json_key(b, v.dict->keys[k], style);
            build_str(b, &style->key);
        }
        json_any(b, is_dict ? v.dict->values[k] : v.list->at[k], style, depth + 1);
    }
    if (n)
        json_break(b, style, depth);
    build_text(b, is_dict ? "}" : "]");
}

void build_json(struct builder *b, struct value v, int indent, bool ascii, bool sorted,
                const struct str *separators)
{
    struct json_style style = {.indent = indent,
                               .ascii = ascii,
                               .sorted = sorted,
                               .item = {", ", NULL, indent < 0 ? 2 : 1, FROM_TEMPLATE},
                               .key = {": ", NULL, 2, FROM_TEMPLATE}};

    if (separators) {
        style.item = separators[0];
        style.key = separators[1];
    }
    json_any(b, v, &style, 0);
}
