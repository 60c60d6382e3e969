/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adding a domain: its expert alone, then the routers over all domains with one
 * zero row more. The work lies in MIXTURE/adding/NAME until the last moment;
 * writing mixture.json is the moment.
 */
#include "plan/grow.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/error.h"
#include "experts/arrow.h"
#include "files/write.h"
#include "plan/grow_parts.h"
#include "plan/job.h"
#include "plan/results.h"
#include "save/adapter.h"

/* Everything one call holds. */
struct add {
    struct newcomer who;
    struct grow_report *report;
    struct mixture_file file; /* before; then with the new expert */
    struct growth growth;
    struct recipe *recipe;
    struct run_lock lock;
    struct job job;
    bool job_open;
    struct grow_rows rows;
    char *work; /* MIXTURE/adding/NAME */
    json_t *expert_summary, *router_summary;
    const struct stage *expert_stage, *router_stage;
};

void grow_report_release(struct grow_report *r)
{
    free(r->path);
    free(r->domains);
    *r = (struct grow_report){0};
}

int grow_lock(struct run_lock *lock, const char *folder, struct artel_error *err)
{
    char *parent = path_join(folder, "..");
    char *real = parent ? realpath(parent, NULL) : NULL;
    const bool in_run = real && run_folder_check(real, NULL) == 1;
    int rc = parent ? run_lock_take(lock, in_run ? real : folder, err)
                    : error_nomem(err, strlen(folder));

    free(parent);
    free(real);
    return rc;
}

static int check_name(const struct mixture_file *f, const char *name,
                      struct artel_error *err)
{
    char shown[200];

    escape_text(shown, sizeof(shown), name, strnlen(name, 80));
    if (!strcasecmp(name, "auto") || !strcasecmp(name, "base"))
        return error_set(err, ARTEL_EUSAGE, "ADD01", "name",
                         "'%s' cannot name a domain: --expert knows it as another",
                         shown);
    if (!expert_name_valid(name))
        return error_set(err, ARTEL_EUSAGE, "ADD01", "name",
                         "'%s' cannot name a domain: 1 to %d letters, digits, dots, "
                         "dashes, underscores, not starting with a dot or dash",
                         shown, EXPERT_NAME_MAX);
    for (size_t i = 0; i < f->n_domains; i++)
        if (!strcasecmp(f->domains[i].name, name))
            return error_in(err,
                            error_set(err, ARTEL_ECONFLICT, "ADD02", "name",
                                      "the mixture has a domain '%s' already",
                                      f->domains[i].name),
                            f->folder);
    return 0;
}

int grow_check_method(const struct mixture_file *f, struct artel_error *err)
{
    if (method_traits(f->mixture.method)->grows && f->n_notes == mixture_file_texts(f))
        return 0;
    error_set(
        err, ARTEL_EUSAGE, "ADD04", "method",
        "'%s' has no expert a domain that could stay as it is: train it anew with "
        "artel train",
        f->mixture.method);
    return error_in(err, ARTEL_EUSAGE, f->folder);
}

int grow_report_start(struct grow_report *report, const struct mixture_file *f,
                      const char *name, struct artel_error *err)
{
    const size_t n = mixture_file_texts(f);

    *report = (struct grow_report){0};
    snprintf(report->name, sizeof(report->name), "%s", name);
    report->path = strdup(f->folder);
    report->domains = calloc(n + 1, sizeof(*report->domains));
    if (!report->path || !report->domains)
        return error_nomem(err, n * sizeof(*report->domains));
    for (size_t i = 0; i < n; i++) {
        struct grow_domain *d = &report->domains[report->n_domains];

        if (!strcmp(mixture_file_text(f, i)->name, name))
            continue;
        snprintf(d->name, sizeof(d->name), "%s", mixture_file_text(f, i)->name);
        d->text = "";
        d->perplexity_before = d->perplexity_after = (double)NAN;
        d->routing_before = d->routing_after = (double)NAN;
        d->change = d->change_low = d->change_high = (double)NAN;
        d->score_before = d->score_after = (double)NAN;
        d->score_change = d->score_low = d->score_high = (double)NAN;
        report->n_domains++;
    }
    return 0;
}

/* Where each expert of the recipe lies; a recipe of the new domain alone has none. */
static int set_growth(struct add *a, struct artel_error *err)
{
    const size_t n = a->recipe->n_domains;

    a->growth.domain = n - 1;
    a->growth.path = a->file.folder;
    a->growth.joint = a->who.o->joint || !a->recipe->router.freeze_old;
    a->growth.folder = calloc(n + 1, sizeof(*a->growth.folder));
    if (!a->growth.folder)
        return error_nomem(err, n * sizeof(*a->growth.folder));
    for (size_t i = 0; i + 1 < n; i++) {
        a->growth.folder[i] = path_join(a->file.folder, a->file.domains[i].folder);
        if (!a->growth.folder[i])
            return error_nomem(err, 256);
    }
    /* The lock is the run's where there is one. */
    if (strcmp(a->lock.folder, a->file.folder) != 0)
        a->growth.run = a->lock.folder;
    if (a->file.universal)
        a->growth.universal = path_join(a->file.folder, a->file.universal->folder);
    return a->file.universal && !a->growth.universal ? error_nomem(err, 256) : 0;
}

