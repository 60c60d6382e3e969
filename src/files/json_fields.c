/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading fields with the type they must have. The codes are listed in json.c.
 */
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array",
        [JSON_STRING] = "a string",  [JSON_INTEGER] = "an integer",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null"};

    return names[json_typeof(v)];
}

static int wrong_type(const char *key, const char *expected, const json_t *v,
                      struct artel_error *err)
{
    char found[96], shown[64];

    if (json_is_string(v))
        snprintf(found, sizeof(found), "the string \"%s\"",
                 escape_text(shown, sizeof(shown), json_string_value(v),
                             json_string_length(v)));
    else if (json_is_real(v))
        snprintf(found, sizeof(found), "%.17g", json_real_value(v));
    else
        snprintf(found, sizeof(found), "%s", type_name(v));
    return error_set(err, ARTEL_EFORMAT, "JSON07", key, "expected %s, found %s",
                     expected, found);
}

/* NULL where absent or null. */
static const json_t *field(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_null(v) ? NULL : v;
}

int json_want_string(const json_t *o, const char *key, const char **out,
                     struct artel_error *err)
{
    const json_t *v = field(o, key);

    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong_type(key, "a string", v, err);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return error_set(err, ARTEL_EFORMAT, "JSON09", key, "the string holds NUL");
    *out = json_string_value(v);
    return 0;
}

int json_need_string(const json_t *o, const char *key, const char **out,
                     struct artel_error *err)
{
    if (!field(o, key))
        return error_set(err, ARTEL_EFORMAT, "JSON06", key,
                         "missing, a string was expected");
    return json_want_string(o, key, out, err);
}

int json_want_uint(const json_t *o, const char *key, uint64_t min, uint64_t max,
                   uint64_t *out, struct artel_error *err)
{
    const json_t *v = field(o, key);

    if (!v)
        return 0;
    if (!json_is_integer(v))
        return wrong_type(key, "an integer", v, err);
    if (json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) < min ||
        (uint64_t)json_integer_value(v) > max)
        return error_set(err, ARTEL_EFORMAT, "JSON08", key,
                         "%" JSON_INTEGER_FORMAT " is not within %" PRIu64
                         " ... %" PRIu64,
                         json_integer_value(v), min, max);
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

int json_want_double(const json_t *o, const char *key, double *out,
                     struct artel_error *err)
{
    const json_t *v = field(o, key);

    if (!v)
        return 0;
    if (!json_is_number(v))
        return wrong_type(key, "a number", v, err);
    *out = json_number_value(v); /* finite: the reader refuses others */
    return 0;
}

int json_want_bool(const json_t *o, const char *key, bool *out, struct artel_error *err)
{
    const json_t *v = field(o, key);

    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong_type(key, "true or false", v, err);
    *out = json_is_true(v);
    return 0;
}
