/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors on their way into a file, those included that are made only while they
 * are written, some rows at a time: a model of any size passes through a small
 * buffer.
 */
#ifndef ARTEL_FILES_TENSOR_OUT_H
#define ARTEL_FILES_TENSOR_OUT_H

#include <stdio.h>

#include "files/dtype.h"

struct artel_error;

/* Makes tensors whose data is NULL. */
struct tensor_maker {
    /* Rows FIRST .. + N of T (its last axis is a row) into OUT, in T's format. They are
     * asked for in order, each once. */
    int (*rows)(void *user, void *out, const struct tensor *t, size_t first, size_t n,
                struct artel_error *err);
    void *user;
};

/* T's bytes to the stream, whose own failures its commit reports. MAKER may be NULL where
 * the data is there. */
int tensor_out(FILE *to, const struct tensor *t, const struct tensor_maker *maker,
               struct artel_error *err);

#endif
