/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The place of a converted file or folder: nothing is written over unasked, and a
 * folder appears when all of it is there.
 */
#ifndef ARTEL_SAVE_OUTPUT_PLACE_H
#define ARTEL_SAVE_OUTPUT_PLACE_H

#include <stdbool.h>

struct artel_error;

/* May PATH become a file, or a FOLDER? ARTEL_ECONFLICT (CNV01) where something is there
 * and not FORCE, or what is there is no file, resp. no folder of a model or adapter
 * without folders in it. */
int output_check(const char *path, bool folder, bool force, struct artel_error *err);

/* INPUT, a file or a folder, is read: ARTEL_EUSAGE (CNV08) where PATH is it, a folder
 * around it or a file in it, links followed. Files .gguf are no part of a folder. */
int output_spares(const char *path, const char *input, struct artel_error *err);

/* A new hidden folder beside PATH, in *TEMPORARY (owned by the caller). */
int output_begin(char **temporary, const char *path, struct artel_error *err);
/* It takes PATH's place; what was there goes. */
int output_finish(const char *temporary, const char *path, struct artel_error *err);
/* It goes, with the files in it. */
void output_abandon(const char *temporary);

#endif
