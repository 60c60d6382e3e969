/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A base with its expert merged in, what the rounding did to each kind of tensor, and
 * what that did to the likelihood of a data file's answers.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/opened.h"
#include "plan/convert.h"
#include "save/merge.h"
#include "save/output_place.h"

static double ratio(double above, double below)
{
    return below > 0.0 ? sqrt(above / below) : 0.0;
}

/* [{kind, from, to, tensors, update, error, kept}] */
static json_t *kinds_json(const struct merge *m)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < m->n_kinds; i++) {
        const struct merge_kind *k = &m->kinds[i];
        json_t *o =
            json_pack("{s:s, s:s, s:s, s:I, s:f, s:f}", "kind", k->name, "from",
                      dtype_name(k->from), "to", dtype_name(k->to), "tensors",
                      (json_int_t)k->n_tensors, "update", ratio(k->update, k->weight),
                      "error", ratio(k->error, k->weight));

        if (o && k->update > 0.0)
            json_object_set_new(o, "kept", json_real(1.0 + k->along / k->update));
        json_array_append_new(list, o);
    }
    return list;
}

/* The lines of what is missing, each a string. */
static json_t *missing_json(const char *text)
{
    json_t *list = json_array();

    while (list && text && *text) {
        const size_t n = strcspn(text, "\n");

        json_array_append_new(list, json_stringn(text, n));
        text += n + (text[n] == '\n');
    }
    return list;
}

static int tell(json_t *report, const struct merge *m, struct artel_error *err)
{
    if (json_object_set_new(report, "tensors", kinds_json(m)) ||
        json_object_set_new(report, "missing", missing_json(m->missing)) ||
        json_object_set_new(report, "substituted",
                            json_integer((json_int_t)m->n_substituted)))
        return error_nomem(err, 0);
    return 0;
}

int conversion_merge(json_t *report, const struct conversion *c, const char *out,
                     bool to_gguf, enum dtype type, struct artel_error *err)
{
    const struct expert *e = c->expert.n_params ? &c->expert : NULL;
    struct merge m = {0};
    char *temporary = NULL;
    int rc;

    if (to_gguf) {
        rc = merge_to_gguf(&m, out, c->model, e, type, err);
    } else {
        rc = output_begin(&temporary, out, err);
        if (rc == 0)
            rc = merge_to_folder(&m, temporary, c->model, e, type, err);
        if (rc == 0)
            rc = output_finish(temporary, out, err);
        if (rc < 0)
            output_abandon(temporary);
        free(temporary);
    }
    if (rc == 0)
        rc = tell(report, &m, err);
    merge_release(&m);
    return rc < 0 ? error_in(err, rc, out) : 0;
}

/* The base at PATH with a copy of E beside it, or alone. Always in float. */
static int open_scored(struct artel_mixture **out, const char *path,
                       const struct expert *e, struct artel_error *err)
{
    struct artel_open_options o;
    struct gate_rule rule;
    struct expert copy = {0};
    const struct model_config *c;
    int rc;

    artel_open_options_default(&o);
    o.precision = "fp32";
    rc = artel_mixture_open(out, path, NULL, &o, err);
    if (rc < 0 || !e)
        return rc;
    c = &(*out)->model->weights->config;
    method_rule(&rule, "single");
    rc = expert_copy(&copy, e, err);
    if (rc == 0)
        rc = mixture_init(&(*out)->file.mixture, "single", c, &rule, err);
    if (rc == 0)
        rc = mixture_add(&(*out)->file.mixture, &copy, c, err);
    if (rc == 0)
        (*out)->mixture = &(*out)->file.mixture;
    expert_release(&copy);
    return rc;
}

static int score(struct artel_score *out, const struct artel_mixture *m, int expert,
                 const struct artel_convert_options *o, struct artel_error *err)
{
    struct artel_score_options so;

    artel_score_options_default(&so);
    so.expert = expert;
    so.max_rows = o->max_rows;
    so.stopped = o->stopped;
    return artel_score(out, m, o->measure, &so, err);
}

/* The largest change of a row, in nats a token. */
static double largest_change(const struct artel_score *a, const struct artel_score *b)
{
    double most = 0.0;

    for (size_t i = 0; i < a->n_rows && i < b->n_rows; i++)
        most = fmax(most, fabs(a->rows[i].nll - b->rows[i].nll) /
                              (double)a->rows[i].answer_tokens);
    return most;
}

/* null where it is not finite */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

int conversion_measure(json_t *report, const struct conversion *c, const char *out,
                       struct artel_error *err)
{
    const struct expert *e = c->expert.n_params ? &c->expert : NULL;
    struct artel_mixture *before = NULL, *after = NULL;
    struct artel_score base = {0}, beside = {0}, merged = {0};
    json_t *told = NULL;
    int rc = open_scored(&before, c->model->weights->path, e, err);

    if (rc == 0)
        rc = score(&base, before, ARTEL_BASE, c->o, err);
    if (rc == 0)
        rc = score(&beside, before, e ? 0 : ARTEL_BASE, c->o, err);
    artel_mixture_close(before);
    if (rc == 0)
        rc = open_scored(&after, out, NULL, err);
    if (rc == 0)
        rc = score(&merged, after, ARTEL_BASE, c->o, err);
    artel_mixture_close(after);
    if (rc == 0) {
        told = json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o}", "data", c->o->measure,
                         "rows", (json_int_t)merged.n_rows, "answer_tokens",
                         (json_int_t)merged.answer_tokens, "perplexity_base",
                         number(base.perplexity), "perplexity_beside",
                         number(beside.perplexity), "perplexity_merged",
                         number(merged.perplexity), "largest_row_change",
                         number(largest_change(&beside, &merged)));
        if (json_object_set_new(report, "measured", told))
            rc = error_nomem(err, 0);
    }
    artel_score_release(&base);
    artel_score_release(&beside);
    artel_score_release(&merged);
    return rc;
}
