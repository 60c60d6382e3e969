/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files are named PPPPPPPPPPPPPPPP-NNNN.safetensors: the first digits of the digest of what
 * all their rows depend on, and a number that grows. Nothing else in the folder is looked
 * at. Digests of a file's rows are looked up in an index that all files fill when they are
 * opened; rows of the training in another, by their address.
 */
#include "train/kept_inputs.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/index.h"
#include "base/list.h"
#include "files/safetensors.h"
#include "files/write.h"

#define KIND        "artel.router_inputs"
#define PREFIX      16
#define NAME_LENGTH (PREFIX + 5 + sizeof(".safetensors") - 1)
#define LAST_NUMBER 9999

typedef char digest_text[DIGEST_SIZE - 1];

/* A row on disk. */
struct kept_row {
    const char *digest; /* (64) */
    const float *z;
};

/* A row of the training. */
struct named_row {
    digest_text digest;
    const float *z; /* NULL: not on disk */
};

struct kept_inputs {
    struct kept_options o;
    char *folder; /* owned */
    char of[DIGEST_SIZE];
    size_t n_files;
    struct safetensors **files; /* (n_files) owned */
    struct index kept_at;       /* by the beginning of their digests */
    size_t n_kept;
    struct kept_row *kept; /* (n_kept) owned */
    struct index named_at; /* by the row's address */
    size_t named_room, n_found;
    struct named_row *named; /* (named_room) as many as are in NAMED_AT; owned */
    unsigned next;           /* number of the file that is written next */
    bool full;               /* no more is written */
};

static void say(const struct kept_inputs *k, const char *message)
{
    if (k->o.warn)
        k->o.warn(k->o.user, message);
}

/* ---- tables ---- */

/* 64 bits of a digest. Who shares them with another is not found, and computed anew. */
static uint64_t digest_key(const char *digest)
{
    char text[17] = "";

    memcpy(text, digest, 16);
    return strtoull(text, NULL, 16);
}

/* What is on disk under DIGEST, or NULL. */
static const float *find_kept(const struct kept_inputs *k, const char *digest)
{
    const uint32_t at = index_get(&k->kept_at, digest_key(digest));
    const bool same =
        at != INDEX_NONE && !memcmp(k->kept[at].digest, digest, sizeof(digest_text));

    return same ? k->kept[at].z : NULL;
}

/* NULL: it has no name. */
static const struct named_row *find_named(const struct kept_inputs *k,
                                          const struct example *row)
{
    const uint32_t at = index_get(&k->named_at, index_key(row));

    return at == INDEX_NONE ? NULL : &k->named[at];
}

/* ---- what is there ---- */

/* The number of a file of the folder, 0: not one of ours. */
static unsigned number_of(const char *name)
{
    if (strlen(name) != NAME_LENGTH || strspn(name, "0123456789abcdef") != PREFIX ||
        name[PREFIX] != '-' || strspn(name + PREFIX + 1, "0123456789") != 4 ||
        strcmp(name + PREFIX + 5, ".safetensors") != 0)
        return 0;
    return (unsigned)strtoul(name + PREFIX + 1, NULL, 10);
}

static bool is_own(const struct kept_inputs *k, const char *name)
{
    return !strncmp(name, k->of, PREFIX);
}

static void digest_rows(char out[DIGEST_SIZE], const void *digests, const void *z,
                        size_t n, size_t floats)
{
    struct digest *d = digest_new();

    *out = '\0';
    if (!d)
        return;
    digest_add(d, digests, n * sizeof(digest_text));
    digest_add(d, z, n * floats * sizeof(float));
    digest_finish(d, out);
}

