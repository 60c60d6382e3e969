/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/grammar_schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_text.h"

static const char *const notes[] = {
    "title",      "description", "default",   "examples",      "example",
    "$schema",    "$id",         "$comment",  "$defs",         "definitions",
    "deprecated", "readOnly",    "writeOnly", "discriminator", NULL};

static const char *const object_keywords[] = {"properties", "required",
                                              "additionalProperties", NULL};
static const char *const array_keywords[] = {"items", "prefixItems", "minItems",
                                             "maxItems", NULL};
static const char *const string_keywords[] = {"minLength", "maxLength", "pattern",
                                              "format", NULL};
static const char *const number_keywords[] = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", NULL};
static const char *const other_keywords[] = {"type",  "enum",  "const", "anyOf",
                                             "oneOf", "allOf", "$ref",  NULL};

static const char *const type_names[] = {"object",  "array",   "string", "number",
                                         "integer", "boolean", "null"};
enum {
    OBJECT = 1,
    ARRAY = 2,
    STRING = 4,
    NUMBER = 8,
    INTEGER = 16,
    BOOLEAN = 32,
    NOTHING = 64
};

static bool is_in(const char *const *list, const char *keyword)
{
    for (; *list; list++)
        if (!strcmp(*list, keyword))
            return true;
    return false;
}

static bool has_any(const json_t *schema, const char *const *list)
{
    for (; *list; list++)
        if (json_object_get(schema, *list))
            return true;
    return false;
}

bool schema_is_note(const char *keyword)
{
    return is_in(notes, keyword) || !strncmp(keyword, "x-", 2);
}

bool schema_only_notes(const json_t *schema, const char *but)
{
    const char *keyword;
    json_t *value;

    json_object_foreach((json_t *)schema, keyword,
                        value) if (strcmp(keyword, but) &&
                                   !schema_is_note(keyword)) return false;
    return true;
}

/* Every keyword is known, or says nothing here. */
static bool check_keywords(struct schema_compiler *c, const json_t *schema,
                           const char *place)
{
    const char *keyword;
    json_t *value;

    json_object_foreach((json_t *)schema, keyword, value)
    {
        if (schema_is_note(keyword) || is_in(object_keywords, keyword) ||
            is_in(array_keywords, keyword) || is_in(string_keywords, keyword) ||
            is_in(number_keywords, keyword) || is_in(other_keywords, keyword))
            continue;
        if ((!strcmp(keyword, "uniqueItems") ||
             !strcmp(keyword, "unevaluatedProperties")) &&
            json_is_false(value))
            continue;
        schema_refused(&c->b, place, keyword, "this keyword is not supported");
        return false;
    }
    return true;
}

/* Where a value of SCHEMA begins; it is compiled later, unless it has been before. */
static uint32_t part_state(struct schema_compiler *c, const json_t *schema,
                           const char *place)
{
    struct schema_part *p;

    if (json_is_true(schema))
        schema = c->any;
    for (size_t i = 0; i < c->n_parts; i++)
        if (c->parts[i].schema == schema && !json_is_false(schema))
            return c->parts[i].start;
    if (c->n_parts == SCHEMA_PARTS) {
        schema_refused(&c->b, place, NULL, "more than %d parts of a schema",
                       SCHEMA_PARTS);
        return 0;
    }
    if (c->n_parts == c->room) {
        const size_t room = c->room ? 2 * c->room : 32;
        struct schema_part *grown = realloc(c->parts, room * sizeof(*grown));

        if (!grown) {
            if (!c->b.rc)
                c->b.rc = error_nomem(c->b.err, room * sizeof(*grown));
            return 0;
        }
        c->parts = grown;
        c->room = room;
    }
    p = &c->parts[c->n_parts];
    p->schema = schema;
    p->start = net_state(&c->b);
    p->place = strdup(place);
    if (!p->place) {
        if (!c->b.rc)
            c->b.rc = error_nomem(c->b.err, strlen(place) + 1);
        return 0;
    }
    c->n_parts++;
    return p->start;
}

uint32_t schema_inner(struct schema_compiler *c, const json_t *schema,
                      const char *place, const char *keyword, const char *name)
{
    char inner[SCHEMA_PLACE];

    snprintf(inner, sizeof(inner), "%s/%s%s%s", place, keyword, name ? "/" : "",
             name ? name : "");
    return part_state(c, schema, inner);
}

