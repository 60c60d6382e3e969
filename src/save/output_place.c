/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder is made as .NAME.artel-tmp.PID beside its place and renamed when its files
 * are synced. Where a folder is replaced, the old one waits as .NAME.artel-tmp.PID.old
 * until the new one stands.
 */
#include "save/output_place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"
#include "save/checkpoint_folder.h"

#define MARK ".artel-tmp."

static int refuse(const char *path, const char *reason, struct artel_error *err)
{
    return error_in(err, error_set(err, ARTEL_ECONFLICT, "CNV01", NULL, "%s", reason),
                    path);
}

/* A folder that a conversion may have made: files alone, one of them a configuration. */
static bool is_replaceable(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    bool configured = false, plain = d != NULL;

    while (plain && (entry = readdir(d)) != NULL) {
        struct stat st;

        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        plain = fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                S_ISREG(st.st_mode);
        configured = configured || !strcmp(entry->d_name, "config.json") ||
                     !strcmp(entry->d_name, "adapter_config.json");
    }
    if (d)
        closedir(d);
    return plain && configured;
}

int output_check(const char *path, bool folder, bool force, struct artel_error *err)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : error_errno(err, path, "cannot stat");
    if (!force)
        return refuse(path, "exists already; name another place, or --force", err);
    if (!folder && !S_ISREG(st.st_mode))
        return refuse(path, "exists and is no regular file", err);
    if (folder && (!S_ISDIR(st.st_mode) || !is_replaceable(path)))
        return refuse(path,
                      "exists and is no folder of files with a config.json or "
                      "adapter_config.json; it is not written over",
                      err);
    return 0;
}

static bool is_same(const struct stat *x, const struct stat *y)
{
    return x->st_dev == y->st_dev && x->st_ino == y->st_ino;
}

/* 1: PATH is FOLDER or lies in it, at any depth. */
static int lies_in(const char *path, const struct stat *folder, struct artel_error *err)
{
    char *at = realpath(path, NULL);
    int rc = at || errno == ENOENT || errno == ENOTDIR
                 ? 0
                 : error_errno(err, path, "cannot be found");

    while (rc == 0 && at && *at) {
        struct stat st;

        rc = stat(at, &st) == 0 && is_same(&st, folder);
        *strrchr(at, '/') = '\0';
    }
    free(at);
    return rc;
}

static bool is_gguf(const char *name)
{
    const size_t n = strlen(name);

    return n > 5 && !strcmp(name + n - 5, ".gguf");
}

/* 1: FILE is what an entry of FOLDER is, or is a link to. */
static int is_entry(const struct stat *file, const char *folder,
                    struct artel_error *err)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    int rc = d ? 0 : error_errno(err, folder, "cannot open the folder");

    while (rc == 0 && (entry = readdir(d)) != NULL) {
        struct stat st;

        rc = !is_gguf(entry->d_name) && fstatat(dirfd(d), entry->d_name, &st, 0) == 0 &&
             is_same(&st, file);
    }
    if (d)
        closedir(d);
    return rc;
}

int output_spares(const char *path, const char *input, struct artel_error *err)
{
    const char *what = "is an input";
    struct stat out, in;
    char shown[160];
    int rc;

    if (stat(path, &out) < 0 || stat(input, &in) < 0)
        return 0; /* nothing to be written over, or to be read */
    rc = is_same(&out, &in);
    if (rc == 0) {
        what = "holds an input";
        rc = lies_in(input, &out, err);
    }
    if (rc == 0 && S_ISREG(out.st_mode) && S_ISDIR(in.st_mode)) {
        what = "is a file of an input";
        rc = is_gguf(path) ? 0 : lies_in(path, &in, err);
        rc = rc == 0 ? is_entry(&out, input, err) : rc;
    }
    if (rc == 1)
        rc = error_set(err, ARTEL_EUSAGE, "CNV08", NULL,
                       "%s ('%s'), which would be lost: name another place", what,
                       escape_text(shown, sizeof(shown), input, strlen(input)));
    return rc < 0 ? error_in(err, rc, path) : 0;
}