/* What is wrong with S as a file of K's, or NULL. */
static const char *fault_of(const struct kept_inputs *k, const struct safetensors *s)
{
    const struct tensor *names = safetensors_find(s, "rows");
    const struct tensor *z = safetensors_find(s, "inputs");
    const char *kind = safetensors_metadata(s, "kind");
    const char *of = safetensors_metadata(s, "of");
    const char *sum = safetensors_metadata(s, "sha256");
    char is[DIGEST_SIZE];

    if (!kind || strcmp(kind, KIND) != 0 || !of || strcmp(of, k->of) != 0)
        return "it is of something else";
    if (!names || !z || names->dtype != DTYPE_U8 || z->dtype != DTYPE_F32 ||
        names->n_dims != 2 || z->n_dims != 2 ||
        names->shape[1] != sizeof(digest_text) || z->shape[1] != k->o.floats ||
        names->shape[0] != z->shape[0] || (uintptr_t)z->data % sizeof(float))
        return "its tensors are not those of router inputs";
    digest_rows(is, names->data, z->data, z->shape[0], k->o.floats);
    return sum && !strcmp(sum, is) ? NULL : "its checksum does not fit";
}

static int take_rows(struct kept_inputs *k, const struct safetensors *s,
                     struct artel_error *err)
{
    const struct tensor *names = safetensors_find(s, "rows");
    const float *z = safetensors_find(s, "inputs")->data;
    const size_t n = names->shape[0];
    int rc = index_room(&k->kept_at, k->n_kept + n, err);

    if (rc == 0)
        rc = list_grow(&k->kept, k->n_kept + n, sizeof(*k->kept), err);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *digest = (const char *)names->data + i * sizeof(digest_text);

        index_put(&k->kept_at, digest_key(digest), (uint32_t)k->n_kept);
        k->kept[k->n_kept++] = (struct kept_row){digest, z + i * k->o.floats};
    }
    return rc;
}

/* One file more; or one warning, and a file that is damaged is gone. */
static int take_file(struct kept_inputs *k, const char *name, struct artel_error *err)
{
    struct artel_error reason = {0};
    char *path = path_join(k->folder, name);
    struct safetensors *s = NULL;
    const char *fault;
    char message[640];
    int rc = path ? safetensors_open(&s, path, &reason) : error_nomem(&reason, 256);

    if (rc == ARTEL_ELIMIT) {
        free(path);
        if (err)
            *err = reason;
        return rc;
    }
    fault = rc < 0 ? reason.reason : fault_of(k, s);
    if (!fault) {
        free(path);
        k->files[k->n_files++] = s;
        return take_rows(k, s, err);
    }
    snprintf(message, sizeof(message), "%s: %s; its router inputs are computed again",
             path, fault);
    say(k, message);
    safetensors_close(s);
    if (rc != ARTEL_EIO)
        unlink(path);
    free(path);
    return 0;
}

/* The files of a folder by name; OUT is new. */
struct listing {
    size_t n;
    char (*name)[NAME_LENGTH + 1];
};

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int list_files(struct listing *l, const char *folder, struct artel_error *err)
{
    DIR *dir = opendir(folder);
    const struct dirent *d;
    size_t room = 0;
    int rc = 0;

    *l = (struct listing){0};
    while (rc == 0 && dir && (d = readdir(dir))) {
        if (!number_of(d->d_name))
            continue;
        if (l->n == room)
            rc = list_grow(&l->name, room += 64, sizeof(*l->name), err);
        if (rc == 0)
            memcpy(l->name[l->n++], d->d_name, NAME_LENGTH + 1);
    }
    if (dir)
        closedir(dir);
    if (l->n)
        qsort(l->name, l->n, sizeof(*l->name), by_name);
    return rc;
}

static int take_files(struct kept_inputs *k, struct artel_error *err)
{
    struct listing l;
    int rc = list_files(&l, k->folder, err);

    k->files = rc == 0 ? calloc(l.n + 1, sizeof(struct safetensors *)) : NULL;
    if (rc == 0 && !k->files)
        rc = error_nomem(err, l.n * sizeof(struct safetensors *));
    for (size_t i = 0; rc == 0 && i < l.n; i++) {
        const unsigned number = number_of(l.name[i]);

        if (!is_own(k, l.name[i]))
            continue;
        k->next = number >= k->next ? number + 1 : k->next;
        rc = take_file(k, l.name[i], err);
    }
    free(l.name);
    return rc;
}