uint32_t schema_count(struct schema_compiler *c, const json_t *schema,
                      const char *keyword, uint32_t otherwise, const char *place)
{
    const json_t *value = json_object_get(schema, keyword);
    const double x = json_number_value(value);

    if (!value)
        return otherwise;
    if (!json_is_number(value) || !(x >= 0) || floor(x) != x) {
        schema_refused(&c->b, place, keyword, "must be an integer of at least 0");
        return otherwise;
    }
    if (x > 1000000000) {
        if (!strncmp(keyword, "max", 3))
            return NET_NO_LIMIT; /* no text is so long */
        schema_refused(&c->b, place, keyword, "no text is so long");
        return otherwise;
    }
    return (uint32_t)x;
}

/* Types of SCHEMA: those it names, else those its keywords speak of, else all. */
static unsigned types_of(struct schema_compiler *c, const json_t *schema,
                         const char *place)
{
    const json_t *type = json_object_get(schema, "type");
    const size_t n = json_is_array(type) ? json_array_size(type) : 1;
    unsigned types = 0;

    if (!type) {
        types = (has_any(schema, object_keywords) ? OBJECT : 0u) |
                (has_any(schema, array_keywords) ? ARRAY : 0u) |
                (has_any(schema, string_keywords) ? STRING : 0u) |
                (has_any(schema, number_keywords) ? NUMBER : 0u);
        return types ? types : OBJECT | ARRAY | STRING | NUMBER | BOOLEAN | NOTHING;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(type) ? json_array_get(type, i) : type;
        unsigned found = 0;

        for (size_t t = 0; t < sizeof(type_names) / sizeof(*type_names); t++)
            if (json_is_string(one) && !strcmp(json_string_value(one), type_names[t]))
                found = 1u << t;
        if (!found)
            schema_refused(&c->b, place, "type",
                           "must be object, array, string, number, integer, boolean or "
                           "null");
        types |= found;
    }
    if (!types)
        schema_refused(&c->b, place, "type", "no type is left");
    return types & NUMBER ? types & ~(unsigned)INTEGER : types;
}

static unsigned type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return OBJECT;
    case JSON_ARRAY:
        return ARRAY;
    case JSON_STRING:
        return STRING;
    case JSON_INTEGER:
        return NUMBER | INTEGER;
    case JSON_REAL:
        return floor(json_real_value(value)) == json_real_value(value)
                   ? NUMBER | INTEGER
                   : NUMBER;
    case JSON_NULL:
        return NOTHING;
    default:
        return BOOLEAN;
    }
}

/* Given values: those of enum that const and type let through. */
static void compile_given(struct schema_compiler *c, const json_t *schema,
                          uint32_t start, const char *place)
{
    const json_t *list = json_object_get(schema, "enum"), *value;
    const json_t *only = json_object_get(schema, "const");
    const char *const keyword = list ? "enum" : "const";
    struct spellings s = {0};
    const char *other;
    json_t *ignored;
    unsigned types;
    size_t i, n = 0;

    json_object_foreach((json_t *)schema, other,
                        ignored) if (strcmp(other, "enum") && strcmp(other, "const") &&
                                     strcmp(other, "type") && !schema_is_note(other))
        schema_refused(&c->b, place, other, "is not supported beside %s", keyword);
    if (list && !json_is_array(list))
        schema_refused(&c->b, place, "enum", "must be an array");
    types = json_object_get(schema, "type") ? types_of(c, schema, place) : ~0u;
    for (i = 0; !c->b.rc && i < (list ? json_array_size(list) : 1); i++) {
        value = list ? json_array_get(list, i) : only;
        if ((only && !json_equal(value, only)) || !(types & type_of(value)))
            continue;
        text_spell(&c->b, &s, value);
        n++;
    }
    if (!n)
        schema_refused(&c->b, place, keyword, "no value is left");
    text_spellings(&c->b, start, &s);
    spellings_release(&s);
}

static void compile_literal(struct schema_compiler *c, uint32_t start, const char *text)
{
    net_accept(&c->b, net_text(&c->b, start, text, strlen(text)));
}

#define YEAR "(\\d\\d\\d[1-9]|\\d\\d[1-9]\\d|\\d[1-9]\\d\\d|[1-9]\\d\\d\\d)"
#define LEAP "(\\d\\d(0[48]|[2468][048]|[13579][26])|([13579][26]|[2468][048]|0[48])00)"
#define DATE                                                                           \
    "(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|"                              \
    "(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))|" LEAP "-02-29)"
