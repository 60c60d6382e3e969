/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several mixtures over the same sets of rows, one after another, as JSON:
 *
 *     {"methods": [{"name", "path", "seed", "domains": {SET: {"perplexity", "score",
 *       "score_name", "rows", ...}}, "routing_accuracy", "confusion": {SET: {EXPERT: n}},
 *       "general": {SET: {"score", "change", "ci95"}}, "trainable_parameters", "tokens",
 *       "steps", "seconds"}]}
 *
 * Scores are shares from 0 to 1. The base alone is a method like the others; the
 * change of a general set is against it, row by row, with a 95 % interval.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/measure.h"

struct evaluation {
    const struct artel_eval_options *o;
    const struct artel_eval_set *sets; /* (n_sets) */
    size_t n_sets;
    struct measured *base_general; /* (n_general) of the base, for the change */
    json_t *methods;
    struct artel_error *err;
};

void artel_eval_options_default(struct artel_eval_options *o)
{
    *o = (struct artel_eval_options){
        .expert = "auto", .max_tokens = 256, .generate = 1, .base = 1, .seed = 1};
    artel_open_options_default(&o->open);
}

void artel_judge_options_default(struct artel_judge_options *o)
{
    *o = (struct artel_judge_options){
        .key_env = "OPENAI_API_KEY", .ratings = 3, .retries = 5, .timeout_s = 120};
}

