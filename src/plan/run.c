/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe, stage after stage.
 */
#include "plan/run.h"

#include "base/error.h"
#include "plan/job.h"

void run_tell(const struct run_options *o, enum run_event event, const char *message)
{
    const struct run_progress p = {
        .event = event, .stage = "", .seconds_left = -1, .message = message};

    if (o && o->progress)
        o->progress(o->user, &p);
}

static int run_stage(struct job *job, const struct stage *s, struct artel_error *err)
{
    json_t *inputs = NULL, *summary = NULL;
    int rc = job_stage_ready(job, s, &inputs, err);

    if (rc == 1) {
        job_tell(job, s, RUN_SKIPPED, "up to date");
    } else if (rc == 0) {
        job_tell(job, s, RUN_STAGE, NULL);
        rc = stage_carry_out(&summary, job, s, inputs, err);
        if (rc == 0)
            rc = stamp_write(s->folder, s->name, inputs, true, summary, err);
    }
    json_decref(inputs);
    json_decref(summary);
    return rc < 0 ? rc : 0;
}

/* The stages of G that are not up to date after all leave it. */
static int make_ready(struct stage_group *g, struct job *job, struct artel_error *err)
{
    size_t n = 0;
    int rc = 0;

    for (size_t i = 0; rc >= 0 && i < g->n; i++) {
        json_t *inputs = NULL;

        g->of[i]->done = true;
        rc = job_stage_ready(job, g->of[i], &inputs, err);
        if (rc == 0) {
            job_tell(job, g->of[i], RUN_STAGE, NULL);
            g->of[n] = g->of[i];
            g->inputs[n++] = json_incref(inputs);
        } else if (rc == 1) {
            job_tell(job, g->of[i], RUN_SKIPPED, "up to date");
        }
        json_decref(inputs);
    }
    g->n = n;
    return rc < 0 ? rc : 0;
}

static int run_group(struct job *job, struct stage *s, struct artel_error *err)
{
    struct stage_group g;
    int rc = group_open(&g, job, s, err);

    if (rc == 0 && g.n == 1) {
        group_release(&g);
        return run_stage(job, s, err);
    }
    if (rc == 0)
        rc = make_ready(&g, job, err);
    if (rc == 0 && g.n)
        rc = group_carry_out(&g, job, err);
    for (size_t i = 0; rc == 0 && i < g.n; i++)
        rc = stamp_write(g.of[i]->folder, g.of[i]->name, g.inputs[i], true,
                         g.summaries[i], err);
    group_release(&g);
    return rc;
}

int run_recipe(const struct recipe *r, const struct run_options *o,
               struct artel_error *err)
{
    struct job job;
    bool pending = false;
    int rc = job_open(&job, r, o, err);

    for (size_t i = 0; rc == 0 && i < r->n_general; i++)
        rc = job_check_read_later(r->general[i].path, err);
    if (rc == 0)
        rc = job_plan(&job, err);
    for (size_t i = 0; i < job.n_stages; i++)
        pending = pending || job.stages[i].pending;
    if (rc == 0 && pending)
        rc = job_begin(&job, err);
    for (size_t i = 0; rc == 0 && i < job.n_stages; i++) {
        if (job.stages[i].done)
            continue;
        if (job.stages[i].pending)
            rc = run_group(&job, &job.stages[i], err);
        else
            job_tell(&job, &job.stages[i], RUN_SKIPPED, "up to date");
    }
    job_close(&job);
    return rc;
}