int kept_inputs_open(struct kept_inputs **out, const struct kept_options *o,
                     struct artel_error *err)
{
    struct kept_inputs *k = calloc(1, sizeof(*k));
    int rc;

    *out = NULL;
    if (!k)
        return error_nomem(err, sizeof(*k));
    k->o = *o;
    k->next = 1;
    snprintf(k->of, sizeof(k->of), "%s", o->of);
    k->folder = strdup(o->folder);
    rc = k->folder ? 0 : error_nomem(err, strlen(o->folder));
    if (rc == 0) {
        remove_leftovers(k->folder);
        rc = take_files(k, err);
    }
    if (rc < 0) {
        kept_inputs_close(k);
        return rc;
    }
    *out = k;
    return 0;
}

void kept_inputs_close(struct kept_inputs *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n_files; i++)
        safetensors_close(k->files[i]);
    free(k->files);
    free(k->folder);
    index_release(&k->kept_at);
    index_release(&k->named_at);
    free(k->kept);
    free(k->named);
    free(k);
}

/* ---- rows ---- */

/* Room for one row more with a name. */
static int room_for_named(struct kept_inputs *k, struct artel_error *err)
{
    const size_t room = k->named_room ? 2 * k->named_room : 64;
    int rc;

    if (k->named_at.n < k->named_room)
        return 0;
    rc = index_room(&k->named_at, room, err);
    if (rc == 0)
        rc = list_grow(&k->named, room, sizeof(*k->named), err);
    if (rc == 0)
        k->named_room = room;
    return rc;
}

int kept_inputs_name(struct kept_inputs *k, const struct example *row, size_t n,
                     const char *own, struct artel_error *err)
{
    const uint64_t numbers[] = {n, row->pool_first, row->pool_n};
    struct named_row *named;
    char text[DIGEST_SIZE];
    struct digest *d;
    int rc;

    if (find_named(k, row))
        return 0;
    rc = room_for_named(k, err);
    if (rc < 0)
        return rc;
    d = digest_new();
    if (!d)
        return error_nomem(err, 64);
    digest_add(d, own, strlen(own));
    digest_add(d, numbers, sizeof(numbers));
    digest_add(d, row->ids, n * sizeof(*row->ids));
    digest_finish(d, text);
    named = &k->named[k->named_at.n];
    index_put(&k->named_at, index_key(row), (uint32_t)k->named_at.n);
    memcpy(named->digest, text, sizeof(named->digest));
    named->z = find_kept(k, named->digest);
    k->n_found += named->z != NULL;
    return 0;
}

size_t kept_inputs_named(const struct kept_inputs *k)
{
    return k->named_at.n;
}

size_t kept_inputs_found(const struct kept_inputs *k)
{
    return k->n_found;
}

const float *kept_inputs_find(const struct kept_inputs *k, const struct example *row)
{
    const struct named_row *const named = find_named(k, row);

    return named ? named->z : NULL;
}

/* ---- writing ---- */

static uint64_t file_bytes(const struct kept_inputs *k, const char *name)
{
    char *path = path_join(k->folder, name);
    struct stat st;
    const bool there = path && stat(path, &st) == 0;

    free(path);
    return there ? (uint64_t)st.st_size : 0;
}

static void remove_file(const struct kept_inputs *k, const char *name)
{
    char *path = path_join(k->folder, name);

    if (path)
        unlink(path);
    free(path);
}

/* Bytes that may be written, at most WANTED, once files that are of no use here have given
 * way. */
