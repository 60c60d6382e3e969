/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout is in gguf_part.c. Offsets follow one another, each rounded up to the
 * alignment, as readers demand.
 *
 *     GGUF30 a tensor that cannot be written
 */
#include "files/gguf_write.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/gguf_part.h"
#include "files/write.h"

#define VERSION       3
#define DEFAULT_ALIGN 32
#define MAX_DIMS      4

struct gguf_keys {
    FILE *stream;
    char *bytes; /* (size) keys and values as they stand in the file */
    size_t size;
    uint64_t n;
    size_t align;
};

int gguf_keys_open(struct gguf_keys **out, struct artel_error *err)
{
    struct gguf_keys *k = calloc(1, sizeof(*k));

    *out = k;
    if (!k)
        return error_nomem(err, sizeof(*k));
    k->align = DEFAULT_ALIGN;
    k->stream = open_memstream(&k->bytes, &k->size);
    if (k->stream)
        return 0;
    free(k);
    *out = NULL;
    return error_nomem(err, sizeof(FILE));
}

void gguf_keys_close(struct gguf_keys *k)
{
    if (!k)
        return;
    fclose(k->stream);
    free(k->bytes);
    free(k);
}

static void put_number(FILE *to, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        (void)fputc((int)(v >> 8 * i & 255), to);
}

static void put_text(FILE *to, const char *text, size_t n)
{
    put_number(to, n, 8);
    (void)fwrite(text, 1, n, to);
}

static FILE *put_key(struct gguf_keys *k, const char *key, uint32_t type)
{
    put_text(k->stream, key, strlen(key));
    put_number(k->stream, type, 4);
    k->n++;
    return k->stream;
}

void gguf_keys_text(struct gguf_keys *k, const char *key, const char *value)
{
    put_text(put_key(k, key, GGUF_TYPE_STRING), value, strlen(value));
}

void gguf_keys_u32(struct gguf_keys *k, const char *key, uint32_t value)
{
    put_number(put_key(k, key, GGUF_TYPE_U32), value, 4);
}

void gguf_keys_f32(struct gguf_keys *k, const char *key, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    put_number(put_key(k, key, GGUF_TYPE_F32), bits, 4);
}

void gguf_keys_copy(struct gguf_keys *k, const struct gguf *g, const char *except)
{
    const struct gguf_part *p = &g->parts[0];
    const struct gguf_value align = gguf_get(g, "general.alignment");

    if (align.kind == GGUF_INT)
        k->align = (size_t)align.i;
    for (size_t i = 0; i < p->n_keys; i++) {
        const struct gguf_key *key = &p->keys[i];

        if ((key->length > 6 && !memcmp(key->name, "split.", 6)) ||
            (except && key->length == strlen(except) &&
             !memcmp(key->name, except, key->length)))
            continue;
        put_text(k->stream, key->name, key->length);
        put_number(k->stream, key->type, 4);
        (void)fwrite(key->value, 1, key->bytes, k->stream);
        k->n++;
    }
}

/* Faults of the caller, named rather than written. */
static int check_tensor(const struct tensor *t, struct artel_error *err)
{
    const size_t block = dtype_block_elems(t->dtype);

    if (gguf_type_number(t->dtype) < 0)
        return error_set(err, ARTEL_EBUG, "GGUF30", t->name,
                         "%s cannot be written to GGUF", dtype_name(t->dtype));
    if (t->n_dims < 1 || t->n_dims > MAX_DIMS || t->shape[t->n_dims - 1] % block ||
        tensor_elems(t) / block * dtype_block_bytes(t->dtype) != t->bytes)
        return error_set(err, ARTEL_EBUG, "GGUF30", t->name,
                         "shape and %zu bytes disagree", t->bytes);
    return 0;
}

static size_t padding(size_t n, size_t align)
{
    return (align - n % align) % align;
}

/* All before the data, into new memory. */
static int make_head(char **head, size_t *n, const struct gguf_keys *keys,
                     const struct tensor *tensors, size_t n_tensors,
                     struct artel_error *err)
{
    FILE *f = open_memstream(head, n);
    size_t offset = 0;
    bool failed;

    if (!f)
        return error_nomem(err, sizeof(FILE));
    (void)fputs("GGUF", f);
    put_number(f, VERSION, 4);
    put_number(f, n_tensors, 8);
    put_number(f, keys->n, 8);
    (void)fwrite(keys->bytes, 1, keys->size, f);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct tensor *t = &tensors[i];

        put_text(f, t->name, strlen(t->name));
        put_number(f, t->n_dims, 4);
        for (size_t d = t->n_dims; d-- > 0;)
            put_number(f, t->shape[d], 8);
        put_number(f, (uint64_t)gguf_type_number(t->dtype), 4);
        put_number(f, offset, 8);
        offset += t->bytes + padding(t->bytes, keys->align);
    }
    failed = fflush(f) || ferror(f);
    for (size_t i = failed ? 0 : padding(*n, keys->align); i > 0; i--)
        (void)fputc(0, f);
    failed |= ferror(f) != 0;
    return fclose(f) || failed ? error_nomem(err, *n) : 0;
}

static int write_all(const char *path, const char *head, size_t n_head,
                     const struct gguf_keys *keys, const struct tensor *tensors,
                     size_t n_tensors, const struct tensor_maker *maker,
                     struct artel_error *err)
{
    struct atomic_file f;
    int rc = atomic_open(&f, path, err);

    if (rc < 0)
        return rc;
    (void)fwrite(head, 1, n_head, f.stream); /* the commit reports what went wrong */
    for (size_t i = 0; i < n_tensors && rc == 0 && !ferror(f.stream); i++) {
        rc = tensor_out(f.stream, &tensors[i], maker, err);
        for (size_t k = padding(tensors[i].bytes, keys->align); k > 0; k--)
            (void)fputc(0, f.stream);
    }
    if (rc == 0)
        return atomic_commit(&f, err);
    atomic_abort(&f);
    return rc;
}

int gguf_write(const char *path, struct gguf_keys *keys, const struct tensor *tensors,
               size_t n_tensors, const struct tensor_maker *maker,
               struct artel_error *err)
{
    char *head = NULL;
    size_t n_head = 0;
    int rc = 0;

    if (fflush(keys->stream) || ferror(keys->stream))
        rc = error_nomem(err, keys->size);
    for (size_t i = 0; i < n_tensors && rc == 0; i++)
        rc = check_tensor(&tensors[i], err);
    if (rc == 0)
        rc = make_head(&head, &n_head, keys, tensors, n_tensors, err);
    if (rc == 0)
        rc = write_all(path, head, n_head, keys, tensors, n_tensors, maker, err);
    free(head);
    return rc < 0 ? error_in(err, rc, path) : 0;
}
