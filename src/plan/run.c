/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe, stage after stage.
 */
#include "plan/run.h"

#include "base/error.h"
#include "plan/job.h"

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

int run_recipe(const struct recipe *r, const struct run_options *o,
               struct artel_error *err)
{
    struct job job;
    bool pending = false;
    int rc = job_open(&job, r, o, err);

    if (rc == 0)
        rc = job_plan(&job, err);
    for (size_t i = 0; i < job.n_stages; i++)
        pending = pending || job.stages[i].pending;
    if (rc == 0 && pending)
        rc = job_begin(&job, err);
    for (size_t i = 0; rc == 0 && i < job.n_stages; i++) {
        if (job.stages[i].pending)
            rc = run_stage(&job, &job.stages[i], err);
        else
            job_tell(&job, &job.stages[i], RUN_SKIPPED, "up to date");
    }
    job_close(&job);
    return rc;
}
