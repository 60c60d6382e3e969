/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several mixtures over the same sets of rows, one after another, as the JSON that
 * artel.h describes. The base alone is a method like the others; the change of a
 * general set is against it, row by row.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "decoder/gate_sums.h"
#include "eval/eval_json.h"
#include "eval/judge.h"
#include "eval/keep.h"
#include "eval/measure.h"
#include "eval/sets.h"
#include "files/write.h"

/* General sets as a base answers them alone, at one precision. */
struct base {
    char digest[DIGEST_SIZE];
    enum precision precision;
    struct measured *general; /* (n_general) owned */
};

struct evaluation {
    const struct artel_eval_options *o;
    struct eval_sets of;
    struct base *bases; /* (n_bases) that were measured, at most one a path */
    size_t n_bases;
    const struct base *own;   /* among them: of the mixture at hand; NULL: no change */
    struct judge *judge;      /* or NULL */
    char digest[DIGEST_SIZE]; /* of what is measured, where that is kept */
    bool is_base;             /* the base alone is measured */
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
    *o = (struct artel_judge_options){.key_env = "OPENAI_API_KEY",
                                      .ratings = 3,
                                      .retries = 5,
                                      .wait_ms = 1000,
                                      .timeout_s = 120};
}

const char *artel_score_names(size_t idx)
{
    return idx < N_ANSWER_SCORES ? answer_score_name((enum answer_score)idx) : NULL;
}

