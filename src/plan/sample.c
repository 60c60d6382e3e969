/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few rows of a data file kept beside a mixture, so that a domain can be
 * added when the file itself is gone: the rows as they were written, evenly
 * over the file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/corpus.h"
#include "files/json.h"
#include "files/lines.h"
#include "files/write.h"
#include "plan/results.h"

/* Is example I among N of TOTAL, evenly? */
static bool is_picked(size_t i, size_t n, size_t total)
{
    return n >= total || (i + 1) * n / total != i * n / total;
}

/* JSONL: the lines themselves. Examples stand in the order of their lines. */
static int copy_lines(FILE *to, const struct corpus *c, const char *path, size_t n_rows,
                      struct artel_error *err)
{
    const size_t total = corpus_count(c);
    struct lines lines;
    const char *text;
    size_t n, i = 0;
    int rc = lines_open(&lines, path, err);

    if (rc < 0)
        return rc;
    while (i < total && (rc = lines_next(&lines, &text, &n, err)) == 1) {
        /* a line is one example, or none */
        if (corpus_at(c, i)->row != lines.number)
            continue;
        if (is_picked(i++, n_rows, total)) {
            fwrite(text, 1, n, to);
            fputc('\n', to);
        }
    }
    lines_release(&lines);
    return rc < 0 ? rc : 0;
}

/* A JSON array: its objects, one a line. */
static int copy_objects(FILE *to, const struct corpus *c, const struct map *map,
                        const char *path, size_t n_rows, struct artel_error *err)
{
    const size_t total = corpus_count(c);
    json_t *root = NULL;
    int rc = json_parse(&root, (const char *)map->data, map->size, path, 0, err);

    for (size_t i = 0; rc == 0 && i < total; i++) {
        const json_t *row = json_array_get(root, corpus_at(c, i)->row - 1);

        if (!row || !is_picked(i, n_rows, total))
            continue;
        json_dumpf(row, to, JSON_COMPACT);
        fputc('\n', to);
    }
    json_decref(root);
    return rc;
}

static char first_byte(const struct map *m)
{
    size_t i = 0;

    if (m->size >= 3 && !memcmp(m->data, "\xef\xbb\xbf", 3))
        i = 3;
    while (i < m->size && strchr(" \t\r\n", m->data[i]))
        i++;
    return i < m->size ? (char)m->data[i] : '\0';
}

int sample_write(const char *out, const struct corpus *c, const char *path,
                 size_t n_rows, struct artel_error *err)
{
    struct atomic_file f;
    struct map map;
    char kind;
    int rc = map_open(&map, path, err);

    if (rc < 0)
        return rc;
    kind = first_byte(&map);
    if (kind != '{' && kind != '[') {
        map_release(&map);
        return 0;
    }
    rc = atomic_open(&f, out, err);
    if (rc == 0) {
        rc = kind == '{' ? copy_lines(f.stream, c, path, n_rows, err)
                         : copy_objects(f.stream, c, &map, path, n_rows, err);
        if (rc == 0)
            rc = atomic_commit(&f, err);
        else
            atomic_abort(&f);
    }
    map_release(&map);
    return rc < 0 ? rc : 1;
}
