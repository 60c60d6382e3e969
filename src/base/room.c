/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MemAvailable, bounded by every control group above this process (v2, or v1's
 * memory controller), less what the group already uses and could not give back.
 */
#include "base/room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/error.h"

/* The first number of a small file; -1 where there is none ("max"). */
static long long read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    long long value = -1;

    if (!f)
        return -1;
    if (fscanf(f, "%lld", &value) != 1)
        value = -1;
    fclose(f);
    return value;
}

/* "KEY VALUE" or "KEY: VALUE kB" in a file of such lines, in bytes or kB as it stands. */
static long long read_field(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    char line[256];
    long long value = -1;
    const size_t n = strlen(key);

    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, n) && (line[n] == ' ' || line[n] == ':'))
            value = strtoll(line + n + 1, NULL, 10);
    if (f)
        fclose(f);
    return value;
}

/* What one group leaves; page cache that nobody maps is given back when asked for. */
static size_t group_room(const char *folder, const char *limit_name,
                         const char *used_name, const char *cache_key)
{
    char path[700];
    long long limit, used, cache;

    snprintf(path, sizeof(path), "%s/%s", folder, limit_name);
    limit = read_number(path);
    if (limit < 0)
        return SIZE_MAX;
    snprintf(path, sizeof(path), "%s/%s", folder, used_name);
    used = read_number(path);
    snprintf(path, sizeof(path), "%s/memory.stat", folder);
    cache = read_field(path, cache_key);
    if (used > 0 && cache > 0)
        used = used > cache ? used - cache : 0;
    if (used > 0)
        limit = limit > used ? limit - used : 0;
    return (size_t)limit;
}

/* The group at ROOT/GROUP and every one above it. */
static size_t walk_groups(const char *root, char *group, const char *limit_name,
                          const char *used_name, const char *cache_key)
{
    size_t room = SIZE_MAX;

    for (;;) {
        char folder[600];
        char *slash;
        size_t here;

        snprintf(folder, sizeof(folder), "%s%s", root, group);
        here = group_room(folder, limit_name, used_name, cache_key);
        if (here < room)
            room = here;
        slash = strrchr(group, '/');
        if (!slash)
            return room;
        *slash = '\0';
    }
}

static size_t groups_room(void)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[512];
    size_t room = SIZE_MAX;

    while (f && fgets(line, sizeof(line), f)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        size_t here = SIZE_MAX;

        if (!group)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (!strcmp(controllers + 1, ""))
            here = walk_groups("/sys/fs/cgroup", group, "memory.max", "memory.current",
                               "inactive_file");
        else if (!strcmp(controllers + 1, "memory"))
            here = walk_groups("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                               "memory.usage_in_bytes", "total_inactive_file");
        if (here < room)
            room = here;
    }
    if (f)
        fclose(f);
    return room;
}

size_t room_memory(void)
{
    const long long kib = read_field("/proc/meminfo", "MemAvailable");
    const size_t machine = kib < 0 ? SIZE_MAX : (size_t)kib * 1024;
    const size_t groups = groups_room();

    return machine < groups ? machine : groups;
}

int room_check_memory(size_t needed, size_t limit, struct artel_error *err)
{
    const size_t room = limit ? limit : room_memory();

    if (needed <= room)
        return 0;
    return error_set(err, ARTEL_ELIMIT, "MEM01", "memory",
                     "the run needs %zu bytes (%zu MiB), %zu (%zu MiB) are %s", needed,
                     needed >> 20, room, room >> 20, limit ? "allowed" : "available");
}

int room_check_disk(const char *path, uint64_t needed, struct artel_error *err)
{
    char *at = strdup(path);
    struct statvfs fs;
    uint64_t room;

    if (!at)
        return error_nomem(err, strlen(path));
    while (statvfs(at, &fs) != 0) { /* not made yet: the folder above decides */
        char *slash = strrchr(at, '/');

        if (!slash || slash == at) {
            free(at);
            return 0;
        }
        *slash = '\0';
    }
    free(at);
    room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (needed <= room)
        return 0;
    error_set(
        err, ARTEL_EIO, "DISK01", "output",
        "the run needs about %llu bytes (%llu MiB) of disk, %llu (%llu MiB) are free",
        (unsigned long long)needed, (unsigned long long)(needed >> 20),
        (unsigned long long)room, (unsigned long long)(room >> 20));
    return error_in(err, ARTEL_EIO, path);
}
