/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine has left: memory (this process's control group counted) and
 * disk. A run that would not fit is refused before it starts.
 */
#ifndef ARTEL_BASE_ROOM_H
#define ARTEL_BASE_ROOM_H

#include <stddef.h>
#include <stdint.h>

struct artel_error;

/* Bytes that may still be taken without swapping; SIZE_MAX where it cannot be told. */
size_t room_memory(void);
/* ARTEL_ELIMIT with needed and available bytes; LIMIT 0: what the machine has. */
int room_check_memory(size_t needed, size_t limit, struct artel_error *err);
/* The file system that PATH is or will be on. ARTEL_EIO with needed and free bytes. */
int room_check_disk(const char *path, uint64_t needed, struct artel_error *err);

#endif
