/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixtures over the same domains name the same rows; one that has grown names a set more,
 * which the others are measured on too.
 */
#include "eval/sets.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "eval/answer.h"
#include "eval/opened.h"

void eval_sets_release(struct eval_sets *s)
{
    for (size_t i = 0; i < s->n_files; i++)
        mixture_file_release(&s->files[i]);
    free(s->files);
    free(s->sets);
    free(s->general);
    *s = (struct eval_sets){0};
}

/* The table tells sets apart by their names. */
static int check_names(const struct artel_eval_set *sets, size_t n,
                       struct artel_error *err)
{
    char shown[200];

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(sets[i].name, sets[k].name)) {
                escape_text(shown, sizeof(shown), sets[i].name, strlen(sets[i].name));
                return error_set(err, ARTEL_EUSAGE, "USE06", NULL,
                                 "two sets are named '%s'", shown);
            }
    return 0;
}

static int check_scores(const struct artel_eval_set *sets, size_t n,
                        struct artel_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (sets[i].score && answer_score_from_name(sets[i].score) < 0)
            return error_set(err, ARTEL_EUSAGE, "USE05", sets[i].name,
                             "unknown way to score; see artel eval -h");
    return 0;
}

/* SET joins TO (n) unless one of its name is there. */
static void join(struct artel_eval_set *to, size_t *n, struct artel_eval_set set,
                 const struct mixture_file *f)
{
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(to[i].name, set.name) != 0)
            continue;
        if (strcmp(to[i].path, set.path) != 0)
            log_warn("%s: its rows of '%s' are not those that all are measured on, %s",
                     f->folder, set.name, to[i].path);
        return;
    }
    to[(*n)++] = set;
}

/* Test rows of the domains, else validation rows; general sets of the recipe: each where O
 * asks for no other. */
static int join_sets_of(struct eval_sets *s, const struct mixture_file *f,
                        const struct artel_eval_options *o, struct artel_error *err)
{
    json_t *const general = json_object_get(f->settings, "general");
    const size_t rows =
        (size_t)json_integer_value(json_object_get(f->settings, "general_rows"));
    const char *name;
    json_t *path;
    int rc = list_grow(&s->sets, s->n_sets + f->n_domains, sizeof(*s->sets), err);

    if (rc == 0)
        rc = list_grow(&s->general, s->n_general + json_object_size(general) + 1,
                       sizeof(*s->general), err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; !o->n_sets && i < f->n_domains; i++) {
        const struct domain_notes *const d = &f->domains[i];
        const char *const of = d->test ? d->test : d->valid;

        if (of)
            join(s->sets, &s->n_sets, (struct artel_eval_set){d->name, of, d->score},
                 f);
    }
    json_object_foreach(general, name, path)
    {
        if (!o->general && json_is_string(path))
            join(s->general, &s->n_general,
                 (struct artel_eval_set){name, json_string_value(path), NULL}, f);
    }
    if (!s->general_rows)
        s->general_rows = rows;
    return 0;
}

static int find_sets(struct eval_sets *s, const char *const *paths, size_t n,
                     const struct artel_eval_options *o, struct artel_error *err)
{
    int rc = 0;

    s->files = calloc(n, sizeof(*s->files));
    if (!s->files)
        return error_nomem(err, n * sizeof(*s->files));
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct mixture_file *const f = &s->files[s->n_files];
        enum opened_kind kind = OPENED_MODEL;

        rc = opened_kind(&kind, paths[i], err);
        if (rc < 0 || kind != OPENED_MIXTURE)
            continue;
        rc = mixture_file_open(f, paths[i], NULL, false, err);
        if (rc < 0)
            continue;
        s->n_files++;
        rc = join_sets_of(s, f, o, err);
    }
    return rc;
}

/* N of those that were asked for stand in the place of TO. */
static int take(struct artel_eval_set **to, size_t *n_to,
                const struct artel_eval_set *asked, size_t n, struct artel_error *err)
{
    const int rc = list_grow(to, n + 1, sizeof(**to), err);

    if (rc < 0)
        return rc;
    if (n)
        memcpy(*to, asked, n * sizeof(*asked));
    *n_to = n;
    return 0;
}

int eval_sets_choose(struct eval_sets *s, const char *const *paths, size_t n,
                     const struct artel_eval_options *o, struct artel_error *err)
{
    int rc = check_names(o->sets, o->n_sets, err);

    *s = (struct eval_sets){0};
    if (rc == 0)
        rc = check_names(o->general, o->n_general, err);
    if (rc == 0)
        rc = find_sets(s, paths, n, o, err);
    if (rc == 0 && o->n_sets)
        rc = take(&s->sets, &s->n_sets, o->sets, o->n_sets, err);
    if (rc == 0 && o->general)
        rc = take(&s->general, &s->n_general, o->general, o->n_general, err);
    if (o->general_rows || !s->general_rows)
        s->general_rows = o->general_rows ? o->general_rows : o->max_rows;
    if (rc == 0 && !s->n_sets && !s->n_general)
        rc = error_set(err, ARTEL_EUSAGE, "USE12", NULL,
                       "no rows to measure on: the mixture names none; give a set");
    if (rc == 0)
        rc = check_scores(s->sets, s->n_sets, err);
    return rc < 0 ? rc : check_scores(s->general, s->n_general, err);
}
