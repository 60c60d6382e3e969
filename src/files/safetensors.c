/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading safetensors.
 *
 *     0      u64   length N of the header
 *     8      N     JSON: {"__metadata__": {..}, NAME: {"dtype", "shape", "data_offsets"}}
 *     8 + N        data; offsets count from here
 *
 * Tensors must cover the data without holes or overlap, which is what makes a file
 * mean one thing only. The header is scanned, never built as a tree: its size is
 * chosen by whoever wrote the file.
 *
 *     ST01 length or header text   ST02 duplicate name   ST03 bad metadata   ST04 dtype
 *     ST05 missing field           ST06 shape            ST07 size overflow  ST08 offsets
 *     ST09 offsets against shape   ST10 overlap          ST11 hole           ST12 rest
 *     ST13 name too long or with NUL                     ST14 wrong type of a field
 */
#include "files/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "files/json_scan.h"
#include "files/names.h"
#include "files/safetensors_entry.h"

#define HEADER_MAX ((uint64_t)100000000)
#define NAME_BYTES 1024

struct safetensors {
    struct map map;     /* empty where memory was given */
    const char *header; /* (header_bytes), borrowed from the file */
    size_t header_bytes;
    const unsigned char *data; /* (data_bytes) */
    size_t data_bytes;
    size_t file_bytes;
    char *text; /* unescaped names and metadata, each terminated, owned */
    size_t text_used;
    struct safetensors_entry *entries; /* (count), by offset, owned */
    size_t count, room;
    struct names index;
    struct key_value *metadata; /* (n_metadata), owned */
    size_t n_metadata, metadata_room;
    struct names metadata_index;
    size_t metadata_at; /* where the block stands, 0: not seen yet */
};

/* The string just scanned, in S's text; NULL with the error set. */
static const char *keep_string(struct safetensors *s, const struct json_scan *scan,
                               size_t *length, struct artel_error *err)
{
    char *out = s->text + s->text_used;
    const size_t n = json_scan_string(scan, out);

    if (memchr(out, '\0', n)) {
        safetensors_refuse_at(scan->start, "ST13",
                              "a name or text of the header holds NUL", err);
        return NULL;
    }
    out[n] = '\0';
    s->text_used += n + 1;
    *length = n;
    return out;
}

static int refuse_duplicate(const char *key, size_t at, size_t first, const char *code,
                            struct artel_error *err)
{
    char where[160], reason[96];

    snprintf(reason, sizeof(reason), "named twice, at byte %zu and at byte %zu",
             first + 8, at + 8);
    return error_set(err, ARTEL_EFORMAT, code,
                     escape_text(where, sizeof(where), key, strlen(key)), "%s", reason);
}

/* One more element of SIZE bytes in *ITEMS. */
static int make_room(void **items, size_t *room, size_t count, size_t size,
                     struct artel_error *err)
{
    void *larger;
    const size_t next = *room ? *room * 2 : 16;

    if (count < *room)
        return 0;
    larger = realloc(*items, next * size);
    if (!larger)
        return error_nomem(err, next * size);
    *items = larger;
    *room = next;
    return 0;
}

static int add_metadata(struct safetensors *s, struct json_scan *scan,
                        struct artel_error *err)
{
    const size_t at = scan->start;
    struct key_value *kv;
    void *items = s->metadata;
    size_t length, value_length;
    char where[160];
    int rc = make_room(&items, &s->metadata_room, s->n_metadata, sizeof(*kv), err);

    s->metadata = items;
    if (rc < 0)
        return rc;
    kv = &s->metadata[s->n_metadata];
    kv->key = keep_string(s, scan, &length, err);
    if (!kv->key)
        return ARTEL_EFORMAT;
    switch (json_scan_next(scan)) {
    case JSON_TOKEN_BAD:
        return safetensors_refuse_scan(scan, err);
    case JSON_TOKEN_STRING:
        break;
    default:
        return error_set(err, ARTEL_EFORMAT, "ST03",
                         escape_text(where, sizeof(where), kv->key, length),
                         "a value of __metadata__ must be a string");
    }
    kv->value = keep_string(s, scan, &value_length, err);
    if (!kv->value)
        return ARTEL_EFORMAT;
    if (names_add(&s->metadata_index, kv->key, length, s->n_metadata) != NAMES_NONE)
        return names_find(&s->metadata_index, kv->key, length) == NAMES_NONE
                   ? error_nomem(err, sizeof(*kv))
                   : refuse_duplicate(kv->key, at, s->metadata_at, "ST03", err);
    s->n_metadata++;
    return 0;
}

