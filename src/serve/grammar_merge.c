/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schemas that hold together: $ref beside other keywords, allOf, and what stands beside
 * anyOf, as one schema without them.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_schema.h"
#include "serve/grammar_text.h"

/* M lives as long as C. */
static json_t *keep(struct schema_compiler *c, json_t *m)
{
    if (m && json_array_append_new(c->made, m) == 0)
        return m;
    if (!c->b.rc)
        c->b.rc = error_nomem(c->b.err, sizeof(json_t *));
    return NULL;
}

static bool set(struct schema_compiler *c, json_t *o, const char *key, json_t *value)
{
    if (value && json_object_set_new(o, key, value) == 0)
        return true;
    if (!c->b.rc)
        c->b.rc = error_nomem(c->b.err, sizeof(json_t *));
    return false;
}

const json_t *schema_without(struct schema_compiler *c, const json_t *schema,
                             const char *keyword, const char *other)
{
    json_t *m = keep(c, json_copy((json_t *)schema));

    if (!m)
        return NULL;
    json_object_del(m, keyword);
    if (other)
        json_object_del(m, other);
    return m;
}

/* One step of a JSON pointer, from *AT on, into TOKEN; false: too long. */
static bool pointer_token(const char **at, char *token, size_t size)
{
    size_t n = 0;

    for (; **at && **at != '/'; ++*at) {
        char byte = **at;

        if (byte == '~' && ((*at)[1] == '0' || (*at)[1] == '1'))
            byte = *++*at == '0' ? '~' : '/';
        if (n + 1 == size)
            return false;
        token[n++] = byte;
    }
    token[n] = 0;
    return true;
}

const json_t *schema_ref(struct schema_compiler *c, const json_t *schema,
                         const char *place)
{
    const char *at = json_string_value(json_object_get(schema, "$ref"));
    const json_t *found = c->root;
    char token[512];

    if (!at || at[0] != '#' || (at[1] && at[1] != '/') || strchr(at, '%')) {
        schema_refused(&c->b, place, "$ref",
                       "only places in the schema itself are supported: \"#/...\"");
        return NULL;
    }
    for (at++; *at && found;) {
        at++;
        if (!pointer_token(&at, token, sizeof(token)))
            found = NULL;
        else if (json_is_array(found))
            found = json_array_get(found, strtoul(token, NULL, 10));
        else
            found = json_object_get(found, token);
    }
    if (!json_is_object(found) && !json_is_boolean(found)) {
        schema_refused(&c->b, place, "$ref", "there is no schema at this place");
        return NULL;
    }
    return found;
}

/* {"allOf": [A, B]}, or A where B is the same. */
static json_t *all_of(const json_t *a, const json_t *b)
{
    if (json_equal(a, b))
        return json_incref((json_t *)a);
    return json_pack("{s:[O,O]}", "allOf", a, b);
}

static json_t *type_list(const json_t *type)
{
    return json_is_array(type) ? json_incref((json_t *)type)
                               : json_pack("[O]", (json_t *)type);
}

static json_t *both_types(const json_t *a, const json_t *b)
{
    json_t *as = type_list(a), *bs = type_list(b), *both = json_array();
    const json_t *x, *y;
    size_t i, k;

    json_array_foreach(as, i, x)
    {
        json_array_foreach(bs, k, y)
        {
            const char *p = json_string_value(x), *q = json_string_value(y);

            if (!p || !q)
                continue;
            if (!strcmp(p, q))
                json_array_append(both, (json_t *)x);
            else if (!strcmp(p, "integer") && !strcmp(q, "number"))
                json_array_append(both, (json_t *)x);
            else if (!strcmp(p, "number") && !strcmp(q, "integer"))
                json_array_append(both, (json_t *)y);
        }
    }
    json_decref(as);
    json_decref(bs);
    return both;
}

static json_t *both_lists(const json_t *a, const json_t *b, bool only_common)
{
    json_t *out = only_common ? json_array() : json_deep_copy(a);
    const json_t *x, *y;
    size_t i, k;

    json_array_foreach(b, i, x)
    {
        bool found = false;

        json_array_foreach(a, k, y) found = found || json_equal(x, y);
        if (found == only_common)
            json_array_append(out, (json_t *)x);
    }
    return out;
}

static json_t *both_properties(const json_t *a, const json_t *b)
{
    json_t *out = json_copy((json_t *)a), *value;
    const char *name;

    json_object_foreach((json_t *)b, name, value)
    {
        const json_t *other = json_object_get(a, name);

        json_object_set_new(out, name,
                            other ? all_of(other, value) : json_incref(value));
    }
    return out;
}

static bool is_one_of(const char *keyword, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(keyword, *list))
            return true;
    return false;
}

