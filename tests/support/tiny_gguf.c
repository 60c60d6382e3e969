/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields in, bytes out. The last tensor is not padded, so that every shorter
 * file is a damaged one.
 */
#include "support/tiny_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tiny_put(struct tiny_bytes *b, const void *data, size_t n)
{
    if (n > b->room - b->size) {
        b->room = (b->size + n) * 2 + 64;
        b->data = realloc(b->data, b->room);
        if (!b->data)
            abort();
    }
    if (n)
        memcpy(b->data + b->size, data, n);
    b->size += n;
}

void tiny_u32(struct tiny_bytes *b, uint32_t v)
{
    tiny_put(b, &v, sizeof(v));
}

void tiny_u64(struct tiny_bytes *b, uint64_t v)
{
    tiny_put(b, &v, sizeof(v));
}

void tiny_bytes_release(struct tiny_bytes *b)
{
    free(b->data);
    *b = (struct tiny_bytes){0};
}

int tiny_save(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    int failed;

    if (!f)
        return -1;
    failed = n && fwrite(data, 1, n, f) != n;
    return fclose(f) || failed ? -1 : 0;
}

void tiny_gguf_init(struct tiny_gguf *g)
{
    memset(g, 0, sizeof(*g));
    memcpy(g->magic, "GGUF", 4);
    g->version = 3;
    g->align = 32;
}

void tiny_gguf_release(struct tiny_gguf *g)
{
    for (size_t i = 0; i < g->n_keys; i++)
        tiny_bytes_release(&g->keys[i].value);
    for (size_t i = 0; i < g->n_tensors; i++)
        tiny_bytes_release(&g->tensors[i].data);
    g->n_keys = g->n_tensors = 0;
}

struct tiny_key *tiny_gguf_key(struct tiny_gguf *g, const char *key)
{
    for (size_t i = 0; i < g->n_keys; i++)
        if (!strcmp(g->keys[i].name, key))
            return &g->keys[i];
    return NULL;
}

void tiny_gguf_raw(struct tiny_gguf *g, const char *key, uint32_t type, const void *v,
                   size_t n_bytes)
{
    struct tiny_key *k = tiny_gguf_key(g, key);

    if (!k) {
        if (g->n_keys == TINY_MAX_KEYS)
            abort();
        k = &g->keys[g->n_keys++];
        memset(k, 0, sizeof(*k));
        snprintf(k->name, sizeof(k->name), "%s", key);
    }
    k->type = type;
    k->value.size = 0;
    tiny_put(&k->value, v, n_bytes);
}

void tiny_gguf_u32(struct tiny_gguf *g, const char *key, uint32_t v)
{
    tiny_gguf_raw(g, key, TINY_U32, &v, sizeof(v));
}

void tiny_gguf_u64(struct tiny_gguf *g, const char *key, uint64_t v)
{
    tiny_gguf_raw(g, key, TINY_U64, &v, sizeof(v));
}

void tiny_gguf_i32(struct tiny_gguf *g, const char *key, int32_t v)
{
    tiny_gguf_raw(g, key, TINY_I32, &v, sizeof(v));
}

void tiny_gguf_f32(struct tiny_gguf *g, const char *key, float v)
{
    tiny_gguf_raw(g, key, TINY_F32, &v, sizeof(v));
}

void tiny_gguf_bool(struct tiny_gguf *g, const char *key, unsigned char v)
{
    tiny_gguf_raw(g, key, TINY_BOOL, &v, 1);
}

static void put_text(struct tiny_bytes *b, const char *text)
{
    tiny_u64(b, strlen(text));
    tiny_put(b, text, strlen(text));
}

void tiny_gguf_text(struct tiny_gguf *g, const char *key, const char *v)
{
    struct tiny_bytes b = {0};

    put_text(&b, v);
    tiny_gguf_raw(g, key, TINY_TEXT, b.data, b.size);
    tiny_bytes_release(&b);
}

void tiny_gguf_texts(struct tiny_gguf *g, const char *key, const char *const *v,
                     size_t n)
{
    struct tiny_bytes b = {0};

    tiny_u32(&b, TINY_TEXT);
    tiny_u64(&b, n);
    for (size_t i = 0; i < n; i++)
        put_text(&b, v[i]);
    tiny_gguf_raw(g, key, TINY_ARRAY, b.data, b.size);
    tiny_bytes_release(&b);
}