static int read_metadata(struct safetensors *s, struct json_scan *scan,
                         struct artel_error *err)
{
    enum json_token t;
    int rc;

    if (s->metadata_at)
        return refuse_duplicate("__metadata__", scan->start, s->metadata_at, "ST03",
                                err);
    s->metadata_at = scan->start;
    t = json_scan_next(scan);
    if (t == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(scan, err);
    if (t != JSON_TOKEN_OBJECT)
        return error_set(err, ARTEL_EFORMAT, "ST03", "__metadata__",
                         "must be an object");
    while ((t = json_scan_next(scan)) == JSON_TOKEN_KEY) {
        rc = add_metadata(s, scan, err);
        if (rc < 0)
            return rc;
    }
    return t == JSON_TOKEN_BAD ? safetensors_refuse_scan(scan, err) : 0;
}

static int read_entry(struct safetensors *s, struct json_scan *scan,
                      struct artel_error *err)
{
    const size_t at = scan->start;
    size_t length = 0, first;
    struct safetensors_entry *e;
    void *items = s->entries;
    enum json_token t;
    char name[160];
    int rc = make_room(&items, &s->room, s->count, sizeof(*e), err);

    s->entries = items;
    if (rc < 0)
        return rc;
    e = &s->entries[s->count];
    *e = (struct safetensors_entry){.at = at};
    e->tensor.name = keep_string(s, scan, &length, err);
    if (!e->tensor.name)
        return ARTEL_EFORMAT;
    if (length > NAME_BYTES)
        return safetensors_refuse_at(at, "ST13",
                                     "a tensor's name of more than 1024 bytes", err);
    first = names_add(&s->index, e->tensor.name, length, s->count);
    if (first != NAMES_NONE)
        return first == s->count ? error_nomem(err, sizeof(*e))
                                 : refuse_duplicate(e->tensor.name, at,
                                                    s->entries[first].at, "ST02", err);
    t = json_scan_next(scan);
    if (t == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(scan, err);
    if (t != JSON_TOKEN_OBJECT)
        return error_set(err, ARTEL_EFORMAT, "ST14",
                         safetensors_shown(name, &e->tensor), "must be an object");
    rc = safetensors_read_fields(e, scan, err);
    if (rc == 0)
        s->count++;
    return rc;
}

static int read_header(struct safetensors *s, struct artel_error *err)
{
    struct json_scan scan;
    enum json_token t;
    int rc;

    json_scan_init(&scan, s->header, s->header_bytes);
    t = json_scan_next(&scan);
    if (t == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(&scan, err);
    if (t != JSON_TOKEN_OBJECT)
        return safetensors_refuse_at(scan.start, "ST01",
                                     "the header must be a JSON object", err);
    while ((t = json_scan_next(&scan)) == JSON_TOKEN_KEY) {
        const size_t n = scan.end - scan.start;
        const bool meta =
            n == 12 && !memcmp(scan.text + scan.start, "__metadata__", 12);

        rc = meta ? read_metadata(s, &scan, err) : read_entry(s, &scan, err);
        if (rc < 0)
            return rc;
    }
    if (t == JSON_TOKEN_BAD || json_scan_next(&scan) == JSON_TOKEN_BAD)
        return safetensors_refuse_scan(&scan, err);
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* The tensors, sorted, must tile the data. */
static int check_cover(struct safetensors *s, struct artel_error *err)
{
    size_t place = 0;
    char name[160], other[160];

    for (size_t i = 0; i < s->count; i++) {
        struct safetensors_entry *e = &s->entries[i];

        if (e->begin < place)
            return error_set(
                err, ARTEL_EFORMAT, "ST10", safetensors_shown(name, &e->tensor),
                "overlaps tensor '%.128s' at data byte %zu",
                safetensors_shown(other, &s->entries[i - 1].tensor), e->begin);
        if (e->begin > place)
            return error_set(
                err, ARTEL_EFORMAT, "ST11", safetensors_shown(name, &e->tensor),
                "data bytes %zu to %zu before it belong to no tensor", place, e->begin);
        if (e->end > s->data_bytes)
            return error_set(
                err, ARTEL_EFORMAT, "ST12", safetensors_shown(name, &e->tensor),
                "ends at data byte %zu, the file holds %zu", e->end, s->data_bytes);
        e->tensor.data = s->data + e->begin;
        place = e->end;
    }
    if (place != s->data_bytes)
        return error_set(err, ARTEL_EFORMAT, "ST12", NULL,
                         "%zu bytes at the end belong to no tensor",
                         s->data_bytes - place);
    return 0;
}

/* Names point to places in the order of the header; after sorting, to those by offset. */
static int index_again(struct safetensors *s, struct artel_error *err)
{
    names_release(&s->index);
    for (size_t i = 0; i < s->count; i++) {
        const char *name = s->entries[i].tensor.name;

        if (names_add(&s->index, name, strlen(name), i) != NAMES_NONE)
            return error_nomem(err, sizeof(struct name_slot));
    }
    return 0;
}

static int read_all(struct safetensors *s, const unsigned char *data, size_t size,
                    struct artel_error *err)
{
    uint64_t n;
    int rc;

    s->file_bytes = size;
    if (size < 8)
        return error_set(err, ARTEL_EFORMAT, "ST01", NULL,
                         "%zu bytes cannot hold the 8 bytes of a header length", size);
    n = 0;
    for (size_t i = 8; i > 0; i--)
        n = n << 8 | data[i - 1];
    if (n > size - 8 || n > HEADER_MAX)
        return error_set(err, ARTEL_EFORMAT, "ST01", "byte 0",
                         "declares a header of %" PRIu64 " bytes, %zu follow%s", n,
                         size - 8,
                         n > HEADER_MAX ? " (at most 100000000 are accepted)" : "");
    if (n == 0)
        return error_set(err, ARTEL_EFORMAT, "ST01", "byte 0", "the header is empty");
    s->header = (const char *)data + 8;
    s->header_bytes = (size_t)n;
    s->data = data + 8 + n;
    s->data_bytes = size - 8 - (size_t)n;
    s->text = malloc(s->header_bytes + 1);
    if (!s->text)
        return error_nomem(err, s->header_bytes);
    rc = read_header(s, err);
    if (rc < 0)
        return rc;
    if (s->count)
        qsort(s->entries, s->count, sizeof(*s->entries), by_offset);
    rc = check_cover(s, err);
    return rc < 0 ? rc : index_again(s, err);
}

int safetensors_parse(struct safetensors **out, const void *data, size_t size,
                      const char *name, struct artel_error *err)
{
    struct safetensors *s = calloc(1, sizeof(*s));
    int rc;

    *out = NULL;
    if (!s)
        return error_in(err, error_nomem(err, sizeof(*s)), name);
    rc = read_all(s, data, size, err);
    if (rc < 0) {
        safetensors_close(s);
        return error_in(err, rc, name);
    }
    *out = s;
    return 0;
}

int safetensors_open(struct safetensors **out, const char *path,
                     struct artel_error *err)
{
    struct map map;
    int rc;

    *out = NULL;
    rc = map_open(&map, path, err);
    if (rc < 0)
        return rc;
    rc = safetensors_parse(out, map.data, map.size, path, err);
    if (rc < 0)
        map_release(&map);
    else
        (*out)->map = map;
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    map_release(&s->map);
    names_release(&s->index);
    names_release(&s->metadata_index);
    free(s->metadata);
    free(s->entries);
    free(s->text);
    free(s);
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->count;
}

size_t safetensors_bytes(const struct safetensors *s)
{
    return s->file_bytes;
}

const struct tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    return i < s->count ? &s->entries[i].tensor : NULL;
}

const struct tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    const size_t i = names_find(&s->index, name, strlen(name));

    return i == NAMES_NONE ? NULL : &s->entries[i].tensor;
}

const char *safetensors_metadata(const struct safetensors *s, const char *key)
{
    const size_t i = names_find(&s->metadata_index, key, strlen(key));

    return i == NAMES_NONE ? NULL : s->metadata[i].value;
}
