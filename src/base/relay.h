/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several threads add to the same sums in a fixed order, piece by piece: item I may do
 * its piece K as soon as item I - 1 has done its own. Items are taken up in ascending
 * order and go through the same pieces in the same order, so that each follows close
 * behind the one before it and the first never waits.
 */
#ifndef ARTEL_BASE_RELAY_H
#define ARTEL_BASE_RELAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Pieces that an item has done, in a cache line of its own or nearly so. */
struct relay_item {
    _Atomic uint32_t done;
    char spare[60];
};

struct relay {
    struct relay_item *of; /* (n items); borrowed */
    _Atomic uint32_t asleep;
    pthread_mutex_t lock;
    pthread_cond_t woken;
};

int relay_init(struct relay *t); /* 0, or -1 where the system has no room */
void relay_destroy(struct relay *t);
/* N items in OF, which have done nothing; nobody is at work. */
void relay_begin(struct relay *t, struct relay_item *of, size_t n);

/* Item ITEM may do its next piece; may be asked for again. */
void relay_wait(struct relay *t, size_t item);
/* It has done that piece, for which it has waited. */
void relay_pass(struct relay *t, size_t item);
/* It has done all that there is, or will do no more once all items before it have. */
void relay_end(struct relay *t, size_t item);
void relay_give_up(struct relay *t, size_t item);

#endif