static uint64_t make_room(const struct kept_inputs *k, uint64_t wanted)
{
    struct listing l;
    struct statvfs fs;
    uint64_t used = 0, left;

    if (list_files(&l, k->folder, NULL) < 0)
        return 0;
    for (size_t i = 0; i < l.n; i++)
        used += file_bytes(k, l.name[i]);
    while (used + wanted > k->o.limit_bytes) {
        size_t oldest = l.n;
        struct timespec when = {0};

        for (size_t i = 0; i < l.n; i++) {
            char *path = is_own(k, l.name[i]) ? NULL : path_join(k->folder, l.name[i]);
            struct stat st;

            if (path && stat(path, &st) == 0 &&
                (oldest == l.n || st.st_mtim.tv_sec < when.tv_sec ||
                 (st.st_mtim.tv_sec == when.tv_sec &&
                  st.st_mtim.tv_nsec < when.tv_nsec))) {
                oldest = i;
                when = st.st_mtim;
            }
            free(path);
        }
        if (oldest == l.n)
            break;
        used -= file_bytes(k, l.name[oldest]);
        remove_file(k, l.name[oldest]);
    }
    free(l.name);
    left = used < k->o.limit_bytes ? k->o.limit_bytes - used : 0;
    /* Checkpoints come first: at least as much stays free. */
    if (statvfs(k->folder, &fs) == 0 && left > (uint64_t)fs.f_bavail * fs.f_frsize / 2)
        left = (uint64_t)fs.f_bavail * fs.f_frsize / 2;
    return left < wanted ? left : wanted;
}

#define HEADER_BYTES 1024 /* of a file, at most */

static int write_rows(struct kept_inputs *k, const char *digests, const float *z,
                      size_t n, struct artel_error *err)
{
    char name[NAME_LENGTH + 1], sum[DIGEST_SIZE];
    const struct tensor tensors[] = {
        {.name = "inputs",
         .dtype = DTYPE_F32,
         .n_dims = 2,
         .shape = {n, k->o.floats},
         .data = z,
         .bytes = n * k->o.floats * sizeof(float)},
        {.name = "rows",
         .dtype = DTYPE_U8,
         .n_dims = 2,
         .shape = {n, sizeof(digest_text)},
         .data = digests,
         .bytes = n * sizeof(digest_text)},
    };
    const struct key_value metadata[] = {
        {"format", "pt"}, {"kind", KIND}, {"of", k->of}, {"sha256", sum}};
    char *path;
    int rc;

    digest_rows(sum, digests, z, n, k->o.floats);
    snprintf(name, sizeof(name), "%.*s-%04u.safetensors", PREFIX, k->of, k->next);
    path = path_join(k->folder, name);
    rc = path ? safetensors_write(path, tensors, 2, metadata, 4, err)
              : error_nomem(err, 256);
    free(path);
    k->next += rc == 0;
    return rc;
}

/* Said once; from here on nothing is written. */
static void give_up(struct kept_inputs *k, size_t n, const char *reason)
{
    char message[640];

    k->full = true;
    snprintf(message, sizeof(message), "router inputs of %zu rows are not kept: %s", n,
             reason);
    say(k, message);
}

void kept_inputs_write(struct kept_inputs *k, const struct example *const *rows,
                       const float *z, size_t n)
{
    const uint64_t each = k->o.floats * sizeof(float) + sizeof(digest_text);
    struct artel_error reason = {0};
    char text[160], *digests;
    size_t fit;

    if (!n || k->full)
        return;
    if (make_folder(k->folder, &reason) < 0 || k->next > LAST_NUMBER) {
        give_up(k, n, *reason.reason ? reason.reason : "there are too many files");
        return;
    }
    fit = (size_t)make_room(k, n * each + HEADER_BYTES);
    fit = fit > HEADER_BYTES ? (fit - HEADER_BYTES) / each : 0;
    fit = fit < n ? fit : n;
    digests = malloc(fit * sizeof(digest_text) + 1);
    for (size_t i = 0; digests && i < fit; i++)
        memcpy(digests + i * sizeof(digest_text), find_named(k, rows[i])->digest,
               sizeof(digest_text));
    if (!digests || (fit && write_rows(k, digests, z, fit, &reason) < 0)) {
        give_up(k, n, *reason.reason ? reason.reason : "there is no memory");
    } else if (fit < n) {
        snprintf(
            text, sizeof(text),
            "they take %llu KiB more, and router.cache_mib is %llu, or the disk is "
            "nearly full",
            (unsigned long long)(((n - fit) * each + 1023) / 1024),
            (unsigned long long)(k->o.limit_bytes >> 20));
        give_up(k, n - fit, text);
    }
    free(digests);
}
