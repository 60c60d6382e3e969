/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's body as JSON; where it is none, which of its fields is at fault, as far as
 * one can be told.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "serve/api_request.h"

/* The byte that "LINE:COLUMN" means in TEXT (n); N where it means none. */
static size_t byte_at(const char *text, size_t n, const char *where)
{
    size_t line, column, at = 0;

    if (sscanf(where, "%zu:%zu", &line, &column) != 2 || !line || !column)
        return n;
    while (--line) {
        const char *const end = memchr(text + at, '\n', n - at);

        if (!end)
            return n;
        at = (size_t)(end - text) + 1;
    }
    return column - 1 < n - at ? at + column - 1 : n;
}

/* The end of the string that begins at AT, behind its quote; N where it has none. */
static size_t string_end(const char *text, size_t n, size_t at)
{
    while (++at < n && text[at] != '"')
        at += text[at] == '\\';
    return at < n ? at + 1 : n;
}

/*
 * The top level's key whose value, or who itself, is at FAULT; up to there TEXT is sound.
 * False where it is no such key's.
 */
static bool field_at(char *out, size_t size, const char *text, size_t n, size_t fault)
{
    const char *key = NULL;
    size_t depth = 0, length = 0;
    bool wants_key = true;

    if (fault >= n) /* it ends too early, which is no field's fault */
        return false;
    for (size_t at = 0; at <= fault; at++) {
        const char c = text[at];

        if (c == '"') {
            const size_t end = string_end(text, n, at);

            if (depth == 1 && wants_key && end - at >= 2 && text[end - 1] == '"') {
                key = text + at + 1;
                length = end - at - 2;
            }
            at = end - 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (depth == 1 && (c == ',' || c == ':')) {
            wants_key = c == ',';
            key = wants_key ? NULL : key;
        }
    }
    if (!depth || !key || !length || memchr(key, '\\', length))
        return false;
    escape_text(out, size, key, length < 60 ? length : 60);
    return true;
}

int request_parse(json_t **out, const char *body, size_t n, struct artel_error *err)
{
    int rc = json_parse(out, body, n, "body", 0, err);
    char field[160], reason[sizeof(err->reason)];

    if (rc == ARTEL_EFORMAT &&
        field_at(field, sizeof(field), body, n, byte_at(body, n, err->where))) {
        snprintf(reason, sizeof(reason), "%.40s: %.200s", err->where, err->reason);
        snprintf(err->reason, sizeof(err->reason), "%s", reason);
        snprintf(err->where, sizeof(err->where), "%s", field);
        err->exit = -ARTEL_EUSAGE;
        return ARTEL_EUSAGE;
    }
    if (rc < 0)
        return rc;
    if (json_is_object(*out))
        return 0;
    rc = error_set(err, ARTEL_EFORMAT, "SRV05", "1:1", "expected a JSON object");
    json_decref(*out);
    *out = NULL;
    return rc;
}