#define CLOCK "([01]\\d|2[0-3]):[0-5]\\d"
#define TIME  CLOCK ":[0-5]\\d(\\.\\d{1,6})?(Z|[+-]" CLOCK ")"
#define HEX   "[0-9a-f]"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define BYTE  "(\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])"

/* Formats as patterns, exact as far as an expression can be. */
static const char *format_pattern(const char *format)
{
    static const char *const formats[][2] = {
        {"date", "^" DATE "$"},
        {"time", "^" TIME "$"},
        {"date-time", "^" DATE "T" TIME "$"},
        {"uuid", "^" HEX "{8}-" HEX "{4}-" HEX "{4}-" HEX "{4}-" HEX "{12}$"},
        {"email", "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@" LABEL "(\\." LABEL ")*"
                  "\\.[A-Za-z]{2,12}$"},
        {"hostname", "^" LABEL "(\\." LABEL ")*$"},
        {"ipv4", "^(" BYTE "\\.){3}" BYTE "$"},
        {"uri", "^https?://" LABEL "(\\." LABEL ")*(:[1-9]\\d{0,3})?"
                "(/[A-Za-z0-9._~-]*)*(\\?[A-Za-z0-9._~=&-]*)?$"},
    };

    for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++)
        if (!strcmp(format, formats[i][0]))
            return formats[i][1];
    return NULL;
}

static void compile_string(struct schema_compiler *c, const json_t *schema,
                           uint32_t start, const char *place)
{
    const uint32_t min = schema_count(c, schema, "minLength", 0, place);
    const uint32_t max = schema_count(c, schema, "maxLength", NET_NO_LIMIT, place);
    const json_t *pattern = json_object_get(schema, "pattern");
    const json_t *format = json_object_get(schema, "format");
    const uint32_t end = net_state(&c->b);
    const char *text = json_string_value(pattern);

    net_accept(&c->b, end);
    if (min > max)
        schema_refused(&c->b, place, "minLength", "is above maxLength");
    if (pattern && format)
        schema_refused(&c->b, place, "format", "is not supported beside pattern");
    if (pattern && !text)
        schema_refused(&c->b, place, "pattern", "must be a string");
    if (format) {
        text =
            json_is_string(format) ? format_pattern(json_string_value(format)) : NULL;
        if (!text)
            schema_refused(&c->b, place, "format", "this format is not supported");
    }
    if (c->b.rc)
        return;
    if (text)
        text_pattern(&c->b, start, end, text, min, max, place,
                     format ? "format" : "pattern");
    else
        text_string(&c->b, start, end, min, max);
}

static void compile_type(struct schema_compiler *c, const json_t *schema, unsigned type,
                         uint32_t start, const char *place)
{
    switch (type) {
    case OBJECT:
        schema_object(c, schema, start, place);
        break;
    case ARRAY:
        schema_array(c, schema, start, place);
        break;
    case STRING:
        compile_string(c, schema, start, place);
        break;
    case NUMBER:
    case INTEGER:
        text_number(&c->b, start, schema, type == INTEGER, place);
        break;
    case BOOLEAN:
        compile_literal(c, start, "true");
        compile_literal(c, start, "false");
        break;
    default:
        compile_literal(c, start, "null");
        break;
    }
}

/* Each alternative with what stands beside them. */
static void compile_any_of(struct schema_compiler *c, const json_t *schema,
                           const char *keyword, uint32_t start, const char *place)
{
    const json_t *list = json_object_get(schema, keyword), *one;
    const bool alone = schema_only_notes(schema, keyword);
    const json_t *beside = alone ? NULL : schema_without(c, schema, keyword, NULL);
    size_t i;

    if (!json_is_array(list) || !json_array_size(list))
        schema_refused(&c->b, place, keyword, "must be an array of schemas");
    json_array_foreach(list, i, one)
    {
        char name[24], inner[SCHEMA_PLACE];

        snprintf(name, sizeof(name), "%zu", i);
        snprintf(inner, sizeof(inner), "%s/%s/%zu", place, keyword, i);
        if (beside) {
            one = schema_flat(c, one, inner, 0);
            one = one ? schema_both(c, beside, one, inner) : NULL;
        }
        if (!one || c->b.rc)
            return;
        net_empty(&c->b, start, schema_inner(c, one, place, keyword, name));
    }
}