const char *artel_score_names(size_t idx)
{
    return idx < N_ANSWER_SCORES ? answer_score_name((enum answer_score)idx) : NULL;
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static void note(const struct evaluation *ev, const char *method, const char *set)
{
    char line[256];

    if (!ev->o->on_note)
        return;
    snprintf(line, sizeof(line), "%s: %s", method, set);
    ev->o->on_note(ev->o->user, line);
}

static json_t *set_json(const struct measured *r, enum answer_score score)
{
    json_t *const o = json_object();

    json_object_set_new(o, "rows", json_integer((json_int_t)r->n_rows));
    json_object_set_new(o, "dropped", json_integer((json_int_t)r->n_dropped));
    json_object_set_new(o, "perplexity", number(r->perplexity));
    json_object_set_new(o, "answer_tokens", json_integer((json_int_t)r->answer_tokens));
    json_object_set_new(o, "score", r->n_judged ? number(r->score) : json_null());
    json_object_set_new(
        o, "score_name",
        json_string(r->choices ? "acc_norm" : answer_score_name(score)));
    if (r->choices)
        json_object_set_new(o, "acc", number(r->accuracy));
    if (r->n_judged && score == ANSWER_JSON) {
        json_object_set_new(o, "json_valid", number(r->json_valid));
        json_object_set_new(o, "json_name", number(r->json_name));
    }
    if (r->generate_seconds > 0)
        json_object_set_new(o, "tokens_per_second",
                            number(r->generated_tokens / r->generate_seconds));
    json_object_set_new(o, "routing_accuracy",
                        r->n_routed ? number((double)r->n_right / (double)r->n_routed)
                                    : json_null());
    return o;
}

/* The expert for a set: the one asked for, the domain's own where nothing routes. */
static int choose(int *expert, const struct artel_mixture *m, const char *asked,
                  const char *set, struct artel_error *err)
{
    const bool automatic = !asked || !strcmp(asked, "auto");

    if (automatic && m->mixture && !m->mixture->n_routers &&
        m->mixture->n_experts > 1) {
        *expert = mixture_find(m->mixture, set);
        if (*expert >= 0)
            return 0;
        *expert = ARTEL_AUTO; /* no such domain: the mean over all of them */
        return 0;
    }
    return artel_expert_find(m, expert, asked, err);
}

/* Perplexity and score of the experts one by one, and their mean in OUT. */
static int measure_each(struct measured *out, const struct artel_mixture *m,
                        const char *path, struct measure_options o,
                        struct artel_error *err)
{
    const double E = (double)m->mixture->n_experts;
    double ppl = 0, score = 0;

    for (size_t e = 0; e < m->mixture->n_experts; e++) {
        int rc;

        if (e)
            measured_release(out);
        o.expert = (int)e;
        rc = measure_set(out, m, path, &o, err);
        if (rc < 0)
            return rc;
        ppl += out->perplexity / E;
        score += out->score / E;
    }
    out->perplexity = ppl;
    out->score = score;
    return 0;
}

static int measure_one(struct measured *out, const struct evaluation *ev,
                       const struct artel_mixture *m, const char *asked,
                       const struct artel_eval_set *set, enum answer_score *score)
{
    struct measure_options o = {.generate = ev->o->generate,
                                .max_rows = ev->o->max_rows,
                                .max_tokens = ev->o->max_tokens,
                                .cutoff_len = ev->o->cutoff_len,
                                .stopped = ev->o->stopped};
    const int kind = answer_score_from_name(set->score ? set->score : "loss");
    int rc;

    if (kind < 0)
        return error_set(ev->err, ARTEL_EUSAGE, "USE05", set->name,
                         "unknown way to score; see artel eval -h");
    *score = o.score = (enum answer_score)kind;
    o.expected = m->mixture ? mixture_find(m->mixture, set->name) : -1;
    rc = choose(&o.expert, m, asked, set->name, ev->err);
    if (rc < 0)
        return rc;
    if (o.expert == ARTEL_AUTO && !m->mixture->n_routers)
        return measure_each(out, m, set->path, o, ev->err);
    return measure_set(out, m, set->path, &o, ev->err);
}

/* Difference of shares, or of perplexities, with the half width of its interval. */
static void compare(json_t *o, const struct measured *r, const struct measured *base)
{
    double sum = 0, weights = 0, mean, square = 0, half;
    const size_t n = r->n_rows;

    if (!base || base->n_rows != n || n < 2) {
        json_object_set_new(o, "change", json_null());
        json_object_set_new(o, "ci95", json_null());
        return;
    }
    for (size_t i = 0; i < n; i++) {
        sum += r->value[i] - base->value[i];
        weights += r->weight[i];
    }
    mean = weights > 0 ? sum / weights : 0;
    for (size_t i = 0; i < n; i++) {
        const double d = r->value[i] - base->value[i] - mean * r->weight[i];

        square += d * d;
    }
    half =
        weights > 0 ? 1.96 * sqrt(square * (double)n / (double)(n - 1)) / weights : 0;
    if (r->choices) {
        json_object_set_new(o, "change", number(mean));
        json_object_set_new(o, "ci95", json_pack("[f, f]", mean - half, mean + half));
        return;
    }
    json_object_set_new(o, "change", number(r->perplexity - base->perplexity));
    json_object_set_new(o, "ci95",
                        json_pack("[f, f]", base->perplexity * expm1(mean - half),
                                  base->perplexity * expm1(mean + half)));
}

static json_t *confusion_row(const struct measured *r, const struct artel_mixture *m)
{
    json_t *const row = json_object();

    for (size_t e = 0; m->mixture && e < m->mixture->n_experts; e++)
        json_object_set_new(row, m->mixture->experts[e].name,
                            json_integer((json_int_t)r->chosen[e]));
    return row;
}

/* Sum of KEY over the stages that made the mixture, or null where none tells. */
static json_t *training_sum(const json_t *training, const char *key)
{
    const json_t *const stages = json_object_get(training, "stages");
    double sum = 0;
    bool whole = true, any = false;
    const char *name;
    json_t *stage;

    json_object_foreach((json_t *)(size_t)stages, name, stage)
    {
        const json_t *const v = json_object_get(stage, key);

        any |= json_is_number(v);
        whole &= !json_is_real(v);
        sum += json_number_value(v);
    }
    return !any ? json_null() : whole ? json_integer((json_int_t)sum) : number(sum);
}

static void describe(json_t *method, const struct artel_mixture *m, bool is_base)
{
    static const char *const keys[] = {"tokens", "steps", "seconds"};
    json_t *const seed =
        json_object_get(json_object_get(m->file.settings, "train"), "seed");
    struct artel_mixture_info info;

    artel_mixture_info(m, &info);
    json_object_set_new(method, "name", json_string(is_base ? "base" : info.method));
    json_object_set_new(method, "path",
                        json_string(is_base ? m->model->weights->path : m->path));
    json_object_set_new(method, "seed",
                        is_base || !seed ? json_null() : json_incref(seed));
    json_object_set_new(method, "trainable_parameters",
                        json_integer(is_base ? 0 : (json_int_t)info.n_parameters));
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        json_object_set_new(method, keys[i],
                            is_base ? json_integer(0)
                                    : training_sum(m->file.training, keys[i]));
}

static int measure_general(json_t *method, struct evaluation *ev,
                           const struct artel_mixture *m, const char *asked,
                           bool is_base)
{
    json_t *const general = json_object();
    int rc = 0;

    json_object_set_new(method, "general", general);
    for (size_t i = 0; rc == 0 && i < ev->o->n_general; i++) {
        const struct artel_eval_set *const set = &ev->o->general[i];
        struct measured r = {0};
        enum answer_score score = ANSWER_LOSS;
        json_t *o;

        note(ev, is_base ? "base" : m->path, set->name);
        rc = measure_one(&r, ev, m, asked, set, &score);
        if (rc < 0)
            break;
        o = set_json(&r, score);
        if (!r.n_judged)
            json_object_set_new(o, "score", number(r.perplexity));
        compare(o, &r, is_base ? NULL : &ev->base_general[i]);
        json_object_set_new(general, set->name, o);
        if (is_base)
            ev->base_general[i] = r;
        else
            measured_release(&r);
    }
    return rc;
}

/* One method's entry: every set, then the general ones. */
static int measure_method(struct evaluation *ev, const struct artel_mixture *m,
                          const char *asked, bool is_base)
{
    json_t *const method = json_object(), *const domains = json_object();
    json_t *const confusion = json_object();
    size_t routed = 0, right = 0;
    int rc = 0;

    json_array_append_new(ev->methods, method);
    describe(method, m, is_base);
    json_object_set_new(method, "domains", domains);
    for (size_t i = 0; rc == 0 && i < ev->n_sets; i++) {
        const struct artel_eval_set *const set = &ev->sets[i];
        enum answer_score score = ANSWER_LOSS;
        struct measured r = {0};

        note(ev, is_base ? "base" : m->path, set->name);
        rc = measure_one(&r, ev, m, asked, set, &score);
        if (rc < 0)
            break;
        json_object_set_new(domains, set->name, set_json(&r, score));
        if (r.n_routed) {
            json_object_set_new(confusion, set->name, confusion_row(&r, m));
            if (mixture_find(m->mixture, set->name) >= 0) {
                routed += r.n_routed;
                right += r.n_right;
            }
        }
        measured_release(&r);
    }
    json_object_set_new(method, "routing_accuracy",
                        routed ? number((double)right / (double)routed) : json_null());
    json_object_set_new(method, "confusion", confusion);
    return rc < 0 ? rc : measure_general(method, ev, m, asked, is_base);
}

/* Sets that the domains of F name: test rows, else validation rows. The strings are
 * borrowed from F. */
static int sets_of(struct artel_eval_set **out, size_t *n, const struct mixture_file *f,
                   struct artel_error *err)
{
    struct artel_eval_set *const sets = calloc(f->n_domains + 1, sizeof(*sets));

    *out = sets;
    *n = 0;
    if (!sets)
        return error_nomem(err, f->n_domains * sizeof(*sets));
    for (size_t i = 0; i < f->n_domains; i++) {
        const struct domain_notes *const d = &f->domains[i];
        const char *const path = d->test ? d->test : d->valid;

        if (path)
            sets[(*n)++] = (struct artel_eval_set){d->name, path, d->score};
    }
    return 0;
}

/* The first of the mixtures that names sets tells what all are measured on. */
static int find_sets(struct mixture_file *f, struct artel_eval_set **sets, size_t *n,
                     const char *const *paths, size_t n_paths, struct artel_error *err)
{
    *n = 0;
    for (size_t i = 0; i < n_paths; i++) {
        enum opened_kind kind;
        int rc = opened_kind(&kind, paths[i], err);

        if (rc < 0)
            return rc;
        if (kind != OPENED_MIXTURE)
            continue;
        rc = mixture_file_open(f, paths[i], NULL, false, err);
        if (rc == 0)
            rc = sets_of(sets, n, f, err);
        if (rc < 0 || *n)
            return rc;
        free(*sets);
        *sets = NULL;
        mixture_file_release(f);
    }
    return 0;
}

static int run(struct evaluation *ev, const char *const *paths, size_t n)
{
    bool base_done = !ev->o->base;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct artel_mixture *m = NULL;

        rc = artel_mixture_open(&m, paths[i], NULL, &ev->o->open, ev->err);
        if (rc == 0 && (!base_done || !m->mixture)) {
            rc = base_done && ev->o->base ? 0 : measure_method(ev, m, "base", true);
            base_done = true;
        }
        if (rc == 0 && m->mixture)
            rc = measure_method(ev, m, ev->o->expert, false);
        artel_mixture_close(m);
    }
    return rc;
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

int artel_evaluate(char **json, const char *const *paths, size_t n,
                   const struct artel_eval_options *o, struct artel_error *err)
{
    struct evaluation ev = {.o = o, .sets = o->sets, .n_sets = o->n_sets, .err = err};
    struct mixture_file file = {0};
    struct artel_eval_set *found = NULL;
    json_t *root = NULL;
    int rc = 0;

    *json = NULL;
    if (!n)
        return error_set(err, ARTEL_EUSAGE, "USE07", NULL, "nothing to evaluate");
    rc = check_names(o->sets, o->n_sets, err);
    if (rc == 0)
        rc = check_names(o->general, o->n_general, err);
    if (rc == 0 && !o->n_sets) {
        rc = find_sets(&file, &found, &ev.n_sets, paths, n, err);
        ev.sets = found;
    }
    if (rc == 0 && !ev.n_sets && !o->n_general)
        rc = error_set(err, ARTEL_EUSAGE, "USE12", NULL,
                       "no rows to measure on: the mixture names none; give a set");
    root = json_object();
    ev.methods = json_array();
    ev.base_general = calloc(o->n_general + 1, sizeof(*ev.base_general));
    json_object_set(root, "methods", ev.methods);
    if (rc == 0 && (!root || !ev.methods || !ev.base_general))
        rc = error_nomem(err, 0);
    if (rc == 0)
        rc = run(&ev, paths, n);
    if (rc == 0 && !(*json = json_dumps(root, JSON_INDENT(2))))
        rc = error_nomem(err, 0);
    for (size_t i = 0; ev.base_general && i < o->n_general; i++)
        measured_release(&ev.base_general[i]);
    free(ev.base_general);
    free(found);
    if (file.folder)
        mixture_file_release(&file);
    json_decref(ev.methods);
    json_decref(root);
    return rc;
}
