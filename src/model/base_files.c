/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Only plain file names in the folder itself are opened, and index and shards must
 * tell the same story: each tensor in exactly the shard that the index names.
 */
#include "model/base_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"

#define INDEX_NAME  "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
#define INDEX_MAX   ((size_t)64 << 20)
#define MAX_SHARDS  2000

static int refuse(struct artel_error *err, const char *code, const char *where,
                  const char *reason)
{
    char shown[160];

    return error_set(err, ARTEL_EFORMAT, code,
                     escape_text(shown, sizeof(shown), where, strlen(where)), "%s",
                     reason);
}

static bool is_plain_name(const json_t *v)
{
    const char *name = json_string_value(v);

    return name && name[0] && strlen(name) == json_string_length(v) &&
           !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           strlen(name) < 256;
}

static size_t find_shard(const struct base_files *b, const char *name)
{
    size_t i = 0;

    while (i < b->n && strcmp(b->names[i], name) != 0)
        i++;
    return i;
}

static int open_shard(struct base_files *b, const char *folder, const char *name,
                      struct artel_error *err)
{
    char *path, *copy;
    void *larger;
    int rc;

    larger = realloc(b->shards, (b->n + 1) * sizeof(*b->shards));
    if (!larger)
        return error_nomem(err, sizeof(*b->shards));
    b->shards = larger;
    larger = realloc(b->names, (b->n + 1) * sizeof(*b->names));
    if (!larger)
        return error_nomem(err, sizeof(*b->names));
    b->names = larger;
    path = path_join(folder, name);
    copy = strdup(name);
    rc = path && copy ? safetensors_open(&b->shards[b->n], path, err)
                      : error_nomem(err, strlen(folder) + strlen(name));
    free(path);
    if (rc < 0) {
        free(copy);
        return rc;
    }
    b->names[b->n++] = copy;
    return 0;
}

/* Each distinct file of the map, opened once. */
static int open_listed(struct base_files *b, const char *folder, const json_t *map,
                       struct artel_error *err)
{
    const char *tensor;
    const json_t *file;
    int rc;

    json_object_foreach((json_t *)(size_t)map, tensor, file)
    {
        if (!is_plain_name(file))
            return refuse(err, "WT05", tensor,
                          "its file must be a plain name in the same folder");
        if (find_shard(b, json_string_value(file)) < b->n)
            continue;
        if (b->n == MAX_SHARDS)
            return refuse(err, "WT05", json_string_value(file),
                          "more than 2000 shards");
        rc = open_shard(b, folder, json_string_value(file), err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Every tensor of shard I must be listed as being there. */
static int check_shard(const struct base_files *b, size_t i, const json_t *map,
                       size_t *bytes, struct artel_error *err)
{
    char reason[240];
    const struct tensor *t;

    for (size_t k = 0; (t = safetensors_at(b->shards[i], k)) != NULL; k++) {
        const char *listed = json_string_value(json_object_get(map, t->name));

        *bytes += t->bytes;
        if (listed && !strcmp(listed, b->names[i]))
            continue;
        if (!listed)
            snprintf(reason, sizeof(reason), "is in %.100s but not in the index",
                     b->names[i]);
        else
            snprintf(reason, sizeof(reason), "is in %.100s, the index says %.100s",
                     b->names[i], listed);
        return refuse(err, "WT06", t->name, reason);
    }
    return 0;
}

static int check_index(const struct base_files *b, const json_t *root,
                       const json_t *map, struct artel_error *err)
{
    const char *name;
    const json_t *file;
    char reason[200];
    size_t bytes = 0;
    uint64_t total = 0;
    int rc;

    json_object_foreach((json_t *)(size_t)map, name, file)
    {
        if (!safetensors_find(b->shards[find_shard(b, json_string_value(file))],
                              name)) {
            snprintf(reason, sizeof(reason), "is not in %.100s, where the index has it",
                     json_string_value(file));
            return refuse(err, "WT06", name, reason);
        }
    }
    for (size_t i = 0; i < b->n; i++) {
        rc = check_shard(b, i, map, &bytes, err);
        if (rc < 0)
            return rc;
    }
    rc = json_want_uint(json_object_get(root, "metadata"), "total_size", 0, INT64_MAX,
                        &total, err);
    if (rc < 0 || !total || total == bytes)
        return rc;
    snprintf(reason, sizeof(reason), "%" PRIu64 " bytes, the shards hold %zu", total,
             bytes);
    return refuse(err, "WT06", "metadata.total_size", reason);
}

static int open_index(struct base_files *b, const char *folder, const char *path,
                      struct artel_error *err)
{
    json_t *root;
    const json_t *map;
    int rc = json_read_file(&root, path, INDEX_MAX, err);

    if (rc < 0)
        return rc;
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        rc = refuse(err, "WT05", "weight_map", "missing or no object with entries");
    if (rc == 0)
        rc = open_listed(b, folder, map, err);
    if (rc == 0)
        rc = check_index(b, root, map, err);
    json_decref(root);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

int base_files_open(struct base_files **out, const char *folder,
                    struct artel_error *err)
{
    struct base_files *b = calloc(1, sizeof(*b));
    char *index = path_join(folder, INDEX_NAME),
         *single = path_join(folder, SINGLE_NAME);
    int rc;

    *out = NULL;
    if (!b || !index || !single)
        rc = error_nomem(err, strlen(folder));
    else if (access(index, F_OK) == 0)
        rc = open_index(b, folder, index, err);
    else if (access(single, F_OK) == 0)
        rc = open_shard(b, folder, SINGLE_NAME, err);
    else
        rc = error_set(err, ARTEL_EIO, "WT07", NULL,
                       "the folder holds neither " SINGLE_NAME " nor " INDEX_NAME
                       " (pickled .bin weights are not read)");
    free(index);
    free(single);
    if (rc < 0) {
        base_files_close(b);
        return error_in(err, rc, folder);
    }
    *out = b;
    return 0;
}

void base_files_close(struct base_files *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n; i++) {
        safetensors_close(b->shards[i]);
        free(b->names[i]);
    }
    free(b->shards);
    free(b->names);
    free(b);
}

size_t base_files_count(const struct base_files *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->n; i++)
        n += safetensors_count(b->shards[i]);
    return n;
}

const struct tensor *base_files_at(const struct base_files *b, size_t i)
{
    for (size_t k = 0; k < b->n; k++) {
        if (i < safetensors_count(b->shards[k]))
            return safetensors_at(b->shards[k], i);
        i -= safetensors_count(b->shards[k]);
    }
    return NULL;
}

const struct tensor *base_files_find(const struct base_files *b, const char *name)
{
    const struct tensor *t = NULL;

    for (size_t i = 0; i < b->n && !t; i++)
        t = safetensors_find(b->shards[i], name);
    return t;
}

size_t base_files_bytes(const struct base_files *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->n; i++)
        n += safetensors_bytes(b->shards[i]);
    return n;
}
