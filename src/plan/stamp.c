/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings that change neither which rows make a step nor the shape of what is
 * trained may change on resume when the user says so; the list is here.
 */
#include "plan/stamp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/json.h"
#include "files/write.h"

#define FORMAT_VERSION  1
#define STAMP_MAX_BYTES ((size_t)16 << 20)

static const char *const safe_keys[] = {
    "train.learning_rate",
    "train.lr_scheduler",
    "train.warmup_ratio",
    "train.warmup_steps",
    "train.epochs",
    "train.max_steps",
    "train.max_grad_norm",
    "train.spike_z",
    "train.weight_decay",
    "train.eval_steps",
    "train.early_stopping_patience",
    "train.load_best_model_at_end",
    "router.eta",
    "router.learning_rate",
    "router.selector",
    "router.epochs",
    "router.refresh",
    "router.refresh_learning_rate",
    "router.max_steps",
};

static bool is_safe(const char *key)
{
    for (size_t i = 0; i < sizeof(safe_keys) / sizeof(safe_keys[0]); i++)
        if (!strcmp(key, safe_keys[i]))
            return true;
    return false;
}

static void value_text(char *out, size_t size, const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9))
                       : strdup("not set");

    snprintf(out, size, "%s", text ? text : "?");
    free(text);
}

static int differ(struct stamp *s, const char *key, const json_t *was, const json_t *is,
                  struct artel_error *err)
{
    char(*more)[320] = realloc(s->differences, (s->n_differences + 1) * sizeof(*more));
    char before[120], after[120];

    if (!more)
        return error_nomem(err, (s->n_differences + 1) * sizeof(*more));
    s->differences = more;
    value_text(before, sizeof(before), was);
    value_text(after, sizeof(after), is);
    snprintf(more[s->n_differences++], sizeof(*more), "%.64s was %.110s, is %.110s",
             key, before, after);
    if (!is_safe(key))
        s->safe = false;
    if (!s->changed_data && json_is_string(was) && json_is_string(is) &&
        (!strncmp(key, "data.", 5) || !strncmp(key, "valid.", 6))) {
        s->changed_data = strdup(key);
        if (!s->changed_data)
            return error_nomem(err, strlen(key));
        snprintf(s->was, sizeof(s->was), "%s", json_string_value(was));
        snprintf(s->is, sizeof(s->is), "%s", json_string_value(is));
    }
    return 0;
}

static bool is_left_out(const char *key, const char *ignore)
{
    return ignore && !strncmp(key, ignore, strlen(ignore));
}

int stamp_compare(struct stamp *s, const json_t *was, const json_t *is,
                  const char *ignore, struct artel_error *err)
{
    json_t *before = (json_t *)(uintptr_t)was, *after = (json_t *)(uintptr_t)is;
    const char *key;
    json_t *value;
    int rc = 0;

    s->safe = true;
    json_object_foreach(after, key, value)
    {
        const json_t *old = json_object_get(was, key);

        if (rc == 0 && !is_left_out(key, ignore) && !json_equal(old, value))
            rc = differ(s, key, old, value, err);
    }
    json_object_foreach(before, key, value)
    {
        if (rc == 0 && !is_left_out(key, ignore) && !json_object_get(is, key))
            rc = differ(s, key, value, NULL, err);
    }
    return rc;
}

static bool has_checkpoint(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *d;
    bool found = false;

    while (dir && (d = readdir(dir)))
        found = found || !strncmp(d->d_name, "checkpoint-", 11);
    if (dir)
        closedir(dir);
    return found;
}

