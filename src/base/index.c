/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiplying mixes a key's bits upwards, so a slot is chosen by upper and lower ones.
 */
#include "base/index.h"

#include <stdlib.h>

#include "base/error.h"

static size_t slots_for(size_t n)
{
    size_t slots = 16;

    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

int index_room(struct index *x, size_t n, struct artel_error *err)
{
    struct index grown = {.n_slots = slots_for(n)};

    if (grown.n_slots <= x->n_slots)
        return 0;
    grown.slots = calloc(grown.n_slots, sizeof(*grown.slots));
    if (!grown.slots)
        return error_nomem(err, grown.n_slots * sizeof(*grown.slots));
    for (size_t i = 0; i < x->n_slots; i++)
        if (x->slots[i].number)
            index_put(&grown, x->slots[i].key, x->slots[i].number - 1);
    free(x->slots);
    *x = grown;
    return 0;
}

void index_carve(struct index *x, struct arena *arena, size_t n)
{
    *x = (struct index){.n_slots = slots_for(n)};
    x->slots = arena_take(arena, x->n_slots * sizeof(*x->slots));
}

void index_release(struct index *x)
{
    free(x->slots);
    *x = (struct index){0};
}

void index_put(struct index *x, uint64_t key, uint32_t number)
{
    struct index_slot *const slot = index_slot_of(x, key);

    x->n += !slot->number;
    *slot = (struct index_slot){key, number + 1};
}
