/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a mixture on disk: new files beside the old ones, then mixture.json,
 * then what it no longer names is removed. A crash leaves the old mixture or the
 * new one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"
#include "plan/grow_parts.h"
#include "plan/results.h"
#include "plan/recipe_keys.h"

static bool lies_within(const char *folder)
{
    return strncmp(folder, "..", 2) != 0 && *folder != '/';
}

void grow_drop_folder(const struct mixture_file *f, const char *folder)
{
    char *path = folder && lies_within(folder) ? path_join(f->folder, folder) : NULL;
    char *slash;

    if (path) {
        remove_tree(path, NULL);
        slash = strrchr(path, '/');
        *slash = '\0';
        rmdir(path); /* "experts", where it was the last */
    }
    free(path);
}

/* "experts-N" that no domain uses, for experts that all move. */
static void free_generation(char *out, size_t size, const struct mixture_file *f)
{
    bool used = true;

    for (unsigned n = 2; used; n++) {
        snprintf(out, size, "experts-%u/", n);
        used = false;
        for (size_t i = 0; i < f->n_domains; i++)
            used = used || !strncmp(f->domains[i].folder, out, strlen(out));
    }
}

static int copy(char **out, const char *text, struct artel_error *err)
{
    *out = text ? strdup(text) : NULL;
    return text && !*out ? error_nomem(err, strlen(text)) : 0;
}

static int write_expert(const struct mixture_file *f, const struct job *job,
                        size_t domain, const char *folder, const json_t *summary,
                        struct artel_error *err)
{
    const struct recipe *r = job->r;
    char *path = path_join(f->folder, folder);
    const size_t expert = domain + (f->universal ? 1 : 0);
    const bool newcomer = expert + 1 == f->mixture.n_experts;
    int rc = path ? results_expert(path, &f->mixture.experts[expert], job,
                                   newcomer && !r->domains[job->grow->domain].adapter
                                       ? &r->lora
                                       : NULL,
                                   newcomer ? job->train_digest[job->grow->domain]
                                            : f->domains[domain].train_digest,
                                   summary, err)
                  : error_nomem(err, 256);

    free(path);
    return rc;
}

/* Old experts that moved too, to folders of their own; the old folders' names go to OLD. */
static int write_moved(struct mixture_file *f, const struct job *job, char **old,
                       const json_t *summary, struct artel_error *err)
{
    char generation[32];
    int rc = 0;

    free_generation(generation, sizeof(generation), f);
    for (size_t i = 0; rc == 0 && i < f->n_domains; i++) {
        char folder[EXPERT_NAME_MAX + 48];

        snprintf(folder, sizeof(folder), "%s%s", generation, f->domains[i].name);
        rc = write_expert(f, job, i, folder, summary, err);
        if (rc < 0)
            return rc;
        old[i] = f->domains[i].folder;
        rc = copy(&f->domains[i].folder, folder, err);
    }
    return rc;
}

static int add_notes(struct mixture_file *f, const struct job *job,
                     struct artel_error *err)
{
    const struct recipe_domain *d = &job->r->domains[job->grow->domain];
    const bool taught =
        f->mixture.n_routers > 0 && !method_traits(f->mixture.method)->made;
    struct domain_notes *notes =
        realloc(f->domains, (f->n_domains + 1) * sizeof(*notes));
    char name[EXPERT_NAME_MAX + 16], *path;
    int rc;

