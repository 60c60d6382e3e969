/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which stages a recipe has, and what the outcome of each depends on: every
 * setting and every digest that could change one bit of it, and nothing else.
 */
#include "plan/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"

/* What each method adds after stage 1. */
static const struct method_stages {
    const char *method, *name;
    bool stage1; /* needs an expert a domain */
    enum stage_kind kind;
} method_stages[] = {
    {"single", "single", true, STAGE_BUNDLE},
    {"mixed", "mixed", false, STAGE_MIXED},
    {"moa", "moa-router", true, STAGE_ROUTER},
};

#define N_METHOD_STAGES (sizeof(method_stages) / sizeof(method_stages[0]))

/* Keys of the section train that no weight depends on. */
static const char *const idle_keys[] = {"save_steps",    "save_total_limit", "packing",
                                        "logging_steps", "precision",        "memory",
                                        "nan_steps",     "tensorboard"};

static const struct method_stages *stages_of(const char *method)
{
    for (size_t i = 0; i < N_METHOD_STAGES; i++)
        if (!strcmp(method_stages[i].method, method))
            return &method_stages[i];
    return NULL;
}

char *output_path(const struct job *job, const char *part, const char *rest)
{
    char *path = path_join(job->r->output, part), *whole;

    if (!path || !rest)
        return path;
    whole = path_join(path, rest);
    free(path);
    return whole;
}

char *expert_folder(const struct job *job, size_t domain)
{
    if (job->grow && job->grow->folder[domain])
        return strdup(job->grow->folder[domain]);
    return output_path(job, "experts", job->r->domains[domain].name);
}

size_t domain_max_rows(const struct recipe *r, size_t i)
{
    return r->domains[i].max_rows ? r->domains[i].max_rows : r->max_rows;
}

void job_tell(const struct job *job, const struct stage *s, enum run_event event,
              const char *message)
{
    struct run_progress p = {.event = event,
                             .stage = s ? s->name : "",
                             .stage_idx = s ? (size_t)(s - job->stages) : 0,
                             .n_stages = job->n_stages,
                             .seconds_left = -1,
                             .message = message};

    if (job->o->progress)
        job->o->progress(job->o->user, &p);
}

static int add_stage(struct job *job, enum stage_kind kind, const char *prefix,
                     const char *name, size_t domain, const char *method,
                     struct artel_error *err)
{
    struct stage *s = &job->stages[job->n_stages];
    char *train = output_path(job, "train", NULL);

    *s = (struct stage){.kind = kind, .domain = domain, .method = method};
    snprintf(s->name, sizeof(s->name), "%s%s", prefix, name);
    s->folder = train ? path_join(train, s->name) : NULL;
    free(train);
    if (!s->folder)
        return error_nomem(err, 256);
    job->n_stages++;
    return 0;
}

int stages_list(struct job *job, struct artel_error *err)
{
    const struct recipe *r = job->r;
    bool stage1 = false;
    int rc = 0;

    job->stages = calloc(r->n_domains + r->n_methods, sizeof(*job->stages));
    if (!job->stages)
        return error_nomem(err, (r->n_domains + r->n_methods) * sizeof(*job->stages));
    for (size_t i = 0; i < r->n_methods; i++) {
        const struct method_stages *m = stages_of(r->methods[i]);

        stage1 = stage1 || (m && m->stage1);
    }
    for (size_t i = 0; stage1 && rc == 0 && i < r->n_domains; i++)
        rc = add_stage(job, r->domains[i].adapter ? STAGE_ADAPTER : STAGE_EXPERT,
                       "expert-", r->domains[i].name, i, NULL, err);
    for (size_t i = 0; rc == 0 && i < r->n_methods; i++) {
        const struct method_stages *m = stages_of(r->methods[i]);

        if (m)
            rc = add_stage(job, m->kind, "", m->name, 0, m->method, err);
    }
    return rc;
}

/* ---- inputs ---- */

static void put(json_t *o, const char *prefix, const char *key, json_t *value)
{
    char name[EXPERT_NAME_MAX + 32];

    snprintf(name, sizeof(name), "%s%s", prefix, key);
    json_object_set_new(o, name, value);
}

static void put_section(json_t *o, const struct recipe *r, const char *section,
                        const char *const *leave_out, size_t n_leave_out)
{
    json_t *values = recipe_section(r, section);
    char prefix[16];
    const char *key;
    json_t *value;

    snprintf(prefix, sizeof(prefix), "%s.", section);
    json_object_foreach(values, key, value)
    {
        bool idle = false;

        for (size_t i = 0; i < n_leave_out; i++)
            idle = idle || !strcmp(key, leave_out[i]);
        if (!idle)
            put(o, prefix, key, json_incref(value));
    }
    json_decref(values);
}

