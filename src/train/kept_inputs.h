/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Router inputs on disk. What a router reads of a row while nothing that it stands on
 * moves is computed once, and found again by a process that was resumed or by another
 * training over the same rows.
 *
 * A folder holds files of rows (docs/FORMATS.md), each made whole or not at all. A row's
 * name is a digest of all that its input depends on, so what does not fit is never found;
 * a file that is damaged is said, removed, and its rows are computed again. Files that
 * this training has no use for give way to its own, oldest first.
 */
#ifndef ARTEL_TRAIN_KEPT_INPUTS_H
#define ARTEL_TRAIN_KEPT_INPUTS_H

#include <stddef.h>
#include <stdint.h>

#include "data/example.h"
#include "files/digest.h"

struct artel_error;
struct kept_inputs;

struct kept_options {
    const char *folder;   /* made by the first write */
    const char *of;       /* digest of what all rows depend on */
    size_t floats;        /* of a row */
    uint64_t limit_bytes; /* of all files of the folder together */
    void (*warn)(void *user, const char *message);
    void *user;
};

/* Finds what is there. Only memory may be wanting: whatever is wrong with the folder or its
 * files is one warning each, and as if they were not there. */
int kept_inputs_open(struct kept_inputs **out, const struct kept_options *o,
                     struct artel_error *err);
void kept_inputs_close(struct kept_inputs *k);

/* ROW, of which the routers' input depends on the first N tokens and on OWN, a digest.
 * Rows are known by their address from here on. */
int kept_inputs_name(struct kept_inputs *k, const struct example *row, size_t n,
                     const char *own, struct artel_error *err);
/* How many rows were named, and for how many of them there is a row on disk. */
size_t kept_inputs_named(const struct kept_inputs *k);
size_t kept_inputs_found(const struct kept_inputs *k);

/* The input of ROW where it was on disk when it was named, or NULL. */
const float *kept_inputs_find(const struct kept_inputs *k, const struct example *row);
/* Keep the inputs Z (N, floats) of ROWS, which were named and not found, as one file; as
 * many as there is room for, and what that leaves out is said once. */
void kept_inputs_write(struct kept_inputs *k, const struct example *const *rows,
                       const float *z, size_t n);

#endif
