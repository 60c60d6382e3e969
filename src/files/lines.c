/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines are found in the mapped file, so nothing is copied.
 */
#include "files/lines.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

static const char bom[] = "\xef\xbb\xbf";

int lines_open(struct lines *l, const char *path, struct artel_error *err)
{
    int rc;

    *l = (struct lines){.path = path};
    rc = map_open(&l->map, path, err);
    if (rc < 0)
        return rc;
    if (l->map.size >= 3 && !memcmp(l->map.data, bom, 3))
        l->offset = 3;
    return 0;
}

int lines_next(struct lines *l, const char **text, size_t *n, struct artel_error *err)
{
    const char *start, *end;
    size_t left = l->map.size - l->offset;
    char where[32];

    if (!left)
        return 0;
    start = (const char *)l->map.data + l->offset;
    end = memchr(start, '\n', left);
    *n = end ? (size_t)(end - start) : left;
    l->number++;
    if (*n > LINE_MAX_BYTES) {
        snprintf(where, sizeof(where), "line %zu", l->number);
        return error_in(err,
                        error_set(err, ARTEL_EFORMAT, "LINE01", where,
                                  "line of %zu bytes, at most %zu are accepted", *n,
                                  LINE_MAX_BYTES),
                        l->path);
    }
    l->offset += *n + (end ? 1 : 0);
    if (*n && start[*n - 1] == '\r')
        --*n;
    *text = start;
    return 1;
}

void lines_release(struct lines *l)
{
    map_release(&l->map);
    *l = (struct lines){0};
}