/* A folder of an adapter may stand where text would, and needs none where no router is
 * taught. */
static int check_text(struct newcomer *who, const struct mixture_file *f,
                      struct artel_error *err)
{
    char *config =
        !who->adapter && who->data ? path_join(who->data, "adapter_config.json") : NULL;

    if (config && access(config, F_OK) == 0) {
        who->adapter = who->data;
        who->data = NULL;
    }
    free(config);
    if (who->data || (who->adapter && !method_traits(f->mixture.method)->needs_text))
        return 0;
    return error_set(err, ARTEL_EUSAGE, "ADD03", "data",
                     who->adapter ? "text of the new domain is needed: %s has a router "
                                    "that it teaches"
                                  : "text of the new domain is needed, or its adapter",
                     f->mixture.method);
}

/* Description, names, recipe, lock: nothing is computed yet. */
static int add_open(struct add *a, const char *path, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 16];
    const char *model;
    char *real;
    int rc = mixture_file_open(&a->file, path, NULL, false, err);

    if (rc == 0)
        rc = grow_check_method(&a->file, err);
    if (rc == 0)
        rc = check_name(&a->file, a->who.name, err);
    if (rc == 0)
        rc = check_text(&a->who, &a->file, err);
    if (rc == 0)
        rc = grow_report_start(a->report, &a->file, a->who.name, err);
    if (rc < 0)
        return rc;
    snprintf(name, sizeof(name), "adding/%s", a->who.name);
    /* The recipe's paths are read from the mixture's folder: one from here must be whole. */
    real = realpath(a->report->path, NULL);
    a->work = real ? path_join(real, name) : NULL;
    free(real);
    model = a->who.o->model ? a->who.o->model : a->file.base_path;
    if (!a->work)
        return error_nomem(err, 256);
    rc = grow_lock(&a->lock, a->file.folder, err);
    if (rc == 0)
        rc = grow_recipe(&a->recipe, &a->file, &a->who, model, a->work, a->report, err);
    return rc < 0 ? rc : set_growth(a, err);
}

static void find_stages(struct add *a)
{
    for (size_t i = 0; i < a->job.n_stages; i++) {
        struct stage *s = &a->job.stages[i];

        if (s->kind == STAGE_MIXTURE || s->kind == STAGE_SOLVED)
            a->router_stage = s;
        else if (stage_makes_expert(s) && s->domain == a->growth.domain)
            a->expert_stage = s;
    }
}

/* Rows to measure on, and how far the base must reach for them. */
static int open_rows(struct add *a, struct artel_error *err)
{
    const size_t context = a->job.model->weights->config.context;
    const size_t cutoff = a->recipe->train.cutoff_len;
    size_t answered;
    int rc;

    a->rows.run = &a->who.o->run;
    a->rows.seed = a->recipe->train.seed;
    a->rows.score_rows = a->who.o->score_rows;
    rc = grow_rows_open(&a->rows, a->report, &a->file, cutoff, a->job.model, err);
    if (rc < 0)
        return rc;
    answered = grow_positions(&a->rows, context);
    a->job.n_positions = cutoff < context ? cutoff : context;
    if (answered > a->job.n_positions)
        a->job.n_positions = answered;
    return 0;
}

/* The job over the new recipe, with the mixture as it is loaded beside it. */
static int add_begin(struct add *a, struct artel_error *err)
{
    struct mixture_file loaded;
    char *path;
    int rc = job_open(&a->job, a->recipe, &a->who.o->run, err);

    a->job_open = true;
    if (rc < 0)
        return rc;
    path = a->file.folder;
    rc = mixture_file_open(&loaded, path, a->job.model, a->who.o->run.force, err);
    if (rc < 0)
        return rc;
    mixture_file_release(&a->file);
    a->file = loaded;
    a->growth.path = a->file.folder;
    digest_bytes(a->growth.digest, a->file.mixture.router_params,
                 a->file.mixture.n_router_params * sizeof(float));
    a->job.grow = &a->growth;
    rc = grow_digests(a->report, &a->file, true, err);
    if (rc == 0)
        rc = open_rows(a, err);
    if (rc == 0)
        rc = job_plan(&a->job, err);
    if (rc == 0 && a->who.o->joint && !grow_moves_experts(&a->job))
        rc = error_set(err, ARTEL_EUSAGE, "ADD07", "joint",
                       "the experts of this '%s' do not move when its routers are "
                       "taught: leave --joint out",
                       a->file.mixture.method);
    if (rc == 0)
        rc = job_begin(&a->job, err);
    if (rc == 0)
        find_stages(a);
    return rc;
}

