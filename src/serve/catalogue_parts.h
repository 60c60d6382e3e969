/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the catalogue share.
 */
#ifndef ARTEL_SERVE_CATALOGUE_PARTS_H
#define ARTEL_SERVE_CATALOGUE_PARTS_H

#include <pthread.h>

#include "serve/catalogue.h"

#define ADDED_MAX 256 /* experts that were added while the server runs */

struct added {
    char name[EXPERT_NAME_MAX + 1];
    char *folder; /* the last part of its path; owned */
    struct loaded *loaded;
    time_t since;
};

struct catalogue {
    pthread_mutex_t lock;     /* of what follows, and of every HOLDERS */
    pthread_mutex_t changing; /* one change at a time; taken before LOCK */
    char *path, *allowed;     /* resolved; ALLOWED may be NULL; owned */
    char *name;               /* last part of PATH; owned */
    struct artel_open_options open;
    struct artel_model *model; /* owned */
    struct loaded *current;
    time_t since; /* CURRENT is served */
    struct added added[ADDED_MAX];
    size_t n_added;
    json_t *described; /* of CURRENT, without what was added; owned */
};

/* Of PATH, without folders before it. */
const char *last_part(const char *path);
/* A new object, or NULL for want of memory. */
json_t *describe_mixture(const struct artel_mixture *m, const char *path);

#endif
