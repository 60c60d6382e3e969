/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table of number formats. A block's scales are half floats at known places;
 * they are what can be NaN or infinite in a quantised tensor.
 */
#include "files/dtype.h"

#include <string.h>

#include "base/error.h"

#define NO_SCALE -1

struct format {
    const char *name;
    size_t elems, bytes; /* of a block */
    int scale[2];        /* byte offsets of half floats in a block, or NO_SCALE */
};

static const struct format formats[N_DTYPES] = {
    [DTYPE_F32] = {"F32", 1, 4, {NO_SCALE, NO_SCALE}},
    [DTYPE_F16] = {"F16", 1, 2, {0, NO_SCALE}},
    [DTYPE_BF16] = {"BF16", 1, 2, {NO_SCALE, NO_SCALE}},
    [DTYPE_Q8_0] = {"Q8_0", 32, 34, {0, NO_SCALE}},
    [DTYPE_Q4_0] = {"Q4_0", 32, 18, {0, NO_SCALE}},
    [DTYPE_Q4_1] = {"Q4_1", 32, 20, {0, 2}},
    [DTYPE_Q5_0] = {"Q5_0", 32, 22, {0, NO_SCALE}},
    [DTYPE_Q5_1] = {"Q5_1", 32, 24, {0, 2}},
    [DTYPE_Q4_K] = {"Q4_K", 256, 144, {0, 2}},
    [DTYPE_Q5_K] = {"Q5_K", 256, 176, {0, 2}},
    [DTYPE_Q6_K] = {"Q6_K", 256, 210, {208, NO_SCALE}},
    [DTYPE_IQ4_NL] = {"IQ4_NL", 32, 18, {0, NO_SCALE}},
    [DTYPE_F64] = {"F64", 1, 8, {NO_SCALE, NO_SCALE}},
    [DTYPE_I64] = {"I64", 1, 8, {NO_SCALE, NO_SCALE}},
    [DTYPE_I32] = {"I32", 1, 4, {NO_SCALE, NO_SCALE}},
    [DTYPE_I16] = {"I16", 1, 2, {NO_SCALE, NO_SCALE}},
    [DTYPE_I8] = {"I8", 1, 1, {NO_SCALE, NO_SCALE}},
    [DTYPE_U8] = {"U8", 1, 1, {NO_SCALE, NO_SCALE}},
    [DTYPE_BOOL] = {"BOOL", 1, 1, {NO_SCALE, NO_SCALE}},
    [DTYPE_OTHER] = {"another format", 1, 0, {NO_SCALE, NO_SCALE}},
};

const char *dtype_name(enum dtype t)
{
    return formats[t].name;
}

size_t dtype_block_elems(enum dtype t)
{
    return formats[t].elems;
}

size_t dtype_block_bytes(enum dtype t)
{
    return formats[t].bytes;
}

bool dtype_is_weight(enum dtype t)
{
    return t < N_WEIGHT_DTYPES;
}

const char *dtype_weight_list(void)
{
    return "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K IQ4_NL";
}

struct tensor tensor_floats(const char *name, const float *data, size_t n)
{
    return (struct tensor){.name = name,
                           .dtype = DTYPE_F32,
                           .n_dims = 1,
                           .shape = {n},
                           .data = data,
                           .bytes = n * sizeof(*data)};
}

size_t tensor_elems(const struct tensor *t)
{
    size_t n = 1;

    for (size_t i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

/* Each returns the index of the first bad value, or N. All exponent bits set means
 * NaN or infinity; the loads are unaligned because tensors may be. */
static size_t bad_32(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;

        memcpy(&u, p + i * 4, 4);
        if ((u & 0x7f800000u) == 0x7f800000u)
            return i;
    }
    return n;
}

static size_t bad_64(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t u;

        memcpy(&u, p + i * 8, 8);
        if ((u & 0x7ff0000000000000u) == 0x7ff0000000000000u)
            return i;
    }
    return n;
}

static size_t bad_16(const unsigned char *p, size_t n, size_t stride, uint16_t exponent)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t u;

        memcpy(&u, p + i * stride, 2);
        if ((u & exponent) == exponent)
            return i;
    }
    return n;
}

int tensor_check_finite(const struct tensor *t, struct artel_error *err)
{
    const struct format *f = &formats[t->dtype];
    const size_t n = f->bytes ? t->bytes / f->bytes : 0; /* blocks */
    const unsigned char *p = t->data;
    size_t bad = n;
    char name[160];

    if (t->dtype == DTYPE_F32)
        bad = bad_32(p, n);
    else if (t->dtype == DTYPE_F64)
        bad = bad_64(p, n);
    else if (t->dtype == DTYPE_BF16)
        bad = bad_16(p, n, 2, 0x7f80);
    for (size_t k = 0; k < 2 && bad == n; k++)
        if (f->scale[k] != NO_SCALE)
            bad = bad_16(p + f->scale[k], n, f->bytes, 0x7c00);
    if (bad == n)
        return 0;
    return error_set(err, ARTEL_EFORMAT, "DT01",
                     escape_text(name, sizeof(name), t->name, strlen(t->name)),
                     f->elems > 1 ? "block %zu has a scale that is NaN or infinite"
                                  : "element %zu is NaN or infinite",
                     bad);
}
