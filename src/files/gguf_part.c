/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one GGUF file (little-endian).
 *
 *     "GGUF" | u32 version | u64 tensors | u64 keys
 *     keys:    string name | u32 type | value
 *     tensors: string name | u32 dimensions | u64 sizes, innermost first
 *              | u32 type | u64 offset
 *     padding to the alignment, then the data, which offsets count from
 *     string: u64 length | bytes      array: u32 type | u64 count | elements
 *
 * Every length is compared with the bytes left before it is used, and nothing is
 * allocated that the bytes left could not fill.
 *
 *     GGUF01 magic            GGUF02 version        GGUF03 counts
 *     GGUF04 length of a key  GGUF05 text of a key  GGUF06 string beyond the file
 *     GGUF07 value type       GGUF08 array count    GGUF09 nested array
 *     GGUF10 boolean          GGUF11 duplicate      GGUF12 alignment
 *     GGUF13 dimension count  GGUF14 dimension      GGUF15 tensor type
 *     GGUF16 row and block    GGUF17 offset         GGUF18 data beyond the file
 *     GGUF19 ends too early   GGUF20 key missing or of the wrong type
 *     GGUF21 integer too large                      GGUF26 split set
 */
#include "files/gguf_part.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/json_scan.h"

#define KEY_MAX       65535
#define STRING_MAX    ((uint64_t)1 << 30)
#define KEY_LEAST     14 /* bytes that the shortest key and value take */
#define TENSOR_LEAST  33
#define DEFAULT_ALIGN 32
#define ALIGN_MAX     ((uint64_t)1 << 20)
#define MAX_DIMS      4

struct reader {
    const unsigned char *data;
    size_t size, at;
};

/* Tensor types by their numbers in the file. Others are known to GGUF's authors only. */
static const struct {
    uint32_t number;
    enum dtype dtype;
} types[] = {{0, DTYPE_F32},   {1, DTYPE_F16},   {2, DTYPE_Q4_0},    {3, DTYPE_Q4_1},
             {6, DTYPE_Q5_0},  {7, DTYPE_Q5_1},  {8, DTYPE_Q8_0},    {12, DTYPE_Q4_K},
             {13, DTYPE_Q5_K}, {14, DTYPE_Q6_K}, {20, DTYPE_IQ4_NL}, {24, DTYPE_I8},
             {25, DTYPE_I16},  {26, DTYPE_I32},  {27, DTYPE_I64},    {28, DTYPE_F64},
             {30, DTYPE_BF16}};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

static enum dtype dtype_of(uint32_t number)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].number == number)
            return types[i].dtype;
    return DTYPE_OTHER;
}

int gguf_type_number(enum dtype t)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].dtype == t)
            return (int)types[i].number;
    return -1;
}

size_t gguf_scalar_bytes(uint32_t type)
{
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    return type < sizeof(bytes) / sizeof(bytes[0]) ? bytes[type] : 0;
}

static size_t left(const struct reader *r)
{
    return r->size - r->at;
}

static const char *byte_place(char out[48], size_t at)
{
    snprintf(out, 48, "byte %zu", at);
    return out;
}

static int ends_early(const struct reader *r, const char *what, struct artel_error *err)
{
    char where[48];

    return error_set(err, ARTEL_EFORMAT, "GGUF19", byte_place(where, r->at),
                     "the file ends inside %s", what);
}

static int read_u64(struct reader *r, uint64_t *out, const char *what,
                    struct artel_error *err)
{
    if (left(r) < 8)
        return ends_early(r, what, err);
    memcpy(out, r->data + r->at, 8);
    r->at += 8;
    return 0;
}

static int read_u32(struct reader *r, uint32_t *out, const char *what,
                    struct artel_error *err)
{
    if (left(r) < 4)
        return ends_early(r, what, err);
    memcpy(out, r->data + r->at, 4);
    r->at += 4;
    return 0;
}

static int read_head(struct reader *r, uint64_t *n_tensors, uint64_t *n_keys,
                     struct artel_error *err)
{
    const unsigned char *d = r->data;
    uint32_t version = 0;
    const char *what = NULL;
    char shown[24] = "nothing ";
    int rc;

