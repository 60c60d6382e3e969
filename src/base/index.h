/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds a number by a key of 64 bits: a hash table with open addressing.
 */
#ifndef ARTEL_BASE_INDEX_H
#define ARTEL_BASE_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

struct artel_error;

#define INDEX_NONE UINT32_MAX

struct index_slot {
    uint64_t key;
    uint32_t number; /* plus one; 0: empty */
};

/* All zeros: nothing is in it, and there is no room. */
struct index {
    size_t n, n_slots;        /* slots: a power of two, at most half of them filled */
    struct index_slot *slots; /* owned, unless carved */
};

/* Room for N keys in all on the heap; those that are in it stay. ARTEL_ELIMIT leaves all
 * as it was. */
int index_room(struct index *x, size_t n, struct artel_error *err);
/* Room for N keys, laid in ARENA, or measured. Never released. */
void index_carve(struct index *x, struct arena *arena, size_t n);
void index_release(struct index *x);

/* The slot of KEY, or the empty one where it belongs. There is room. */
static inline struct index_slot *index_slot_of(const struct index *x, uint64_t key)
{
    const uint64_t h = key * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h ^ h >> 32) & (x->n_slots - 1);

    while (x->slots[i].number && x->slots[i].key != key)
        i = (i + 1) & (x->n_slots - 1);
    return &x->slots[i];
}

/* INDEX_NONE: KEY is not in it. */
static inline uint32_t index_get(const struct index *x, uint64_t key)
{
    return x->n_slots ? index_slot_of(x, key)->number - 1 : INDEX_NONE;
}

/* KEY has NUMBER (below INDEX_NONE) from now on. There is room. */
void index_put(struct index *x, uint64_t key, uint32_t number);

/* A key of something that lives as long as the index does. */
static inline uint64_t index_key(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

#endif
