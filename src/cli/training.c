/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line a step on a terminal, written over; elsewhere a line now and then, and
 * always where a stage begins or ends.
 */
#include "cli/training.h"

#include <stdio.h>
#include <string.h>

void training_init(struct training *t, bool quiet)
{
    *t = (struct training){
        .quiet = quiet, .start = seconds_now(), .stages = json_array()};
    progress_init(&t->progress);
}

void training_release(struct training *t)
{
    json_decref(t->stages);
    *t = (struct training){0};
}

static void step_line(struct training *t, const struct artel_progress *p)
{
    char line[256], left[32], loss[32] = "", router[64] = "";

    if (p->loss > 0) /* routers alone have none */
        snprintf(loss, sizeof(loss), "  loss %.4f", p->loss);
    if (p->router_loss > 0)
        snprintf(router, sizeof(router), "  router %.3f %.0f %%", p->router_loss,
                 100 * p->router_accuracy);
    snprintf(line, sizeof(line), "[%zu/%zu] %s  step %llu/%llu%s%s  %.0f tok/s  %s",
             p->stage_idx + 1, p->n_stages, p->stage, (unsigned long long)p->step,
             (unsigned long long)p->n_steps, loss, router, p->tokens_per_second,
             p->seconds_left >= 0 ? duration_text(left, sizeof(left), p->seconds_left)
                                  : "");
    if (!t->quiet)
        progress_line(&t->progress, line, p->step == p->n_steps);
    if (t->stage) {
        json_object_set_new(t->stage, "steps", json_integer((json_int_t)p->step));
        json_object_set_new(t->stage, "loss", json_number(p->loss));
        json_object_set_new(t->stage, "tokens_per_second",
                            json_number(p->tokens_per_second));
    }
}

/* Stages that are trained side by side take turns in what is told. */
static void turn_to_stage(struct training *t, const char *name)
{
    size_t i;
    json_t *stage;

    json_array_foreach(t->stages, i, stage)
    {
        const char *const its = json_string_value(json_object_get(stage, "name"));

        if (its && !strcmp(its, name))
            t->stage = stage;
    }
}

static void begin_stage(struct training *t, const struct artel_progress *p,
                        const char *state)
{
    t->stage = json_pack("{s:s, s:s}", "name", p->stage, "state", state);
    if (t->stage)
        json_array_append_new(t->stages, t->stage);
    t->stage_start = seconds_now();
}

static void say(struct training *t, const struct artel_progress *p, const char *what)
{
    progress_clear(&t->progress);
    if (t->quiet)
        return;
    if (p->n_stages && *p->stage)
        fprintf(stderr, "[%zu/%zu] %s: ", p->stage_idx + 1, p->n_stages, p->stage);
    fprintf(stderr, "%s%s%s\n", what, *what && p->message ? ": " : "",
            p->message ? p->message : "");
}

void training_show(void *user, const struct artel_progress *p)
{
    struct training *const t = user;

    turn_to_stage(t, p->stage);
    switch (p->event) {
    case ARTEL_STAGE:
        begin_stage(t, p, "trained");
        say(t, p, p->message ? "" : "begins");
        break;
    case ARTEL_SKIPPED:
        begin_stage(t, p, "up to date");
        say(t, p, p->message ? "" : "up to date");
        break;
    case ARTEL_STEP:
        step_line(t, p);
        break;
    case ARTEL_EVAL:
        progress_clear(&t->progress);
        if (!t->quiet)
            fprintf(stderr, "[%zu/%zu] %s: step %llu: validation loss %.4f\n",
                    p->stage_idx + 1, p->n_stages, p->stage,
                    (unsigned long long)p->step, p->loss);
        if (t->stage)
            json_object_set_new(t->stage, "validation_loss", json_number(p->loss));
        break;
    case ARTEL_SAVED:
        break;
    case ARTEL_NOTE:
        say(t, p, "");
        break;
    case ARTEL_WARNING:
        progress_clear(&t->progress);
        fprintf(stderr, "warning: %s\n", p->message ? p->message : "");
        break;
    case ARTEL_DONE:
        if (t->stage)
            json_object_set_new(t->stage, "seconds",
                                json_number(seconds_now() - t->stage_start));
        say(t, p, "done");
        break;
    }
}

json_t *training_json(const struct training *t, const char *output)
{
    return json_pack("{s:s, s:f, s:O}", "output", output, "seconds",
                     seconds_now() - t->start, "stages", t->stages);
}
