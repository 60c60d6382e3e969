/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtype, shape and data_offsets of one tensor. The codes are listed in safetensors.c.
 */
#include "files/safetensors_entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

/* dtypes of the standard and their bits. */
static const struct {
    const char *name;
    enum dtype dtype;
    size_t bits;
} known[] = {
    {"F32", DTYPE_F32, 32},
    {"F16", DTYPE_F16, 16},
    {"BF16", DTYPE_BF16, 16},
    {"F64", DTYPE_F64, 64},
    {"I64", DTYPE_I64, 64},
    {"I32", DTYPE_I32, 32},
    {"I16", DTYPE_I16, 16},
    {"I8", DTYPE_I8, 8},
    {"U8", DTYPE_U8, 8},
    {"BOOL", DTYPE_BOOL, 8},
    {"U16", DTYPE_OTHER, 16},
    {"U32", DTYPE_OTHER, 32},
    {"U64", DTYPE_OTHER, 64},
    {"C64", DTYPE_OTHER, 64},
    {"F8_E5M2", DTYPE_OTHER, 8},
    {"F8_E4M3", DTYPE_OTHER, 8},
    {"F8_E8M0", DTYPE_OTHER, 8},
    {"F8_E4M3FNUZ", DTYPE_OTHER, 8},
    {"F8_E5M2FNUZ", DTYPE_OTHER, 8},
    {"F4", DTYPE_OTHER, 4},
    {"F6_E2M3", DTYPE_OTHER, 6},
    {"F6_E3M2", DTYPE_OTHER, 6},
};

#define N_KNOWN    (sizeof(known) / sizeof(known[0]))
#define KNOWN_LIST "F32 F16 BF16 F64 I64 I32 I16 I8 U8 BOOL U16 U32 U64 C64 F8 F6 F4"

int safetensors_refuse_at(size_t at, const char *code, const char *reason,
                          struct artel_error *err)
{
    char where[48];

    snprintf(where, sizeof(where), "byte %zu", at + 8);
    return error_set(err, ARTEL_EFORMAT, code, where, "%s", reason);
}

int safetensors_refuse_scan(const struct json_scan *s, struct artel_error *err)
{
    char reason[160], shown[16];

    if (s->show_culprit)
        snprintf(reason, sizeof(reason), "header: %s, found '%s'", s->what,
                 escape_text(shown, sizeof(shown), &s->culprit, 1));
    else
        snprintf(reason, sizeof(reason), "header: %s", s->what);
    return safetensors_refuse_at(s->error_at, "ST01", reason, err);
}

const char *safetensors_shown(char out[160], const struct tensor *t)
{
    return escape_text(out, 160, t->name, strlen(t->name));
}

static int read_dtype(struct safetensors_entry *e, struct json_scan *scan,
                      struct artel_error *err)
{
    const enum json_token t = json_scan_next(scan);
    const size_t n = scan->end - scan->start;
    char name[160], shown[140];

