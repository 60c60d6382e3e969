/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that write, failing on demand; for programs linked with --wrap of write, fsync,
 * close, rename and mkdir. One source file a program may include it.
 */
#ifndef ARTEL_TESTS_FAULTS_IO_FAULTS_H
#define ARTEL_TESTS_FAULTS_IO_FAULTS_H

#include <errno.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t __real_write(int fd, const void *data, size_t n);
int __real_close(int fd);
int __real_rename(const char *from, const char *to);
int __real_mkdir(const char *path, mode_t mode);
ssize_t __wrap_write(int fd, const void *data, size_t n);
int __wrap_fsync(int fd);
int __wrap_close(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_mkdir(const char *path, mode_t mode);

enum call { CALL_WRITE, CALL_FSYNC, CALL_CLOSE, CALL_RENAME, CALL_MKDIR, N_CALLS };

static const char *const call_names[] = {"write", "fsync", "close", "rename", "mkdir"};

/* Which call fails: the NTH of its kind from now on, and those after it where STICKY. */
static struct {
    bool armed, sticky;
    enum call call;
    size_t nth, seen;
    int number;  /* errno */
    bool short_; /* write: half the bytes instead */
} fault;

static bool fails(enum call call)
{
    if (!fault.armed || fault.call != call)
        return false;
    fault.seen++;
    if (fault.seen != fault.nth && !(fault.sticky && fault.seen > fault.nth))
        return false;
    errno = fault.number;
    return true;
}

ssize_t __wrap_write(int fd, const void *data, size_t n)
{
    if (!fails(CALL_WRITE))
        return __real_write(fd, data, n);
    return fault.short_ ? __real_write(fd, data, n > 1 ? n / 2 : n) : -1;
}

/* The disk itself is not under test: a sync that does not fail costs nothing here. */
int __wrap_fsync(int fd)
{
    (void)fd;
    return fails(CALL_FSYNC) ? -1 : 0;
}

int __wrap_close(int fd)
{
    const int rc = __real_close(fd);

    return fails(CALL_CLOSE) ? -1 : rc;
}

int __wrap_rename(const char *from, const char *to)
{
    return fails(CALL_RENAME) ? -1 : __real_rename(from, to);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return fails(CALL_MKDIR) ? -1 : __real_mkdir(path, mode);
}

#endif
