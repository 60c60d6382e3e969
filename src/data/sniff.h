/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a data file is, by its first bytes and its name.
 */
#ifndef ARTEL_DATA_SNIFF_H
#define ARTEL_DATA_SNIFF_H

#include <stddef.h>

struct artel_error;

enum file_kind { FILE_JSONL, FILE_JSON_ARRAY, FILE_TEXT };

/* DATA04: nothing in it; DATA05: of a kind that cannot be read, and how to convert it. */
int sniff(enum file_kind *kind, const char *path, const char *data, size_t n,
          struct artel_error *err);

#endif
