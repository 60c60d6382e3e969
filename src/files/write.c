/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place that writes files.
 *
 * The stream is ours (fopencookie) so that every byte goes through write() here:
 * short counts are continued, interruptions repeated, and the first failure is kept
 * with its reason until the commit. A file whose fsync failed once is not trusted,
 * whatever a second fsync would say: it is thrown away.
 */
#define _GNU_SOURCE
#include "files/write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

#define MARK        ".artel-tmp."
#define BUFFER_SIZE ((size_t)1 << 16)

/* What stands behind the stream. */
struct sink {
    int fd;
    int error; /* errno of the first failure, 0: none */
};

/* Close reporting errors; never repeated, for the descriptor is gone in any case. */
static int close_checked(int fd)
{
    return close(fd) < 0 && errno != EINTR ? -1 : 0;
}

static int fsync_checked(int fd)
{
    int rc;

    do
        rc = fsync(fd);
    while (rc < 0 && errno == EINTR);
    return rc;
}

static ssize_t sink_write(void *cookie, const char *data, size_t n)
{
    struct sink *s = cookie;
    size_t done = 0;

    while (done < n && !s->error) {
        const ssize_t k = write(s->fd, data + done, n - done);

        if (k > 0)
            done += (size_t)k;
        else if (k == 0)
            s->error = EIO;
        else if (errno != EINTR)
            s->error = errno;
    }
    if (s->error) {
        errno = s->error;
        return 0; /* fopencookie's word for failure */
    }
    return (ssize_t)n;
}

char *path_join(const char *dir, const char *name)
{
    const size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);

    if (path)
        snprintf(path, size, "%s%s%s", dir,
                 *dir && dir[strlen(dir) - 1] == '/' ? "" : "/", name);
    return path;
}

/* The folder PATH lies in, in new memory: "." for a bare name. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

static char *temporary_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const size_t size = strlen(path) + sizeof(MARK) + 24;
    char *temporary = malloc(size);

    if (temporary)
        snprintf(temporary, size, "%.*s.%s" MARK "%ld", (int)(name - path), path, name,
                 (long)getpid());
    return temporary;
}

static void forget(struct atomic_file *f)
{
    free(f->path);
    free(f->temporary);
    *f = (struct atomic_file){0};
}

/* O_EXCL: nobody's file and no link is ever written through. */
static int open_temporary(const char *path)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = open(path, flags, 0666);

    if (fd < 0 && errno == EEXIST && unlink(path) == 0)
        fd = open(path, flags, 0666); /* left by a dead process that had our id */
    return fd;
}

/* The descriptor outlives the stream: it is synced after the last flush. */
static int sink_close(void *cookie)
{
    (void)cookie;
    return 0;
}

int atomic_open(struct atomic_file *f, const char *path, struct artel_error *err)
{
    const cookie_io_functions_t functions = {.write = sink_write, .close = sink_close};
    struct sink *s = malloc(sizeof(*s));
    int rc;

    *f = (struct atomic_file){.path = strdup(path), .temporary = temporary_of(path)};
    if (!s || !f->path || !f->temporary) {
        rc = error_nomem(err, strlen(path));
        goto fail;
    }
    *s = (struct sink){.fd = open_temporary(f->temporary)};
    if (s->fd < 0) {
        rc = error_errno(err, path, "cannot create the temporary beside it");
        goto fail;
    }
    f->stream = fopencookie(s, "w", functions);
    if (!f->stream) {
        rc = error_nomem(err, sizeof(FILE));
        close(s->fd);
        unlink(f->temporary);
        goto fail;
    }
    f->sink = s;
    (void)setvbuf(f->stream, NULL, _IOFBF, BUFFER_SIZE); /* refusal costs only speed */
    return 0;

fail:
    free(s);
    forget(f);
    return rc;
}

