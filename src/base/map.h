/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A regular file mapped read-only. FIFOs, devices and folders are refused
 * without blocking. The mapping may end at any byte: nothing past SIZE is read.
 */
#ifndef ARTEL_BASE_MAP_H
#define ARTEL_BASE_MAP_H

#include <stddef.h>

struct artel_error;

struct map {
    const unsigned char *data; /* (size), NULL for an empty file */
    size_t size;               /* bytes */
};

/* ARTEL_EIO names the path and what kind of thing it is instead of a file. */
int map_open(struct map *m, const char *path, struct artel_error *err);
void map_release(struct map *m);
/* Whole pages inside of N bytes of a mapping leave memory until they are touched. */
void map_forget(const void *data, size_t n);

#endif
