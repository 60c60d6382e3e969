/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stage, step by step. The order inside a turn - step, evaluation, save,
 * only then the question whether to stop - makes every checkpoint a place from
 * which nothing is done twice or left out.
 */
#include "plan/loop_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "decoder/frozen.h"
#include "files/write.h"
#include "train/kept_inputs.h"

#define CHECK_SECONDS 20.0 /* between looks at the run folder and the data */

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

void loop_tell_at(const struct loop *l, enum run_event event, const char *message)
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
    loop_tell_at(user, RUN_WARNING, message);
}

bool loop_asked_to_stop(const struct loop *l)
{
    return l->in->run && l->in->run->stop && *l->in->run->stop;
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
    p.seconds_left = (clock_seconds() - l->began) / (double)done *
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
    loop_tell_at(l, RUN_WARNING, message);
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

int loop_next(struct loop *l, const struct batch **micro, size_t *n_micro,
              struct artel_error *err)
{
    int rc = l->in->watch ? watch_check_bases(l->in->watch, err) : 0;

    if (rc == 0)
        rc = order_step(&l->order, l->s.position, micro, n_micro, err);
    if (rc == 0) {
        l->limit = loop_state_spike_limit(&l->s, l->in->settings->spike_z);
        trainer_limit_loss(l->trainer, l->limit);
    }
    return rc;
}

int loop_stepped(struct loop *l, int rc, const struct step_report *r,
                 struct artel_error *own)
{
    const double loss = (double)(l->in->train.lm_loss ? r->loss : r->router_loss);

    if (rc == 0 && l->in->settings->spike_z > 0)
        loop_state_note_loss(&l->s, loss);
    if (rc == ARTEL_ENONFINITE)
        return not_finite(l, own);
    if (rc == 0 && r->left_out)
        spiked(l, loss, l->limit);
    else if (rc == 0)
        rc = stepped(l, r, own);
    return rc;
}

static int step(struct loop *l, struct artel_error *err)
{
    struct artel_error own = {0};
    struct step_report r = {0};
    const struct batch *micro;
    size_t n_micro;
    int rc = loop_next(l, &micro, &n_micro, err);

    if (rc < 0)
        return rc;
    rc = trainer_step(l->trainer, micro, n_micro, &r, &own);
    rc = loop_stepped(l, rc, &r, &own);
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
    loop_tell_at(l, RUN_EVAL, NULL);
    if (isfinite(measure) && (!l->s.has_best || measure < l->s.best_measure)) {
        l->s.has_best = true;
        l->s.best_measure = measure;
        l->s.best_loss = l->s.valid_loss;
        l->s.best_step = l->s.position;
        l->s.worse_evals = 0;
        return in->settings->load_best ? loop_save_best(l, err) : 0;
    }
    l->s.worse_evals++;
    return 0;
}

/* ---- the whole ---- */

static bool is_due(uint64_t position, uint64_t every)
{
    return every && position % every == 0;
}

bool loop_is_done(const struct loop *l)
{
    return l->s.position >= l->order.n_steps || l->s.early_stopped;
}

int loop_look_round(struct loop *l, struct artel_error *err)
{
    const struct recipe_train *t = l->in->settings;
    int rc = 0;

    if (l->in->n_valid && is_due(l->s.position, t->eval_steps)) {
        rc = evaluate(l, err);
        if (t->patience && l->s.worse_evals >= t->patience)
            l->s.early_stopped = true;
    }
    if (rc == 0 && is_due(l->s.position, t->save_steps) && !loop_is_done(l))
        return loop_save(l, err);
    if (rc == 0 && clock_seconds() - l->checked > CHECK_SECONDS)
        return loop_check_world(l, err);
    return rc;
}

int loop_stop(struct loop *l, struct artel_error *err)
{
    const int rc = loop_last_save(l, err);

    return rc < 0 ? rc
                  : error_set(err, ARTEL_ESTOPPED, "STOP", l->in->stage,
                              "stopped at step %llu of %llu; everything is saved",
                              (unsigned long long)l->s.position,
                              (unsigned long long)l->order.n_steps);
}

static int turns(struct loop *l, struct artel_error *err)
{
    int rc = 0;

    while (rc == 0 && !loop_is_done(l)) {
        if (loop_asked_to_stop(l))
            return loop_stop(l, err);
        rc = step(l, err);
        if (rc == 0)
            rc = loop_look_round(l, err);
    }
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
        .inputs_found = l->in->train.kept ? kept_inputs_found(l->in->train.kept) : 0,
        .inputs_computed = trainer_rows_computed(l->trainer),
    };
}

void loop_fill_schedule(const struct loop *l, struct schedule *out)
{
    const struct recipe_train *t = l->in->settings;
    uint64_t warmup = t->warmup_steps;

    if (!warmup)
        warmup = (uint64_t)ceil((double)l->order.n_steps * t->warmup_ratio);
    *out = (struct schedule){
        .kind = t->schedule, .warmup_steps = warmup, .total_steps = l->order.n_steps};
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

int loop_lay_out(struct loop *l, const struct loop_input *in, struct artel_error *err)
{
    const struct order_options order = order_options_of(in);

    *l = (struct loop){.in = in, .last_saved = UINT64_MAX, .order.at = SIZE_MAX};
    loop_state_init(&l->s);
    return order_init(&l->order, in->corpora, in->n_corpora, &order, err);
}

int loop_start(struct loop *l, struct artel_error *err)
{
    int rc;

    remove_leftovers(l->in->folder);
    rc = loop_resume(l, err);
    if (rc < 0)
        return rc;
    snprintf(l->s.isa, sizeof(l->s.isa), "%s", cpu_isa_name(cpu_isa()));
    l->began = l->checked = clock_seconds();
    l->began_at = l->s.position;
    l->seconds_before = l->s.seconds;
    steplog_open(&l->log, l->in->folder, l->s.position, l->in->settings->tensorboard,
                 log_warning, l);
    return 0;
}

int loop_finish(struct loop *l, struct loop_result *out, struct artel_error *err)
{
    int rc = 0;

    if (l->in->n_valid && l->s.evaluated != l->s.position)
        rc = evaluate(l, err);
    if (rc == 0)
        rc = loop_last_save(l, err);
    if (rc == 0)
        rc = loop_take_best(l, err);
    if (rc == 0)
        report(l, out);
    return rc;
}

void loop_close(struct loop *l)
{
    steplog_close(&l->log);
    order_release(&l->order);
}

int loop_run(const struct loop_input *in, struct loop_result *out,
             struct artel_error *err)
{
    struct train_options train = in->train;
    struct artel_error own = {0};
    struct loop l;
    int rc = loop_lay_out(&l, in, &own);

    if (rc == 0) {
        loop_fill_schedule(&l, &train.schedule);
        rc = trainer_open(&l.trainer, in->model, in->mixture, in->trained,
                          in->train_routers, &train, &own);
    }
    if (rc == 0)
        rc = loop_start(&l, &own);
    if (rc == 0)
        rc = turns(&l, &own);
    if (rc == 0)
        rc = loop_finish(&l, out, &own);
    trainer_close(l.trainer);
    mixture_bare(in->mixture);
    loop_close(&l);
    if (rc < 0 && err)
        *err = own;
    return rc < 0 ? error_in(err, rc, in->folder) : 0;
}
