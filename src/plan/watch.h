/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files a run is made from, watched while it runs: data that changes under
 * it ends it before anything mixed is written, a base that is cut ends it
 * cleanly.
 */
#ifndef ARTEL_PLAN_WATCH_H
#define ARTEL_PLAN_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "files/digest.h"

struct artel_error;

struct watched {
    char *path; /* owned */
    struct stat at_start;
    char digest[DIGEST_SIZE]; /* "": a base, whose bytes are not read again */
};

struct watch {
    struct watched *files; /* owned */
    size_t n;
};

/* DIGEST NULL: only its length is watched. A file that is there twice is watched once. */
int watch_add(struct watch *w, const char *path, const char *digest,
              struct artel_error *err);
/* Cheap where nothing moved. ARTEL_ECONFLICT names the file and both digests. */
int watch_check(struct watch *w, struct artel_error *err);
/* The bases alone, for every step: ARTEL_EIO before a page that is gone is touched. */
int watch_check_bases(const struct watch *w, struct artel_error *err);
void watch_release(struct watch *w);

#endif