    for (size_t i = 0; i < 4 && i < r->size; i++)
        snprintf(shown + 3 * i, sizeof(shown) - 3 * i, "%02X ", d[i]);
    if (r->size < 4 || memcmp(d, "GGUF", 4) != 0)
        return error_set(err, ARTEL_EFORMAT, "GGUF01", "byte 0",
                         "no GGUF file: it starts with %s(expected 47 47 55 46)",
                         shown);
    r->at = 4;
    rc = read_u32(r, &version, "the version", err);
    if (rc < 0)
        return rc;
    if (version == 0)
        what = "version 0 is invalid";
    else if ((version & 0xffff) == 0)
        what = "written in the other byte order, only little-endian files are read";
    else if (version < 2)
        what = "version 1 is too old, 2 and 3 are read";
    else if (version > 3)
        what = "too new, versions 2 and 3 are read";
    if (what)
        return error_set(err, ARTEL_EFORMAT, "GGUF02", "byte 4",
                         "version %" PRIu32 ": %s", version, what);
    rc = read_u64(r, n_tensors, "the tensor count", err);
    if (rc == 0)
        rc = read_u64(r, n_keys, "the key count", err);
    if (rc < 0)
        return rc;
    if (*n_keys > left(r) / KEY_LEAST || *n_tensors > left(r) / TENSOR_LEAST)
        return error_set(err, ARTEL_EFORMAT, "GGUF03", "byte 8",
                         "%" PRIu64 " tensors and %" PRIu64
                         " keys declared, the %zu bytes left cannot hold them",
                         *n_tensors, *n_keys, left(r));
    return 0;
}

static bool is_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        const size_t step = utf8_sequence(text + i, n - i);

        if (!step || (unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
        i += step;
    }
    return true;
}

/* The key's name for messages. */
static const char *shown_key(char out[160], const struct gguf_key *k)
{
    return escape_text(out, 160, k->name, k->length);
}

static int read_key_name(struct reader *r, struct gguf_key *k, size_t number,
                         struct artel_error *err)
{
    char where[48], shown[160];
    uint64_t length;
    int rc;

    snprintf(where, sizeof(where), "key %zu", number);
    k->at = r->at;
    rc = read_u64(r, &length, "a key", err);
    if (rc < 0)
        return rc;
    if (length == 0 || length > KEY_MAX || length > left(r))
        return error_set(err, ARTEL_EFORMAT, "GGUF04", where,
                         "its name has %" PRIu64 " bytes; 1 to %d fit, %zu are left",
                         length, KEY_MAX, left(r));
    k->name = (const char *)r->data + r->at;
    k->length = (size_t)length;
    r->at += k->length;
    if (!is_name(k->name, k->length))
        return error_set(err, ARTEL_EFORMAT, "GGUF05", where,
                         "its name is not plain UTF-8 text: '%.150s'",
                         shown_key(shown, k));
    return 0;
}

static int skip_string(struct reader *r, const struct gguf_key *k,
                       struct artel_error *err)
{
    char shown[160];
    uint64_t length = 0;
    int rc = read_u64(r, &length, "a string", err);

    if (rc < 0)
        return rc;
    if (length > left(r) || length > STRING_MAX)
        return error_set(err, ARTEL_EFORMAT, "GGUF06", shown_key(shown, k),
                         "a string of %" PRIu64 " bytes is declared, %zu are left",
                         length, left(r));
    r->at += (size_t)length;
    return 0;
}

/* N values of a scalar TYPE at the reader's place. */
static int skip_scalars(struct reader *r, const struct gguf_key *k, uint32_t type,
                        uint64_t n, struct artel_error *err)
{
    const size_t each = gguf_scalar_bytes(type);
    const unsigned char *p = r->data + r->at;
    char shown[160];

    if (n > left(r) / each)
        return error_set(err, ARTEL_EFORMAT, "GGUF08", shown_key(shown, k),
                         "%" PRIu64
                         " elements of %zu bytes are declared, %zu bytes are left",
                         n, each, left(r));
    for (size_t i = 0; type == GGUF_TYPE_BOOL && i < n; i++)
        if (p[i] > 1)
            return error_set(err, ARTEL_EFORMAT, "GGUF10", shown_key(shown, k),
                             "a boolean is %u, expected 0 or 1", p[i]);
    for (size_t i = 0; type == GGUF_TYPE_U64 && i < n; i++)
        if (p[i * 8 + 7] & 0x80)
            return error_set(err, ARTEL_EFORMAT, "GGUF21", shown_key(shown, k),
                             "an integer is 2^63 or more");
    r->at += (size_t)n * each;
    return 0;
}

