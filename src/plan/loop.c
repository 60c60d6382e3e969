/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stage, step by step. The order inside a turn - step, evaluation, save,
 * only then the question whether to stop - makes every checkpoint a place from
 * which nothing is done twice or left out.
 */
#include "plan/loop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/error.h"
#include "decoder/frozen.h"
#include "files/write.h"
#include "plan/loop_state.h"
#include "plan/stamp.h"
#include "plan/steplog.h"

#define CHECK_SECONDS 20.0 /* between looks at the run folder and the data */

struct loop {
    const struct loop_input *in;
    struct artel_trainer *trainer;
    struct order order;
    struct steplog log;
    struct loop_state s;
    uint64_t last_saved; /* position of the newest checkpoint, or UINT64_MAX */
    double began;        /* monotonic, of this process */
    double seconds_before;
    uint64_t began_at; /* position */
    double speed;      /* tokens a second, smoothed */
    double checked;    /* when files were looked at */
    bool save_failed;
    struct artel_error save_error;
};

double monotonic_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void tell(const struct loop_input *in, struct run_progress *p)
{
    if (!in->run || !in->run->progress)
        return;
    p->stage = in->stage;
    p->stage_idx = in->stage_idx;
    p->n_stages = in->n_stages;
    in->run->progress(in->run->user, p);
}

void loop_tell(const struct loop_input *in, enum run_event event, const char *message)
{
    struct run_progress p = {.event = event, .seconds_left = -1, .message = message};

    tell(in, &p);
}

static void tell_at(const struct loop *l, enum run_event event, const char *message)
{
    struct run_progress p = {.event = event,
                             .step = l->s.position,
                             .n_steps = l->order.n_steps,
                             .epoch = order_epoch(&l->order, l->s.position),
                             .seconds_left = -1,
                             .message = message};

    if (event == RUN_EVAL)
        p.loss = l->s.valid_loss;
    tell(l->in, &p);
}

static void log_warning(void *user, const char *message)
{
    tell_at(user, RUN_WARNING, message);
}

static bool asked_to_stop(const struct loop *l)
{
    return l->in->run && l->in->run->stop && *l->in->run->stop;
}

static void set_seconds(struct loop *l)
{
    l->s.seconds = l->seconds_before + monotonic_seconds() - l->began;
}

/* ---- saving ---- */

