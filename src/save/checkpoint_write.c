/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a checkpoint: everything into a hidden folder, each file synced; one
 * rename; the stage's folder synced; only then older ones go.
 *
 * When a write or sync fails, nothing that reached the disk is trusted: all of
 * it is written once more from memory under another name before giving up.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "files/digest.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "save/adapter_parts.h"
#include "save/checkpoint.h"
#include "save/checkpoint_folder.h"

#define N_ATTEMPTS 2

struct saving {
    const char *stage_folder;
    uint64_t step;
    const struct tensor *tensors;
    size_t n_tensors;
    const json_t *state;
};

static int make_temporary(const char *path, struct artel_error *err)
{
    if (mkdir(path, 0777) == 0)
        return 0;
    if (errno == EEXIST && checkpoint_remove(path) == 0 && mkdir(path, 0777) == 0)
        return 0;
    return error_errno(err, path, "cannot make the checkpoint's folder");
}

static int write_state(const char *folder, const struct saving *s, const char *digest,
                       struct artel_error *err)
{
    char *path = path_join(folder, CHECKPOINT_STATE);
    json_t *root =
        json_pack("{s:i, s:s, s:I, s:I, s:s}", "format_version", SAVE_FORMAT_VERSION,
                  "artel_version", ARTEL_VERSION, "step", (json_int_t)s->step,
                  "n_tensors", (json_int_t)s->n_tensors, "tensors_digest", digest);
    int rc = 0;

    if (!path || !root ||
        (s->state && json_object_update_missing(root, (json_t *)(size_t)s->state)))
        rc = error_nomem(err, strlen(folder));
    if (rc == 0)
        rc = json_write_file(path, root, false, err);
    json_decref(root);
    free(path);
    return rc;
}

static int write_content(const char *folder, const struct saving *s,
                         struct artel_error *err)
{
    char *path = path_join(folder, CHECKPOINT_TENSORS);
    char digest[DIGEST_SIZE];
    int rc = path ? make_temporary(folder, err) : error_nomem(err, strlen(folder));

    if (rc == 0)
        rc = safetensors_write(path, s->tensors, s->n_tensors, NULL, 0, err);
    if (rc == 0)
        rc = digest_file(digest, path, err);
    if (rc == 0)
        rc = write_state(folder, s, digest, err);
    free(path);
    return rc < 0 ? rc : sync_folder(folder, err);
}

static int write_once(const struct saving *s, size_t attempt, struct artel_error *err)
{
    char *path = checkpoint_path(s->stage_folder, s->step);
    char *temporary =
        checkpoint_hidden_path(s->stage_folder, s->step, attempt ? ".again" : "");
    char *aside = checkpoint_hidden_path(s->stage_folder, s->step, ".old");
    int rc = path && temporary && aside ? checkpoint_check_place(path, err)
                                        : error_nomem(err, strlen(s->stage_folder));

    if (rc >= 0)
        rc = write_content(temporary, s, err);
    if (rc == 0)
        rc = checkpoint_place(temporary, path, aside, err);
    if (rc < 0 && temporary)
        (void)checkpoint_remove(temporary);
    if (rc == 0)
        rc = sync_folder(s->stage_folder, err);
    free(path);
    free(temporary);
    free(aside);
    return rc;
}

/* Of the checkpoints up to STEP the newest KEEP stay. Later ones are of a past that was
 * given up; they stay until training gets there again. */
static void retire_older(const char *stage_folder, uint64_t step, size_t keep)
{
    uint64_t *steps;
    size_t n, n_kept = 0;

    if (checkpoint_list(&steps, &n, stage_folder, NULL) < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        char *path = steps[i] > step ? NULL : checkpoint_path(stage_folder, steps[i]);
        const bool counts = path && checkpoint_check_place(path, NULL) == 1;

        free(path);
        if (!counts || n_kept++ < keep)
            continue;
        if (checkpoint_retire(stage_folder, steps[i]) < 0)
            log_warn("%s: checkpoint-%" PRIu64 " could not be removed: %s",
                     stage_folder, steps[i], strerror(errno));
    }
    free(steps);
}

int checkpoint_write(const char *stage_folder, uint64_t step,
                     const struct tensor *tensors, size_t n_tensors,
                     const json_t *state, size_t keep, struct artel_error *err)
{
    const struct saving s = {stage_folder, step, tensors, n_tensors, state};
    struct artel_error own, *told = err ? err : &own;
    int rc = make_folder(stage_folder, err);

    if (rc < 0)
        return rc;
    checkpoint_sweep(stage_folder);
    for (size_t attempt = 0; attempt < N_ATTEMPTS; attempt++) {
        rc = write_once(&s, attempt, told);
        if (rc != ARTEL_EIO)
            break;
        log_warn("%s: checkpoint-%" PRIu64 ": %s%s", stage_folder, step, told->reason,
                 attempt + 1 < N_ATTEMPTS ? "; writing it once more"
                                          : "; the checkpoint before stays the newest");
    }
    if (rc == 0 && keep)
        retire_older(stage_folder, step, keep);
    return rc;
}
