/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refusals come in the order of their cost: names and folders, digests of files,
 * their text, memory and disk.
 */
#include "plan/job.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/map.h"
#include "base/room.h"
#include "eval/opened.h"
#include "files/write.h"
#include "plan/recipe_keys.h"

/* ---- paths ---- */

/* PATH lies in FOLDER/NAME, or is it. Both as the file system resolves them. */
static bool is_inside(const char *path, const char *folder, const char *name)
{
    char target[2 * PATH_MAX];
    const int n = snprintf(target, sizeof(target), "%s/%s", folder, name);

    return n > 0 && !strncmp(path, target, (size_t)n) &&
           (path[n] == '/' || path[n] == '\0');
}

/* Nothing that is read may lie where the run writes. */
static int check_input(const struct job *job, const char *output, const char *path,
                       struct artel_error *err)
{
    static const char *const written[] = {
        "experts",     "experts-flan", "experts-res", "train",       "recipe.yaml",
        "results.csv", "results.json", "results.md",  "report.html", ".lock"};
    char *real = path ? realpath(path, NULL) : NULL;
    bool inside = false;

    if (!real)
        return 0; /* whoever reads it says that it is missing */
    for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
        inside = inside || is_inside(real, output, written[i]);
    for (size_t i = 0; i < job->r->n_methods; i++)
        inside = inside || is_inside(real, output, job->r->methods[i]);
    free(real);
    if (!inside)
        return 0;
    error_set(err, ARTEL_EUSAGE, "RUN10", NULL,
              "is read by the recipe, and lies where its run writes");
    return error_in(err, ARTEL_EUSAGE, path);
}

static int check_paths(const struct job *job, struct artel_error *err)
{
    const struct recipe *r = job->r;
    char *output = realpath(r->output, NULL);
    int rc;

    if (!output)
        return 0; /* it does not exist, so nothing lies in it */
    rc = check_input(job, output, r->model, err);
    for (size_t i = 0; rc == 0 && i < text_count(r); i++) {
        const struct recipe_domain *d = text_at(r, i);

        rc = check_input(job, output, d->train, err);
        if (rc == 0)
            rc = check_input(job, output, d->valid, err);
        if (rc == 0)
            rc = check_input(job, output, d->test, err);
        if (rc == 0)
            rc = check_input(job, output, d->adapter, err);
    }
    free(output);
    return rc;
}

/* ---- opening ---- */

static int digest_data(struct job *job, struct artel_error *err)
{
    const struct recipe *r = job->r;
    int rc = 0;

    job->train_digest = calloc(r->n_domains + 1, sizeof(*job->train_digest));
    job->valid_digest = calloc(r->n_domains + 1, sizeof(*job->valid_digest));
    if (!job->train_digest || !job->valid_digest)
        return error_nomem(err, r->n_domains * 2 * DIGEST_SIZE);
    for (size_t i = 0; rc == 0 && i < text_count(r); i++) {
        const struct recipe_domain *d = text_at(r, i);

        if (d->train)
            rc = digest_file(job->train_digest[i], d->train, err);
        if (rc == 0 && d->valid)
            rc = digest_file(job->valid_digest[i], d->valid, err);
    }
    return rc;
}

int job_check_read_later(const char *path, struct artel_error *err)
{
    struct map map;
    int rc;

    if (!path)
        return 0;
    rc = map_open(&map, path, err);
    if (rc == 0)
        map_release(&map);
    return rc;
}

static int check_tests(const struct recipe *r, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < text_count(r); i++)
        rc = job_check_read_later(text_at(r, i)->test, err);
    return rc;
}

/* A rank above the smallest side of a linear it is for. */
static int check_rank(const struct job *job, size_t rank, const char *key,
                      struct artel_error *err)
{
    const struct lora_options *lora = &job->r->lora;

