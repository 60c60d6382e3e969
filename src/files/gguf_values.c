/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of keys, read where they lie. Parsing has checked them, so these
 * functions only decode. Codes are listed in gguf_part.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "files/gguf.h"
#include "files/gguf_part.h"

static enum gguf_kind kind_of(uint32_t type)
{
    switch (type) {
    case GGUF_TYPE_F32:
    case GGUF_TYPE_F64:
        return GGUF_FLOAT;
    case GGUF_TYPE_BOOL:
        return GGUF_BOOL;
    case GGUF_TYPE_STRING:
        return GGUF_STRING;
    case GGUF_TYPE_ARRAY:
        return GGUF_ARRAY;
    default:
        return GGUF_INT;
    }
}

static uint64_t bytes_as_uint(const unsigned char *p, size_t n)
{
    uint64_t v = 0;

    while (n > 0)
        v = v << 8 | p[--n];
    return v;
}

static struct gguf_value scalar(uint32_t type, const unsigned char *p)
{
    const size_t n = gguf_scalar_bytes(type);
    const uint64_t bits = bytes_as_uint(p, n);
    struct gguf_value v = {.kind = kind_of(type)};
    const uint32_t low = (uint32_t)bits;
    float single;

    if (type == GGUF_TYPE_F32) {
        memcpy(&single, &low, sizeof(single));
        v.f = (double)single;
    } else if (type == GGUF_TYPE_F64) {
        memcpy(&v.f, &bits, sizeof(v.f));
    } else if (type == GGUF_TYPE_I8 || type == GGUF_TYPE_I16 || type == GGUF_TYPE_I32) {
        const uint64_t sign = (uint64_t)1 << (8 * n - 1);

        v.i = (int64_t)(bits ^ sign) - (int64_t)sign;
    } else {
        v.i = (int64_t)bits;
    }
    return v;
}

static struct gguf_value text_value(const unsigned char *p)
{
    return (struct gguf_value){.kind = GGUF_STRING,
                               .length = (size_t)bytes_as_uint(p, 8),
                               .text = (const char *)p + 8};
}

struct gguf_value gguf_part_get(const struct gguf_part *p, const char *key)
{
    const size_t i = names_find(&p->key_index, key, strlen(key));
    const struct gguf_key *k;
    uint32_t type;

    if (i == NAMES_NONE)
        return (struct gguf_value){.kind = GGUF_ABSENT};
    k = &p->keys[i];
    if (k->type == GGUF_TYPE_STRING)
        return text_value(k->value);
    if (k->type != GGUF_TYPE_ARRAY)
        return scalar(k->type, k->value);
    type = (uint32_t)bytes_as_uint(k->value, 4);
    return (struct gguf_value){.kind = GGUF_ARRAY,
                               .length = (size_t)bytes_as_uint(k->value + 4, 8),
                               .of = kind_of(type),
                               .elem_type = type,
                               .elems = k->value + 12,
                               .elems_bytes = k->bytes - 12};
}

struct gguf_value gguf_get(const struct gguf *g, const char *key)
{
    return gguf_part_get(&g->parts[0], key);
}

bool gguf_next(const struct gguf_value *array, size_t *cursor, struct gguf_value *out)
{
    const unsigned char *p;

    if (array->kind != GGUF_ARRAY || *cursor >= array->elems_bytes)
        return false;
    p = array->elems + *cursor;
    if (array->of == GGUF_STRING) {
        *out = text_value(p);
        *cursor += 8 + out->length;
    } else {
        *out = scalar(array->elem_type, p);
        *cursor += gguf_scalar_bytes(array->elem_type);
    }
    return true;
}

static int wrong(const struct gguf_value *v, const char *key, const char *expected,
                 struct artel_error *err)
{
    static const char *const names[] = {
        [GGUF_ABSENT] = "nothing",  [GGUF_INT] = "an integer",
        [GGUF_FLOAT] = "a float",   [GGUF_BOOL] = "a boolean",
        [GGUF_STRING] = "a string", [GGUF_ARRAY] = "an array"};

    return error_set(err, ARTEL_EFORMAT, "GGUF20", key, "expected %s, found %s",
                     expected, names[v->kind]);
}

int gguf_want_uint(const struct gguf *g, const char *key, uint64_t *out,
                   struct artel_error *err)
{
    const struct gguf_value v = gguf_get(g, key);
    int rc;

    if (v.kind == GGUF_ABSENT)
        return 0;
    if (v.kind != GGUF_INT) {
        rc = wrong(&v, key, "an integer", err);
        return error_in(err, rc, g->path);
    }
    if (v.i < 0) {
        rc = error_set(err, ARTEL_EFORMAT, "GGUF20", key,
                       "%" PRId64 " is negative, expected 0 or more", v.i);
        return error_in(err, rc, g->path);
    }
    *out = (uint64_t)v.i;
    return 0;
}

int gguf_want_float(const struct gguf *g, const char *key, double *out,
                    struct artel_error *err)
{
    const struct gguf_value v = gguf_get(g, key);

    if (v.kind == GGUF_ABSENT)
        return 0;
    if (v.kind != GGUF_FLOAT && v.kind != GGUF_INT)
        return error_in(err, wrong(&v, key, "a float", err), g->path);
    *out = v.kind == GGUF_INT ? (double)v.i : v.f;
    return 0;
}

int gguf_want_bool(const struct gguf *g, const char *key, bool *out,
                   struct artel_error *err)
{
    const struct gguf_value v = gguf_get(g, key);

    if (v.kind == GGUF_ABSENT)
        return 0;
    if (v.kind != GGUF_BOOL)
        return error_in(err, wrong(&v, key, "a boolean", err), g->path);
    *out = v.i != 0;
    return 0;
}

static int missing(const struct gguf *g, const char *key, const char *expected,
                   struct artel_error *err)
{
    const struct gguf_value v = {.kind = GGUF_ABSENT};

    return error_in(err, wrong(&v, key, expected, err), g->path);
}

int gguf_need_uint(const struct gguf *g, const char *key, uint64_t *out,
                   struct artel_error *err)
{
    if (gguf_get(g, key).kind == GGUF_ABSENT)
        return missing(g, key, "an integer", err);
    return gguf_want_uint(g, key, out, err);
}

int gguf_need_float(const struct gguf *g, const char *key, double *out,
                    struct artel_error *err)
{
    if (gguf_get(g, key).kind == GGUF_ABSENT)
        return missing(g, key, "a float", err);
    return gguf_want_float(g, key, out, err);
}
