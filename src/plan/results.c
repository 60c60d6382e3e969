/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts first, then the samples, mixture.json last: what it names is there.
 */
#include "plan/results.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/write.h"
#include "save/adapter.h"
#include "save/mixture_file.h"

static const char *or_null(const char *text)
{
    return *text ? text : NULL;
}

/* What an expert that acts on the universal one must be read beside. */
static int digest_universal(char out[DIGEST_SIZE], const struct job *job,
                            struct artel_error *err)
{
    char *folder = expert_folder(job, NULL, job->r->n_domains);
    char *path = folder ? path_join(folder, "adapter_model.safetensors") : NULL;
    const int rc = path ? digest_file(out, path, err) : error_nomem(err, 256);

    free(folder);
    free(path);
    return rc;
}

int results_expert(const char *folder, const struct expert *e, const struct job *job,
                   const struct lora_options *as_asked, const char *data_digest,
                   const json_t *summary, struct artel_error *err)
{
    const struct artel_model *model = job->model;
    char universal[DIGEST_SIZE] = "";
    const int rc = e->kind == EXPERT_RES ? digest_universal(universal, job, err) : 0;
    const struct adapter_notes notes = {
        .domain = e->name,
        .base_path = job->r->model,
        .base_digest = or_null(model->base_digest),
        .tokenizer_digest = or_null(model->tokenizer_digest),
        .chat_digest = or_null(model->chat_digest),
        .data_digest = data_digest && *data_digest ? data_digest : NULL,
        .universal_digest = or_null(universal),
        .training = summary,
    };

    return rc < 0 ? rc
                  : adapter_write(folder, e, &model->weights->config, as_asked, &notes,
                                  err);
}

/* Where the expert of DOMAIN lies, seen from the folder of S's mixture; false where none
 * is that domain's. */
static bool folder_text(char *out, size_t size, const struct job *job,
                        const struct stage *s, size_t domain)
{
    const char *name = text_at(job->r, domain)->name;

    if (domain == job->r->n_domains)
        snprintf(out, size, "../experts/%s", name);
    else if (s->row->start == START_MIXED)
        snprintf(out, size, "experts/mixed");
    else if (stage_moves_experts(job, s))
        snprintf(out, size, "experts/%s", name);
    else
        snprintf(out, size, "../%s/%s", s->row->experts, name);
    return s->row->start != START_POOL;
}

static int copy(char **out, const char *text, struct artel_error *err)
{
    *out = text ? strdup(text) : NULL;
    return text && !*out ? error_nomem(err, strlen(text)) : 0;
}

static int store_sample(char **out, const struct job *job, size_t i, const char *folder,
                        struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 16];
    char *data = path_join(folder, "data"), *path = NULL;
    int rc = data ? make_folder(data, err) : error_nomem(err, strlen(folder));

    snprintf(name, sizeof(name), "data/%s.jsonl", text_at(job->r, i)->name);
    if (rc == 0) {
        path = path_join(folder, name);
        rc = path ? sample_write(path, job->texts.trains[i], text_at(job->r, i)->train,
                                 job->r->store_sample, err)
                  : error_nomem(err, strlen(folder));
    }
    if (rc == 1)
        rc = copy(out, name, err);
    free(data);
    free(path);
    return rc;
}

/* The mixture learns from its texts again when a domain is added. */
static bool keeps_samples(const struct job *job, const struct stage *s)
{
    const struct method_traits *t = method_traits(s->row->method);

    return job->r->store_sample &&
           (s->kind == STAGE_MIXTURE || s->kind == STAGE_SOLVED) &&
           s->row->moves != MOVES_EXPERTS && t->grows && !t->made;
}

static int fill_text(struct domain_notes *d, const struct job *job,
                     const struct stage *s, size_t i, const char *mixture,
                     struct artel_error *err)
{
    const struct recipe_domain *from = text_at(job->r, i);
    char folder[EXPERT_NAME_MAX + 32];
    int rc = 0;

    snprintf(d->name, sizeof(d->name), "%s", from->name);
    snprintf(d->train_digest, sizeof(d->train_digest), "%s", job->train_digest[i]);
    if (folder_text(folder, sizeof(folder), job, s, i))
        rc = copy(&d->folder, folder, err);
    if (rc == 0)
        rc = copy(&d->train, from->train, err);
    if (rc == 0)
        rc = copy(&d->valid, from->valid, err);
    if (rc == 0)
        rc = copy(&d->test, from->test, err);
    if (rc == 0)
        rc = copy(&d->score, from->score, err);
    if (rc == 0 && keeps_samples(job, s))
        rc = store_sample(&d->sample, job, i, mixture, err);
    return rc;
}

static int fill_domains(struct mixture_file *f, const struct job *job,
                        const struct stage *s, struct artel_error *err)
{
    const struct recipe *r = job->r;
    int rc = 0;

    f->domains = calloc(r->n_domains, sizeof(*f->domains));
    f->universal = s->row->universal ? calloc(1, sizeof(*f->universal)) : NULL;
    if (!f->domains || (s->row->universal && !f->universal))
        return error_nomem(err, r->n_domains * sizeof(*f->domains));
    f->n_domains = r->n_domains;
    for (size_t i = 0; rc == 0 && i < r->n_domains; i++)
        rc = fill_text(&f->domains[i], job, s, i, f->folder, err);
    if (rc == 0 && f->universal)
        rc = fill_text(f->universal, job, s, r->n_domains, f->folder, err);
    return rc;
}