    for (size_t s = 0; s < N_SITES; s++) {
        size_t n_out, n_in;

        site_shape(&job->model->weights->config, (enum site)s, &n_out, &n_in);
        if (lora->targets[s] && (rank > n_out || rank > n_in)) {
            error_set(err, ARTEL_EUSAGE, "RCP03", key,
                      "rank %zu is larger than %s (%zu x %zu)", rank,
                      site_name((enum site)s), n_out, n_in);
            return error_in(err, ARTEL_EUSAGE, job->r->path);
        }
    }
    return 0;
}

/* A method that bf16 cannot compute is done in fp32 unless bf16 is asked for. */
static int check_precision(const struct job *job, const char *method,
                           struct artel_error *err)
{
    struct gate_rule rule;

    if (job->r->train.precision != RECIPE_BF16 || method_rule(&rule, method) < 0 ||
        rule_check_tiles(&rule, method, err) == 0)
        return 0;
    return error_in(err, ARTEL_ELIMIT, job->r->path);
}

static int check_layers(const struct job *job, struct artel_error *err)
{
    const struct layer_list *layers = &job->r->router.ridge_layers;
    const size_t n = job->model->weights->config.n_layers;

    if (!layers->n || layers->at[layers->n - 1] <= n)
        return 0;
    error_set(err, ARTEL_EUSAGE, "RCP03", "router.ridge_layers",
              "layer %u: the base has %zu", layers->at[layers->n - 1], n);
    return error_in(err, ARTEL_EUSAGE, job->r->path);
}

static int open_inputs(struct job *job, struct artel_error *err)
{
    static const char *const precisions[] = {"auto", "fp32", "bf16"};
    const struct recipe *r = job->r;
    int rc = precision_choose(&job->precision, precisions[r->train.precision], err);

    for (size_t i = 0; rc == 0 && i < r->n_methods; i++)
        rc = check_precision(job, r->methods[i], err);

    if (rc == 0)
        rc = model_open(&job->model, r->model, err);
    if (rc == 0)
        rc = check_rank(job, r->lora.rank, "lora.rank", err);
    if (rc == 0 && r->universal)
        rc = check_rank(job, r->universal->rank, "universal.rank", err);
    if (rc == 0)
        rc = check_layers(job, err);
    if (rc == 0)
        rc = digest_data(job, err);
    if (rc == 0)
        rc = check_tests(r, err);
    return rc;
}

int job_open(struct job *job, const struct recipe *r, const struct run_options *o,
             struct artel_error *err)
{
    int rc;

    *job = (struct job){.r = r, .o = o, .lock = RUN_LOCK_NONE};
    rc = run_folder_check(r->output, err);
    if (rc < 0)
        return rc;
    if (rc == 1) {
        rc = run_lock_take(&job->lock, r->output, err);
        if (rc < 0)
            return rc;
    } else if (o->must_resume) {
        error_set(err, ARTEL_ECONFLICT, "RUN11", "output", "nothing to resume here");
        return error_in(err, ARTEL_ECONFLICT, r->output);
    }
    rc = check_paths(job, err);
    if (rc == 0)
        rc = open_inputs(job, err);
    if (rc == 0)
        rc = stages_list(job, err);
    return rc;
}

void job_close(struct job *job)
{
    for (size_t i = 0; i < job->n_stages; i++)
        free(job->stages[i].folder);
    free(job->stages);
    texts_close(&job->texts);
    watch_release(&job->watch);
    model_close(job->model);
    free(job->train_digest);
    free(job->valid_digest);
    run_lock_release(&job->lock);
    *job = (struct job){.lock = RUN_LOCK_NONE};
}

/* ---- what is to be done ---- */

/* Path of the data that a stamp's key "data.NAME" or "valid.NAME" stands for. */
static const char *path_of_key(const struct job *job, const char *key)
{
    const char *name = key ? strchr(key, '.') : NULL;

    for (size_t i = 0; name && i < text_count(job->r); i++)
        if (!strcmp(text_at(job->r, i)->name, name + 1))
            return *key == 'd' ? text_at(job->r, i)->train : text_at(job->r, i)->valid;
    return NULL;
}

