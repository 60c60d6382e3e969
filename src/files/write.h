/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing so that a crash leaves the old file or the new one, never half:
 * temporary name in the same folder, write, fsync, rename, fsync of the folder.
 * A symbolic link at the target is replaced, not followed.
 */
#ifndef ARTEL_FILES_WRITE_H
#define ARTEL_FILES_WRITE_H

#include <stddef.h>
#include <stdio.h>

struct artel_error;

/* Begin: *OUT is a stream on the temporary. One of the two others must follow. */
struct atomic_file {
    FILE *stream;    /* write errors are kept for the commit */
    void *sink;      /* what stands behind it */
    char *path;      /* target */
    char *temporary; /* ".NAME.artel-tmp.PID" beside it */
};

int atomic_open(struct atomic_file *f, const char *path, struct artel_error *err);
int atomic_commit(struct atomic_file *f,
                  struct artel_error *err); /* closes f either way */
void atomic_abort(struct atomic_file *f);

int write_file(const char *path, const void *data, size_t n, struct artel_error *err);
/* mkdir -p. */
int make_folder(const char *path, struct artel_error *err);
int sync_folder(const char *path, struct artel_error *err);
/* Remove leftover temporaries of dead processes in a folder. */
void remove_leftovers(const char *folder);

/* "DIR/NAME" in newly allocated memory; NULL when there is none. */
char *path_join(const char *dir, const char *name);

#endif