static int skip_array(struct reader *r, const struct gguf_key *k,
                      struct artel_error *err)
{
    char shown[160];
    uint32_t type;
    uint64_t n;
    int rc = read_u32(r, &type, "an array", err);

    if (rc == 0)
        rc = read_u64(r, &n, "an array", err);
    if (rc < 0)
        return rc;
    if (type == GGUF_TYPE_ARRAY)
        return error_set(err, ARTEL_EFORMAT, "GGUF09", shown_key(shown, k),
                         "an array of arrays: one level is the limit");
    if (type != GGUF_TYPE_STRING && !gguf_scalar_bytes(type))
        return error_set(err, ARTEL_EFORMAT, "GGUF07", shown_key(shown, k),
                         "an array of unknown type %" PRIu32, type);
    if (type != GGUF_TYPE_STRING)
        return skip_scalars(r, k, type, n, err);
    if (n > left(r) / 8)
        return error_set(err, ARTEL_EFORMAT, "GGUF08", shown_key(shown, k),
                         "%" PRIu64 " strings are declared, %zu bytes are left", n,
                         left(r));
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = skip_string(r, k, err);
    return rc;
}

static int read_value(struct reader *r, struct gguf_key *k, struct artel_error *err)
{
    char shown[160];
    int rc = read_u32(r, &k->type, "a value type", err);

    if (rc < 0)
        return rc;
    k->value = r->data + r->at;
    if (k->type == GGUF_TYPE_STRING)
        rc = skip_string(r, k, err);
    else if (k->type == GGUF_TYPE_ARRAY)
        rc = skip_array(r, k, err);
    else if (!gguf_scalar_bytes(k->type))
        return error_set(err, ARTEL_EFORMAT, "GGUF07", shown_key(shown, k),
                         "unknown value type %" PRIu32, k->type);
    else if (left(r) < gguf_scalar_bytes(k->type))
        return ends_early(r, "a value", err);
    else
        rc = skip_scalars(r, k, k->type, 1, err);
    k->bytes = (size_t)(r->data + r->at - k->value);
    return rc;
}

static int read_keys(struct gguf_part *p, struct reader *r, uint64_t n,
                     struct artel_error *err)
{
    char shown[160];
    size_t first;
    int rc;

    p->keys = calloc(n ? n : 1, sizeof(*p->keys));
    if (!p->keys)
        return error_nomem(err, (size_t)n * sizeof(*p->keys));
    for (size_t i = 0; i < n; i++) {
        struct gguf_key *k = &p->keys[i];

        rc = read_key_name(r, k, i, err);
        if (rc < 0)
            return rc;
        first = names_add(&p->key_index, k->name, k->length, i);
        if (first == i)
            return error_nomem(err, sizeof(struct name_slot));
        if (first != NAMES_NONE)
            return error_set(err, ARTEL_EFORMAT, "GGUF11", shown_key(shown, k),
                             "key twice, at byte %zu and at byte %zu",
                             p->keys[first].at, k->at);
        rc = read_value(r, k, err);
        if (rc < 0)
            return rc;
        p->n_keys++;
    }
    return 0;
}

static const char *shown_tensor(char out[160], const struct tensor *t)
{
    return escape_text(out, 160, t->name, strlen(t->name));
}

static int read_tensor_name(struct gguf_part *p, struct reader *r, size_t i,
                            struct artel_error *err)
{
    char where[48], shown[160];
    const size_t at = r->at;
    uint64_t length;
    size_t first;
    int rc = read_u64(r, &length, "a tensor's name", err);

