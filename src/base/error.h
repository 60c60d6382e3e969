/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How failure travels: a negative code up the call chain, the story in *ERR.
 *
 * The code is minus the program's exit code, so that cli/ needs no table:
 * exit = -rc. The message is written where the cause is known; the path is
 * filled in once, by the function that knows it.
 */
#ifndef ARTEL_BASE_ERROR_H
#define ARTEL_BASE_ERROR_H

#include "artel.h"

/*
 * Fill *ERR (which may be NULL) and return RC. CODE is stable, at most 7
 * characters ("GGUF07"); WHERE names a tensor, key, "line:column" or byte
 * offset and may be NULL; FMT tells found and expected. Text from outside goes
 * through escape_text() first.
 */
int error_set(struct artel_error *err, int rc, const char *code, const char *where,
              const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Name the file, unless a function nearer to the cause already has. Returns RC. */
int error_in(struct artel_error *err, int rc, const char *file);

/* Shortcuts for the two commonest causes. */
int error_nomem(struct artel_error *err, size_t bytes);
int error_errno(struct artel_error *err, const char *file, const char *doing);

/*
 * TEXT (N bytes) made safe to print into OUT (SIZE bytes, always terminated):
 * control bytes and broken UTF-8 as \xNN, cut to at most 128 bytes of input.
 * Returns OUT.
 */
const char *escape_text(char *out, size_t size, const char *text, size_t n);

#endif
