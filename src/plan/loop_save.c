/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a loop leaves on disk and how it goes on from there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "files/write.h"
#include "plan/loop_parts.h"
#include "plan/stamp.h"

static void set_seconds(struct loop *l)
{
    l->s.seconds = l->seconds_before + clock_seconds() - l->began - l->lent;
}

int loop_check_world(struct loop *l, struct artel_error *err)
{
    int rc = l->in->lock ? run_lock_check(l->in->lock, err) : 0;

    if (rc == 0 && l->in->watch)
        rc = watch_check(l->in->watch, err);
    l->checked = clock_seconds();
    return rc;
}

static int write_state(struct loop *l, const char *folder, size_t keep,
                       struct artel_error *err)
{
    const size_t n = trainer_state(l->trainer, NULL);
    struct tensor *tensors = calloc(n ? n : 1, sizeof(*tensors));
    json_t *state;
    int rc;

    set_seconds(l);
    l->s.trainer_steps = trainer_steps_done(l->trainer);
    state = loop_state_json(&l->s, l->in->inputs);
    if (!tensors || !state) {
        free(tensors);
        json_decref(state);
        return error_nomem(err, n * sizeof(*tensors));
    }
    trainer_state(l->trainer, tensors);
    rc = checkpoint_write(folder, l->s.position, tensors, n, state, keep, err);
    free(tensors);
    json_decref(state);
    return rc;
}

int loop_save(struct loop *l, struct artel_error *err)
{
    struct artel_error reason = {0};
    char message[640];
    int rc = loop_check_world(l, err);

    if (rc < 0 || l->last_saved == l->s.position)
        return rc;
    trainer_keep_inputs(l->trainer, false);
    steplog_sync(&l->log);
    rc = write_state(l, l->in->folder, l->in->settings->save_total_limit, &reason);
    l->save_failed = rc < 0;
    if (rc < 0) {
        l->save_error = reason;
        snprintf(message, sizeof(message), "checkpoint not saved: %s: %s", reason.file,
                 reason.reason);
        loop_tell_at(l, RUN_WARNING, message);
        return 0;
    }
    l->last_saved = l->s.position;
    snprintf(message, sizeof(message), "%s/checkpoint-%llu", l->in->folder,
             (unsigned long long)l->s.position);
    loop_tell_at(l, RUN_SAVED, message);
    return 0;
}

int loop_last_save(struct loop *l, struct artel_error *err)
{
    int rc = loop_save(l, err);

    if (rc == 0)
        trainer_keep_inputs(l->trainer, true);
    if (rc == 0 && l->save_failed) {
        if (err)
            *err = l->save_error;
        rc = err ? -err->exit : ARTEL_EIO;
    }
    return rc;
}

static char *best_folder(const struct loop_input *in)
{
    return path_join(in->folder, "best");
}

int loop_save_best(struct loop *l, struct artel_error *err)
{
    char *folder = best_folder(l->in);
    int rc = folder ? make_folder(folder, err) : error_nomem(err, 256);

    if (rc == 0)
        rc = write_state(l, folder, 1, err);
    free(folder);
    return rc;
}

/* ---- continuing ---- */

/* C's tensors into the trainer. */
static int restore(struct loop *l, const struct checkpoint *c, uint64_t step,
                   struct artel_error *err)
{
    const size_t n = safetensors_count(c->file);
    struct tensor *tensors = calloc(n ? n : 1, sizeof(*tensors));
    int rc;

    if (!tensors)
        return error_nomem(err, n * sizeof(*tensors));
    for (size_t i = 0; i < n; i++)
        tensors[i] = *safetensors_at(c->file, i);
    rc = trainer_restore(l->trainer, tensors, n, step, err);
    free(tensors);
    return rc < 0 ? error_in(err, rc, c->path) : 0;
}

/* A checkpoint that was put here from another run. Settings that may change on resume
 * have been judged by whoever started the stage. */
static int check_origin(const struct loop *l, const struct checkpoint *c,
                        struct artel_error *err)
{
    const json_t *was = json_object_get(c->state, "inputs");
    struct stamp stamp = {0};
    int rc = stamp_compare(&stamp, was, l->in->inputs, NULL, err);

    if (rc == 0 && !stamp.safe)
        rc = stamp_refuse(&stamp, l->in->stage, c->path, NULL, err);
    stamp_release(&stamp);
    return rc;
}

int loop_resume(struct loop *l, struct artel_error *err)
{
    const size_t patience = l->in->settings->patience;
    struct checkpoint c = {0};
    char message[160];
    int rc = checkpoint_newest(&c, l->in->folder, err);

    if (rc <= 0)
        return rc;
    rc = check_origin(l, &c, err);
    if (rc == 0)
        rc = loop_state_read(&l->s, c.state, c.path, err);
    if (rc == 0)
        rc = restore(l, &c, l->s.trainer_steps, err);
    checkpoint_release(&c);
    if (rc < 0)
        return rc;
    l->last_saved = l->s.position;
    /* it may have been given more patience since */
    l->s.early_stopped = patience && l->s.worse_evals >= patience;
    if (l->s.position > l->order.n_steps && !l->s.early_stopped)
        return error_set(err, ARTEL_ECONFLICT, "RUN06", "checkpoint",
                         "is at step %llu, but the stage now ends at %llu",
                         (unsigned long long)l->s.position,
                         (unsigned long long)l->order.n_steps);
    snprintf(message, sizeof(message), "continues at step %llu of %llu",
             (unsigned long long)l->s.position, (unsigned long long)l->order.n_steps);
    loop_tell_at(l, RUN_STAGE, message);
    if (strcmp(l->s.isa, cpu_isa_name(cpu_isa())) != 0) {
        snprintf(message, sizeof(message),
                 "the checkpoint is from %s, this runs on %s: last bits may differ",
                 l->s.isa, cpu_isa_name(cpu_isa()));
        loop_tell_at(l, RUN_WARNING, message);
    }
    return 0;
}

int loop_take_best(struct loop *l, struct artel_error *err)
{
    struct checkpoint c = {0};
    char *folder;
    int rc;

    if (!l->in->settings->load_best || !l->s.has_best ||
        l->s.best_step == l->s.position)
        return 0;
    folder = best_folder(l->in);
    rc =
        folder ? checkpoint_at(&c, folder, l->s.best_step, err) : error_nomem(err, 256);
    if (rc == 1) {
        struct loop_state then = {0};

        rc = loop_state_read(&then, c.state, c.path, err);
        if (rc == 0)
            rc = restore(l, &c, then.trainer_steps, err);
        if (rc == 0)
            l->s.valid_loss = l->s.best_loss;
    } else if (rc >= 0) {
        loop_tell_at(l, RUN_WARNING,
                     "the best checkpoint is gone: the last weights are kept");
        l->s.best_step = 0;
        rc = 0;
    }
    checkpoint_release(&c);
    free(folder);
    return rc;
}
