/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text as it grows token by token: bytes go in, whole UTF-8 characters come out,
 * and nothing comes out that may still turn out to be part of a stop string.
 *
 * Bytes that are no UTF-8 become U+FFFD, one for each maximal broken part.
 */
#ifndef ARTEL_EVAL_STREAM_H
#define ARTEL_EVAL_STREAM_H

#include <stdbool.h>
#include <stddef.h>

struct artel_error;

struct stream {
    const char *const *stop; /* (n_stop) borrowed */
    size_t n_stop;
    char *text; /* (n) clean text, ended; owned */
    size_t n, room;
    size_t n_sent;         /* bytes of it that are out */
    unsigned char tail[4]; /* (n_tail) start of a character not yet whole */
    size_t n_tail;
    bool stopped; /* a stop string was met; TEXT ends before it */
};

void stream_init(struct stream *s, const char *const *stop, size_t n_stop);
void stream_release(struct stream *s);
/* Append N bytes. */
int stream_add(struct stream *s, const char *bytes, size_t n, struct artel_error *err);
/* No more will come: what was held back is text after all. */
int stream_finish(struct stream *s, struct artel_error *err);
/* What may be shown now, *N bytes; each byte once. Borrowed until the next call. */
const char *stream_take(struct stream *s, size_t *n);

#endif
