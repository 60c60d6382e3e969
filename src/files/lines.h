/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text file line by line with bounded memory. CRLF and LF end a line, a
 * byte-order mark at the start is skipped, the last line needs no end.
 */
#ifndef ARTEL_FILES_LINES_H
#define ARTEL_FILES_LINES_H

#include <stddef.h>
#include "base/map.h"

struct artel_error;

#define LINE_MAX_BYTES ((size_t)64 << 20)

struct lines {
    struct map map;
    const char *path; /* borrowed */
    size_t offset;    /* of the next line */
    size_t number;    /* physical number of the line last returned, from 1 */
};

int lines_open(struct lines *l, const char *path, struct artel_error *err);
/* 1: a line is in *TEXT (borrowed from the map, N bytes, without its end); 0: no more;
 * negative: a line above LINE_MAX_BYTES. */
int lines_next(struct lines *l, const char **text, size_t *n, struct artel_error *err);
void lines_release(struct lines *l);

#endif