    snprintf(where, sizeof(where), "tensor %zu", i);
    if (rc < 0)
        return rc;
    if (length == 0 || length > GGUF_NAME_MAX || length > left(r))
        return error_set(err, ARTEL_EFORMAT, "GGUF04", where,
                         "its name has %" PRIu64 " bytes; 1 to %d fit, %zu are left",
                         length, GGUF_NAME_MAX, left(r));
    memcpy(p->names[i], r->data + r->at, (size_t)length);
    p->tensors[i].name = p->names[i];
    r->at += (size_t)length;
    if (!is_name(p->names[i], (size_t)length))
        return error_set(
            err, ARTEL_EFORMAT, "GGUF05", where,
            "its name is not plain UTF-8 text: '%.150s'",
            escape_text(shown, sizeof(shown), p->names[i], (size_t)length));
    first = names_add(&p->tensor_index, p->names[i], (size_t)length, i);
    if (first == i)
        return error_nomem(err, sizeof(struct name_slot));
    if (first != NAMES_NONE)
        return error_set(
            err, ARTEL_EFORMAT, "GGUF11", shown_tensor(shown, &p->tensors[i]),
            "tensor twice, as number %zu and number %zu (at byte %zu)", first, i, at);
    return 0;
}

/* Sizes, reversed to outermost first. */
static int read_shape(struct tensor *t, struct reader *r, struct artel_error *err)
{
    char shown[160];
    uint32_t n_dims;
    uint64_t ne = 0, product = 1;
    int rc = read_u32(r, &n_dims, "a tensor's dimensions", err);

    if (rc < 0)
        return rc;
    if (n_dims < 1 || n_dims > MAX_DIMS)
        return error_set(err, ARTEL_EFORMAT, "GGUF13", shown_tensor(shown, t),
                         "%" PRIu32 " dimensions, expected 1 to %d", n_dims, MAX_DIMS);
    t->n_dims = n_dims;
    for (size_t i = 0; i < n_dims; i++) {
        rc = read_u64(r, &ne, "a tensor's dimensions", err);
        if (rc < 0)
            return rc;
        if (ne == 0 || ne > INT64_MAX ||
            __builtin_mul_overflow(product, ne, &product) || product > INT64_MAX)
            return error_set(err, ARTEL_EFORMAT, "GGUF14", shown_tensor(shown, t),
                             "size %" PRIu64 " of dimension %zu is 0 or too large", ne,
                             i);
        t->shape[n_dims - 1 - i] = (size_t)ne;
    }
    return 0;
}

static int read_type(struct tensor *t, struct reader *r, struct artel_error *err)
{
    char shown[160];
    const size_t n = tensor_elems(t), row = t->shape[t->n_dims - 1];
    uint32_t number;
    size_t block;
    int rc = read_u32(r, &number, "a tensor's type", err);

    if (rc < 0)
        return rc;
    t->dtype = dtype_of(number);
    if (t->dtype == DTYPE_OTHER)
        return error_set(err, ARTEL_EFORMAT, "GGUF15", shown_tensor(shown, t),
                         "tensor type %" PRIu32 " is not supported, these are: %s",
                         number, dtype_weight_list());
    block = dtype_block_elems(t->dtype);
    if (row % block)
        return error_set(err, ARTEL_EFORMAT, "GGUF16", shown_tensor(shown, t),
                         "rows of %zu are no multiple of the %zu of a %s block", row,
                         block, dtype_name(t->dtype));
    if (__builtin_mul_overflow(n / block, dtype_block_bytes(t->dtype), &t->bytes))
        return error_set(err, ARTEL_EFORMAT, "GGUF14", shown_tensor(shown, t),
                         "its size does not fit in 64 bits");
    return 0;
}

/* Offsets must follow one another in the listed order, each rounded up to ALIGN. */
static int check_offset(const struct tensor *t, uint64_t offset, uint64_t align,
                        uint64_t *place, struct artel_error *err)
{
    char shown[160];
    uint64_t end;

    if (offset != *place)
        return error_set(err, ARTEL_EFORMAT, "GGUF17", shown_tensor(shown, t),
                         "offset %" PRIu64 " %s, expected %" PRIu64, offset,
                         offset % align    ? "is not aligned"
                         : offset < *place ? "overlaps the tensor before"
                                           : "leaves a hole",
                         *place);
    if (__builtin_add_overflow(offset, t->bytes, &end) ||
        __builtin_add_overflow(end, align - 1, &end))
        return error_set(err, ARTEL_EFORMAT, "GGUF17", shown_tensor(shown, t),
                         "offset %" PRIu64 " and size do not fit in 64 bits", offset);
    *place = end / align * align;
    return 0;
}