/* Every setting but what mixture.json says elsewhere. */
static json_t *settings_new(const struct recipe *r)
{
    json_t *o = recipe_json(r), *rows = json_object();

    for (size_t i = 0; i < r->n_domains; i++)
        if (r->domains[i].max_rows)
            json_object_set_new(rows, r->domains[i].name,
                                json_integer((json_int_t)r->domains[i].max_rows));
    json_object_set_new(o, "domain_max_rows", rows);
    json_object_del(o, "model");
    json_object_del(o, "output");
    json_object_del(o, "method");
    json_object_del(o, "domains");
    return o;
}

static bool leads_to(const struct stage *earlier, const struct stage *s)
{
    return stage_makes_expert(earlier) && row_feeds(earlier->row, s->row);
}

/* Summaries of all stages that led here, by their names. */
static json_t *training_new(const struct job *job, const struct stage *s,
                            const json_t *summary)
{
    json_t *stages = json_object();

    for (size_t i = 0; i < job->n_stages; i++) {
        const struct stage *earlier = &job->stages[i];
        struct stamp stamp = {0};
        json_t *none = json_object();

        if (leads_to(earlier, s) &&
            stamp_read(&stamp, earlier->folder, none, "", NULL) == 0 && stamp.summary)
            json_object_set(stages, earlier->name, stamp.summary);
        stamp_release(&stamp);
        json_decref(none);
    }
    json_object_set_new(stages, s->name, json_deep_copy(summary));
    return json_pack("{s:o}", "stages", stages);
}

static int write_mixture(const struct job *job, const struct stage *s,
                         struct mixture *m, const json_t *summary,
                         struct artel_error *err)
{
    struct mixture_file f = {0};
    int rc;

    f.folder = output_path(job, s->row->method, NULL);
    f.base_path = strdup(job->r->model);
    f.settings = settings_new(job->r);
    f.training = training_new(job, s, summary);
    if (!f.folder || !f.base_path || !f.settings || !f.training)
        rc = error_nomem(err, 4096);
    else
        rc = make_folder(f.folder, err);
    memcpy(f.base_digest, job->model->base_digest, DIGEST_SIZE);
    memcpy(f.tokenizer_digest, job->model->tokenizer_digest, DIGEST_SIZE);
    memcpy(f.chat_digest, job->model->chat_digest, DIGEST_SIZE);
    if (rc == 0)
        rc = fill_domains(&f, job, s, err);
    if (rc == 0) {
        f.mixture = *m;
        rc = mixture_file_write(&f, err);
        f.mixture = (struct mixture){0};
    }
    if (rc == 0)
        job_tell(job, s, RUN_DONE, f.folder);
    mixture_file_release(&f);
    return rc;
}

/* An expert as this stage made it; those of one domain say which text they learnt. */
static int write_expert(const char *folder, const struct job *job,
                        const struct stage *s, const struct expert *e, int domain,
                        const json_t *summary, struct artel_error *err)
{
    const struct lora_options lora = stage_lora(job, s);
    const bool brought = domain >= 0 && text_at(job->r, (size_t)domain)->adapter;

    return results_expert(folder, e, job, brought ? NULL : &lora,
                          domain >= 0 ? job->train_digest[domain] : NULL, summary, err);
}

static int write_own_experts(const struct job *job, const struct stage *s,
                             const struct mixture *m, const json_t *summary,
                             struct artel_error *err)
{
    const bool by_domain = s->row->start == START_READ || s->row->start == START_INIT;
    const size_t first = s->row->universal ? 1 : 0;
    int rc = 0;

    for (size_t e = first; rc == 0 && e < m->n_experts; e++) {
        char *experts, *folder;

        if (m->experts[e].kind == EXPERT_IDENTITY)
            continue;
        experts = output_path(job, s->row->method, "experts");
        folder = experts ? path_join(experts, m->experts[e].name) : NULL;
        rc = folder ? write_expert(folder, job, s, &m->experts[e],
                                   by_domain ? (int)(e - first) : -1, summary, err)
                    : error_nomem(err, 256);
        free(experts);
        free(folder);
    }
    return rc;
}

int results_write(struct job *job, const struct stage *s, struct mixture *m,
                  const json_t *summary, struct artel_error *err)
{
    char *folder;
    int rc = 0;

    if (stage_makes_expert(s)) {
        folder = expert_folder(job, s->row->experts, s->domain);
        rc = folder ? write_expert(folder, job, s, &m->experts[m->n_experts - 1],
                                   (int)s->domain, summary, err)
                    : error_nomem(err, 256);
        if (rc == 0)
            job_tell(job, s, RUN_DONE, folder);
        free(folder);
        return rc;
    }
    if (stage_moves_experts(job, s))
        rc = write_own_experts(job, s, m, summary, err);
    return rc < 0 ? rc : write_mixture(job, s, m, summary, err);
}
