/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names ending in .json and .jsonl must hold JSON, .txt is plain text whatever it
 * begins with, and every other file is what it looks like.
 */
#include "data/sniff.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

static bool ends_in(const char *path, const char *suffix)
{
    const size_t n = strlen(path), m = strlen(suffix);

    return n >= m && !strcasecmp(path + n - m, suffix);
}

/* Kinds known by how they begin. */
static const struct {
    const char *begin;
    size_t n;
    const char *name, *how;
} kinds[] = {
    {"\xff\xfe", 2, "UTF-16 text", "iconv -f UTF-16 -t UTF-8"},
    {"\xfe\xff", 2, "UTF-16 text", "iconv -f UTF-16 -t UTF-8"},
    {"\x1f\x8b", 2, "gzip", "gunzip"},
    {"PK\x03\x04", 4, "a zip archive", "unzip"},
    {"PAR1", 4, "Parquet",
     "pandas: read_parquet(...).to_json(..., orient='records', lines=True)"},
    {"\x28\xb5\x2f\xfd", 4, "zstd", "unzstd"},
    {"BZh", 3, "bzip2", "bunzip2"},
    {"\xfd"
     "7zXZ",
     5, "xz", "unxz"},
    {"ARROW1", 6, "Arrow",
     "pandas: read_feather(...).to_json(..., orient='records', lines=True)"},
};

static int other(const char *name, const char *how, struct artel_error *err)
{
    return error_set(err, ARTEL_EFORMAT, "DATA05", NULL,
                     "this looks like %s, not JSONL or text; convert it first: %s",
                     name, how);
}

/* Does the first line look like a table's header: commas or tabs between short words? */
static bool is_table(const char *path, const char *data, size_t n)
{
    const char *end = memchr(data, '\n', n);
    const size_t line = end ? (size_t)(end - data) : n;

    if (ends_in(path, ".csv") || ends_in(path, ".tsv"))
        return true;
    return (ends_in(path, ".jsonl") || ends_in(path, ".json")) &&
           (memchr(data, ',', line) || memchr(data, '\t', line)) &&
           !memchr(data, '{', line) && !memchr(data, '[', line);
}

int sniff(enum file_kind *kind, const char *path, const char *data, size_t n,
          struct artel_error *err)
{
    const bool json = ends_in(path, ".jsonl") || ends_in(path, ".json");
    size_t i = 0;

    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
        if (n >= kinds[k].n && !memcmp(data, kinds[k].begin, kinds[k].n))
            return other(kinds[k].name, kinds[k].how, err);
    if (n >= 3 && !memcmp(data, "\xef\xbb\xbf", 3))
        i = 3;
    while (i < n && strchr(" \t\r\n", data[i]) && data[i])
        i++;
    if (i == n)
        return error_set(err, ARTEL_EFORMAT, "DATA04", NULL,
                         "the file holds no examples");
    if (!data[i] || memchr(data, 0, n < 4096 ? n : 4096))
        return other("a binary file", "write one JSON object a line, in UTF-8", err);
    if (is_table(path, data + i, n - i))
        return other("CSV",
                     "pandas: read_csv(...).to_json(..., orient='records', lines=True)",
                     err);
    *kind = FILE_TEXT;
    if (ends_in(path, ".txt"))
        return 0;
    if (data[i] == '{')
        *kind = FILE_JSONL;
    else if (data[i] == '[' && !ends_in(path, ".jsonl"))
        *kind = FILE_JSON_ARRAY;
    else if (json)
        *kind = FILE_JSONL; /* its first line is refused with its place */
    return 0;
}
