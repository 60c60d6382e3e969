/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime copes with the complete file of a process that is gone. It does not with
 * one that ended between making the file and filling it: it maps a kibibyte of what may
 * have no bytes, and reads them.
 */
#include "base/openmp.h"

#if defined(__clang__)
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"

#define NOTE_BYTES 1024

struct note {
    char path[64];
};

static struct note own_note(void)
{
    struct note n;

    snprintf(n.path, sizeof(n.path), "/dev/shm/__KMP_REGISTERED_LIB_%d_%d",
             (int)getpid(), (int)getuid());
    return n;
}

/* 1 with content, 0 without, -1 where there is none. */
static int content(const struct note *n)
{
    const int fd = open(n->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char first = '\0';
    ssize_t got;

    if (fd < 0)
        return -1;
    got = read(fd, &first, 1);
    close(fd);
    return got < 0 ? -1 : got == 1 && first;
}

static void remove_leftover(void)
{
    const struct note n = own_note();

    if (content(&n) == 0)
        (void)unlink(n.path);
}

__attribute__((constructor)) static void start(void)
{
    remove_leftover();
    (void)pthread_atfork(NULL, NULL, remove_leftover);
}

int openmp_check(struct artel_error *err)
{
    const struct note n = own_note();
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur >= NOTE_BYTES ||
        content(&n) == 1) /* it runs already */
        return 0;
    return error_set(err, ARTEL_ELIMIT, "CPU06", "file size",
                     "files may have %llu bytes, OpenMP needs one of %d (ulimit -f)",
                     (unsigned long long)limit.rlim_cur, NOTE_BYTES);
}

#else /* gcc's runtime has no such file */
#include <stddef.h>

int openmp_check(struct artel_error *err)
{
    (void)err;
    return 0;
}
#endif
