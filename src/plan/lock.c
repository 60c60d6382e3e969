/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock file says who holds it, for people; that it is held, the kernel says.
 * Its first word also marks a folder as ours.
 */
#include "plan/lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"

static const char mark[] = "artel run";

/* Text of the lock file at FD; empty where it has none. */
static void read_note(int fd, char *out, size_t size)
{
    const ssize_t n = pread(fd, out, size - 1, 0);

    out[n > 0 ? n : 0] = '\0';
}

/* A lock of ours, or a stage's stamp where someone has tidied the lock away. */
static bool is_ours(const char *folder)
{
    char note[64] = "";
    char *path = path_join(folder, ".lock");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    DIR *stages;
    bool ours = false;

    if (fd >= 0) {
        read_note(fd, note, sizeof(note));
        close(fd);
    }
    free(path);
    if (!strncmp(note, mark, strlen(mark)))
        return true;
    path = path_join(folder, "train");
    stages = path ? opendir(path) : NULL;
    for (struct dirent *d; !ours && stages && (d = readdir(stages));) {
        char stamp[600];

        if (*d->d_name == '.')
            continue;
        snprintf(stamp, sizeof(stamp), "%.300s/stage.json", d->d_name);
        ours = faccessat(dirfd(stages), stamp, F_OK, 0) == 0;
    }
    if (stages)
        closedir(stages);
    free(path);
    return ours;
}

int run_folder_check(const char *folder, struct artel_error *err)
{
    DIR *dir = opendir(folder);
    const struct dirent *d;
    bool empty = true;

    if (!dir)
        return errno == ENOENT ? 0 : error_errno(err, folder, "open the output folder");
    while ((d = readdir(dir)))
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            empty = false;
    closedir(dir);
    if (empty)
        return 0;
    if (is_ours(folder))
        return 1;
    error_set(err, ARTEL_ECONFLICT, "RUN01", "output",
              "the folder is not empty and no run of artel made it");
    return error_in(err, ARTEL_ECONFLICT, folder);
}

static int held_by_other(const struct run_lock *l, struct artel_error *err)
{
    char note[64];
    long pid = 0;

    read_note(l->fd, note, sizeof(note));
    if (sscanf(note, "artel run, process %ld", &pid) != 1)
        pid = 0;
    error_set(err, ARTEL_ECONFLICT, "RUN02", ".lock",
              "the run folder is in use by process %ld", pid);
    return error_in(err, ARTEL_ECONFLICT, l->folder);
}

/* The lock's own text is the probe: what fails here would fail at the first save. */
static int write_note(const struct run_lock *l, struct artel_error *err)
{
    char note[64];
    const int n =
        snprintf(note, sizeof(note), "%s, process %ld\n", mark, (long)getpid());

    if (ftruncate(l->fd, 0) != 0 || pwrite(l->fd, note, (size_t)n, 0) != n ||
        fsync(l->fd) != 0)
        return error_errno(err, l->path, "write");
    return 0;
}

static int probe_folder(const char *folder, struct artel_error *err)
{
    char *path = path_join(folder, ".probe");
    int rc;

    if (!path)
        return error_nomem(err, strlen(folder));
    rc = write_file(path, "", 0, err);
    unlink(path);
    free(path);
    return rc;
}

int run_lock_take(struct run_lock *l, const char *folder, struct artel_error *err)
{
    struct stat st;
    int rc;

    *l = RUN_LOCK_NONE;
    rc = make_folder(folder, err);
    if (rc < 0)
        return rc;
    l->folder = strdup(folder);
    l->path = path_join(folder, ".lock");
    if (!l->folder || !l->path) {
        rc = error_nomem(err, strlen(folder));
        goto fail;
    }
    l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (l->fd < 0 || fstat(l->fd, &st) != 0) {
        rc = error_errno(err, l->path, "open");
        goto fail;
    }
    if (flock(l->fd, LOCK_EX | LOCK_NB) != 0) {
        rc = errno == EWOULDBLOCK ? held_by_other(l, err)
                                  : error_errno(err, l->path, "lock");
        close(l->fd); /* not ours: its note stays */
        l->fd = -1;
        goto fail;
    }
    l->device = st.st_dev;
    l->inode = st.st_ino;
    rc = write_note(l, err);
    if (rc == 0)
        rc = probe_folder(folder, err);
    if (rc == 0)
        return 0;
fail:
    run_lock_release(l);
    return rc;
}

int run_lock_check(const struct run_lock *l, struct artel_error *err)
{
    struct stat st;

    if (stat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
        return 0;
    error_set(err, ARTEL_EIO, "RUN03", "output",
              "the run folder was moved or removed while training");
    return error_in(err, ARTEL_EIO, l->folder);
}

void run_lock_release(struct run_lock *l)
{
    if (l->fd >= 0) {
        /* Nobody's again: a run that was refused leaves the folder as it found it. */
        const int cut = ftruncate(l->fd, (off_t)strlen(mark));

        (void)cut; /* the note is for people; it may stay */
        close(l->fd);
    }
    free(l->path);
    free(l->folder);
    *l = RUN_LOCK_NONE;
}
