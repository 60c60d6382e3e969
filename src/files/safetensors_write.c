/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing safetensors with the bytes of the reference writer: __metadata__ first,
 * tensors by size of their numbers, largest first, then by name; no spaces but those
 * that round the header to 8 bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/safetensors.h"
#include "files/write.h"

/* The reference's order of formats; 0: cannot be written. */
static int rank_of(enum dtype t)
{
    switch (t) {
    case DTYPE_I64:
        return 10;
    case DTYPE_F64:
        return 9;
    case DTYPE_F32:
        return 8;
    case DTYPE_I32:
        return 7;
    case DTYPE_BF16:
        return 6;
    case DTYPE_F16:
        return 5;
    case DTYPE_I16:
        return 4;
    case DTYPE_I8:
        return 3;
    case DTYPE_U8:
        return 2;
    case DTYPE_BOOL:
        return 1;
    default:
        return 0;
    }
}

static int by_rank_and_name(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a;
    const struct tensor *y = *(const struct tensor *const *)b;
    const int order = rank_of(y->dtype) - rank_of(x->dtype);

    return order ? order : strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    const struct key_value *x = *(const struct key_value *const *)a;
    const struct key_value *y = *(const struct key_value *const *)b;

    return strcmp(x->key, y->key);
}

static void put_string(FILE *f, const char *text)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";

    fputc('"', f);
    for (; *text; text++) {
        const char *special = strchr(from, *text);

        if (special)
            fprintf(f, "\\%c", to[special - from]);
        else if ((unsigned char)*text < 0x20)
            fprintf(f, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, f);
    }
    fputc('"', f);
}

static void put_tensor(FILE *f, const struct tensor *t, size_t begin)
{
    put_string(f, t->name);
    fprintf(f, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
    for (size_t i = 0; i < t->n_dims; i++)
        fprintf(f, "%s%zu", i ? "," : "", t->shape[i]);
    fprintf(f, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->bytes);
}

struct plan {
    const struct tensor **tensors;     /* (n_tensors), in order */
    const struct key_value **metadata; /* (n_metadata), in order */
    size_t n_tensors, n_metadata;
    char *header;
    size_t header_bytes;
};

/* Faults of the caller, named rather than written. */
static int check_tensors(const struct plan *p, struct artel_error *err)
{
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct tensor *t = p->tensors[i];

        if (!rank_of(t->dtype))
            return error_set(err, ARTEL_EBUG, "ST20", t->name,
                             "%s cannot be written to safetensors",
                             dtype_name(t->dtype));
        if (t->n_dims > TENSOR_MAX_DIMS ||
            tensor_elems(t) * dtype_block_bytes(t->dtype) != t->bytes)
            return error_set(err, ARTEL_EBUG, "ST21", t->name,
                             "shape and %zu bytes disagree", t->bytes);
        if (!strcmp(t->name, "__metadata__") ||
            (i && !strcmp(t->name, p->tensors[i - 1]->name)))
            return error_set(err, ARTEL_EBUG, "ST22", t->name, "is not a free name");
    }
    return 0;
}

static int make_header(struct plan *p, struct artel_error *err)
{
    FILE *f = open_memstream(&p->header, &p->header_bytes);
    size_t offset = 0;
    int failed;

    if (!f)
        return error_nomem(err, sizeof(FILE));
    fputc('{', f);
    for (size_t i = 0; i < p->n_metadata; i++) {
        fputs(i ? "," : "\"__metadata__\":{", f);
        put_string(f, p->metadata[i]->key);
        fputc(':', f);
        put_string(f, p->metadata[i]->value);
    }
    if (p->n_metadata)
        fputc('}', f);
    for (size_t i = 0; i < p->n_tensors; i++) {
        if (i || p->n_metadata)
            fputc(',', f);
        put_tensor(f, p->tensors[i], offset);
        offset += p->tensors[i]->bytes;
    }
    fputc('}', f);
    failed = fflush(f);
    while (!failed && p->header_bytes % 8) {
        fputc(' ', f);
        failed = fflush(f);
    }
    failed |= ferror(f);
    if (fclose(f) || failed)
        return error_nomem(err, p->header_bytes);
    return 0;
}

static int write_plan(const char *path, const struct plan *p,
                      const struct tensor_maker *maker, struct artel_error *err)
{
    struct atomic_file f;
    unsigned char length[8];
    int rc = atomic_open(&f, path, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < 8; i++)
        length[i] = (unsigned char)(p->header_bytes >> 8 * i);
    /* The stream remembers a failure; the commit reports it. */
    (void)fwrite(length, 1, 8, f.stream);
    (void)fwrite(p->header, 1, p->header_bytes, f.stream);
    for (size_t i = 0; i < p->n_tensors && rc == 0 && !ferror(f.stream); i++)
        rc = tensor_out(f.stream, p->tensors[i], maker, err);
    if (rc == 0)
        return atomic_commit(&f, err);
    atomic_abort(&f);
    return rc;
}

static int write_all(const char *path, const struct tensor *tensors, size_t n_tensors,
                     const struct key_value *metadata, size_t n_metadata,
                     const struct tensor_maker *maker, struct artel_error *err)
{
    struct plan p = {.n_tensors = n_tensors, .n_metadata = n_metadata};
    int rc;

    p.tensors = calloc(n_tensors + 1, sizeof(*p.tensors));
    p.metadata = calloc(n_metadata + 1, sizeof(*p.metadata));
    if (!p.tensors || !p.metadata) {
        rc = error_nomem(err, (n_tensors + n_metadata) * sizeof(void *));
        goto done;
    }
    for (size_t i = 0; i < n_tensors; i++)
        p.tensors[i] = &tensors[i];
    for (size_t i = 0; i < n_metadata; i++)
        p.metadata[i] = &metadata[i];
    qsort(p.tensors, n_tensors, sizeof(*p.tensors), by_rank_and_name);
    qsort(p.metadata, n_metadata, sizeof(*p.metadata), by_key);
    rc = check_tensors(&p, err);
    if (rc == 0)
        rc = make_header(&p, err);
    if (rc == 0)
        rc = write_plan(path, &p, maker, err);
done:
    free(p.header);
    free(p.tensors);
    free(p.metadata);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

int safetensors_write(const char *path, const struct tensor *tensors, size_t n_tensors,
                      const struct key_value *metadata, size_t n_metadata,
                      struct artel_error *err)
{
    return write_all(path, tensors, n_tensors, metadata, n_metadata, NULL, err);
}

int safetensors_write_made(const char *path, const struct tensor *tensors,
                           size_t n_tensors, const struct tensor_maker *maker,
                           struct artel_error *err)
{
    static const struct key_value format = {"format", "pt"};

    return write_all(path, tensors, n_tensors, &format, 1, maker, err);
}