static void compile_part(struct schema_compiler *c, const json_t *schema,
                         uint32_t start, const char *place)
{
    const json_t *flat;
    unsigned types;

    if (json_is_false(schema)) {
        schema_refused(&c->b, place, NULL, "false: no value is allowed here");
        return;
    }
    if (json_is_object(schema) && !check_keywords(c, schema, place))
        return;
    if (json_object_get(schema, "$ref") && schema_only_notes(schema, "$ref")) {
        flat = schema_ref(c, schema, place);
        if (flat)
            net_empty(&c->b, start, part_state(c, flat, place));
        return;
    }
    flat = schema_flat(c, schema, place, 0);
    if (!flat || json_is_boolean(flat) || schema_only_notes(flat, "")) {
        if (flat)
            net_empty(&c->b, start,
                      part_state(c, json_is_false(flat) ? flat : json_true(), place));
        return;
    }
    if (flat != schema && !check_keywords(c, flat, place))
        return;
    if (json_object_get(flat, "anyOf") || json_object_get(flat, "oneOf")) {
        compile_any_of(c, flat, json_object_get(flat, "anyOf") ? "anyOf" : "oneOf",
                       start, place);
        return;
    }
    if (json_object_get(flat, "enum") || json_object_get(flat, "const")) {
        compile_given(c, flat, start, place);
        return;
    }
    types = types_of(c, flat, place);
    for (unsigned type = OBJECT; type <= NOTHING && !c->b.rc; type <<= 1) {
        uint32_t begin = start;

        if (!(types & type))
            continue;
        if (types != type) { /* no type may go back to where others begin */
            begin = net_state(&c->b);
            net_empty(&c->b, start, begin);
        }
        compile_type(c, flat, type, begin, place);
    }
}

/* Brackets within each other, at most SCHEMA_DEPTH, or one more. */
static unsigned depth_of(const json_t *value, unsigned limit)
{
    unsigned deepest = 0, depth;
    const char *key;
    json_t *item;
    size_t i;

    if (limit == 0 || (!json_is_object(value) && !json_is_array(value)))
        return 0;
    json_object_foreach((json_t *)value, key, item)
    {
        depth = depth_of(item, limit - 1);
        deepest = depth > deepest ? depth : deepest;
    }
    json_array_foreach(value, i, item)
    {
        depth = depth_of(item, limit - 1);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
}

static int compile_all(struct schema_compiler *c)
{
    c->any = json_pack("{s:b, s:[s,s,s,s,s,s]}", "additionalProperties", 1, "type",
                       "object", "array", "string", "number", "boolean", "null");
    c->made = json_array();
    if (!c->any || !c->made)
        return c->b.rc = error_nomem(c->b.err, sizeof(json_t *));
    if (depth_of(c->root, SCHEMA_DEPTH + 1) > SCHEMA_DEPTH)
        return schema_refused(&c->b, "#", NULL,
                              "the schema is nested more than %d deep", SCHEMA_DEPTH);
    part_state(c, c->root, "#");
    while (c->n_done < c->n_parts && !c->b.rc) {
        const struct schema_part p = c->parts[c->n_done++];

        compile_part(c, p.schema, p.start, p.place);
    }
    return c->b.rc;
}

static int finish(struct schema_compiler *c, struct net *out, const bool *has,
                  struct artel_error *err)
{
    uint32_t *starts = malloc(c->n_parts * sizeof(*starts));
    size_t endless;
    int rc;

    if (!starts)
        return error_nomem(err, c->n_parts * sizeof(*starts));
    for (size_t i = 0; i < c->n_parts; i++)
        starts[i] = c->parts[i].start;
    rc = net_finish(out, &c->b, has, starts, c->n_parts, &endless, err);
    free(starts);
    if (rc == 0 && endless < c->n_parts) {
        net_release(out);
        rc = schema_refused(&c->b, c->parts[endless].place, NULL,
                            "no text can satisfy this, or none with values at most %d "
                            "deep within each other",
                            NET_DEPTH);
    }
    return rc;
}

int schema_compile(struct net *out, uint32_t *start, const json_t *schema,
                   const bool *has, struct artel_error *err)
{
    struct schema_compiler c = {.root = schema};
    int rc = net_build_init(&c.b, err);

    *out = (struct net){0};
    if (rc == 0)
        rc = compile_all(&c);
    if (rc == 0)
        rc = finish(&c, out, has, err);
    if (rc == 0)
        *start = c.parts[0].start;
    for (size_t i = 0; i < c.n_parts; i++)
        free(c.parts[i].place);
    free(c.parts);
    json_decref(c.any);
    json_decref(c.made);
    net_build_release(&c.b);
    return rc;
}