/* PATH without slashes at its end, in two pieces: the folder and the name in it. */
static void split(const char *path, int *n_folder, const char **name, int *n_name)
{
    size_t end = strlen(path), start;

    while (end > 1 && path[end - 1] == '/')
        end--;
    for (start = end; start && path[start - 1] != '/';)
        start--;
    *n_folder = (int)start;
    *name = path + start;
    *n_name = (int)(end - start);
}

/* Temporaries of PATH whose process is no more. */
static void sweep(const char *folder, const char *stem)
{
    DIR *d = opendir(*folder ? folder : ".");
    struct dirent *entry;

    while (d && (entry = readdir(d)) != NULL) {
        char *end, *path;
        long pid;

        if (strncmp(entry->d_name, stem, strlen(stem)) != 0)
            continue;
        pid = strtol(entry->d_name + strlen(stem), &end, 10);
        if ((*end && strcmp(end, ".old") != 0) || pid <= 0 || pid > INT_MAX ||
            kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        path = path_join(*folder ? folder : ".", entry->d_name);
        if (path)
            (void)checkpoint_remove(path); /* tried again at the next start */
        free(path);
    }
    if (d)
        closedir(d);
}

int output_begin(char **temporary, const char *path, struct artel_error *err)
{
    const size_t size = strlen(path) + sizeof(MARK) + 32;
    char *folder, *stem = malloc(size);
    const char *name;
    int n_folder, n_name, rc = 0;

    split(path, &n_folder, &name, &n_name);
    folder = strndup(path, (size_t)n_folder);
    *temporary = malloc(size);
    if (!*temporary || !stem || !folder) {
        rc = error_nomem(err, size);
    } else {
        snprintf(stem, size, ".%.*s" MARK, n_name, name);
        if (n_folder)
            rc = make_folder(folder, err);
        sweep(folder, stem);
        snprintf(*temporary, size, "%s%s%ld", folder, stem, (long)getpid());
        (void)checkpoint_remove(*temporary); /* of a dead process that had our id */
        if (rc == 0 && mkdir(*temporary, 0777) < 0)
            rc = error_errno(err, path, "cannot make the temporary folder beside it");
    }
    free(folder);
    free(stem);
    if (rc < 0) {
        free(*temporary);
        *temporary = NULL;
    }
    return rc;
}

static int place(const char *temporary, const char *path, const char *aside,
                 struct artel_error *err)
{
    struct stat st;
    const bool there = lstat(path, &st) == 0;

    if (there && rename(path, aside) < 0)
        return error_errno(err, path, "cannot move the old folder aside");
    if (rename(temporary, path) < 0) {
        const int rc = error_errno(err, path, "cannot rename the finished folder");

        if (there)
            (void)rename(aside, path); /* as it was */
        return rc;
    }
    if (there)
        (void)checkpoint_remove(aside);
    return 0;
}

int output_finish(const char *temporary, const char *path, struct artel_error *err)
{
    const char *name;
    int n_folder, n_name, rc = sync_folder(temporary, err);
    char *target, *folder, *aside = malloc(strlen(temporary) + 8);

    split(path, &n_folder, &name, &n_name);
    target = strndup(path, (size_t)(n_folder + n_name));
    folder = n_folder ? strndup(path, (size_t)n_folder) : strdup(".");
    if (rc == 0 && (!target || !folder || !aside))
        rc = error_nomem(err, strlen(path));
    if (rc == 0) {
        snprintf(aside, strlen(temporary) + 8, "%s.old", temporary);
        rc = place(temporary, target, aside, err);
    }
    if (rc == 0)
        rc = sync_folder(folder, err);
    free(target);
    free(folder);
    free(aside);
    return rc;
}

void output_abandon(const char *temporary)
{
    if (temporary)
        (void)checkpoint_remove(temporary);
}