/* The folder is still ours and the data still what it was. */
static int check_world(struct loop *l, struct artel_error *err)
{
    int rc = l->in->lock ? run_lock_check(l->in->lock, err) : 0;

    if (rc == 0 && l->in->watch)
        rc = watch_check(l->in->watch, err);
    l->checked = monotonic_seconds();
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

/* A save that fails for want of room is said loudly and tried again at the next one; the
 * checkpoint before it stands. The world having moved ends the run. */
static int save(struct loop *l, struct artel_error *err)
{
    struct artel_error reason = {0};
    char message[640];
    int rc = check_world(l, err);

    if (rc < 0 || l->last_saved == l->s.position)
        return rc;
    steplog_sync(&l->log);
    rc = write_state(l, l->in->folder, l->in->settings->save_total_limit, &reason);
    l->save_failed = rc < 0;
    if (rc < 0) {
        l->save_error = reason;
        snprintf(message, sizeof(message), "checkpoint not saved: %s: %s", reason.file,
                 reason.reason);
        tell_at(l, RUN_WARNING, message);
        return 0;
    }
    l->last_saved = l->s.position;
    snprintf(message, sizeof(message), "%s/checkpoint-%llu", l->in->folder,
             (unsigned long long)l->s.position);
    tell_at(l, RUN_SAVED, message);
    return 0;
}

static int last_save(struct loop *l, struct artel_error *err)
{
    int rc = save(l, err);

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

static int save_best(struct loop *l, struct artel_error *err)
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

static int resume(struct loop *l, struct artel_error *err)
{
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
    if (l->s.position > l->order.n_steps && !l->s.early_stopped)
        return error_set(err, ARTEL_ECONFLICT, "RUN06", "checkpoint",
                         "is at step %llu, but the stage now ends at %llu",
                         (unsigned long long)l->s.position,
                         (unsigned long long)l->order.n_steps);
    snprintf(message, sizeof(message), "continues at step %llu of %llu",
             (unsigned long long)l->s.position, (unsigned long long)l->order.n_steps);
    tell_at(l, RUN_STAGE, message);
    if (strcmp(l->s.isa, cpu_isa_name(cpu_isa())) != 0) {
        snprintf(message, sizeof(message),
                 "the checkpoint is from %s, this runs on %s: last bits may differ",
                 l->s.isa, cpu_isa_name(cpu_isa()));
        tell_at(l, RUN_WARNING, message);
    }
    return 0;
}

/* ---- a step ---- */

static void log_step(struct loop *l, const struct step_report *r)
{
    if (l->s.position % l->in->settings->logging_steps == 0)
        steplog_line(&l->log,
                     step_line(r, l->s.position, order_epoch(&l->order, l->s.position),
                               l->in->train_routers && !l->in->train.unlabelled,
                               l->in->train.l1 > 0));
}

static void tell_step(struct loop *l, const struct step_report *r)
{
    const double now = r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0;
    const uint64_t done = l->s.position - l->began_at;
    struct run_progress p = {
        .event = RUN_STEP,
        .step = l->s.position,
        .n_steps = l->order.n_steps,
        .epoch = order_epoch(&l->order, l->s.position),
        .loss = (double)r->loss,
        .router_loss = (double)r->router_loss,
        .router_accuracy = (double)r->router_accuracy,
        .learning_rate = (double)r->rate,
        .grad_norm = (double)r->grad_norm,
    };

    l->speed = l->speed > 0 ? 0.9 * l->speed + 0.1 * now : now;
    p.tokens_per_second = l->speed;
    p.seconds_left = (monotonic_seconds() - l->began) / (double)done *
                     (double)(l->order.n_steps - l->s.position);
    tell(l->in, &p);
}

/* A step that changes nothing is behind us all the same, and said each time. */
static void pass_over(struct loop *l, const char *where, const char *reason)
{
    char message[512];
    json_t *line;

    l->s.position++;
    snprintf(message, sizeof(message), "step %llu skipped: %s: %s",
             (unsigned long long)l->s.position, where, reason);
    tell_at(l, RUN_WARNING, message);
    line = json_pack("{s:I, s:b, s:s}", "step", (json_int_t)l->s.position, "skipped", 1,
                     "reason", reason);
    if (line)
        steplog_line(&l->log, line);
}

/* Skipping is allowed only so often. */
static int not_finite(struct loop *l, struct artel_error *err)
{
    if (l->s.skipped >= l->in->settings->nan_steps)
        return ARTEL_ENONFINITE;
    l->s.skipped++;
    pass_over(l, err->where, err->reason);
    *err = (struct artel_error){0};
    return 0;
}

static void spiked(struct loop *l, double loss, double limit)
{
    char reason[96];

    l->s.spikes++;
    snprintf(reason, sizeof(reason), "%.4g is above %.4g", loss, limit);
    pass_over(l, "loss", reason);
}

/* After an update. */
static int stepped(struct loop *l, const struct step_report *r, struct artel_error *err)
{
    l->s.position++;
    loop_state_count(&l->s, r, l->in->settings->max_grad_norm);
    log_step(l, r);
    tell_step(l, r);
    return l->in->train.lm_loss
               ? loop_state_check_diverged(&l->s, r,
                                           l->in->model->weights->config.n_vocab, err)
               : 0;
}

static int step(struct loop *l, struct artel_error *err)
{
    const double z = l->in->settings->spike_z;
    struct artel_error own = {0};
    struct step_report r = {0};
    const struct batch *micro;
    double limit, loss;
    size_t n_micro;
    int rc;

    rc = l->in->watch ? watch_check_bases(l->in->watch, err) : 0;
    if (rc == 0)
        rc = order_step(&l->order, l->s.position, &micro, &n_micro, err);
    if (rc < 0)
        return rc;
    limit = loop_state_spike_limit(&l->s, z);
    trainer_limit_loss(l->trainer, limit);
    rc = trainer_step(l->trainer, micro, n_micro, &r, &own);
    loss = (double)(l->in->train.lm_loss ? r.loss : r.router_loss);
    if (rc == 0 && z > 0)
        loop_state_note_loss(&l->s, loss);
    if (rc == ARTEL_ENONFINITE)
        rc = not_finite(l, &own);
    else if (rc == 0 && r.left_out)
        spiked(l, loss, limit);
    else if (rc == 0)
        rc = stepped(l, &r, &own);
    if (rc < 0 && err)
        *err = own;
    return rc;
}

/* ---- evaluation ---- */

static int evaluate(struct loop *l, struct artel_error *err)
{
    const struct loop_input *in = l->in;
    struct eval_report e = {0};
    double measure;
    json_t *line;
    int rc = trainer_eval(l->trainer, in->valid, in->n_valid, &e, err);

    if (rc < 0)
        return rc;
    l->s.valid_loss = e.n_tokens ? e.nll / (double)e.n_tokens : 0;
    l->s.evaluated = l->s.position;
    /* With frozen experts the loss cannot move; how often the router is right can. */
    measure = in->train.lm_loss ? l->s.valid_loss : 1 - e.router_accuracy;
    line = json_object();
    json_object_set_new(line, "step", json_integer((json_int_t)l->s.position));
    json_object_set_new(line, "epoch",
                        json_real(order_epoch(&l->order, l->s.position)));
    if (isfinite(l->s.valid_loss))
        json_object_set_new(line, "eval_loss", json_real(l->s.valid_loss));
    if (in->train_routers && !in->train.unlabelled)
        json_object_set_new(line, "eval_router_accuracy", json_real(e.router_accuracy));
    steplog_line(&l->log, line);
    tell_at(l, RUN_EVAL, NULL);
    if (isfinite(measure) && (!l->s.has_best || measure < l->s.best_measure)) {
        l->s.has_best = true;
        l->s.best_measure = measure;
        l->s.best_loss = l->s.valid_loss;
        l->s.best_step = l->s.position;
        l->s.worse_evals = 0;
        return in->settings->load_best ? save_best(l, err) : 0;
    }
    l->s.worse_evals++;
    return 0;
}

/* The weights of the best evaluation, where they are not the last ones. */
static int take_best(struct loop *l, struct artel_error *err)
{
    struct checkpoint c = {0};
    char *folder;
    int rc;

    if (!l->in->settings->load_best || !l->s.has_best ||
        l->s.best_step == l->s.position)
        return 0;
    folder = best_folder(l->in);
    rc = folder ? checkpoint_newest(&c, folder, err) : error_nomem(err, 256);
    if (rc == 1 && c.step == l->s.best_step) {
        struct loop_state then = {0};

        rc = loop_state_read(&then, c.state, c.path, err);
        if (rc == 0)
            rc = restore(l, &c, then.trainer_steps, err);
        if (rc == 0)
            l->s.valid_loss = l->s.best_loss;
    } else if (rc >= 0) {
        tell_at(l, RUN_WARNING,
                "the best checkpoint is gone: the last weights are kept");
        l->s.best_step = 0;
        rc = 0;
    }
    checkpoint_release(&c);
    free(folder);
    return rc;
}

/* ---- the whole ---- */

static bool is_due(uint64_t position, uint64_t every)
{
    return every && position % every == 0;
}

static int turns(struct loop *l, struct artel_error *err)
{
    const struct recipe_train *t = l->in->settings;

    while (l->s.position < l->order.n_steps && !l->s.early_stopped) {
        int rc;

        if (asked_to_stop(l)) {
            rc = last_save(l, err);
            return rc < 0
                       ? rc
                       : error_set(err, ARTEL_ESTOPPED, "STOP", l->in->stage,
                                   "stopped at step %llu of %llu; everything is saved",
                                   (unsigned long long)l->s.position,
                                   (unsigned long long)l->order.n_steps);
        }
        rc = step(l, err);
        if (rc == 0 && l->in->n_valid && is_due(l->s.position, t->eval_steps)) {
            rc = evaluate(l, err);
            if (t->patience && l->s.worse_evals >= t->patience)
                l->s.early_stopped = true;
        }
        if (rc == 0 && is_due(l->s.position, t->save_steps) &&
            l->s.position < l->order.n_steps && !l->s.early_stopped)
            rc = save(l, err);
        else if (rc == 0 && monotonic_seconds() - l->checked > CHECK_SECONDS)
            rc = check_world(l, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int finish(struct loop *l, struct artel_error *err)
{
    int rc = 0;

    if (l->in->n_valid && l->s.evaluated != l->s.position)
        rc = evaluate(l, err);
    if (rc == 0)
        rc = last_save(l, err);
    if (rc == 0)
        rc = take_best(l, err);
    return rc;
}

static void report(const struct loop *l, struct loop_result *out)
{
    const struct loop_state *s = &l->s;
    const bool best = l->in->settings->load_best && s->has_best;

    *out = (struct loop_result){
        .steps = s->position - s->skipped - s->spikes,
        .skipped = s->skipped,
        .spikes = s->spikes,
        .clipped = s->clipped,
        .tokens = s->tokens,
        .answer_tokens = s->answer_tokens,
        .seconds = s->seconds,
        .first_loss = s->n_first ? s->first_sum / (double)s->n_first : 0,
        .last_loss = loop_state_last_loss(s),
        .valid_loss = s->valid_loss,
        .best_step = best && s->best_step != s->position ? s->best_step : 0,
        .early_stopped = s->early_stopped,
    };
}

static void fill_schedule(struct train_options *o, const struct recipe_train *t,
                          uint64_t n_steps)
{
    uint64_t warmup = t->warmup_steps;

    if (!warmup)
        warmup = (uint64_t)ceil((double)n_steps * t->warmup_ratio);
    o->schedule = (struct schedule){
        .kind = t->schedule, .warmup_steps = warmup, .total_steps = n_steps};
}

static struct order_options order_options_of(const struct loop_input *in)
{
    const struct recipe_train *t = in->settings;

    return (struct order_options){
        .batch = {.batch_tokens = t->batch_tokens,
                  .batch_rows = t->batch_size,
                  .shuffle = t->shuffle,
                  .seed = t->seed,
                  .mix = in->mix},
        .accumulation = t->accumulation,
        .epochs = in->epochs,
        .max_steps = in->max_steps,
        .held = in->held,
        .n_held = in->n_held,
    };
}

int loop_run(const struct loop_input *in, struct loop_result *out,
             struct artel_error *err)
{
    const struct order_options order = order_options_of(in);
    struct train_options train = in->train;
    struct loop l = {.in = in, .last_saved = UINT64_MAX};
    struct artel_error own = {0};
    int rc;

    l.order.at = SIZE_MAX;
    loop_state_init(&l.s);
    rc = order_init(&l.order, in->corpora, in->n_corpora, &order, &own);
    if (rc < 0)
        goto done;
    fill_schedule(&train, in->settings, l.order.n_steps);
    rc = trainer_open(&l.trainer, in->model, in->mixture, in->trained,
                      in->train_routers, &train, &own);
    if (rc < 0)
        goto done;
    remove_leftovers(in->folder);
    rc = resume(&l, &own);
    if (rc < 0)
        goto done;
    snprintf(l.s.isa, sizeof(l.s.isa), "%s", cpu_isa_name(cpu_isa()));
    l.began = l.checked = monotonic_seconds();
    l.began_at = l.s.position;
    l.seconds_before = l.s.seconds;
    steplog_open(&l.log, in->folder, l.s.position, in->settings->tensorboard,
                 log_warning, &l);
    rc = turns(&l, &own);
    if (rc == 0)
        rc = finish(&l, &own);
    if (rc == 0)
        report(&l, out);
done:
    steplog_close(&l.log);
    trainer_close(l.trainer);
    mixture_bare(in->mixture);
    order_release(&l.order);
    if (rc < 0 && err)
        *err = own;
    return rc < 0 ? error_in(err, rc, in->folder) : 0;
}