    if (!notes)
        return error_nomem(err, (f->n_domains + 1) * sizeof(*notes));
    f->domains = notes;
    notes += f->n_domains++;
    *notes = (struct domain_notes){0};
    snprintf(notes->name, sizeof(notes->name), "%s", d->name);
    memcpy(notes->train_digest, job->train_digest[job->grow->domain], DIGEST_SIZE);
    snprintf(name, sizeof(name), "experts/%s", d->name);
    rc = copy(&notes->folder, name, err);
    if (rc == 0)
        rc = copy(&notes->train, d->train, err);
    if (rc == 0)
        rc = copy(&notes->valid, d->valid, err);
    if (rc == 0)
        rc = copy(&notes->test, d->test, err);
    if (rc == 0)
        rc = copy(&notes->score, d->score, err);
    if (rc < 0 || !taught || !job->r->store_sample)
        return rc;
    path = path_join(f->folder, "data");
    rc = path ? make_folder(path, err) : error_nomem(err, 256);
    free(path);
    snprintf(name, sizeof(name), "data/%s.jsonl", d->name);
    path = path_join(f->folder, name);
    if (rc == 0 && path)
        rc = sample_write(path, job->texts.trains[job->grow->domain], d->train,
                          job->r->store_sample, err);
    free(path);
    return rc == 1 ? copy(&notes->sample, name, err) : rc;
}

static int record(struct mixture_file *f, const struct job *job, const json_t *expert,
                  const json_t *router, struct artel_error *err)
{
    const char *name = job->r->domains[job->grow->domain].name;
    char key[EXPERT_NAME_MAX + 16];
    json_t *stages;
    int bad = 0;

    if (!f->training)
        f->training = json_object();
    stages = json_object_get(f->training, "stages");
    if (!stages && !json_object_set_new(f->training, "stages", json_object()))
        stages = json_object_get(f->training, "stages");
    snprintf(key, sizeof(key), "expert-%s", name);
    if (expert)
        bad = json_object_set_new(stages, key, json_deep_copy(expert));
    snprintf(key, sizeof(key), "add-%s", name);
    if (!bad && router)
        bad = json_object_set_new(stages, key, json_deep_copy(router));
    return bad ? error_nomem(err, 1024) : 0;
}

/* How much of its text the newcomer learnt from, for the next one's routers. */
static int note_rows(struct mixture_file *f, const struct recipe_domain *d,
                     struct artel_error *err)
{
    json_t *rows = json_object_get(f->settings, "domain_max_rows");

    /* one of this name that has left may have said otherwise */
    json_object_del(rows, d->name);
    if (!d->max_rows || !f->settings)
        return 0;
    if (!json_is_object(rows)) {
        rows = json_object();
        if (json_object_set_new(f->settings, "domain_max_rows", rows) < 0)
            return error_nomem(err, 256);
    }
    return json_object_set_new(rows, d->name, json_integer((json_int_t)d->max_rows))
               ? error_nomem(err, 256)
               : 0;
}

bool grow_moves_experts(const struct job *job)
{
    for (size_t i = 0; i < job->n_stages; i++)
        if (stage_moves_experts(job, &job->stages[i]))
            return true;
    return false;
}

int grow_write(struct mixture_file *f, const struct job *job, const json_t *expert,
               const json_t *router, struct artel_error *err)
{
    const size_t n_old = f->n_domains;
    const bool moved = job->grow->joint && router && grow_moves_experts(job);
    char **old = calloc(n_old + 1, sizeof(*old));
    char folder[EXPERT_NAME_MAX + 16];
    int rc = old ? 0 : error_nomem(err, n_old * sizeof(*old));

    snprintf(folder, sizeof(folder), "experts/%s",
             job->r->domains[job->grow->domain].name);
    if (rc == 0)
        rc = write_expert(f, job, n_old, folder, router ? router : expert, err);
    if (rc == 0 && moved)
        rc = write_moved(f, job, old, router, err);
    if (rc == 0)
        rc = add_notes(f, job, err);
    if (rc == 0)
        rc = note_rows(f, &job->r->domains[job->grow->domain], err);
    if (rc == 0)
        rc = record(f, job, expert, router, err);
    if (rc == 0)
        rc = mixture_file_write(f, err);
    for (size_t i = 0; old && i < n_old; i++) {
        if (rc == 0)
            grow_drop_folder(f, old[i]);
        free(old[i]);
    }
    free(old);
    return rc;
}
