/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths that others wrote, kept inside a folder.
 */
#ifndef ARTEL_SAVE_BENEATH_H
#define ARTEL_SAVE_BENEATH_H

#include <stdbool.h>
#include <stddef.h>

struct artel_error;

/* RELATIVE, read as text, is not absolute and climbs at most UP folders above its start. */
bool path_stays(const char *relative, size_t up);

/* PATH exists and lies, links followed, inside FOLDER: else ARTEL_EIO (IO01), or
 * ARTEL_EFORMAT with CODE where a link leaves the folder. */
int path_beneath(const char *folder, const char *path, const char *code,
                 struct artel_error *err);

#endif
