/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run folder belongs to one process at a time, and only if it is ours at all.
 *
 * The lock is the kernel's (flock on OUTPUT/.lock): a killed process, a reboot
 * or a reused process id leave nothing to clean up.
 */
#ifndef ARTEL_PLAN_LOCK_H
#define ARTEL_PLAN_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

struct artel_error;

struct run_lock {
    int fd;       /* -1: not held */
    char *path;   /* of the lock file; owned */
    char *folder; /* owned */
    dev_t device;
    ino_t inode;
};

#define RUN_LOCK_NONE ((struct run_lock){.fd = -1})

/* 1: FOLDER holds something, and it is a run's; 0: it is empty or absent;
 * ARTEL_ECONFLICT: it holds something else. */
int run_folder_check(const char *folder, struct artel_error *err);

/* Makes FOLDER where it is missing and writes a probe into it. ARTEL_ECONFLICT
 * names the process that holds it. */
int run_lock_take(struct run_lock *l, const char *folder, struct artel_error *err);
/* The folder is still there and still the one that was locked, or ARTEL_EIO. */
int run_lock_check(const struct run_lock *l, struct artel_error *err);
void run_lock_release(struct run_lock *l);

#endif