/* Stage 1, or the adapter taken over, as in any run; *SUMMARY is new. */
static int add_expert(struct add *a, struct artel_error *err)
{
    const struct stage *s = a->expert_stage;
    struct stamp stamp = {0};
    json_t *inputs = NULL;
    int rc = job_stage_ready(&a->job, s, &inputs, err);

    if (rc == 1) {
        job_tell(&a->job, s, RUN_SKIPPED, "up to date");
        rc = stamp_read(&stamp, s->folder, inputs, NULL, err);
        if (rc == 0)
            a->expert_summary = json_incref(stamp.summary);
        stamp_release(&stamp);
    } else if (rc == 0) {
        job_tell(&a->job, s, RUN_STAGE, NULL);
        rc = stage_carry_out(&a->expert_summary, &a->job, s, inputs, err);
        if (rc == 0)
            rc = stamp_write(s->folder, s->name, inputs, true, a->expert_summary, err);
    }
    json_decref(inputs);
    return rc;
}

/* The old mixture and the new expert, with its zero row. */
static int join(struct add *a, struct artel_error *err)
{
    const struct recipe_domain *d = &a->recipe->domains[a->growth.domain];
    const struct stage_row *row = a->expert_stage->row;
    struct expert e = {0};
    char *folder = expert_folder(&a->job, row->experts, a->growth.domain);
    int rc = folder ? adapter_read_kind(&e, d->name, folder, row->domain_kind,
                                        a->job.model, a->who.o->run.force, err)
                    : error_nomem(err, 256);

    free(folder);
    if (rc == 0) {
        if (!d->adapter)
            e.dropout = a->recipe->lora.dropout;
        rc = mixture_add(&a->file.mixture, &e, &a->job.model->weights->config, err);
    }
    expert_release(&e);
    return rc;
}

static int add_router(struct add *a, struct artel_error *err)
{
    const struct stage *s = a->router_stage;
    json_t *inputs = NULL;
    int rc;

    if (!s)
        return a->file.mixture.rule.absolute
                   ? arrow_rows(&a->file.mixture, a->file.mixture.n_experts - 1, err)
                   : 0;
    rc = job_stage_ready(&a->job, s, &inputs, err);
    if (rc >= 0) {
        job_tell(&a->job, s, RUN_STAGE, NULL);
        rc = s->kind == STAGE_SOLVED
                 ? stage_solve(&a->router_summary, &a->job, s, &a->file.mixture, err)
                 : stage_train(&a->router_summary, &a->job, s, &a->file.mixture, inputs,
                               err);
    }
    json_decref(inputs);
    return rc;
}

static size_t trained_parameters(const struct add *a)
{
    const struct mixture *m = &a->file.mixture;
    const bool learns = a->router_stage && grow_moves_experts(&a->job);
    size_t n = a->recipe->domains[a->growth.domain].adapter && !learns
                   ? 0
                   : m->experts[m->n_experts - 1].n_params;

    if (a->router_stage)
        n += m->n_router_params;
    for (size_t e = 0; learns && a->growth.joint && e + 1 < m->n_experts; e++)
        n += m->experts[e].n_params;
    return n;
}

static int measure(struct add *a, bool before, struct artel_error *err)
{
    const int rc = grow_prepare(&a->rows, a->report, &a->job, err);

    return rc < 0
               ? rc
               : grow_measure(a->report, &a->rows, &a->file, a->job.model, before, err);
}

static int add_all(struct add *a, struct artel_error *err)
{
    int rc = add_begin(a, err);

    if (rc == 0)
        rc = measure(a, true, err);
    if (rc == 0)
        rc = add_expert(a, err);
    if (rc == 0)
        rc = join(a, err);
    if (rc == 0)
        rc = add_router(a, err);
    if (rc == 0)
        rc = measure(a, false, err);
    if (rc < 0)
        return rc;
    grow_costs(a->report, &a->file, a->file.n_domains + 1, a->expert_summary,
               a->router_summary);
    a->report->cost.parameters = trained_parameters(a);
    rc = grow_write(&a->file, &a->job, a->expert_summary, a->router_summary, err);
    if (rc == 0)
        rc = grow_digests(a->report, &a->file, false, err);
    return rc;
}

int run_add(const char *path, const char *name, const char *adapter, const char *data,
            const struct grow_options *o, struct grow_report *report,
            struct artel_error *err)
{
    struct add a = {.who = {name, adapter, data, o}, .report = report};
    bool done;
    int rc;

    *report = (struct grow_report){0};
    a.lock = RUN_LOCK_NONE;
    rc = add_open(&a, path, err);
    if (rc == 0)
        rc = add_all(&a, err);
    done = rc == 0;
    grow_rows_close(&a.rows);
    if (a.job_open)
        job_close(&a.job);
    if (done) {
        remove_tree(a.work, NULL);
        *strrchr(a.work, '/') = '\0';
        rmdir(a.work); /* while another domain is being added it stays */
    }
    for (size_t i = 0; a.growth.folder && i < a.recipe->n_domains; i++)
        free(a.growth.folder[i]);
    free(a.growth.folder);
    free(a.growth.universal);
    recipe_close(a.recipe);
    mixture_file_release(&a.file);
    json_decref(a.expert_summary);
    json_decref(a.router_summary);
    free(a.work);
    run_lock_release(&a.lock);
    if (rc < 0)
        grow_report_release(report);
    return rc;
}
