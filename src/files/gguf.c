/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GGUF model of one file or of a split set. The keys of the first part are the
 * model's; the tensors of all parts are. Codes are listed in gguf_part.c.
 */
#include "files/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/gguf_part.h"

#define MAX_PARTS  1000
#define SPLIT_TAIL 20 /* strlen("-00001-of-00002.gguf") */

static struct gguf *new_gguf(const char *path, size_t n_parts)
{
    struct gguf *g = calloc(1, sizeof(*g));

    if (!g)
        return NULL;
    g->path = strdup(path);
    g->parts = calloc(n_parts, sizeof(*g->parts));
    g->n_parts = n_parts;
    if (g->path && g->parts)
        return g;
    if (!g->parts)
        g->n_parts = 0;
    gguf_close(g);
    return NULL;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_parts; i++)
        gguf_part_release(&g->parts[i]);
    free(g->parts);
    free(g->path);
    free(g);
}

/* A whole number of a key that must not be negative, or MISSING. */
static int64_t split_number(const struct gguf_part *p, const char *key, int64_t missing)
{
    const struct gguf_value v = gguf_part_get(p, key);

    return v.kind == GGUF_INT ? v.i : missing;
}

static int refuse_split(struct artel_error *err, const char *path, const char *reason,
                        int64_t found, int64_t expected)
{
    return error_in(err,
                    error_set(err, ARTEL_EFORMAT, "GGUF26", "split set",
                              "%s: %" PRId64 ", expected %" PRId64, reason, found,
                              expected),
                    path);
}

int gguf_parse(struct gguf **out, const void *data, size_t size, const char *name,
               struct artel_error *err)
{
    struct gguf *g = new_gguf(name, 1);
    int64_t count;
    int rc;

    *out = NULL;
    if (!g)
        return error_in(err, error_nomem(err, sizeof(*g)), name);
    rc = gguf_part_parse(&g->parts[0], data, size, err);
    if (rc < 0)
        goto fail;
    count = split_number(&g->parts[0], "split.count", 0);
    if (count > 1) {
        rc = refuse_split(err, name, "one part of a set stands alone; parts", count, 1);
        goto fail;
    }
    g->n_tensors = g->parts[0].n_tensors;
    *out = g;
    return 0;

fail:
    gguf_close(g);
    return error_in(err, rc, name);
}

