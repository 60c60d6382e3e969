/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GGUF file as a structure: build it, change any field, pack it to bytes.
 *
 * Counts, lengths and offsets are stored as they will be written, so a test may
 * make any of them lie after tiny_gguf_layout() has filled in the true ones.
 * Everything aborts when memory runs out: these are tests.
 */
#ifndef ARTEL_TESTS_TINY_GGUF_H
#define ARTEL_TESTS_TINY_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TINY_MAX_KEYS    64
#define TINY_MAX_TENSORS 128

/* Type numbers of values and of tensors, as in the file. */
enum { TINY_U32 = 4, TINY_I32 = 5, TINY_F32 = 6, TINY_BOOL = 7, TINY_TEXT = 8 };
enum { TINY_ARRAY = 9, TINY_U64 = 10 };
enum { TINY_T_F32 = 0, TINY_T_F16 = 1, TINY_T_Q4_0 = 2, TINY_T_Q8_0 = 8 };
enum { TINY_T_BF16 = 30 };

/* Growing bytes. Zero is the empty state. */
struct tiny_bytes {
    unsigned char *data; /* (size), owned */
    size_t size, room;   /* bytes */
};

void tiny_put(struct tiny_bytes *b, const void *data, size_t n);
void tiny_u32(struct tiny_bytes *b, uint32_t v);
void tiny_u64(struct tiny_bytes *b, uint64_t v);
void tiny_bytes_release(struct tiny_bytes *b);
/* Write bytes to PATH: 0, or -1 with errno. */
int tiny_save(const char *path, const void *data, size_t n);

struct tiny_key {
    char name[256];
    uint64_t name_length; /* as written; set by layout */
    uint32_t type;
    struct tiny_bytes value;
};

struct tiny_tensor {
    char name[256];
    uint64_t name_length; /* as written; set by layout */
    uint32_t n_dims;
    uint64_t ne[8]; /* innermost first, as in the file */
    uint32_t type;
    uint64_t offset; /* set by layout */
    struct tiny_bytes data;
};

struct tiny_gguf {
    unsigned char magic[4];
    uint32_t version;
    uint64_t n_tensors_written, n_keys_written; /* set by layout */
    uint32_t align;
    size_t n_keys, n_tensors;
    struct tiny_key keys[TINY_MAX_KEYS];
    struct tiny_tensor tensors[TINY_MAX_TENSORS];
};

void tiny_gguf_init(struct tiny_gguf *g); /* version 3, no keys, no tensors */
void tiny_gguf_release(struct tiny_gguf *g);

/* Add a key, or replace the value it has. */
void tiny_gguf_u32(struct tiny_gguf *g, const char *key, uint32_t v);
void tiny_gguf_u64(struct tiny_gguf *g, const char *key, uint64_t v);
void tiny_gguf_i32(struct tiny_gguf *g, const char *key, int32_t v);
void tiny_gguf_f32(struct tiny_gguf *g, const char *key, float v);
void tiny_gguf_bool(struct tiny_gguf *g, const char *key, unsigned char v);
void tiny_gguf_text(struct tiny_gguf *g, const char *key, const char *v);
void tiny_gguf_texts(struct tiny_gguf *g, const char *key, const char *const *v,
                     size_t n);
void tiny_gguf_numbers(struct tiny_gguf *g, const char *key, uint32_t type,
                       const void *v, size_t n); /* 4-byte elements */
void tiny_gguf_raw(struct tiny_gguf *g, const char *key, uint32_t type, const void *v,
                   size_t n_bytes);
struct tiny_key *tiny_gguf_key(struct tiny_gguf *g, const char *key); /* or NULL */
void tiny_gguf_drop_key(struct tiny_gguf *g, const char *key);

/* NE innermost first; DATA is copied. */
void tiny_gguf_add(struct tiny_gguf *g, const char *name, uint32_t type, size_t n_dims,
                   const uint64_t *ne, const void *data, size_t n_bytes);
struct tiny_tensor *tiny_gguf_tensor(struct tiny_gguf *g,
                                     const char *name); /* or NULL */
void tiny_gguf_drop(struct tiny_gguf *g, const char *name);

void tiny_gguf_layout(struct tiny_gguf *g);
void tiny_gguf_pack(const struct tiny_gguf *g, struct tiny_bytes *out);
/* Pack G, laid out already, into a file: 0, or -1 with errno. */
int tiny_gguf_write(const char *path, const struct tiny_gguf *g);

/* u64 length, HEADER, DATA: the bytes of a safetensors file, valid or not. */
void tiny_safetensors(struct tiny_bytes *out, const char *header, const void *data,
                      size_t n);

#endif
