/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents become jansson trees. The text is read by json_scan.c rather than by
 * jansson: it tells the place of both duplicates, and it takes integers beyond 64
 * bits as reals, which published tokenizer files contain and jansson refuses.
 *
 *     JSON01 grammar, UTF-8, depth   JSON02 duplicate key    JSON03 number too large
 *     JSON04 top level not an object JSON05 file too large   JSON06 missing field
 *     JSON07 wrong type              JSON08 value out of range
 *     JSON09 NUL in a name           JSON10 a byte-order mark where none may be
 */
#include "files/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "files/json_scan.h"

struct builder {
    struct json_scan scan;
    const char *name;
    size_t line_base;
    json_t *open[JSON_MAX_DEPTH]; /* borrowed from the root */
    json_t *root;
    char *key;  /* of the next value, (key_length) terminated */
    char *text; /* scratch for strings, as large as the longest so far */
    size_t key_room, text_room;
    size_t key_length, key_at;
};

static int refuse_at(const struct builder *b, size_t at, const char *code,
                     const char *reason, struct artel_error *err)
{
    char where[48];
    size_t line, column;

    text_position(b->scan.text, at, &line, &column);
    snprintf(where, sizeof(where), "%zu:%zu", line + b->line_base, column);
    return error_in(err, error_set(err, ARTEL_EFORMAT, code, where, "%s", reason),
                    b->name);
}

static int refuse_text(const struct builder *b, struct artel_error *err)
{
    const struct json_scan *s = &b->scan;
    char reason[160], shown[16];

    if (s->show_culprit && (unsigned char)s->culprit >= 0x80)
        snprintf(reason, sizeof(reason), "%s: byte 0x%02X", s->what,
                 (unsigned char)s->culprit);
    else if (s->show_culprit)
        snprintf(reason, sizeof(reason), "%s, found '%s'", s->what,
                 escape_text(shown, sizeof(shown), &s->culprit, 1));
    else
        snprintf(reason, sizeof(reason), "%s", s->what);
    return refuse_at(b, s->error_at, "JSON01", reason, err);
}

/* Where the object that holds the key at LATER has the same key first. */
static size_t first_of(const struct builder *b, size_t later)
{
    struct json_scan s;
    size_t depth = b->scan.depth, object = 0, found = later;
    char *name = malloc(b->text_room + b->key_room + 1);
    enum json_token t;

    if (!name)
        return later;
    /* The start of the innermost object open at LATER, then its own keys. */
    json_scan_init(&s, b->scan.text, b->scan.n);
    do {
        t = json_scan_next(&s);
        if (t == JSON_TOKEN_OBJECT && s.depth == depth)
            object = s.start;
    } while (t != JSON_TOKEN_BAD && t != JSON_TOKEN_END && s.at <= later);
    json_scan_init(&s, b->scan.text + object, b->scan.n - object);
    while ((t = json_scan_next(&s)) != JSON_TOKEN_BAD && t != JSON_TOKEN_END)
        if (t == JSON_TOKEN_KEY && s.depth == 1 && s.end - s.start <= b->key_room &&
            json_scan_string(&s, name) == b->key_length &&
            !memcmp(name, b->key, b->key_length)) {
            found = object + s.start - 1;
            break;
        }
    free(name);
    return found;
}

static int refuse_duplicate(const struct builder *b, struct artel_error *err)
{
    char reason[224], shown[140];
    size_t line, column;

    text_position(b->scan.text, first_of(b, b->key_at), &line, &column);
    snprintf(reason, sizeof(reason), "key '%s' again, first at %zu:%zu",
             escape_text(shown, sizeof(shown), b->key, b->key_length),
             line + b->line_base, column);
    return refuse_at(b, b->key_at, "JSON02", reason, err);
}

/* Room for N bytes and a NUL in *BUFFER. */
static bool make_room(char **buffer, size_t *room, size_t n)
{
    char *larger;

    if (n < *room)
        return true;
    larger = realloc(*buffer, n * 2 + 64);
    if (!larger)
        return false;
    *buffer = larger;
    *room = n * 2 + 64;
    return true;
}

static int take_key(struct builder *b, struct artel_error *err)
{
    const size_t n = b->scan.end - b->scan.start;

    if (!make_room(&b->key, &b->key_room, n))
        return error_nomem(err, n);
    b->key_length = json_scan_string(&b->scan, b->key);
    b->key[b->key_length] = '\0';
    b->key_at = b->scan.start - 1;
    if (strlen(b->key) != b->key_length)
        return refuse_at(b, b->key_at, "JSON09", "a key holds NUL", err);
    if (json_object_get(b->open[b->scan.depth - 1], b->key))
        return refuse_duplicate(b, err);
    return 0;
}

