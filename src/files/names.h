/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From names to indices, in linear time for a million of them. The names stay
 * where they are; the hash is seeded so that no file can aim at it.
 */
#ifndef ARTEL_FILES_NAMES_H
#define ARTEL_FILES_NAMES_H

#include <stddef.h>
#include <stdint.h>

#define NAMES_NONE SIZE_MAX

struct name_slot {
    const char *name; /* (length), borrowed; NULL: free */
    uint32_t length;
    uint32_t hash;
    size_t index;
};

struct names {
    struct name_slot *slots; /* (room), owned */
    size_t room;             /* a power of two, at most 3/4 full */
    size_t count;
};

/* NAMES_NONE when NAME was new and now stands for INDEX; INDEX itself when there was no
 * memory; else the index that NAME already has. */
size_t names_add(struct names *t, const char *name, size_t length, size_t index);
size_t names_find(const struct names *t, const char *name, size_t length);
void names_release(struct names *t);

#endif
