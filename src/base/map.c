/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening with O_NONBLOCK keeps a FIFO from stalling us; fstat then tells what
 * it was, and only regular files are mapped.
 */
#define _GNU_SOURCE /* madvise */
#include "base/map.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

static const char *kind_name(mode_t mode)
{
    if (S_ISDIR(mode))
        return "a folder";
    if (S_ISFIFO(mode))
        return "a FIFO";
    if (S_ISSOCK(mode))
        return "a socket";
    if (S_ISCHR(mode) || S_ISBLK(mode))
        return "a device";
    return "not a regular file";
}

int map_open(struct map *m, const char *path, struct artel_error *err)
{
    struct stat st;
    void *data = NULL;
    int fd, rc;

    *m = (struct map){0};
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return error_errno(err, path, "cannot open");
    if (fstat(fd, &st) < 0) {
        rc = error_errno(err, path, "cannot stat");
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = error_set(err, ARTEL_EIO, "IO02", NULL, "expected a file, this is %s",
                       kind_name(st.st_mode));
        error_in(err, rc, path);
        goto fail;
    }
    if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            rc = error_errno(err, path, "cannot map");
            goto fail;
        }
    }
    close(fd);
    m->data = data;
    m->size = (size_t)st.st_size;
    return 0;

fail:
    close(fd);
    return rc;
}

void map_forget(const void *data, size_t n)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + n) / page * page;

    if (from < end) /* a wish: refusal costs only memory */
        (void)madvise((void *)from, end - from, MADV_DONTNEED);
}

void map_release(struct map *m)
{
    if (m->data)
        munmap((void *)(size_t)m->data, m->size);
    *m = (struct map){0};
}
