/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a value of a JSON Schema? A checker of values that shares nothing with the code
 * under test; patterns are matched by PCRE2.
 */
#ifndef ARTEL_TESTS_SCHEMA_CHECK_H
#define ARTEL_TESTS_SCHEMA_CHECK_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include <jansson.h>
#include <math.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool schema_lets(const json_t *root, const json_t *schema, const json_t *value);

static inline size_t characters(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static inline bool matches(const char *pattern, const char *text)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    pcre2_match_data *m = re ? pcre2_match_data_create_from_pattern(re, NULL) : NULL;
    const bool found =
        m && pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, m, NULL) >= 0;

    pcre2_match_data_free(m);
    pcre2_code_free(re);
    return found;
}

static inline bool is_type(const json_t *value, const char *type)
{
    if (!strcmp(type, "object"))
        return json_is_object(value);
    if (!strcmp(type, "array"))
        return json_is_array(value);
    if (!strcmp(type, "string"))
        return json_is_string(value);
    if (!strcmp(type, "number"))
        return json_is_number(value);
    if (!strcmp(type, "integer"))
        return json_is_number(value) &&
               floor(json_number_value(value)) == json_number_value(value);
    if (!strcmp(type, "boolean"))
        return json_is_boolean(value);
    return !strcmp(type, "null") && json_is_null(value);
}

static inline bool type_lets(const json_t *type, const json_t *value)
{
    size_t i;
    json_t *one;

    if (!type || json_is_string(type))
        return !type || is_type(value, json_string_value(type));
    json_array_foreach((json_t *)type, i,
                       one) if (is_type(value, json_string_value(one))) return true;
    return false;
}

static inline bool object_lets(const json_t *root, const json_t *schema,
                               const json_t *value)
{
    const json_t *named = json_object_get(schema, "properties");
    const json_t *more = json_object_get(schema, "additionalProperties");
    const char *name;
    json_t *item;
    size_t i;

    json_array_foreach(
        json_object_get(schema, "required"), i,
        item) if (!json_object_get(value, json_string_value(item))) return false;
    json_object_foreach((json_t *)value, name, item)
    {
        const json_t *inner = json_object_get(named, name);

        if (!inner)
            inner = more;
        if (inner && !schema_lets(root, inner, item))
            return false;
    }
    return true;
}

static inline bool array_lets(const json_t *root, const json_t *schema,
                              const json_t *value)
{
    const json_t *fixed = json_object_get(schema, "prefixItems");
    const json_t *items = json_object_get(schema, "items");
    const json_t *min = json_object_get(schema, "minItems");
    const json_t *max = json_object_get(schema, "maxItems");
    const double n = (double)json_array_size(value);
    size_t i;
    json_t *item;

    if ((min && n < json_number_value(min)) || (max && n > json_number_value(max)))
        return false;
    json_array_foreach((json_t *)value, i, item)
    {
        const json_t *inner =
            i < json_array_size(fixed) ? json_array_get(fixed, i) : items;

        if (inner && !schema_lets(root, inner, item))
            return false;
    }
    return true;
}

static inline bool scalar_lets(const json_t *schema, const json_t *value)
{
    const json_t *k;

    if (json_is_string(value)) {
        const double n = (double)characters(json_string_value(value));

        if ((k = json_object_get(schema, "minLength")) && n < json_number_value(k))
            return false;
        if ((k = json_object_get(schema, "maxLength")) && n > json_number_value(k))
            return false;
        k = json_object_get(schema, "pattern");
        return !k || matches(json_string_value(k), json_string_value(value));
    }
    if (json_is_number(value)) {
        const double x = json_number_value(value);

        if ((k = json_object_get(schema, "minimum")) && x < json_number_value(k))
            return false;
        if ((k = json_object_get(schema, "maximum")) && x > json_number_value(k))
            return false;
        if ((k = json_object_get(schema, "exclusiveMinimum")) &&
            x <= json_number_value(k))
            return false;
        if ((k = json_object_get(schema, "exclusiveMaximum")) &&
            x >= json_number_value(k))
            return false;
        k = json_object_get(schema, "multipleOf");
        return !k || fmod(x, json_number_value(k)) == 0;
    }
    return true;
}

/* Lists of schemas, and $ref. */
static inline bool parts_let(const json_t *root, const json_t *schema,
                             const json_t *value)
{
    static const char *const any[] = {"anyOf", "oneOf"};
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    size_t i;
    json_t *one;

    for (size_t k = 0; k < 2; k++) {
        const json_t *list = json_object_get(schema, any[k]);
        bool found = !list;

        json_array_foreach((json_t *)list, i, one) found =
            found || schema_lets(root, one, value);
        if (!found)
            return false;
    }
    if (ref) {
        const json_t *at = root;

        if (!strncmp(ref, "#/$defs/", 8))
            at = json_object_get(json_object_get(root, "$defs"), ref + 8);
        if (!at || !schema_lets(root, at, value))
            return false;
    }
    json_array_foreach(json_object_get(schema, "allOf"), i,
                       one) if (!schema_lets(root, one, value)) return false;
    return true;
}

static inline bool schema_lets(const json_t *root, const json_t *schema,
                               const json_t *value)
{
    const json_t *list = json_object_get(schema, "enum");
    const json_t *only = json_object_get(schema, "const");
    bool given = !list;
    size_t i;
    json_t *one;

    if (json_is_boolean(schema))
        return json_is_true(schema);
    json_array_foreach((json_t *)list, i, one) given = given || json_equal(one, value);
    if (!given || (only && !json_equal(only, value)))
        return false;
    if (!type_lets(json_object_get(schema, "type"), value))
        return false;
    if (json_is_object(value) && !object_lets(root, schema, value))
        return false;
    if (json_is_array(value) && !array_lets(root, schema, value))
        return false;
    return scalar_lets(schema, value) && parts_let(root, schema, value);
}

#endif
