/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON through jansson, with the limits that text from outside needs: a scan
 * bounds the depth of brackets (64) before the parser recurses, duplicate keys
 * and anything but UTF-8 are refused, a byte-order mark is skipped where ALLOW_BOM.
 */
#ifndef ARTEL_FILES_JSON_H
#define ARTEL_FILES_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;

#define JSON_MAX_DEPTH 64

/* Parse a whole text. NAME stands for the path; LINE_BASE is added to lines (0 for files). */
int json_parse(json_t **out, const char *text, size_t n, const char *name,
               size_t line_base, struct artel_error *err);
/* A file of at most MAX_BYTES whose top level is an object. */
int json_read_file(json_t **out, const char *path, size_t max_bytes,
                   struct artel_error *err);
/* Write VALUE (indent 2, keys in insertion order unless SORTED), atomically. */
int json_write_file(const char *path, const json_t *value, bool sorted,
                    struct artel_error *err);

/* Fields of objects from outside: a wrong type names the key, expected and found.
 * The json_want_ family leaves *OUT alone where the key is absent or null. */
int json_need_string(const json_t *o, const char *key, const char **out,
                     struct artel_error *err);
int json_want_string(const json_t *o, const char *key, const char **out,
                     struct artel_error *err);
int json_want_uint(const json_t *o, const char *key, uint64_t min, uint64_t max,
                   uint64_t *out, struct artel_error *err);
int json_want_double(const json_t *o, const char *key, double *out,
                     struct artel_error *err); /* finite */
int json_want_bool(const json_t *o, const char *key, bool *out,
                   struct artel_error *err);

#endif
