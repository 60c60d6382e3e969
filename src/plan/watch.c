/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Size and time tell that a file may have changed, its digest tells whether it
 * did: touching a file is no change. A base that was renamed over is another
 * file and does not concern the one that is mapped.
 */
#include "plan/watch.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int watch_add(struct watch *w, const char *path, const char *digest,
              struct artel_error *err)
{
    struct watched *files, *f;

    for (size_t i = 0; i < w->n; i++)
        if (!strcmp(w->files[i].path, path))
            return 0;
    files = realloc(w->files, (w->n + 1) * sizeof(*files));
    if (!files)
        return error_nomem(err, (w->n + 1) * sizeof(*files));
    w->files = files;
    f = &files[w->n];
    *f = (struct watched){.path = strdup(path)};
    if (!f->path)
        return error_nomem(err, strlen(path));
    if (stat(path, &f->at_start) != 0) {
        free(f->path);
        return error_errno(err, path, "look at");
    }
    if (digest)
        memcpy(f->digest, digest, DIGEST_SIZE);
    w->n++;
    return 0;
}

static bool moved(const struct stat *a, const struct stat *b)
{
    return a->st_size != b->st_size || a->st_mtim.tv_sec != b->st_mtim.tv_sec ||
           a->st_mtim.tv_nsec != b->st_mtim.tv_nsec || a->st_ino != b->st_ino ||
           a->st_dev != b->st_dev;
}

static int check_base(const struct watched *f, const struct stat *now,
                      struct artel_error *err)
{
    if (now->st_ino != f->at_start.st_ino || now->st_dev != f->at_start.st_dev ||
        now->st_size >= f->at_start.st_size)
        return 0;
    error_set(err, ARTEL_EIO, "RUN04", NULL,
              "the base was cut from %lld to %lld bytes while training",
              (long long)f->at_start.st_size, (long long)now->st_size);
    return error_in(err, ARTEL_EIO, f->path);
}

int watch_check_bases(const struct watch *w, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < w->n; i++) {
        struct stat now;

        if (!*w->files[i].digest && stat(w->files[i].path, &now) == 0)
            rc = check_base(&w->files[i], &now, err);
    }
    return rc;
}

int watch_check(struct watch *w, struct artel_error *err)
{
    const int bases = watch_check_bases(w, err);

    if (bases < 0)
        return bases;
    for (size_t i = 0; i < w->n; i++) {
        struct watched *f = &w->files[i];
        char digest[DIGEST_SIZE] = "none: the file is gone";
        struct stat now;
        const bool there = stat(f->path, &now) == 0;
        int rc = 0;

        if (!*f->digest || (there && !moved(&now, &f->at_start)))
            continue;
        if (there) {
            rc = digest_file(digest, f->path, err);
            if (rc < 0)
                return rc;
        }
        if (there && !strcmp(digest, f->digest)) {
            f->at_start = now;
            continue;
        }
        error_set(err, ARTEL_ECONFLICT, "RUN05", NULL,
                  "data changed under the run: sha256 was %s, is %s", f->digest,
                  digest);
        return error_in(err, ARTEL_ECONFLICT, f->path);
    }
    return 0;
}

void watch_release(struct watch *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->files[i].path);
    free(w->files);
    *w = (struct watch){0};
}