static int read_there(struct stamp *s, const char *path, const char *folder,
                      const json_t *inputs, const char *ignore, struct artel_error *err)
{
    json_t *root = NULL;
    uint64_t version = 0;
    const json_t *was;
    int rc = json_read_file(&root, path, STAMP_MAX_BYTES, err);

    if (rc < 0)
        return rc;
    s->there = true;
    was = json_object_get(root, "inputs");
    rc = json_want_uint(root, "format_version", 1, FORMAT_VERSION, &version, err);
    if (rc == 0 && (!version || !json_is_object(was)))
        rc = error_set(err, ARTEL_EFORMAT, "RUN08", "inputs",
                       "is not the stamp of a stage");
    if (rc == 0) {
        s->complete = json_is_true(json_object_get(root, "complete"));
        s->summary = json_incref(json_object_get(root, "summary"));
        s->safe = true;
        /* Begun and nothing made: there is nothing that could differ. */
        if (s->complete || has_checkpoint(folder))
            rc = stamp_compare(s, was, inputs, ignore, err);
    }
    json_decref(root);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

int stamp_read(struct stamp *s, const char *folder, const json_t *inputs,
               const char *ignore, struct artel_error *err)
{
    char *path = path_join(folder, "stage.json");
    int rc = 0;

    *s = (struct stamp){0};
    if (!path)
        return error_nomem(err, strlen(folder));
    if (access(path, F_OK) == 0) {
        rc = read_there(s, path, folder, inputs, ignore, err);
    } else if (has_checkpoint(folder)) {
        error_set(
            err, ARTEL_ECONFLICT, "RUN08", "stage.json",
            "is missing beside checkpoints: what they were made from is not known");
        rc = error_in(err, ARTEL_ECONFLICT, folder);
    }
    free(path);
    if (rc < 0)
        stamp_release(s);
    return rc;
}

void stamp_release(struct stamp *s)
{
    free(s->differences);
    free(s->changed_data);
    json_decref(s->summary);
    *s = (struct stamp){0};
}

int stamp_write(const char *folder, const char *stage, const json_t *inputs,
                bool complete, const json_t *summary, struct artel_error *err)
{
    char *path = path_join(folder, "stage.json");
    json_t *root = json_pack("{s:i, s:s, s:O, s:b}", "format_version", FORMAT_VERSION,
                             "stage", stage, "inputs", inputs, "complete", complete);
    int rc = 0;

    if (!path || !root ||
        (summary && json_object_set(root, "summary", (json_t *)(uintptr_t)summary)))
        rc = error_nomem(err, 1024);
    if (rc == 0)
        rc = json_write_file(path, root, false, err);
    json_decref(root);
    free(path);
    return rc;
}

int stamp_refuse(const struct stamp *s, const char *stage, const char *folder,
                 const char *data_path, struct artel_error *err)
{
    char list[256] = "";
    size_t used = 0;

    if (s->changed_data) {
        error_set(err, ARTEL_ECONFLICT, "RUN05", stage, "data changed: was %s, is %s",
                  s->was, s->is);
        return error_in(err, ARTEL_ECONFLICT, data_path ? data_path : folder);
    }
    for (size_t i = 0; i < s->n_differences && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
                                 i ? "; " : "", s->differences[i]);
    error_set(err, ARTEL_ECONFLICT, "RUN09", stage, "made otherwise: %s", list);
    return error_in(err, ARTEL_ECONFLICT, folder);
}

/* Remove what is in the folder PARENT/NAME, all but KEEP, and then itself unless KEEP. */
static int clear_at(int parent, const char *name, const char *keep,
                    struct artel_error *err)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *d;
    int rc = 0;

    if (!dir) {
        if (fd >= 0)
            close(fd);
        return errno == ENOENT ? 0 : error_errno(err, name, "open");
    }
    while (rc == 0 && (d = readdir(dir))) {
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
            (keep && !strcmp(d->d_name, keep)))
            continue;
        if (unlinkat(fd, d->d_name, 0) == 0)
            continue;
        rc = errno == EISDIR || errno == EPERM ? clear_at(fd, d->d_name, NULL, err)
                                               : error_errno(err, d->d_name, "remove");
    }
    closedir(dir);
    if (rc == 0 && !keep && unlinkat(parent, name, AT_REMOVEDIR) != 0)
        rc = error_errno(err, name, "remove");
    return rc;
}

int stage_folder_clear(const char *folder, struct artel_error *err)
{
    int rc = clear_at(AT_FDCWD, folder, "stage.json", err);
    char *path = path_join(folder, "stage.json");

    if (rc == 0 && path && unlink(path) != 0 && errno != ENOENT)
        rc = error_errno(err, path, "remove");
    free(path);
    return rc;
}

int remove_tree(const char *folder, struct artel_error *err)
{
    return clear_at(AT_FDCWD, folder, NULL, err);
}
