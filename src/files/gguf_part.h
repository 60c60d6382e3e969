/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of gguf: one file of a set, and the set. Used by gguf*.c only.
 */
#ifndef ARTEL_FILES_GGUF_PART_H
#define ARTEL_FILES_GGUF_PART_H

#include "base/map.h"
#include "files/gguf.h"
#include "files/names.h"

#define GGUF_NAME_MAX 128 /* bytes of a tensor's name; published files keep to 64 */

/* A key and where its value lies. */
struct gguf_key {
    const char *name; /* (length), not terminated, in the file */
    size_t length;
    uint32_t type;
    const unsigned char *value; /* (bytes) */
    size_t bytes;
    size_t at; /* byte of the file */
};

struct gguf_part {
    struct map map; /* empty where memory was given */
    const unsigned char *data;
    size_t size;
    struct gguf_key *keys; /* (n_keys), owned */
    size_t n_keys;
    struct names key_index;
    struct tensor *tensors;           /* (n_tensors), owned */
    char (*names)[GGUF_NAME_MAX + 1]; /* (n_tensors), owned */
    size_t n_tensors;
    struct names tensor_index;
};

struct gguf {
    char *path;              /* owned */
    struct gguf_part *parts; /* (n_parts), owned; keys of the first are the model's */
    size_t n_parts;
    size_t n_tensors; /* of all parts */
};

int gguf_part_parse(struct gguf_part *p, const void *data, size_t size,
                    struct artel_error *err);
void gguf_part_release(struct gguf_part *p);
struct gguf_value gguf_part_get(const struct gguf_part *p, const char *key);

/* Bytes of a scalar value type, 0 for strings, arrays and unknown ones. */
size_t gguf_scalar_bytes(uint32_t type);

enum {
    GGUF_TYPE_U8,
    GGUF_TYPE_I8,
    GGUF_TYPE_U16,
    GGUF_TYPE_I16,
    GGUF_TYPE_U32,
    GGUF_TYPE_I32,
    GGUF_TYPE_F32,
    GGUF_TYPE_BOOL,
    GGUF_TYPE_STRING,
    GGUF_TYPE_ARRAY,
    GGUF_TYPE_U64,
    GGUF_TYPE_I64,
    GGUF_TYPE_F64
};

#endif