    if (t == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(scan, err);
    for (size_t i = 0; t == JSON_TOKEN_STRING && i < N_KNOWN; i++)
        if (strlen(known[i].name) == n &&
            !memcmp(known[i].name, scan->text + scan->start, n)) {
            e->tensor.dtype = known[i].dtype;
            e->bits = known[i].bits;
            return 0;
        }
    return error_set(err, ARTEL_EFORMAT, "ST04", safetensors_shown(name, &e->tensor),
                     "unknown dtype %.60s, known: " KNOWN_LIST,
                     escape_text(shown, sizeof(shown), scan->text + scan->start, n));
}

/* An unsigned whole number without sign, fraction or exponent. */
static bool read_uint(const struct json_scan *scan, enum json_token t, uint64_t *out)
{
    uint64_t v = 0;

    if (t != JSON_TOKEN_NUMBER || !scan->integer || scan->text[scan->start] == '-')
        return false;
    for (size_t i = scan->start; i < scan->end; i++) {
        const uint64_t digit = (uint64_t)(scan->text[i] - '0');

        if (v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

static int read_shape(struct safetensors_entry *e, struct json_scan *scan,
                      struct artel_error *err)
{
    struct tensor *t = &e->tensor;
    enum json_token token = json_scan_next(scan);
    char name[160];
    uint64_t v;

    if (token == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(scan, err);
    if (token != JSON_TOKEN_ARRAY)
        return error_set(err, ARTEL_EFORMAT, "ST06", safetensors_shown(name, t),
                         "shape must be an array");
    for (t->n_dims = 0; (token = json_scan_next(scan)) != JSON_TOKEN_ARRAY_END;
         t->n_dims++) {
        if (token == JSON_TOKEN_BAD)
            return safetensors_refuse_scan(scan, err);
        if (t->n_dims == TENSOR_MAX_DIMS)
            return error_set(err, ARTEL_EFORMAT, "ST06", safetensors_shown(name, t),
                             "more than %d dimensions", TENSOR_MAX_DIMS);
        if (!read_uint(scan, token, &v))
            return error_set(err, ARTEL_EFORMAT, "ST06", safetensors_shown(name, t),
                             "shape[%zu] is not a whole number from 0 to 2^64 - 1",
                             t->n_dims);
        t->shape[t->n_dims] = (size_t)v;
    }
    return 0;
}

static int read_offsets(struct safetensors_entry *e, struct json_scan *scan,
                        struct artel_error *err)
{
    enum json_token token = json_scan_next(scan);
    uint64_t v[2] = {0, 0};
    size_t n = 0;
    bool fine = token == JSON_TOKEN_ARRAY;
    char name[160];

    if (token == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(scan, err);
    while (fine && (token = json_scan_next(scan)) != JSON_TOKEN_ARRAY_END) {
        if (token == JSON_TOKEN_BAD)
            return safetensors_refuse_scan(scan, err);
        fine = n < 2 && read_uint(scan, token, &v[n]);
        n++;
    }
    if (!fine || n != 2)
        return error_set(err, ARTEL_EFORMAT, "ST08",
                         safetensors_shown(name, &e->tensor),
                         "data_offsets must be two whole numbers");
    if (v[1] < v[0])
        return error_set(
            err, ARTEL_EFORMAT, "ST08", safetensors_shown(name, &e->tensor),
            "ends at %" PRIu64 ", before its begin at %" PRIu64, v[1], v[0]);
    e->begin = (size_t)v[0];
    e->end = (size_t)v[1];
    return 0;
}

/* Bytes that shape and dtype ask for must be those between the offsets. */
static int check_size(struct safetensors_entry *e, struct artel_error *err)
{
    struct tensor *t = &e->tensor;
    size_t bits = e->bits;
    bool overflow = false;
    char name[160];

    for (size_t i = 0; i < t->n_dims; i++)
        overflow |= __builtin_mul_overflow(bits, t->shape[i], &bits);
    for (size_t i = 0; i < t->n_dims; i++)
        if (t->shape[i] == 0) { /* empty, however large the others are */
            overflow = false;
            bits = 0;
        }
    if (overflow)
        return error_set(err, ARTEL_EFORMAT, "ST07", safetensors_shown(name, t),
                         "the size of its shape does not fit in 64 bits");
    if (bits % 8)
        return error_set(err, ARTEL_EFORMAT, "ST07", safetensors_shown(name, t),
                         "%zu bits are not a whole number of bytes", bits);
    t->bytes = bits / 8;
    if (t->bytes != e->end - e->begin)
        return error_set(err, ARTEL_EFORMAT, "ST09", safetensors_shown(name, t),
                         "its shape needs %zu bytes, its offsets hold %zu", t->bytes,
                         e->end - e->begin);
    return 0;
}

int safetensors_read_fields(struct safetensors_entry *e, struct json_scan *scan,
                            struct artel_error *err)
{
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    static int (*const readers[])(struct safetensors_entry *, struct json_scan *,
                                  struct artel_error *) = {read_dtype, read_shape,
                                                           read_offsets};
    bool seen[3] = {false, false, false};
    enum json_token t;
    char name[160];
    int rc;

    while ((t = json_scan_next(scan)) == JSON_TOKEN_KEY) {
        const size_t n = scan->end - scan->start;
        size_t i = 0;

        while (i < 3 && (strlen(fields[i]) != n ||
                         memcmp(fields[i], scan->text + scan->start, n) != 0))
            i++;
        if (i == 3) {
            if (!json_scan_skip(scan, json_scan_next(scan)))
                return safetensors_refuse_scan(scan, err);
            continue;
        }
        if (seen[i])
            return error_set(err, ARTEL_EFORMAT, "ST02",
                             safetensors_shown(name, &e->tensor), "has %s twice",
                             fields[i]);
        seen[i] = true;
        rc = readers[i](e, scan, err);
        if (rc < 0)
            return rc;
    }
    if (t == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(scan, err);
    for (size_t i = 0; i < 3; i++)
        if (!seen[i])
            return error_set(err, ARTEL_EFORMAT, "ST05",
                             safetensors_shown(name, &e->tensor), "%s is missing",
                             fields[i]);
    return check_size(e, err);
}
