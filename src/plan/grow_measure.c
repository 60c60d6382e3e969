/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proof that growing left the other domains alone: the digests of their
 * files, and how well and by which expert their own rows are answered.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "eval/bootstrap.h"
#include "eval/measure.h"
#include "eval/opened.h"
#include "eval/score.h"
#include "files/write.h"
#include "plan/grow_parts.h"

#define MEASURED_ROWS 200 /* a domain at most: a check, not an evaluation */

/* What a domain is measured on: rows that were not trained on where there are any. */
static char *measured_path(const struct mixture_file *f, const struct domain_notes *d)
{
    char *sample;

    if (d->test && access(d->test, R_OK) == 0)
        return strdup(d->test);
    if (d->valid && access(d->valid, R_OK) == 0)
        return strdup(d->valid);
    sample = d->sample ? path_join(f->folder, d->sample) : NULL;
    if (sample && access(sample, R_OK) == 0)
        return sample;
    free(sample);
    return d->train && access(d->train, R_OK) == 0 ? strdup(d->train) : NULL;
}

/* After growing the universal expert's notes stand one further. */
static const struct domain_notes *notes_named(const struct mixture_file *f,
                                              const char *name)
{
    size_t i = 0;

    while (strcmp(mixture_file_text(f, i)->name, name) != 0)
        i++;
    return mixture_file_text(f, i);
}

int grow_rows_open(struct grow_rows *g, struct grow_report *report,
                   const struct mixture_file *f, size_t cutoff_len,
                   const struct artel_model *model, struct artel_error *err)
{
    const size_t context = model->weights->config.context;
    struct corpus_options o = {
        .max_rows = MEASURED_ROWS, .cutoff_len = cutoff_len, .skip_bad = MEASURED_ROWS};
    int rc = 0;

    if (context && o.cutoff_len > context)
        o.cutoff_len = context;
    g->n = report->n_domains;
    g->of = calloc(g->n + 1, sizeof(*g->of));
    g->before = calloc(g->n + 1, sizeof(*g->before));
    g->asked = calloc(g->n + 1, sizeof(*g->asked));
    g->answers = calloc(g->n + 1, sizeof(*g->answers));
    if (!g->of || !g->before || !g->asked || !g->answers)
        return error_nomem(err, g->n * sizeof(*g->answers));
    for (size_t i = 0; rc == 0 && i < g->n; i++) {
        struct grow_domain *const d = &report->domains[i];
        const struct domain_notes *const notes = notes_named(f, d->name);
        char *path = measured_path(f, notes);

        /* A test file that cannot be read is no reason not to grow. */
        if (path)
            rc = corpus_open(&g->of[i], path, model->tokenizer, model->chat, &o, NULL);
        if (rc < 0)
            rc = 0;
        if (path)
            rc = grow_asked_open(g, d, i, path, notes->score, model, err);
        free(path);
    }
    return rc;
}

void grow_rows_close(struct grow_rows *g)
{
    for (size_t i = 0; g->of && i < g->n; i++)
        corpus_close(g->of[i]);
    for (size_t i = 0; g->before && i < g->n; i++)
        free(g->before[i]);
    free(g->of);
    free(g->before);
    grow_asked_close(g);
    *g = (struct grow_rows){0};
}

int grow_prepare(struct grow_rows *g, struct grow_report *report, const struct job *job,
                 struct artel_error *err)
{
    struct artel_error why;
    char message[400];
    const int rc = g->n ? job_prepare_to_measure(job, &why) : 0;

    if (rc < 0 && rc != ARTEL_ELIMIT && err)
        *err = why;
    if (rc != ARTEL_ELIMIT)
        return rc;
    snprintf(message, sizeof(message), "the other domains are not measured: %s",
             why.reason);
    run_tell(g->run, RUN_WARNING, message);
    grow_rows_close(g);
    for (size_t i = 0; i < report->n_domains; i++)
        report->domains[i].score_name = NULL;
    return 0;
}

/* ROWS (n) of domain D summed up, as before or after. No router chooses what is FIXED. */
static void sum_up(struct grow_domain *d, const struct artel_score_row *rows, size_t n,
                   int expert, bool fixed, bool before)
{
    double nll = 0;
    size_t tokens = 0, right = 0;

    for (size_t i = 0; i < n; i++) {
        nll += rows[i].nll;
        tokens += rows[i].answer_tokens;
        right += rows[i].expert == expert;
    }
    if (tokens)
        *(before ? &d->perplexity_before : &d->perplexity_after) =
            exp(nll / (double)tokens);
    if (n)
        *(before ? &d->routing_before : &d->routing_after) =
            fixed ? (double)NAN : (double)right / (double)n;
}

/* How sure the change is, ROWS (n) being those after. */
static int compare(struct grow_domain *d, const double *before,
                   const struct artel_score_row *rows, size_t n, uint64_t seed,
                   struct artel_error *err)
{
    double *const nll = calloc(2 * n + 1, sizeof(*nll));
    struct change change = {(double)NAN, (double)NAN, (double)NAN};
    int rc = nll ? 0 : error_nomem(err, 2 * n * sizeof(*nll));

    for (size_t i = 0; rc == 0 && i < n; i++) {
        nll[i] = rows[i].nll;
        nll[n + i] = (double)rows[i].answer_tokens;
    }
    if (rc == 0 && n)
        rc = bootstrap_change(&change, nll, 1, before, nll + n, n, true, seed, err);
    d->change = change.value;
    d->change_low = change.low;
    d->change_high = change.high;
    free(nll);
    return rc;
}