/* Everything but the rename: 0, or -1 with errno and what was being done. */
static int finish_content(struct atomic_file *f, const char **doing)
{
    struct sink *s = f->sink;
    const int lost = ferror(f->stream);
    const int closed = fclose(f->stream); /* flushes */
    int failed = s->error;

    f->stream = NULL;
    *doing = "cannot write";
    if (!failed && (closed || lost))
        failed = EIO;
    if (!failed && fsync_checked(s->fd) < 0) {
        failed = errno;
        *doing = "cannot bring to disk";
    }
    if (close_checked(s->fd) < 0 && !failed) {
        failed = errno;
        *doing = "cannot close";
    }
    free(s);
    f->sink = NULL;
    errno = failed;
    return failed ? -1 : 0;
}

int atomic_commit(struct atomic_file *f, struct artel_error *err)
{
    const char *doing;
    char *folder;
    int rc;

    if (finish_content(f, &doing) < 0) {
        rc = error_errno(err, f->path, doing);
        goto fail;
    }
    if (rename(f->temporary, f->path) < 0) {
        rc = error_errno(err, f->path, "cannot rename the temporary to it");
        goto fail;
    }
    folder = parent_of(f->path);
    rc = folder ? sync_folder(folder, err) : error_nomem(err, strlen(f->path));
    free(folder);
    forget(f);
    return rc;

fail:
    unlink(f->temporary);
    forget(f);
    return rc;
}

void atomic_abort(struct atomic_file *f)
{
    if (!f->stream)
        return;
    fclose(f->stream);
    close(((struct sink *)f->sink)->fd);
    free(f->sink);
    unlink(f->temporary);
    forget(f);
}

int write_file(const char *path, const void *data, size_t n, struct artel_error *err)
{
    struct atomic_file f;
    int rc = atomic_open(&f, path, err);

    if (rc < 0)
        return rc;
    if (n)
        (void)fwrite(data, 1, n, f.stream); /* the commit reports what went wrong */
    return atomic_commit(&f, err);
}

int make_folder(const char *path, struct artel_error *err)
{
    char *partial = strdup(path);
    struct stat st;
    int rc = 0;

    if (!partial)
        return error_nomem(err, strlen(path));
    for (char *c = partial + 1; partial[0] && rc == 0; c++) {
        const char at = *c;

        if (at != '/' && at != '\0')
            continue;
        *c = '\0';
        if (mkdir(partial, 0777) < 0 && errno != EEXIST)
            rc = error_errno(err, path, "cannot make the folder");
        *c = at;
        if (!at)
            break;
    }
    free(partial);
    if (rc == 0 && (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)))
        rc = error_in(
            err, error_set(err, ARTEL_EIO, "IO03", NULL, "exists and is not a folder"),
            path);
    return rc;
}

int sync_folder(const char *path, struct artel_error *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return error_errno(err, path, "cannot open the folder");
    if (fsync_checked(fd) < 0)
        rc = error_errno(err, path, "cannot bring the folder to disk");
    if (close_checked(fd) < 0 && rc == 0)
        rc = error_errno(err, path, "cannot close the folder");
    return rc;
}

/* ".NAME.artel-tmp.PID" of a process that is no more. */
static int is_leftover(const char *name)
{
    const char *mark = strstr(name, MARK);
    char *end;
    long pid;

    if (name[0] != '.' || !mark)
        return 0;
    for (const char *later; (later = strstr(mark + 1, MARK)) != NULL;)
        mark = later;
    mark += sizeof(MARK) - 1;
    errno = 0;
    pid = strtol(mark, &end, 10);
    if (errno || end == mark || *end || pid <= 0 || pid > INT_MAX)
        return 0;
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

void remove_leftovers(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *entry;

    if (!d)
        return;
    while ((entry = readdir(d)) != NULL)
        if (is_leftover(entry->d_name))
            (void)unlinkat(dirfd(d), entry->d_name, 0); /* another start may be first */
    closedir(d);
}
