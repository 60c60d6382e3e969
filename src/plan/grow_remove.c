/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking a domain out of a mixture. What stays is measured without it before anything is
 * written: stopped until then, the mixture is as it was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "eval/opened.h"
#include "files/write.h"
#include "plan/grow_parts.h"
#include "plan/recipe_keys.h"

#define CUTOFF_LEN 1024 /* where the mixture does not say */

static int find_domain(size_t *out, const struct mixture_file *f, const char *name,
                       struct artel_error *err)
{
    const char **names = calloc(f->n_domains + 1, sizeof(*names));
    const char *near;
    char shown[200];

    if (!names)
        return error_nomem(err, f->n_domains * sizeof(*names));
    for (size_t i = 0; i < f->n_domains; i++) {
        names[i] = f->domains[i].name;
        if (!strcmp(names[i], name)) {
            *out = i;
            free(names);
            return 0;
        }
    }
    near = nearest_name(name, names, f->n_domains);
    free(names);
    escape_text(shown, sizeof(shown), name, strnlen(name, 80));
    return error_set(
        err, ARTEL_EUSAGE, "ADD05", "name", "the mixture has no domain '%s'%s%s%s",
        shown, near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* PATH's mixture, that it can lose NAME, and then with its base, locked. */
static int open_to_remove(struct artel_mixture **m, struct run_lock *lock,
                          const char *path, const char *name,
                          const struct grow_options *o, struct artel_error *err)
{
    struct artel_open_options open = {.model = o->model,
                                      .precision = "auto",
                                      .memory_bytes = o->run.memory_bytes,
                                      .force = o->run.force,
                                      .nonfinite = o->run.nonfinite};
    struct mixture_file f = {0};
    const char *precision;
    size_t unused;
    int rc = mixture_file_open(&f, path, NULL, false, err);

    if (rc == 0)
        rc = grow_check_method(&f, err);
    if (rc == 0)
        rc = find_domain(&unused, &f, name, err);
    if (rc == 0 && f.n_domains == 1)
        rc = error_set(err, ARTEL_EUSAGE, "ADD06", "name",
                       "'%s' is the only domain: remove the folder instead", name);
    if (rc == 0)
        rc = grow_lock(lock, f.folder, err);
    precision = json_string_value(
        json_object_get(json_object_get(f.settings, "train"), "precision"));
    if (precision && !strcmp(precision, "fp32")) /* as it was trained and grew */
        open.precision = precision;
    if (rc == 0)
        rc = artel_mixture_open(m, f.folder, NULL, &open, err);
    mixture_file_release(&f);
    return rc;
}

/* A setting of the section train, or OTHER. */
static uint64_t setting(const struct mixture_file *f, const char *key, uint64_t other)
{
    const json_t *train = json_object_get(f->settings, "train");
    const json_int_t n = json_integer_value(json_object_get(train, key));

    return n > 0 ? (uint64_t)n : other;
}

/* The expert and its row of every router, in memory. */
static int take_expert(struct mixture_file *f, const char *name,
                       struct artel_error *err)
{
    const int expert = mixture_find(&f->mixture, name);

    if (expert < 0)
        return error_set(err, ARTEL_EFORMAT, "MIX02", name,
                         "the mixture has no expert of this domain");
    return mixture_remove(&f->mixture, (size_t)expert, err);
}

/* What made NAME's expert is no part of the mixture any more. */
static void forget_stages(struct mixture_file *f, const char *name)
{
    static const char *const kinds[] = {"expert", "flan", "res"};
    json_t *stages = json_object_get(f->training, "stages");
    char key[EXPERT_NAME_MAX + 16];

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        snprintf(key, sizeof(key), "%s-%s", kinds[i], name);
        json_object_del(stages, key);
    }
}

static void take_notes(struct mixture_file *f, struct domain_notes *out, size_t i)
{
    *out = f->domains[i];
    memmove(&f->domains[i], &f->domains[i + 1],
            (f->n_domains - 1 - i) * sizeof(*f->domains));
    f->n_domains--;
}

/* To disk: mixture.json first, then what it no longer names goes. */
static int write_removal(struct mixture_file *f, const char *name,
                         struct artel_error *err)
{
    struct domain_notes gone;
    char *sample = NULL;
    size_t i = 0;
    int rc = find_domain(&i, f, name, err);

    if (rc < 0)
        return rc;
    take_notes(f, &gone, i);
    rc = mixture_file_write(f, err);
    if (rc == 0) {
        grow_drop_folder(f, gone.folder);
        sample = gone.sample ? path_join(f->folder, gone.sample) : NULL;
    }
    if (sample)
        unlink(sample);
    free(sample);
    domain_notes_release(&gone);
    return rc;
}

/* Nothing is trained: what it takes is the writing. */
static int remove_it(struct mixture_file *f, const char *name,
                     struct grow_report *report, struct artel_error *err)
{
    const double start = clock_seconds();
    int rc;

    forget_stages(f, name);
    grow_costs(report, f, f->n_domains - 1, NULL, NULL);
    rc = write_removal(f, name, err);
    report->cost.seconds += clock_seconds() - start;
    return rc;
}

int run_remove(const char *path, const char *name, const struct grow_options *o,
               struct grow_report *report, struct artel_error *err)
{
    struct grow_rows rows = {.run = &o->run, .score_rows = o->score_rows};
    struct run_lock lock = RUN_LOCK_NONE;
    struct artel_mixture *m = NULL;
    struct mixture_file *f = NULL;
    int rc;

    *report = (struct grow_report){0};
    rc = open_to_remove(&m, &lock, path, name, o, err);
    if (rc == 0) {
        f = &m->file;
        rows.seed = setting(f, "seed", 1);
        rc = grow_report_start(report, f, name, err);
    }
    if (rc == 0)
        rc = grow_digests(report, f, true, err);
    if (rc == 0)
        rc = grow_rows_open(&rows, report, f, setting(f, "cutoff_len", CUTOFF_LEN),
                            m->model, err);
    if (rc == 0)
        rc = grow_measure(report, &rows, f, m->model, true, err);
    if (rc == 0)
        rc = take_expert(f, name, err);
    if (rc == 0)
        rc = grow_measure(report, &rows, f, m->model, false, err);
    if (rc == 0)
        rc = remove_it(f, name, report, err);
    if (rc == 0)
        rc = grow_digests(report, f, false, err);
    if (rc < 0) {
        error_in(err, rc, path);
        grow_report_release(report);
    }
    grow_rows_close(&rows);
    artel_mixture_close(m);
    run_lock_release(&lock);
    return rc;
}
