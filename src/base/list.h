/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists that grow on the heap, of any kind of item.
 */
#ifndef ARTEL_BASE_LIST_H
#define ARTEL_BASE_LIST_H

#include <stddef.h>

struct artel_error;

/* LIST: address of the pointer to the items, NULL for none yet. Afterwards there is room
 * for N items of SIZE bytes; those that were there stay. 0 or ARTEL_ELIMIT, then the old
 * list is as it was. */
int list_grow(void *list, size_t n, size_t size, struct artel_error *err);

#endif