void tiny_gguf_numbers(struct tiny_gguf *g, const char *key, uint32_t type,
                       const void *v, size_t n)
{
    struct tiny_bytes b = {0};

    tiny_u32(&b, type);
    tiny_u64(&b, n);
    tiny_put(&b, v, n * 4);
    tiny_gguf_raw(g, key, TINY_ARRAY, b.data, b.size);
    tiny_bytes_release(&b);
}

void tiny_gguf_drop_key(struct tiny_gguf *g, const char *key)
{
    struct tiny_key *k = tiny_gguf_key(g, key);

    if (!k)
        return;
    tiny_bytes_release(&k->value);
    g->n_keys--;
    memmove(k, k + 1, (size_t)(g->keys + g->n_keys - k) * sizeof(*k));
}

void tiny_gguf_add(struct tiny_gguf *g, const char *name, uint32_t type, size_t n_dims,
                   const uint64_t *ne, const void *data, size_t n_bytes)
{
    struct tiny_tensor *t;

    if (g->n_tensors == TINY_MAX_TENSORS || n_dims > 8)
        abort();
    t = &g->tensors[g->n_tensors++];
    memset(t, 0, sizeof(*t));
    snprintf(t->name, sizeof(t->name), "%s", name);
    t->type = type;
    t->n_dims = (uint32_t)n_dims;
    memcpy(t->ne, ne, n_dims * sizeof(*ne));
    tiny_put(&t->data, data, n_bytes);
}

struct tiny_tensor *tiny_gguf_tensor(struct tiny_gguf *g, const char *name)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (!strcmp(g->tensors[i].name, name))
            return &g->tensors[i];
    return NULL;
}

void tiny_gguf_drop(struct tiny_gguf *g, const char *name)
{
    struct tiny_tensor *t = tiny_gguf_tensor(g, name);

    if (!t)
        return;
    tiny_bytes_release(&t->data);
    g->n_tensors--;
    memmove(t, t + 1, (size_t)(g->tensors + g->n_tensors - t) * sizeof(*t));
}

static uint64_t aligned(const struct tiny_gguf *g, uint64_t n)
{
    return g->align ? (n + g->align - 1) / g->align * g->align : n;
}

void tiny_gguf_layout(struct tiny_gguf *g)
{
    uint64_t offset = 0;

    g->n_keys_written = g->n_keys;
    g->n_tensors_written = g->n_tensors;
    for (size_t i = 0; i < g->n_keys; i++)
        g->keys[i].name_length = strlen(g->keys[i].name);
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct tiny_tensor *t = &g->tensors[i];

        t->name_length = strlen(t->name);
        t->offset = offset;
        offset += aligned(g, t->data.size);
    }
}

static void pad(const struct tiny_gguf *g, struct tiny_bytes *out)
{
    while (aligned(g, out->size) != out->size)
        tiny_put(out, "", 1);
}

void tiny_gguf_pack(const struct tiny_gguf *g, struct tiny_bytes *out)
{
    tiny_put(out, g->magic, 4);
    tiny_u32(out, g->version);
    tiny_u64(out, g->n_tensors_written);
    tiny_u64(out, g->n_keys_written);
    for (size_t i = 0; i < g->n_keys; i++) {
        const struct tiny_key *k = &g->keys[i];

        tiny_u64(out, k->name_length);
        tiny_put(out, k->name, strlen(k->name));
        tiny_u32(out, k->type);
        tiny_put(out, k->value.data, k->value.size);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        const struct tiny_tensor *t = &g->tensors[i];

        tiny_u64(out, t->name_length);
        tiny_put(out, t->name, strlen(t->name));
        tiny_u32(out, t->n_dims);
        tiny_put(out, t->ne, (t->n_dims < 8 ? t->n_dims : 8) * sizeof(*t->ne));
        tiny_u32(out, t->type);
        tiny_u64(out, t->offset);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        pad(g, out);
        tiny_put(out, g->tensors[i].data.data, g->tensors[i].data.size);
    }
}

int tiny_gguf_write(const char *path, const struct tiny_gguf *g)
{
    struct tiny_bytes b = {0};
    int rc;

    tiny_gguf_pack(g, &b);
    rc = tiny_save(path, b.data, b.size);
    tiny_bytes_release(&b);
    return rc;
}

void tiny_safetensors(struct tiny_bytes *out, const char *header, const void *data,
                      size_t n)
{
    tiny_u64(out, strlen(header));
    tiny_put(out, header, strlen(header));
    tiny_put(out, data, n);
}