static void put_domain(json_t *o, const struct job *job, size_t i)
{
    const struct recipe_domain *d = &job->r->domains[i];

    put(o, "data.", d->name, json_string(job->train_digest[i]));
    put(o, "max_rows.", d->name, json_integer((json_int_t)domain_max_rows(job->r, i)));
    if (d->valid && job->r->train.eval_steps)
        put(o, "valid.", d->name, json_string(job->valid_digest[i]));
}

static int put_file(json_t *o, const char *prefix, const char *name, const char *folder,
                    struct artel_error *err)
{
    char *path = folder ? path_join(folder, "adapter_model.safetensors") : NULL;
    char digest[DIGEST_SIZE];
    int rc = path ? digest_file(digest, path, err) : error_nomem(err, 256);

    if (rc == 0)
        put(o, prefix, name, json_string(digest));
    free(path);
    return rc;
}

/* Experts, in the mixture's order; their names alone while they are not made yet. */
static int put_experts(json_t *o, const struct job *job, bool digests,
                       struct artel_error *err)
{
    json_t *names = json_array();
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < job->r->n_domains; i++) {
        char *folder = expert_folder(job, i);

        json_array_append_new(names, json_string(job->r->domains[i].name));
        if (digests)
            rc = put_file(o, "expert.", job->r->domains[i].name, folder, err);
        free(folder);
    }
    json_object_set_new(o, "domains", names);
    return rc;
}

int stage_inputs(json_t **out, const struct job *job, const struct stage *s,
                 bool experts, struct artel_error *err)
{
    static const char *const not_here[] = {"freeze_old"};
    const struct recipe *r = job->r;
    const bool trains = s->kind != STAGE_ADAPTER && s->kind != STAGE_BUNDLE;
    json_t *o = json_object();
    int rc = 0;

    *out = NULL;
    if (!o)
        return error_nomem(err, 1024);
    put(o, "", "base", json_string(job->model->base_digest));
    put(o, "", "tokenizer", json_string(job->model->tokenizer_digest));
    put(o, "", "template", json_string(job->model->chat_digest));
    if (trains) {
        put(o, "", "precision",
            json_string(job->precision == PRECISION_BF16 ? "bf16" : "fp32"));
        put_section(o, r, "train", idle_keys, sizeof(idle_keys) / sizeof(idle_keys[0]));
    }
    if (s->kind == STAGE_EXPERT || s->kind == STAGE_MIXED ||
        (s->kind == STAGE_ROUTER && r->router.init == INIT_FRESH))
        put_section(o, r, "lora", NULL, 0);
    if (s->kind == STAGE_EXPERT)
        put_domain(o, job, s->domain);
    for (size_t i = 0; i < r->n_domains; i++)
        if (s->kind == STAGE_MIXED || s->kind == STAGE_ROUTER)
            put_domain(o, job, i);
    if (s->kind == STAGE_ADAPTER)
        rc = put_file(o, "", "adapter", r->domains[s->domain].adapter, err);
    if (s->kind == STAGE_ROUTER)
        put_section(o, r, "router", not_here, 1);
    if (s->kind == STAGE_ROUTER && job->grow) {
        put(o, "", "grow.joint", json_boolean(job->grow->joint));
        put(o, "", "grow.routers", json_string(job->grow->digest));
    }
    if (s->kind == STAGE_ROUTER || s->kind == STAGE_BUNDLE)
        rc = put_experts(o, job, experts, err);
    if (rc < 0) {
        json_decref(o);
        return rc;
    }
    *out = o;
    return 0;
}

bool stage_result_there(const struct job *job, const struct stage *s)
{
    const bool expert = s->kind == STAGE_EXPERT || s->kind == STAGE_ADAPTER;
    char *folder =
        expert ? expert_folder(job, s->domain) : output_path(job, s->method, NULL);
    bool there = folder != NULL;

    static const char *const of_expert[] = {"adapter_model.safetensors",
                                            "adapter_config.json", "artel.json"};
    static const char *const of_mixture[] = {"mixture.json"};

    for (size_t i = 0; there && i < (expert ? 3u : 1u); i++) {
        char *path = path_join(folder, expert ? of_expert[i] : of_mixture[i]);

        there = path && access(path, F_OK) == 0;
        free(path);
    }
    free(folder);
    return there;
}
