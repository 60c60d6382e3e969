/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block of memory that is handed out in order and freed at once.
 *
 * An arena with base == NULL only measures: the same function that lays out a
 * set of buffers is run first to learn the size, then to place them. Blocks of
 * 2 MiB and more lie on huge pages where the kernel has them.
 */
#ifndef ARTEL_BASE_ARENA_H
#define ARTEL_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_ALIGN 64

struct artel_error;

struct arena {
    char *base;
    size_t size; /* bytes */
    size_t used; /* bytes */
};

/* Zeroed memory. 0 or ARTEL_ELIMIT. */
int arena_init(struct arena *a, size_t size_bytes, struct artel_error *err);
void arena_release(struct arena *a);

/* N_BYTES aligned to ARENA_ALIGN; NULL while measuring. */
void *arena_take(struct arena *a, size_t n_bytes);
float *arena_f32(struct arena *a, size_t n); /* (n) */

#endif
