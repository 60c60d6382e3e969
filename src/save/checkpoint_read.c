/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The newest checkpoint that is whole: the digest in state.json is that of
 * state.safetensors as it lies on the disk. Nothing is removed or repaired here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "files/digest.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "save/adapter_parts.h"
#include "save/beneath.h"
#include "save/checkpoint.h"
#include "save/checkpoint_folder.h"

#define STATE_MAX_BYTES ((size_t)256 << 20)

void checkpoint_release(struct checkpoint *c)
{
    safetensors_close(c->file);
    json_decref(c->state);
    free(c->path);
    *c = (struct checkpoint){0};
}

static int check_state(const struct checkpoint *c, struct artel_error *err)
{
    uint64_t version = 0, step = UINT64_MAX;
    int rc = json_want_uint(c->state, "format_version", 1, UINT32_MAX, &version, err);

    if (rc == 0 && version > SAVE_FORMAT_VERSION)
        return error_set(err, ARTEL_EFORMAT, "CKP04", "format_version",
                         "version %llu, this program reads 1 to %d",
                         (unsigned long long)version, SAVE_FORMAT_VERSION);
    if (rc == 0)
        rc = json_want_uint(c->state, "step", 0, INT64_MAX, &step, err);
    if (rc == 0 && (!version || step != c->step))
        rc = error_set(err, ARTEL_EFORMAT, "CKP02", "step",
                       "not the state of step %" PRIu64, c->step);
    return rc;
}

static int check_tensors(const struct checkpoint *c, const char *path,
                         struct artel_error *err)
{
    char digest[DIGEST_SIZE];
    const char *told;
    uint64_t n = UINT64_MAX;
    int rc = json_need_string(c->state, "tensors_digest", &told, err);

    if (rc == 0)
        rc = digest_file(digest, path, err);
    if (rc < 0)
        return rc;
    if (strcmp(told, digest) != 0)
        return error_set(err, ARTEL_EFORMAT, "CKP03", "tensors_digest",
                         "the file is damaged: its digest is %.16s..., %.16s... was "
                         "written",
                         digest, told);
    rc = json_want_uint(c->state, "n_tensors", 0, SIZE_MAX, &n, err);
    if (rc == 0 && n != safetensors_count(c->file))
        rc = error_set(err, ARTEL_EFORMAT, "CKP02", "n_tensors",
                       "%zu tensors, %llu were written", safetensors_count(c->file),
                       (unsigned long long)n);
    return rc;
}

static int need_file(const char *folder, const char *path, struct artel_error *err)
{
    if (access(path, F_OK) == 0)
        return path_beneath(folder, path, "CKP05", err);
    return error_in(err, error_set(err, ARTEL_EFORMAT, "CKP01", NULL, "is missing"),
                    path);
}

/* C->step is set. */
static int open_one(struct checkpoint *c, const char *stage_folder,
                    struct artel_error *err)
{
    char *state, *tensors;
    int rc;

    c->path = checkpoint_path(stage_folder, c->step);
    state = c->path ? path_join(c->path, CHECKPOINT_STATE) : NULL;
    tensors = c->path ? path_join(c->path, CHECKPOINT_TENSORS) : NULL;
    rc = state && tensors ? checkpoint_check_place(c->path, err)
                          : error_nomem(err, strlen(stage_folder));
    if (rc >= 0)
        rc = need_file(c->path, state, err);
    if (rc == 0)
        rc = need_file(c->path, tensors, err);
    if (rc == 0)
        rc = json_read_file(&c->state, state, STATE_MAX_BYTES, err);
    if (rc == 0) {
        rc = check_state(c, err);
        if (rc < 0)
            error_in(err, rc, state);
    }
    if (rc == 0)
        rc = safetensors_open(&c->file, tensors, err);
    if (rc == 0) {
        rc = check_tensors(c, tensors, err);
        if (rc < 0)
            error_in(err, rc, tensors);
    }
    free(state);
    free(tensors);
    return rc;
}

static void warn_damaged(const struct artel_error *why, const char *what)
{
    log_warn("%s: %s [%s]; this checkpoint is %s", why->file, why->reason, why->code,
             what);
}

int checkpoint_at(struct checkpoint *c, const char *stage_folder, uint64_t step,
                  struct artel_error *err)
{
    struct artel_error why = {0};
    int rc;

    *c = (struct checkpoint){.step = step};
    rc = open_one(c, stage_folder, &why);
    if (rc == 0)
        return 1;
    checkpoint_release(c);
    if (rc == ARTEL_ELIMIT || !strcmp(why.code, "CKP04")) {
        if (err)
            *err = why;
        return rc;
    }
    if (strcmp(why.code, "CKP01") != 0)
        warn_damaged(&why, "not used");
    return 0;
}

/* What stands of damaged ones in the error that says that all are. */
struct damaged {
    size_t n;
    char text[200];
};

static void pass_over(struct damaged *d, uint64_t step, const struct artel_error *why)
{
    const size_t used = strlen(d->text);

    warn_damaged(why, "passed over");
    if (used + 40 < sizeof(d->text))
        snprintf(d->text + used, sizeof(d->text) - used, "%s%" PRIu64 " %s: %.60s",
                 used ? "; " : "", step, why->code, why->reason);
    d->n++;
}

int checkpoint_newest(struct checkpoint *c, const char *stage_folder,
                      struct artel_error *err)
{
    struct damaged damaged = {0};
    struct artel_error why = {0};
    uint64_t *steps;
    size_t n;
    int rc;

    *c = (struct checkpoint){0};
    checkpoint_sweep(stage_folder);
    rc = checkpoint_list(&steps, &n, stage_folder, err);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        c->step = steps[i];
        why = (struct artel_error){0};
        rc = open_one(c, stage_folder, &why);
        if (rc == 0) {
            rc = 1;
            break;
        }
        checkpoint_release(c);
        /* A newer program's checkpoint is no damage, and want of memory neither. */
        if (rc == ARTEL_ELIMIT || !strcmp(why.code, "CKP04")) {
            if (err)
                *err = why;
            break;
        }
        rc = 0;
        pass_over(&damaged, steps[i], &why);
    }
    if (rc == 0 && damaged.n) {
        rc = error_set(err, ARTEL_EFORMAT, "CKP06", NULL, "no checkpoint is whole: %s",
                       damaged.text);
        error_in(err, rc, stage_folder);
    }
    free(steps);
    return rc;
}
