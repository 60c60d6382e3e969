/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GGUF v2 and v3: typed key-values, tensor table, aligned data. Split sets
 * (name-00001-of-0000N.gguf) open as one when the first part is named.
 */
#ifndef ARTEL_FILES_GGUF_H
#define ARTEL_FILES_GGUF_H

#include "files/dtype.h"

struct artel_error;
struct gguf;

int gguf_open(struct gguf **out, const char *path, struct artel_error *err);
int gguf_parse(struct gguf **out, const void *data, size_t size, const char *name,
               struct artel_error *err);
void gguf_close(struct gguf *g);
/* Part I (from 0) of the set whose first part is FIRST into OUT; false: FIRST is not named
 * as one, or has no such part. */
bool gguf_part_name(char *out, size_t size, const char *first, size_t i);

size_t gguf_count(const struct gguf *g); /* tensors */
const struct tensor *gguf_at(const struct gguf *g, size_t i);
const struct tensor *gguf_find(const struct gguf *g, const char *name);
const char *gguf_path(const struct gguf *g); /* for messages */
size_t gguf_bytes(const struct gguf *g);     /* of all parts on disk */
/* The file's number of a tensor format (2 for Q4_0), or -1. */
int gguf_type_number(enum dtype t);

enum gguf_kind {
    GGUF_ABSENT,
    GGUF_INT,
    GGUF_FLOAT,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY
};

/* A value where it lies in the file. Strings are not terminated and may hold NUL. */
struct gguf_value {
    enum gguf_kind kind;
    int64_t i;         /* GGUF_INT (u64 above INT64_MAX is refused), GGUF_BOOL */
    double f;          /* GGUF_FLOAT */
    const char *text;  /* GGUF_STRING */
    size_t length;     /* of TEXT in bytes; of an array in elements */
    enum gguf_kind of; /* GGUF_ARRAY: kind of its elements */
    const unsigned char *elems; /* GGUF_ARRAY: first element */
    uint32_t elem_type;         /* GGUF_ARRAY: the file's own type number */
    size_t elems_bytes;         /* GGUF_ARRAY: of all elements */
};

/* kind GGUF_ABSENT when there is no such key. */
struct gguf_value gguf_get(const struct gguf *g, const char *key);
/* Elements of an array in turn: start with *CURSOR = 0. False at the end. */
bool gguf_next(const struct gguf_value *array, size_t *cursor, struct gguf_value *out);

/* Typed and checked: a wrong type is ARTEL_EFORMAT naming key, expected, found. */
int gguf_need_uint(const struct gguf *g, const char *key, uint64_t *out,
                   struct artel_error *err);
int gguf_need_float(const struct gguf *g, const char *key, double *out,
                    struct artel_error *err);
/* The same where the key may be absent: *OUT keeps its value then. */
int gguf_want_uint(const struct gguf *g, const char *key, uint64_t *out,
                   struct artel_error *err);
int gguf_want_float(const struct gguf *g, const char *key, double *out,
                    struct artel_error *err);
int gguf_want_bool(const struct gguf *g, const char *key, bool *out,
                   struct artel_error *err);

#endif
