/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors files of a Hugging Face folder, one or several with an index.
 * Used by weights.c.
 */
#ifndef ARTEL_MODEL_BASE_FILES_H
#define ARTEL_MODEL_BASE_FILES_H

#include <stddef.h>

#include "files/dtype.h"

struct artel_error;
struct safetensors;

struct base_files {
    struct safetensors **shards; /* (n), owned */
    char **names;                /* (n) file names within the folder, owned */
    size_t n;
};

/* model.safetensors, or what model.safetensors.index.json lists. Errors WT05 (the
 * index), WT06 (a shard and the index disagree), WT07 (no weights there). */
int base_files_open(struct base_files **out, const char *folder,
                    struct artel_error *err);
void base_files_close(struct base_files *b);

size_t base_files_count(const struct base_files *b); /* tensors */
const struct tensor *base_files_at(const struct base_files *b, size_t i);
const struct tensor *base_files_find(const struct base_files *b, const char *name);
size_t base_files_bytes(const struct base_files *b);

#endif