static int read_tensors(struct gguf_part *p, struct reader *r, uint64_t n,
                        uint64_t align, struct artel_error *err)
{
    uint64_t place = 0, offset;
    int rc;

    p->tensors = calloc(n ? n : 1, sizeof(*p->tensors));
    p->names = calloc(n ? n : 1, sizeof(*p->names));
    if (!p->tensors || !p->names)
        return error_nomem(err, (size_t)n * sizeof(*p->tensors));
    for (size_t i = 0; i < n; i++) {
        struct tensor *t = &p->tensors[i];
        const uint64_t expected = place;

        rc = read_tensor_name(p, r, i, err);
        if (rc == 0)
            rc = read_shape(t, r, err);
        if (rc == 0)
            rc = read_type(t, r, err);
        if (rc == 0)
            rc = read_u64(r, &offset, "a tensor's offset", err);
        if (rc == 0)
            rc = check_offset(t, offset, align, &place, err);
        if (rc < 0)
            return rc;
        /* An offset for now: where the data starts is known after the last entry. */
        t->data = (const void *)(uintptr_t)expected;
        p->n_tensors++;
    }
    return 0;
}

static int read_align(const struct gguf_part *p, uint64_t *align,
                      struct artel_error *err)
{
    const struct gguf_value v = gguf_part_get(p, "general.alignment");

    *align = DEFAULT_ALIGN;
    if (v.kind == GGUF_ABSENT)
        return 0;
    if (v.kind != GGUF_INT)
        return error_set(err, ARTEL_EFORMAT, "GGUF12", "general.alignment",
                         "must be an integer");
    if (v.i <= 0 || (v.i & (v.i - 1)) || (uint64_t)v.i > ALIGN_MAX)
        return error_set(err, ARTEL_EFORMAT, "GGUF12", "general.alignment",
                         "%" PRId64 " is not a power of two up to %" PRIu64, v.i,
                         ALIGN_MAX);
    *align = (uint64_t)v.i;
    return 0;
}

static int place_data(struct gguf_part *p, const struct reader *r, uint64_t align,
                      struct artel_error *err)
{
    const uint64_t start = (r->at + align - 1) / align * align;
    char shown[160];

    for (size_t i = 0; i < p->n_tensors; i++) {
        struct tensor *t = &p->tensors[i];
        const uint64_t offset = (uint64_t)(uintptr_t)t->data;
        const uint64_t room = start < r->size ? r->size - start : 0;

        if (offset > room || t->bytes > room - offset)
            return error_set(err, ARTEL_EFORMAT, "GGUF18", shown_tensor(shown, t),
                             "needs data bytes %" PRIu64 " to %" PRIu64
                             ", the file holds %" PRIu64,
                             offset, offset + t->bytes, room);
        t->data = r->data + start + offset;
    }
    return 0;
}

int gguf_part_parse(struct gguf_part *p, const void *data, size_t size,
                    struct artel_error *err)
{
    struct reader r = {.data = data, .size = size};
    uint64_t n_tensors, n_keys, align;
    int rc = read_head(&r, &n_tensors, &n_keys, err);

    p->data = data;
    p->size = size;
    if (rc == 0)
        rc = read_keys(p, &r, n_keys, err);
    if (rc == 0)
        rc = read_align(p, &align, err);
    if (rc == 0)
        rc = read_tensors(p, &r, n_tensors, align, err);
    if (rc == 0)
        rc = place_data(p, &r, align, err);
    return rc;
}

void gguf_part_release(struct gguf_part *p)
{
    names_release(&p->key_index);
    names_release(&p->tensor_index);
    free(p->keys);
    free(p->tensors);
    free(p->names);
    map_release(&p->map);
    *p = (struct gguf_part){0};
}