/* Differences are allowed by what the user said, or refused. */
static int judge(const struct job *job, const struct stage *s,
                 const struct stamp *stamp, struct artel_error *err)
{
    if (!stamp->n_differences || job->o->changes == CHANGES_RETRAIN ||
        (job->o->changes == CHANGES_SAFE && stamp->safe))
        return 0;
    for (size_t i = 0; i < stamp->n_differences; i++)
        job_tell(job, s, RUN_WARNING, stamp->differences[i]);
    return stamp_refuse(stamp, s->name, s->folder,
                        path_of_key(job, stamp->changed_data), err);
}

static bool is_wanted(const struct job *job, const struct stage *s)
{
    if (job->grow)
        return s->kind == STAGE_MIXTURE || s->kind == STAGE_SOLVED ||
               (s->kind != STAGE_BUNDLE && s->domain == job->grow->domain);
    return !job->o->only || !strcmp(job->o->only, s->name);
}

/* An adapter that does not fit is refused before anything is trained. */
static int check_adapter(const struct job *job, const struct stage *s,
                         struct artel_error *err)
{
    const struct recipe_domain *const d = &job->r->domains[s->domain];
    struct mixture m = {0};
    char where[32];
    int rc;

    if (s->row->domain_kind != EXPERT_LORA && !job->grow) {
        snprintf(where, sizeof(where), "%zu:1", d->line);
        rc = error_set(err, ARTEL_EUSAGE, "RCP06", where,
                       "domain '%s' brings an adapter, but these experts act on what a "
                       "universal expert adds that is yet to be trained: give 'train', "
                       "or bring it to the mixture with artel add",
                       d->name);
        return error_in(err, rc, job->r->path);
    }
    rc = stage_adapter(&m, job, s, err);
    mixture_release(&m);
    return rc;
}

/* Something that S is made from is about to be made anew. */
static bool is_overtaken(const struct job *job, const struct stage *s)
{
    for (const struct stage *before = job->stages; before < s; before++)
        if (before->pending && row_feeds(before->row, s->row))
            return true;
    return false;
}

static int look_at_stage(struct job *job, struct stage *s, bool *any_there,
                         struct artel_error *err)
{
    struct stamp stamp = {0};
    json_t *inputs = NULL;
    int rc;

    if (job->grow && !is_wanted(job, s))
        return 0;
    rc = stage_inputs(&inputs, job, s, false, err);

    if (rc == 0)
        rc = stamp_read(&stamp, s->folder, inputs, "expert.", err);
    if (rc == 0) {
        *any_there = *any_there || stamp.there;
        rc = judge(job, s, &stamp, err);
    }
    if (rc == 0) {
        s->pending =
            is_wanted(job, s) && (!stamp.complete || stamp.n_differences ||
                                  !stage_result_there(job, s) || is_overtaken(job, s));
    }
    if (rc == 0 && s->pending && s->kind == STAGE_ADAPTER)
        rc = check_adapter(job, s, err);
    if (rc == 0 && s->pending && s->row->universal && !is_overtaken(job, s))
        rc = stage_check_universal(job, s, err);
    stamp_release(&stamp);
    json_decref(inputs);
    return rc;
}

static int check_only(const struct job *job, struct artel_error *err)
{
    const char **names;
    const char *near;

    for (size_t i = 0; i < job->n_stages; i++)
        if (is_wanted(job, &job->stages[i]))
            return 0;
    if (!job->o->only)
        return 0;
    names = calloc(job->n_stages + 1, sizeof(*names));
    if (!names)
        return error_nomem(err, job->n_stages * sizeof(*names));
    for (size_t i = 0; i < job->n_stages; i++)
        names[i] = job->stages[i].name;
    near = nearest_name(job->o->only, names, job->n_stages);
    free(names);
    return error_set(err, ARTEL_EUSAGE, "RUN12", "stage",
                     "the recipe has no stage '%.60s'%s%s%s", job->o->only,
                     near ? ": did you mean '" : "", near ? near : "",
                     near ? "'?" : "");
}

