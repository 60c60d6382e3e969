/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The number formats of tensors on disk, plain and block-quantised.
 */
#ifndef ARTEL_FILES_DTYPE_H
#define ARTEL_FILES_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_Q8_0,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q5_1,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    DTYPE_IQ4_NL,
    /* Containers may hold these; no weight of a model may. */
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_BOOL,
    DTYPE_OTHER, /* known to the container's standard, not to us */
    N_DTYPES
};

#define N_WEIGHT_DTYPES (DTYPE_IQ4_NL + 1)

/* Known from the table in dtype.c. A block is 1 element for plain formats. */
const char *dtype_name(enum dtype t);   /* "Q4_1" */
size_t dtype_block_elems(enum dtype t); /* 32 */
size_t dtype_block_bytes(enum dtype t); /* 20 */
bool dtype_is_weight(enum dtype t);     /* one of the formats a base may have */

/* "F32 F16 ... IQ4_NL": what a base may have, for messages. */
const char *dtype_weight_list(void);

#define TENSOR_MAX_DIMS 8

/* A named tensor where it lies in a mapped file. Row-major, last axis contiguous. */
struct tensor {
    const char *name; /* terminated; borrowed from its container */
    enum dtype dtype;
    size_t n_dims;
    size_t shape[TENSOR_MAX_DIMS]; /* outermost first: [out, in] for a linear */
    const void *data;              /* borrowed; may be unaligned */
    size_t bytes;
};

struct artel_error;

/* N floats at DATA as a tensor of one axis; all borrowed. */
struct tensor tensor_floats(const char *name, const float *data, size_t n);
/* Product of the shape; 1 for a scalar. */
size_t tensor_elems(const struct tensor *t);

/* ARTEL_EFORMAT (DT01) naming tensor and index where a value is NaN or infinite, or
 * tensor and block where the scale of a block is. Formats without such values pass. */
int tensor_check_finite(const struct tensor *t, struct artel_error *err);

#endif