static int open_part(struct gguf_part *p, const char *path, struct artel_error *err)
{
    int rc = map_open(&p->map, path, err);

    if (rc == 0)
        rc = gguf_part_parse(p, p->map.data, p->map.size, err);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

/* No tensor of part I may stand in one before it. */
static int check_unique(const struct gguf *g, size_t i, const char *path,
                        struct artel_error *err)
{
    char shown[160];

    for (size_t t = 0; t < g->parts[i].n_tensors; t++) {
        const char *name = g->parts[i].tensors[t].name;

        for (size_t k = 0; k < i; k++)
            if (names_find(&g->parts[k].tensor_index, name, strlen(name)) != NAMES_NONE)
                return error_in(
                    err,
                    error_set(err, ARTEL_EFORMAT, "GGUF26",
                              escape_text(shown, sizeof(shown), name, strlen(name)),
                              "tensor of parts %zu and %zu of the set", k + 1, i + 1),
                    path);
    }
    return 0;
}

/* Part I (from 0) must say of itself that it is this part of this set. */
static int check_part(const struct gguf *g, size_t i, const char *path,
                      struct artel_error *err)
{
    const struct gguf_part *first = &g->parts[0], *p = &g->parts[i];
    const int64_t total = split_number(first, "split.tensors.count", -1);
    const struct gguf_value own = gguf_part_get(p, "general.architecture");
    const struct gguf_value model = gguf_part_get(first, "general.architecture");

    if (split_number(p, "split.no", -1) != (int64_t)i)
        return refuse_split(err, path, "its number in the set (split.no)",
                            split_number(p, "split.no", -1), (int64_t)i);
    if (split_number(p, "split.count", -1) != (int64_t)g->n_parts)
        return refuse_split(err, path, "its count of parts (split.count)",
                            split_number(p, "split.count", -1), (int64_t)g->n_parts);
    if (split_number(p, "split.tensors.count", -1) != total)
        return refuse_split(err, path,
                            "it belongs to another model (split.tensors.count)",
                            split_number(p, "split.tensors.count", -1), total);
    if (own.kind == GGUF_STRING &&
        (model.kind != GGUF_STRING || own.length != model.length ||
         memcmp(own.text, model.text, own.length) != 0))
        return error_in(err,
                        error_set(err, ARTEL_EFORMAT, "GGUF26", "general.architecture",
                                  "differs from that of the first part"),
                        path);
    return check_unique(g, i, path, err);
}

bool gguf_part_name(char *out, size_t size, const char *first, size_t i)
{
    const size_t n = strlen(first);
    const char *tail = first + (n > SPLIT_TAIL ? n - SPLIT_TAIL : 0);
    size_t count = 0;

    if (n <= SPLIT_TAIL || sscanf(tail, "-00001-of-%5zu", &count) != 1 ||
        strcmp(tail + 15, ".gguf") != 0 || i >= count)
        return false;
    return (size_t)snprintf(out, size, "%.*s-%05zu-of-%05zu.gguf",
                            (int)(n - SPLIT_TAIL), first, i + 1, count) < size;
}

/* Parts 2 and on, named after the first. */
static int open_others(struct gguf *g, struct artel_error *err)
{
    const size_t room = strlen(g->path) + 32;
    char *path = malloc(room);
    int64_t total = split_number(&g->parts[0], "split.tensors.count", -1);
    int rc = 0;

    if (!path)
        return error_nomem(err, room);
    for (size_t i = 0; i < g->n_parts && rc == 0; i++) {
        if (gguf_part_name(path, room, g->path, i) && i > 0)
            rc = open_part(&g->parts[i], path, err);
        if (rc == 0)
            rc = check_part(g, i, path, err);
        g->n_tensors += g->parts[i].n_tensors;
    }
    if (rc == 0 && total >= 0 && (size_t)total != g->n_tensors)
        rc = refuse_split(err, g->path, "tensors in all parts", (int64_t)g->n_tensors,
                          total);
    free(path);
    return rc;
}

/* "...-00001-of-000NN.gguf" with the count that the file states. */
static bool is_first_name(const char *path, int64_t count)
{
    const size_t n = strlen(path);
    char tail[48];

    snprintf(tail, sizeof(tail), "-00001-of-%05" PRId64 ".gguf", count);
    return n > SPLIT_TAIL && !strcmp(path + n - SPLIT_TAIL, tail);
}

static int open_set(struct gguf *g, int64_t count, struct artel_error *err)
{
    struct gguf_part *parts;

    if (count > MAX_PARTS)
        return refuse_split(err, g->path, "more parts than are accepted", count,
                            MAX_PARTS);
    if (!is_first_name(g->path, count))
        return error_in(err,
                        error_set(err, ARTEL_EFORMAT, "GGUF26", "split set",
                                  "part of a set of %" PRId64
                                  ": name the first, *-00001-of-%05" PRId64 ".gguf",
                                  count, count),
                        g->path);
    parts = realloc(g->parts, (size_t)count * sizeof(*parts));
    if (!parts)
        return error_nomem(err, (size_t)count * sizeof(*parts));
    memset(parts + 1, 0, (size_t)(count - 1) * sizeof(*parts));
    g->parts = parts;
    g->n_parts = (size_t)count;
    return open_others(g, err);
}

int gguf_open(struct gguf **out, const char *path, struct artel_error *err)
{
    struct gguf *g = new_gguf(path, 1);
    int64_t count;
    int rc;

    *out = NULL;
    if (!g)
        return error_in(err, error_nomem(err, sizeof(*g)), path);
    rc = open_part(&g->parts[0], path, err);
    if (rc < 0)
        goto fail;
    count = split_number(&g->parts[0], "split.count", 0);
    if (count > 1)
        rc = open_set(g, count, err);
    else
        g->n_tensors = g->parts[0].n_tensors;
    if (rc < 0)
        goto fail;
    *out = g;
    return 0;

fail:
    gguf_close(g);
    return error_in(err, rc, path);
}

size_t gguf_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct tensor *gguf_at(const struct gguf *g, size_t i)
{
    for (size_t k = 0; k < g->n_parts; k++) {
        if (i < g->parts[k].n_tensors)
            return &g->parts[k].tensors[i];
        i -= g->parts[k].n_tensors;
    }
    return NULL;
}

const struct tensor *gguf_find(const struct gguf *g, const char *name)
{
    for (size_t k = 0; k < g->n_parts; k++) {
        const size_t i = names_find(&g->parts[k].tensor_index, name, strlen(name));

        if (i != NAMES_NONE)
            return &g->parts[k].tensors[i];
    }
    return NULL;
}

const char *gguf_path(const struct gguf *g)
{
    return g->path;
}

size_t gguf_bytes(const struct gguf *g)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n_parts; i++)
        n += g->parts[i].size;
    return n;
}