/* ---- text ---- */

static int open_texts(struct job *job, struct artel_error *err)
{
    const struct recipe *r = job->r;
    const struct texts_options o = {.train = &r->train, .run = job->o};
    const size_t n = text_count(r);
    struct text *of = calloc(n, sizeof(*of));
    int rc;

    if (!of)
        return error_nomem(err, n * sizeof(*of));
    for (size_t i = 0; i < n; i++)
        of[i] = (struct text){.name = text_at(r, i)->name};
    for (size_t k = 0; k < job->n_stages; k++) {
        const struct stage *s = &job->stages[k];
        size_t first, end;

        stage_texts(job, s, &first, &end);
        for (size_t i = first; s->pending && i < end; i++) {
            of[i].train_path = text_at(r, i)->train;
            of[i].valid_path = text_at(r, i)->valid;
            of[i].max_rows = text_max_rows(r, i);
        }
    }
    rc = texts_open(&job->texts, of, n, job->model, &o, err);
    free(of);
    return rc;
}

int job_look(bool *trains, struct job *job, const struct recipe *r,
             struct artel_error *err)
{
    static const struct run_options looking = {.changes = CHANGES_RETRAIN};
    bool any_there = false;
    int rc;

    *trains = false;
    *job = (struct job){.r = r, .o = &looking, .lock = RUN_LOCK_NONE};
    rc = stages_list(job, err);
    if (rc < 0 || access(r->model, F_OK) != 0)
        return rc;
    rc = open_inputs(job, err);
    for (size_t i = 0; rc == 0 && i < job->n_stages; i++) {
        rc = look_at_stage(job, &job->stages[i], &any_there, err);
        *trains =
            *trains || (job->stages[i].pending && stage_computes(&job->stages[i]));
    }
    return rc == 0 && *trains ? open_texts(job, err) : rc;
}

int job_plan(struct job *job, struct artel_error *err)
{
    bool any_there = false, any_pending = false;
    bool trains = false;
    int rc = check_only(job, err);

    for (size_t i = 0; rc == 0 && i < job->n_stages; i++) {
        struct stage *s = &job->stages[i];

        rc = look_at_stage(job, s, &any_there, err);
        any_pending = any_pending || s->pending;
        trains = trains || (s->pending && stage_computes(s));
    }
    if (rc == 0 && job->o->must_resume && !any_there) {
        error_set(err, ARTEL_ECONFLICT, "RUN11", "output", "nothing to resume here");
        rc = error_in(err, ARTEL_ECONFLICT, job->r->output);
    }
    if (rc == 0)
        rc = together_check(job, err);
    if (rc < 0 || !any_pending)
        return rc;
    rc = open_texts(job, err);
    if (rc == 0 && trains && !job->o->nonfinite)
        rc = model_check_finite(job->model, err);
    return rc == 0 && trains ? job_check_room(job, err) : rc;
}

/* ---- beginning ---- */

static int write_recipe(const struct job *job, struct artel_error *err)
{
    char *path = output_path(job, "recipe.yaml", NULL);
    char *own = path ? realpath(path, NULL) : NULL;
    char *text = NULL;
    int rc = path ? 0 : error_nomem(err, 256);

    /* A run may be repeated from the copy that it keeps; that one is not written over. */
    if (rc == 0 && (!own || strcmp(own, job->r->path) != 0))
        rc = recipe_print(&text, job->r, err);
    if (rc == 0 && text)
        rc = write_file(path, text, strlen(text), err);
    free(path);
    free(own);
    free(text);
    return rc;
}