static int make_number(struct builder *b, json_t **out, struct artel_error *err)
{
    char copy[24];
    const size_t n = b->scan.end - b->scan.start;
    double v;

    if (b->scan.integer && n < sizeof(copy)) {
        long long i;

        memcpy(copy, b->scan.text + b->scan.start, n);
        copy[n] = '\0';
        errno = 0;
        i = strtoll(copy, NULL, 10);
        if (!errno) {
            *out = json_integer(i);
            return 0;
        }
    }
    v = json_scan_number(&b->scan);
    if (v > 1.7976931348623157e308 || v < -1.7976931348623157e308)
        return refuse_at(b, b->scan.start, "JSON03", "a number beyond a double", err);
    *out = json_real(v);
    return 0;
}

static int make_value(struct builder *b, json_t **out, enum json_token t,
                      struct artel_error *err)
{
    const size_t n = b->scan.end - b->scan.start;
    int rc = 0;

    *out = NULL;
    if (t == JSON_TOKEN_STRING) {
        if (!make_room(&b->text, &b->text_room, n))
            return error_nomem(err, n);
        *out = json_stringn_nocheck(b->text, json_scan_string(&b->scan, b->text));
    } else if (t == JSON_TOKEN_NUMBER) {
        rc = make_number(b, out, err);
    } else if (t == JSON_TOKEN_OBJECT) {
        *out = json_object();
    } else if (t == JSON_TOKEN_ARRAY) {
        *out = json_array();
    } else if (t == JSON_TOKEN_NULL) {
        *out = json_null();
    } else {
        *out = json_boolean(t == JSON_TOKEN_TRUE);
    }
    return rc < 0 || *out ? rc : error_nomem(err, n);
}

/* Takes VALUE, also when it fails. DEPTH is that of the container it goes into. */
static int attach(struct builder *b, json_t *value, size_t depth,
                  struct artel_error *err)
{
    json_t *parent = depth ? b->open[depth - 1] : NULL;
    int failed;

    if (!parent) {
        b->root = value;
        return 0;
    }
    failed = json_is_object(parent) ? json_object_set_new_nocheck(parent, b->key, value)
                                    : json_array_append_new(parent, value);
    return failed ? error_nomem(err, sizeof(*value)) : 0;
}

static int build(struct builder *b, struct artel_error *err)
{
    for (;;) {
        const size_t depth = b->scan.depth;
        const enum json_token t = json_scan_next(&b->scan);
        json_t *value;
        int rc;

        if (t == JSON_TOKEN_END)
            return 0;
        if (t == JSON_TOKEN_BAD)
            return refuse_text(b, err);
        if (t == JSON_TOKEN_OBJECT_END || t == JSON_TOKEN_ARRAY_END)
            continue;
        if (t == JSON_TOKEN_KEY) {
            rc = take_key(b, err);
            if (rc < 0)
                return rc;
            continue;
        }
        rc = make_value(b, &value, t, err);
        if (rc < 0)
            return rc;
        if (b->scan.depth > depth)
            b->open[depth] = value;
        rc = attach(b, value, depth, err);
        if (rc < 0)
            return rc;
    }
}

int json_parse(json_t **out, const char *text, size_t n, const char *name,
               size_t line_base, struct artel_error *err)
{
    struct builder b = {.name = name, .line_base = line_base};
    int rc;

    *out = NULL;
    json_scan_init(&b.scan, text, n);
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        return refuse_at(&b, 0, "JSON10", "a byte-order mark may not stand here", err);
    rc = build(&b, err);
    free(b.key);
    free(b.text);
    if (rc < 0) {
        json_decref(b.root);
        return error_in(err, rc, name);
    }
    *out = b.root;
    return 0;
}

int json_read_file(json_t **out, const char *path, size_t max_bytes,
                   struct artel_error *err)
{
    struct map map;
    const char *text;
    size_t skip;
    int rc;

    *out = NULL;
    rc = map_open(&map, path, err);
    if (rc < 0)
        return rc;
    if (map.size > max_bytes) {
        rc = error_set(err, ARTEL_EFORMAT, "JSON05", NULL,
                       "%zu bytes, at most %zu are accepted for this file", map.size,
                       max_bytes);
        goto done;
    }
    text = map.data ? (const char *)map.data : "";
    skip = map.size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
    rc = json_parse(out, text + skip, map.size - skip, path, 0, err);
    if (rc == 0 && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        rc = error_set(err, ARTEL_EFORMAT, "JSON04", NULL,
                       "the top level must be an object");
    }
done:
    map_release(&map);
    return rc < 0 ? error_in(err, rc, path) : 0;
}
