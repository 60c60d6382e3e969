/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One rename makes a checkpoint, one rename unmakes it.
 */
#define _GNU_SOURCE /* renameat2 */
#include "save/checkpoint_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"

#define NAME      "checkpoint-"
#define MARK      ".artel-tmp."
#define NAME_ROOM 96

char *checkpoint_path(const char *stage_folder, uint64_t step)
{
    char name[NAME_ROOM];

    snprintf(name, sizeof(name), NAME "%" PRIu64, step);
    return path_join(stage_folder, name);
}

char *checkpoint_hidden_path(const char *stage_folder, uint64_t step, const char *tag)
{
    char name[NAME_ROOM];

    snprintf(name, sizeof(name), "." NAME "%" PRIu64 "%s" MARK "%ld", step, tag,
             (long)getpid());
    return path_join(stage_folder, name);
}

/* "checkpoint-N" as we write it: no sign, no leading zero, within 63 bits. */
static int parse_name(uint64_t *step, const char *name)
{
    const char *digits = name + strlen(NAME);
    char *end;

    if (strncmp(name, NAME, strlen(NAME)) != 0 || *digits < '0' || *digits > '9' ||
        (*digits == '0' && digits[1]))
        return 0;
    errno = 0;
    *step = strtoull(digits, &end, 10);
    return !errno && !*end && *step <= INT64_MAX;
}

static int larger_first(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x < y) - (x > y);
}

int checkpoint_list(uint64_t **steps, size_t *n, const char *stage_folder,
                    struct artel_error *err)
{
    DIR *d = opendir(stage_folder);
    struct dirent *entry;
    size_t room = 0;
    uint64_t step;

    *steps = NULL;
    *n = 0;
    if (!d)
        return errno == ENOENT
                   ? 0
                   : error_errno(err, stage_folder, "cannot open the folder");
    while ((entry = readdir(d)) != NULL) {
        if (!parse_name(&step, entry->d_name))
            continue;
        if (*n == room) {
            uint64_t *more = realloc(*steps, (2 * room + 8) * sizeof(*more));

            if (!more) {
                free(*steps);
                *steps = NULL;
                closedir(d);
                return error_nomem(err, (2 * room + 8) * sizeof(*more));
            }
            *steps = more;
            room = 2 * room + 8;
        }
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n)
        qsort(*steps, *n, sizeof(**steps), larger_first);
    return 0;
}

int checkpoint_check_place(const char *path, struct artel_error *err)
{
    struct stat st;
    int rc;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(err, path, "cannot stat");
    if (S_ISDIR(st.st_mode))
        return 1;
    rc = error_set(err, ARTEL_ECONFLICT, "CKP05", NULL,
                   "%s stands where a checkpoint's folder belongs",
                   S_ISLNK(st.st_mode) ? "a link" : "something else");
    return error_in(err, rc, path);
}

/* Both at once where the file system can, so that PATH is never missing. */
static int swap(const char *a, const char *b)
{
#ifdef RENAME_EXCHANGE
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
#else
    (void)a, (void)b;
    errno = ENOSYS;
    return -1;
#endif
}

int checkpoint_place(const char *temporary, const char *path, const char *aside,
                     struct artel_error *err)
{
    const int there = checkpoint_check_place(path, err);

    if (there < 0)
        return there;
    if (there && swap(temporary, path) == 0) {
        (void)checkpoint_remove(temporary); /* the old one; swept later if this fails */
        return 0;
    }
    if (there && rename(path, aside) < 0)
        return error_errno(err, path, "cannot move the old checkpoint aside");
    if (rename(temporary, path) < 0)
        return error_errno(err, path, "cannot rename the finished checkpoint");
    if (there)
        (void)checkpoint_remove(aside);
    return 0;
}

int checkpoint_remove(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!d) {
        if (fd >= 0)
            close(fd);
        return unlink(path); /* a link or a file; a folder stays */
    }
    while ((entry = readdir(d)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)unlinkat(dirfd(d), entry->d_name, 0); /* rmdir tells */
    closedir(d);
    return rmdir(path);
}

int checkpoint_retire(const char *stage_folder, uint64_t step)
{
    char *path = checkpoint_path(stage_folder, step);
    char *hidden = checkpoint_hidden_path(stage_folder, step, ".old");
    int rc = -1;

    if (path && hidden && rename(path, hidden) == 0)
        rc = checkpoint_remove(hidden);
    free(path);
    free(hidden);
    return rc;
}

/* ".checkpoint-*.artel-tmp.PID", PID dead, or our own: nothing of ours is under way here. */
static int is_leftover(const char *name)
{
    const char *mark = strstr(name, MARK);
    char *end;
    long pid;

    if (strncmp(name, "." NAME, strlen("." NAME)) != 0 || !mark)
        return 0;
    mark += strlen(MARK);
    errno = 0;
    pid = strtol(mark, &end, 10);
    if (errno || end == mark || *end || pid <= 0 || pid > INT_MAX)
        return 0;
    return pid == (long)getpid() || (kill((pid_t)pid, 0) < 0 && errno == ESRCH);
}

void checkpoint_sweep(const char *stage_folder)
{
    DIR *d = opendir(stage_folder);
    struct dirent *entry;

    while (d && (entry = readdir(d)) != NULL) {
        char *path =
            is_leftover(entry->d_name) ? path_join(stage_folder, entry->d_name) : NULL;

        if (path)
            (void)checkpoint_remove(path); /* tried again at the next start */
        free(path);
    }
    if (d)
        closedir(d);
}