static int watch_inputs(struct job *job, struct artel_error *err)
{
    const struct recipe *r = job->r;
    struct stat st;
    int rc = 0;

    if (!job->texts.of)
        return 0;
    if (stat(r->model, &st) == 0 && S_ISREG(st.st_mode))
        rc = watch_add(&job->watch, r->model, NULL, err);
    for (size_t i = 0; rc == 0 && i < text_count(r); i++) {
        const struct recipe_domain *d = text_at(r, i);

        if (job->texts.of[i].train)
            rc = watch_add(&job->watch, d->train, job->train_digest[i], err);
        if (rc == 0 && job->texts.of[i].valid)
            rc = watch_add(&job->watch, d->valid, job->valid_digest[i], err);
    }
    /* What was digested is what was read, or the run would stand on two versions. */
    for (size_t i = 0; rc == 0 && i < text_count(r); i++)
        if (job->texts.of[i].train &&
            strcmp(corpus_stats(job->texts.of[i].train)->digest, job->train_digest[i]))
            rc = error_in(err,
                          error_set(err, ARTEL_ECONFLICT, "RUN05", NULL,
                                    "data changed while it was read"),
                          text_at(r, i)->train);
    return rc;
}

/* What most of the stages are computed in: the job's own, where any is. */
static enum precision common_precision(const struct job *job)
{
    for (size_t i = 0; i < job->n_stages; i++)
        if (job->stages[i].pending && stage_trains(&job->stages[i]) &&
            stage_precision(job, &job->stages[i]) == job->precision)
            return job->precision;
    return PRECISION_FP32;
}

/* What "auto" came to is said before the work begins. */
static void tell_precision(const struct job *job)
{
    struct artel_error why;
    struct gate_rule rule;
    char text[512];

    snprintf(text, sizeof(text), "precision %s, %zu threads, %s, memory: %s",
             common_precision(job) == PRECISION_BF16 ? "bf16" : "fp32", cpu_threads(),
             cpu_isa_name(cpu_isa()), memory_mode_name(job->memory));
    run_tell(job->o, RUN_NOTE, text);
    for (size_t i = 0; i < job->n_stages; i++) {
        const struct stage *s = &job->stages[i];

        if (!s->pending || stage_precision(job, s) == job->precision)
            continue;
        method_rule(&rule, s->row->method);
        rule_check_tiles(&rule, s->row->method, &why);
        snprintf(text, sizeof(text), "%s: precision fp32: %s", s->name, why.reason);
        run_tell(job->o, RUN_NOTE, text);
    }
}

int job_begin(struct job *job, struct artel_error *err)
{
    enum precision precision = job->precision;
    bool computes = false, trains = false;
    int rc = job->lock.fd >= 0 ? 0 : run_lock_take(&job->lock, job->r->output, err);

    if (rc == 0)
        rc = write_recipe(job, err);
    if (rc == 0)
        rc = watch_inputs(job, err);
    for (size_t i = 0; i < job->n_stages; i++) {
        const struct stage *s = &job->stages[i];

        computes = computes || (s->pending && stage_computes(s));
        if (!trains && s->pending && stage_trains(s)) {
            trains = true;
            precision = stage_precision(job, s);
        }
    }
    if (rc == 0 && computes)
        tell_precision(job);
    return rc == 0 && trains ? job_prepare(job, precision, err) : rc;
}

int job_stage_ready(struct job *job, const struct stage *s, json_t **inputs,
                    struct artel_error *err)
{
    struct stamp stamp = {0};
    bool done = false;
    int rc = stage_inputs(inputs, job, s, true, err);

    if (rc < 0)
        return rc;
    rc = stamp_read(&stamp, s->folder, *inputs, NULL, err);
    if (rc == 0) {
        done = stamp.complete && !stamp.n_differences && stage_result_there(job, s);
        rc = done ? 0 : judge(job, s, &stamp, err);
    }
    if (rc == 0 && stamp.n_differences && job->o->changes == CHANGES_RETRAIN)
        rc = stage_folder_clear(s->folder, err);
    if (rc == 0 && !done)
        rc = make_folder(s->folder, err);
    if (rc == 0 && !done)
        rc = stamp_write(s->folder, s->name, *inputs, false, NULL, err);
    stamp_release(&stamp);
    if (rc < 0) {
        json_decref(*inputs);
        *inputs = NULL;
        return rc;
    }
    return done;
}
