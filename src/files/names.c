/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing with linear probing. The seed is the address of the table's
 * code, which changes with every start of the program.
 */
#include "files/names.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM 64

static uint32_t hash_of(const char *name, size_t length)
{
    uint64_t h = 0xcbf29ce484222325u ^ (uint64_t)(uintptr_t)&hash_of;

    for (size_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)name[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

static struct name_slot *find_slot(const struct names *t, const char *name,
                                   size_t length, uint32_t hash)
{
    size_t i = hash & (t->room - 1);

    for (;; i = (i + 1) & (t->room - 1)) {
        struct name_slot *s = &t->slots[i];

        if (!s->name ||
            (s->hash == hash && s->length == length && !memcmp(s->name, name, length)))
            return s;
    }
}

static bool grow(struct names *t)
{
    struct names larger = {.room = t->room ? t->room * 2 : FIRST_ROOM,
                           .count = t->count};

    larger.slots = calloc(larger.room, sizeof(*larger.slots));
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->slots[i].name) {
            const struct name_slot *s = &t->slots[i];

            *find_slot(&larger, s->name, s->length, s->hash) = *s;
        }
    free(t->slots);
    *t = larger;
    return true;
}

size_t names_add(struct names *t, const char *name, size_t length, size_t index)
{
    const uint32_t hash = hash_of(name, length);
    struct name_slot *s;

    if (t->count >= t->room / 4 * 3 && !grow(t))
        return index;
    s = find_slot(t, name, length, hash);
    if (s->name)
        return s->index;
    *s = (struct name_slot){
        .name = name, .length = (uint32_t)length, .hash = hash, .index = index};
    t->count++;
    return NAMES_NONE;
}

size_t names_find(const struct names *t, const char *name, size_t length)
{
    if (!t->room)
        return NAMES_NONE;
    const struct name_slot *s = find_slot(t, name, length, hash_of(name, length));

    return s->name ? s->index : NAMES_NONE;
}

void names_release(struct names *t)
{
    free(t->slots);
    *t = (struct names){0};
}
