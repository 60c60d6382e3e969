/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe as a run would meet it: its stages, which of them are up to date or why not,
 * and what the others will take. Nothing is written, and a run that goes on in the same
 * folder is not disturbed.
 */
#include "plan/api_inspect.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/room.h"
#include "plan/job.h"
#include "save/checkpoint.h"

static json_t *domains_json(const struct recipe *r)
{
    json_t *const out = json_array();

    for (size_t i = 0; i < r->n_domains; i++) {
        const struct recipe_domain *const d = &r->domains[i];

        json_array_append_new(out, json_pack("{s:s, s:s*, s:s*, s:s*, s:s*, s:s*}",
                                             "name", d->name, "train", d->train,
                                             "valid", d->valid, "test", d->test,
                                             "score", d->score, "adapter", d->adapter));
    }
    return out;
}

/* Step of the newest checkpoint; 0: none that is whole. */
static uint64_t checkpoint_step(const char *folder)
{
    struct checkpoint c = {0};
    const uint64_t step = checkpoint_newest(&c, folder, NULL) == 1 ? c.step : 0;

    checkpoint_release(&c);
    return step;
}

static void put_state(json_t *o, const struct stage *s, const struct stamp *stamp)
{
    const uint64_t step = s->pending && stamp->there ? checkpoint_step(s->folder) : 0;
    json_t *const differences = json_array();

    json_object_set_new(o, "state",
                        json_string(!s->pending            ? "up to date"
                                    : stamp->n_differences ? "made otherwise"
                                    : step                 ? "begun"
                                                           : "to do"));
    if (step)
        json_object_set_new(o, "checkpoint", json_integer((json_int_t)step));
    for (size_t i = 0; i < stamp->n_differences; i++)
        json_array_append_new(differences, json_string(stamp->differences[i]));
    if (stamp->n_differences)
        json_object_set(o, "differences", differences);
    json_decref(differences);
}

static int stages_json(json_t *out, const struct job *job, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < job->n_stages; i++) {
        const struct stage *const s = &job->stages[i];
        json_t *const o = json_pack("{s:s, s:s}", "name", s->name, "folder", s->folder);
        struct stamp stamp = {0};
        json_t *inputs = NULL;

        json_array_append_new(out, o);
        if (!job->model)
            continue;
        rc = stage_inputs(&inputs, job, s, false, err);
        if (rc == 0)
            rc = stamp_read(&stamp, s->folder, inputs, "expert.", err);
        if (rc == 0)
            put_state(o, s, &stamp);
        stamp_release(&stamp);
        json_decref(inputs);
    }
    return rc;
}

/* What is still to be trained. */
static int plan_json(json_t *root, struct job *job, struct artel_error *err)
{
    uint64_t disk;
    size_t memory;
    const int rc = job_memory(job, &memory, &disk, err);

    if (rc == 0)
        json_object_set_new(
            root, "plan",
            json_pack("{s:s, s:s, s:I, s:I, s:I}", "precision",
                      job->precision == PRECISION_BF16 ? "bf16" : "fp32", "memory",
                      memory_mode_name(job->memory), "memory_bytes", (json_int_t)memory,
                      "free_memory_bytes", (json_int_t)room_memory(), "disk_bytes",
                      (json_int_t)disk));
    return rc;
}

static int recipe_of(struct recipe **out, const char *path, const char *model,
                     struct artel_error *err)
{
    const char *overrides[1];
    char *real, *text;
    int rc;

    if (!model)
        return recipe_open(out, path, NULL, 0, err);
    real = realpath(model, NULL);
    if (!real)
        return error_errno(err, model, "cannot open");
    text = malloc(strlen(real) + sizeof("model="));
    if (text)
        sprintf(text, "model=%s", real);
    overrides[0] = text;
    rc = text ? recipe_open(out, path, overrides, 1, err)
              : error_nomem(err, strlen(real));
    free(real);
    free(text);
    return rc;
}

int inspect_recipe(json_t *root, const char *path,
                   const struct artel_inspect_options *o, struct artel_error *err)
{
    json_t *const methods = json_array(), *const stages = json_array();
    struct recipe *r = NULL;
    struct job job;
    bool trains;
    int rc = recipe_of(&r, path, o->model, err);

    if (rc < 0) {
        json_decref(methods);
        json_decref(stages);
        return rc;
    }
    for (size_t i = 0; i < r->n_methods; i++)
        json_array_append_new(methods, json_string(r->methods[i]));
    json_object_set_new(root, "kind", json_string("recipe"));
    json_object_set_new(root, "model", json_string(r->model));
    json_object_set_new(root, "output", json_string(r->output));
    json_object_set_new(root, "methods", methods);
    json_object_set_new(root, "domains", domains_json(r));
    json_object_set_new(root, "stages", stages);
    rc = job_look(&trains, &job, r, err);
    if (rc == 0)
        rc = stages_json(stages, &job, err);
    if (rc == 0 && trains)
        rc = plan_json(root, &job, err);
    else if (rc == 0 && !job.model)
        json_object_set_new(root, "note",
                            json_string("its model is not here: what is up to date and "
                                        "what it will take cannot be told"));
    job_close(&job);
    recipe_close(r);
    return rc;
}
