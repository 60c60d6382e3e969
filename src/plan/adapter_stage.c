/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that are taken over: a domain's, brought as a folder, and the universal one that
 * others act on.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"
#include "plan/stages.h"
#include "save/adapter.h"

/* The universal expert at FOLDER, which what is brought acts on, as M's first. */
static int add_acted_on(struct mixture *m, const struct job *job, const char *folder,
                        struct artel_error *err)
{
    struct expert e = {0};
    int rc = adapter_read(&e, UNIVERSAL_NAME, folder, job->model, job->o->force, err);

    if (rc == 0)
        rc = mixture_add(m, &e, &job->model->weights->config, err);
    expert_release(&e);
    return rc;
}

int stage_adapter(struct mixture *m, const struct job *job, const struct stage *s,
                  struct artel_error *err)
{
    const struct recipe_domain *d = &job->r->domains[s->domain];
    const bool acts = s->row->domain_kind == EXPERT_RES;
    char *universal = acts ? expert_folder(job, NULL, job->r->n_domains) : NULL;
    struct gate_rule rule;
    struct expert e = {0};
    int rc = acts && !universal ? error_nomem(err, 256) : 0;

    method_rule(&rule, "single");
    rule.n_fixed = acts;
    rule.silent = acts && !job->r->modula.residual;
    if (rc == 0)
        rc = mixture_init(m, "single", &job->model->weights->config, &rule, err);
    if (rc == 0 && acts)
        rc = add_acted_on(m, job, universal, err);
    if (rc == 0)
        rc = adapter_read_kind(&e, d->name, d->adapter, s->row->domain_kind, job->model,
                               job->o->force, err);
    if (rc == 0 && acts && !job->o->force)
        rc = adapter_check_universal(d->adapter, universal, err);
    if (rc == 0)
        rc = mixture_add(m, &e, &job->model->weights->config, err);
    expert_release(&e);
    free(universal);
    if (rc < 0)
        mixture_release(m);
    return rc;
}

int stage_check_universal(const struct job *job, const struct stage *s,
                          struct artel_error *err)
{
    char *folder = expert_folder(job, NULL, job->r->n_domains);
    char *config = folder ? path_join(folder, "adapter_config.json") : NULL;
    struct expert e = {0};
    int rc = 0;

    if (!config)
        rc = error_nomem(err, 256);
    else if (access(config, F_OK) != 0)
        rc = error_set(err, ARTEL_EUSAGE, "RUN13", s->name,
                       "there is no universal expert yet: run the stage '%s' first",
                       UNIVERSAL_NAME);
    else
        rc = adapter_read(&e, UNIVERSAL_NAME, folder, job->model, job->o->force, err);
    if (rc == 0 && s->row->domain_kind == EXPERT_RES && expert_is_zero(&e))
        rc = error_set(err, ARTEL_EUSAGE, "RUN13", s->name,
                       "the universal expert is zero: what acts on it would learn "
                       "nothing; train it first");
    if (rc < 0 && folder)
        error_in(err, rc, folder);
    expert_release(&e);
    free(folder);
    free(config);
    return rc;
}