static void note(const struct evaluation *ev, const char *method, const char *set)
{
    char line[256];

    if (!ev->o->on_note)
        return;
    snprintf(line, sizeof(line), "%s: %s", method, set);
    ev->o->on_note(ev->o->user, line);
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

/* A set, measured now or as it was kept. */
static int measure_kept(struct measured *out, const struct evaluation *ev,
                        const struct artel_mixture *m, const struct artel_eval_set *set,
                        const struct measure_options *o)
{
    char key[DIGEST_SIZE];
    int rc = 0;

    if (ev->o->keep) {
        rc = keep_key(key, ev->digest, m, set->path, o, ev->err);
        if (rc == 0)
            rc = keep_read(out, ev->o->keep, key, ev->err);
        if (rc)
            return rc < 0 ? error_in(ev->err, rc, set->path) : 0;
    }
    if (measures_each(m, o))
        rc = measure_each(out, m, set->path, o, ev->err);
    else
        rc = measure_set(out, m, set->path, o, ev->err);
    if (rc == 0 && ev->o->keep && !out->judged.missing)
        rc = keep_write(out, ev->o->keep, key, ev->err);
    if (rc < 0)
        measured_release(out);
    return rc;
}

/* Is there a right choice for a set's rows? */
static bool has_expert(const struct artel_mixture *m, const char *set)
{
    return m->mixture && mixture_find(m->mixture, set) >= 0;
}

static enum answer_score score_of(const struct artel_eval_set *set)
{
    return set->score ? (enum answer_score)answer_score_from_name(set->score)
                      : ANSWER_LOSS;
}

static struct measure_options options_of(const struct evaluation *ev,
                                         const struct artel_eval_set *set, bool general)
{
    return (struct measure_options){.score = score_of(set),
                                    .generate = ev->o->generate,
                                    .max_rows =
                                        general ? ev->of.general_rows : ev->o->max_rows,
                                    .max_tokens = ev->o->max_tokens,
                                    .cutoff_len = ev->o->cutoff_len,
                                    .in_windows = general,
                                    .judge = ev->judge,
                                    .set = set->name,
                                    .stopped = ev->o->stopped,
                                    .on_rows = ev->o->on_rows,
                                    .user = ev->o->user};
}

static int measure_one(struct measured *out, const struct evaluation *ev,
                       const struct artel_mixture *m, const char *asked,
                       const struct artel_eval_set *set, bool general)
{
    struct measure_options o = options_of(ev, set, general);
    int rc;

    o.asker = ev->is_base ? "base" : m->path;
    o.expected = m->mixture && !ev->is_base ? mixture_find(m->mixture, set->name) : -1;
    rc = choose(&o.expert, m, asked, set->name, ev->err);
    return rc < 0 ? rc : measure_kept(out, ev, m, set, &o);
}

/* The change of R against the base, where both measured the same rows: of the score where
 * there is one, which must be a mean over rows (bleu is not), else of perplexity. */
static int compare(json_t *o, const struct measured *r, const struct measured *base,
                   const struct evaluation *ev)
{
    struct change change;
    int rc;

    if (!base || base->n_rows != r->n_rows || base->shares != r->shares ||
        (r->n_judged && !r->shares) || (r->shares ? r->n_judged : r->n_rows) < 2) {
        eval_change_json(o, NULL);
        return 0;
    }
    rc = bootstrap_change(&change, r->value, r->n_each ? r->n_each : 1, base->value,
                          r->weight, r->n_rows, !r->shares, ev->o->seed, ev->err);
    if (rc == 0)
        eval_change_json(o, &change);
    return rc;
}

/* Into METHOD; of a base also into OUT (n_general), which is NULL for a mixture. */
static int measure_general(json_t *method, struct measured *out,
                           const struct evaluation *ev, const struct artel_mixture *m,
                           const char *asked)
{
    json_t *const general = json_object();
    int rc = 0;

    json_object_set_new(method, "general", general);
    for (size_t i = 0; rc == 0 && i < ev->of.n_general; i++) {
        const struct artel_eval_set *const set = &ev->of.general[i];
        struct measured r = {0};
        json_t *o;

        note(ev, out ? "base" : m->path, set->name);
        rc = measure_one(&r, ev, m, asked, set, true);
        if (rc < 0)
            break;
        o = eval_set_json(&r, score_of(set), has_expert(m, set->name));
        if (!r.n_judged)
            json_object_set_new(o, "score", eval_number(r.perplexity));
        rc = compare(o, &r, out || !ev->own ? NULL : &ev->own->general[i], ev);
        json_object_set_new(general, set->name, o);
        if (out)
            out[i] = r;
        else
            measured_release(&r);
    }
    return rc;
}

/* Sums over the sets of one method. */
struct totals {
    size_t routed, right;
    double decisions, entropy, identity;
};

static void put_set(json_t *method, struct totals *t, const struct measured *r,
                    const struct artel_mixture *m, const char *name,
                    enum answer_score score)
{
    json_object_set_new(json_object_get(method, "domains"), name,
                        eval_set_json(r, score, has_expert(m, name)));
    if (r->n_routed) {
        json_object_set_new(json_object_get(method, "confusion"), name,
                            eval_confusion_json(r, m));
        if (has_expert(m, name)) {
            t->routed += r->n_routed;
            t->right += r->n_right;
        }
    }
    if (r->sums) {
        json_object_set_new(json_object_get(method, "routing"), name,
                            eval_gates_json(r));
        t->decisions += r->sums->decisions;
        t->entropy += r->sums->entropy;
        t->identity += r->sums->identity;
    }
}

/* One method's entry: every set, then the general ones; BASE is NULL for a mixture. */
static int measure_method(struct evaluation *ev, const struct artel_mixture *m,
                          const char *asked, const struct base *base)
{
    json_t *const method = json_object();
    struct totals t = {0};
    int rc = 0;

    json_array_append_new(ev->methods, method);
    eval_method_json(method, m, base != NULL);
    json_object_set_new(method, "domains", json_object());
    json_object_set_new(method, "confusion", json_object());
    json_object_set_new(method, "routing", json_object());
    ev->is_base = base != NULL;
    if (ev->o->keep)
        rc = keep_digest(ev->digest, m, ev->is_base, ev->err);
    for (size_t i = 0; rc == 0 && i < ev->of.n_sets; i++) {
        const struct artel_eval_set *const set = &ev->of.sets[i];
        struct measured r = {0};

        note(ev, base ? "base" : m->path, set->name);
        rc = measure_one(&r, ev, m, asked, set, false);
        if (rc < 0)
            break;
        put_set(method, &t, &r, m, set->name, score_of(set));
        measured_release(&r);
    }
    json_object_set_new(
        method, "routing_accuracy",
        eval_number(t.routed ? (double)t.right / (double)t.routed : (double)NAN));
    eval_routing_json(method, t.decisions, t.entropy, t.identity);
    return rc < 0 ? rc
                  : measure_general(method, base ? base->general : NULL, ev, m, asked);
}

/*
 * The base of M becomes EV->own, and is measured where it is asked for: once whatever the
 * mixtures over it, and where one of them computes in another precision its general sets
 * once more, which no table shows.
 */
static int measure_base(struct evaluation *ev, const struct artel_mixture *m)
{
    struct base *const b = &ev->bases[ev->n_bases];
    bool listed = false;
    json_t *unseen;
    int rc = keep_digest(b->digest, m, true, ev->err);

    ev->own = NULL;
    b->precision = m->model->precision;
    for (size_t i = 0; rc == 0 && !ev->own && i < ev->n_bases; i++) {
        const bool same = !strcmp(ev->bases[i].digest, b->digest);

        listed |= same;
        if (same && ev->bases[i].precision == b->precision)
            ev->own = &ev->bases[i];
    }
    if (rc < 0 || ev->own || (!ev->o->base && m->mixture))
        return rc;
    b->general = calloc(ev->of.n_general + 1, sizeof(*b->general));
    if (!b->general)
        return error_nomem(ev->err, ev->of.n_general * sizeof(*b->general));
    ev->own = b;
    ev->n_bases++;
    if (!listed)
        return measure_method(ev, m, "base", b);
    ev->is_base = true;
    memcpy(ev->digest, b->digest, DIGEST_SIZE);
    unseen = json_object();
    rc = measure_general(unseen, b->general, ev, m, "base");
    json_decref(unseen);
    return rc;
}

/* Does the mixture have an expert of the name that was asked for? */
static int check_expert(const struct mixture_file *f, const char *asked,
                        struct artel_error *err)
{
    char given[96];
    bool there = !asked || !strcmp(asked, "auto") || !strcmp(asked, "base");

    for (size_t i = 0; i < f->n_notes; i++)
        there |= asked && !strcmp(f->notes[i].name, asked);
    if (there)
        return 0;
    error_set(err, ARTEL_EUSAGE, "USE09", "expert",
              "no expert '%s' (artel inspect lists them)",
              escape_text(given, sizeof(given), asked, strlen(asked)));
    return error_in(err, ARTEL_EUSAGE, f->folder);
}

/* Hours of measuring must not end at what is seen at once in its rows. */
static int check_rows(const struct evaluation *ev, const struct artel_mixture *m)
{
    const size_t n = ev->of.n_sets + ev->of.n_general;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        const bool general = i >= ev->of.n_sets;
        const struct artel_eval_set *const set =
            general ? &ev->of.general[i - ev->of.n_sets] : &ev->of.sets[i];
        const struct measure_options o = options_of(ev, set, general);

        rc = measure_check(m, set->path, &o, ev->err);
    }
    return rc;
}