/* Domain I of G under M; what its rows say before is kept for the change. */
static int measure_one(struct grow_domain *d, struct grow_rows *g, size_t i,
                       const struct artel_mixture *m, int expert, bool before,
                       struct artel_error *err)
{
    const size_t n = corpus_count(g->of[i]);
    const struct example **rows = calloc(n + 1, sizeof(*rows));
    struct artel_score_row *out = calloc(n + 1, sizeof(*out));
    struct artel_score_options o;
    int rc = rows && out ? 0 : error_nomem(err, n * sizeof(*out));

    artel_score_options_default(&o);
    o.stopped = g->run->stop;
    o.expert = m->mixture->n_routers ? ARTEL_AUTO : expert;
    for (size_t k = 0; rc == 0 && k < n; k++)
        rows[k] = corpus_at(g->of[i], k);
    if (rc == 0)
        rc = score_examples(out, m, rows, n, &o, err);
    if (rc == 0)
        sum_up(d, out, n, expert, (size_t)expert < m->mixture->rule.n_fixed, before);
    if (rc == 0 && before && !(g->before[i] = calloc(n + 1, sizeof(double))))
        rc = error_nomem(err, n * sizeof(double));
    for (size_t k = 0; rc == 0 && before && k < n; k++)
        g->before[i][k] = out[k].nll;
    if (rc == 0 && !before && g->before[i])
        rc = compare(d, g->before[i], out, n, g->seed, err);
    free(rows);
    free(out);
    return rc;
}

int grow_measure(struct grow_report *report, struct grow_rows *g,
                 struct mixture_file *f, struct artel_model *model, bool before,
                 struct artel_error *err)
{
    struct artel_mixture m = {.model = model, .file = *f, .mixture = &f->mixture};
    int rc = 0;

    if (g->n)
        run_tell(g->run, RUN_NOTE,
                 before ? "measuring the other domains" : "measuring them again");
    for (size_t i = 0; rc == 0 && i < g->n; i++) {
        struct grow_domain *d = &report->domains[i];
        const int expert = mixture_find(&f->mixture, d->name);

        if (expert >= 0 && g->of[i])
            rc = measure_one(d, g, i, &m, expert, before, err);
        if (rc == 0 && expert >= 0 && g->asked[i])
            rc = grow_score(d, g, i, &m, expert, before, err);
    }
    return rc;
}

int grow_digests(struct grow_report *report, const struct mixture_file *f, bool before,
                 struct artel_error *err)
{
    int rc = 0;

    if (!before)
        report->others_unchanged = true;
    for (size_t i = 0; rc == 0 && i < report->n_domains; i++) {
        struct grow_domain *d = &report->domains[i];
        char *folder = path_join(f->folder, notes_named(f, d->name)->folder);
        char *path = folder ? path_join(folder, "adapter_model.safetensors") : NULL;

        rc = path ? digest_file(before ? d->digest_before : d->digest_after, path, err)
                  : error_nomem(err, 256);
        d->unchanged = !before && !strcmp(d->digest_before, d->digest_after);
        if (!before && !d->unchanged)
            report->others_unchanged = false;
        free(folder);
        free(path);
    }
    return rc;
}

static void add_cost(struct grow_cost *c, const json_t *summary, double times)
{
    const json_t *steps = json_object_get(summary, "steps");

    c->tokens +=
        (size_t)(times * json_number_value(json_object_get(summary, "tokens")));
    c->steps += (size_t)(times * json_number_value(steps));
    c->seconds += times * json_number_value(json_object_get(summary, "seconds"));
}

/* How much of a router stage of F, as SUMMARY tells of it, there would be with N_DOMAINS.
 * A stage of so many steps has as many then. */
static double grown_share(const struct mixture_file *f, size_t n_domains,
                          const json_t *summary)
{
    const json_t *texts = json_object_get(summary, "data");
    const json_t *of_routers = json_object_get(f->settings, "router");
    const json_t *of_all = json_object_get(f->settings, "train");
    const bool universal =
        f->universal && json_object_get(texts, f->universal->name) != NULL;
    const size_t then = json_object_size(texts);
    const size_t now = n_domains + (universal ? 1 : 0);
    const bool bounded =
        json_integer_value(json_object_get(of_routers, "max_steps")) > 0 ||
        json_integer_value(json_object_get(of_all, "max_steps")) > 0;

    if (bounded && json_number_value(json_object_get(summary, "steps")) > 0)
        return 1;
    return (double)now / (double)(then ? then : f->n_domains);
}

void grow_costs(struct grow_report *report, const struct mixture_file *f,
                size_t n_domains, const json_t *expert, const json_t *router)
{
    json_t *stages = json_object_get(f->training, "stages");
    const char *method = f->mixture.method, *name;
    json_t *summary;

    add_cost(&report->cost, expert, 1);
    add_cost(&report->cost, router, 1);
    /* Training all afresh: every stage 1 again, the new one, and a stage 2 over all. */
    json_object_foreach(stages, name, summary)
    {
        if (!strncmp(name, method, strlen(method)))
            add_cost(&report->everything, summary, grown_share(f, n_domains, summary));
        else if (strncmp(name, "add-", 4) != 0)
            add_cost(&report->everything, summary, 1);
    }
    add_cost(&report->everything, expert, 1);
    report->everything.parameters = f->mixture.n_router_params;
    for (size_t e = 0; e < f->mixture.n_experts; e++)
        report->everything.parameters += f->mixture.experts[e].n_params;
}