/* What KEYWORD is where one says A, the other B. NULL: cannot be told. */
static json_t *both_say(const char *keyword, const json_t *a, const json_t *b)
{
    static const char *const larger[] = {"minimum", "exclusiveMinimum", "minLength",
                                         "minItems", NULL};
    static const char *const smaller[] = {"maximum", "exclusiveMaximum", "maxLength",
                                          "maxItems", NULL};
    const bool more = is_one_of(keyword, larger), less = is_one_of(keyword, smaller);

    if (json_equal(a, b))
        return json_incref((json_t *)a);
    if ((more || less) && json_is_number(a) && json_is_number(b))
        return json_incref(
            (json_t *)((json_number_value(a) > json_number_value(b)) == more ? a : b));
    if (!strcmp(keyword, "type"))
        return both_types(a, b);
    if (!strcmp(keyword, "enum") && json_is_array(a) && json_is_array(b))
        return both_lists(a, b, true);
    if (!strcmp(keyword, "required") && json_is_array(a) && json_is_array(b))
        return both_lists(a, b, false);
    if (!strcmp(keyword, "properties") && json_is_object(a) && json_is_object(b))
        return both_properties(a, b);
    if (!strcmp(keyword, "items"))
        return all_of(a, b);
    if (!strcmp(keyword, "additionalProperties") &&
        (json_is_boolean(a) || json_is_boolean(b)))
        return json_incref((json_t *)(json_is_true(a) || json_is_false(b) ? b : a));
    return NULL;
}

/* A's additionalProperties must let through what B alone has properties for. */
static bool lets_through(struct schema_compiler *c, const json_t *a, const json_t *b,
                         const char *place)
{
    const json_t *more = json_object_get(a, "additionalProperties");
    const json_t *known = json_object_get(a, "properties");
    const char *name;
    json_t *value;

    if (!more || json_is_true(more))
        return true;
    json_object_foreach(json_object_get(b, "properties"), name, value)
    {
        if (!json_object_get(known, name)) {
            schema_refused(&c->b, place, "additionalProperties",
                           "shuts out a property that another part has");
            return false;
        }
    }
    return true;
}

const json_t *schema_both(struct schema_compiler *c, const json_t *a, const json_t *b,
                          const char *place)
{
    const char *keyword;
    json_t *m, *value;

    if (json_is_boolean(a) || json_is_boolean(b))
        return json_is_true(a) || json_is_false(b) ? b : a;
    if (!lets_through(c, a, b, place) || !lets_through(c, b, a, place))
        return NULL;
    m = keep(c, json_copy((json_t *)a));
    if (!m)
        return NULL;
    json_object_foreach((json_t *)b, keyword, value)
    {
        const json_t *other = json_object_get(a, keyword);
        json_t *both;

        if (schema_is_note(keyword))
            continue;
        both = other ? both_say(keyword, other, value) : json_incref(value);
        if (!both) {
            schema_refused(&c->b, place, keyword,
                           "two parts of the schema say different things, which is not "
                           "supported");
            return NULL;
        }
        if (!set(c, m, keyword, both))
            return NULL;
    }
    return m;
}

const json_t *schema_flat(struct schema_compiler *c, const json_t *schema,
                          const char *place, unsigned depth)
{
    const json_t *parts, *part, *whole;
    size_t i;

    if (c->b.rc || json_is_boolean(schema))
        return c->b.rc ? NULL : schema;
    if (!json_is_object(schema)) {
        schema_refused(&c->b, place, NULL, "a schema must be an object, true or false");
        return NULL;
    }
    parts = json_object_get(schema, "allOf");
    if (!parts && !json_object_get(schema, "$ref"))
        return schema;
    if (depth == SCHEMA_DEPTH || json_array_size(c->made) > SCHEMA_PARTS) {
        schema_refused(&c->b, place, NULL, "allOf and $ref go too deep");
        return NULL;
    }
    whole = schema_without(c, schema, "allOf", "$ref");
    if (json_object_get(schema, "$ref") && whole) {
        part = schema_ref(c, schema, place);
        part = part ? schema_flat(c, part, place, depth + 1) : NULL;
        whole = part ? schema_both(c, whole, part, place) : NULL;
    }
    if (parts && (!json_is_array(parts) || !json_array_size(parts))) {
        schema_refused(&c->b, place, "allOf", "must be an array of schemas");
        return NULL;
    }
    json_array_foreach(parts, i, part)
    {
        part = whole ? schema_flat(c, part, place, depth + 1) : NULL;
        whole = part ? schema_both(c, whole, part, place) : NULL;
    }
    return c->b.rc ? NULL : whole;
}