static int run(struct evaluation *ev, const char *const *paths, size_t n)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct artel_mixture *m = NULL;

        rc = artel_mixture_open(&m, paths[i], NULL, &ev->o->open, ev->err);
        if (rc == 0 && i == 0)
            rc = check_rows(ev, m);
        if (rc == 0)
            rc = measure_base(ev, m);
        if (rc == 0 && m->mixture)
            rc = measure_method(ev, m, ev->o->expert, NULL);
        artel_mixture_close(m);
    }
    return rc;
}

/* What the numbers depend on beside the mixtures and the rows. */
static json_t *settings_json(const struct evaluation *ev)
{
    const struct artel_eval_options *const o = ev->o;

    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:I}", "expert",
                     o->expert ? o->expert : "auto", "precision",
                     o->open.precision ? o->open.precision : "auto", "max_rows",
                     (json_int_t)o->max_rows, "general_rows",
                     (json_int_t)ev->of.general_rows, "max_tokens",
                     (json_int_t)o->max_tokens, "cutoff_len", (json_int_t)o->cutoff_len,
                     "generate", o->generate, "seed", (json_int_t)o->seed);
}

static void bases_release(struct evaluation *ev)
{
    for (size_t k = 0; k < ev->n_bases; k++) {
        for (size_t i = 0; i < ev->of.n_general; i++)
            measured_release(&ev->bases[k].general[i]);
        free(ev->bases[k].general);
    }
    free(ev->bases);
}

int artel_evaluate(char **json, const char *const *paths, size_t n,
                   const struct artel_eval_options *o, struct artel_error *err)
{
    struct evaluation ev = {.o = o, .err = err};
    json_t *root = NULL;
    int rc;

    *json = NULL;
    if (!n)
        return error_set(err, ARTEL_EUSAGE, "USE07", NULL, "nothing to evaluate");
    rc = eval_sets_choose(&ev.of, paths, n, o, err);
    for (size_t i = 0; rc == 0 && i < ev.of.n_files; i++)
        rc = check_expert(&ev.of.files[i], o->expert, err);
    if (rc == 0 && o->keep)
        rc = make_folder(o->keep, err);
    if (rc == 0 && o->judge)
        rc = judge_open(&ev.judge, o->judge, o->stopped, err);
    root = json_object();
    ev.methods = json_array();
    ev.bases = calloc(n, sizeof(*ev.bases));
    json_object_set(root, "methods", ev.methods);
    json_object_set_new(root, "settings", settings_json(&ev));
    if (rc == 0 && (!root || !ev.methods || !ev.bases))
        rc = error_nomem(err, 0);
    if (rc == 0)
        rc = run(&ev, paths, n);
    if (rc == 0 && !(*json = json_dumps(root, JSON_INDENT(2))))
        rc = error_nomem(err, 0);
    bases_release(&ev);
    eval_sets_release(&ev.of);
    judge_close(ev.judge);
    json_decref(ev.methods);
    json_decref(root);
    return rc;
}
