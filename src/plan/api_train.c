/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes carried out and mixtures grown, for callers of the library.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/eval_json.h"
#include "plan/grow.h"
#include "plan/recipe.h"
#include "plan/run.h"

/* Both lists name the same events in the same order. */
_Static_assert((int)ARTEL_STAGE == (int)RUN_STAGE && (int)ARTEL_DONE == (int)RUN_DONE,
               "artel_event and run_event must agree");

void artel_train_options_default(struct artel_train_options *o)
{
    *o = (struct artel_train_options){.score_rows = 20};
}

/* Passes progress on to a caller of the library. */
struct relay {
    const struct artel_train_options *o;
};

static void relay_progress(void *user, const struct run_progress *p)
{
    const struct relay *const relay = user;
    const struct artel_progress out = {.event = (enum artel_event)p->event,
                                       .stage = p->stage,
                                       .stage_idx = p->stage_idx,
                                       .n_stages = p->n_stages,
                                       .step = p->step,
                                       .n_steps = p->n_steps,
                                       .epoch = p->epoch,
                                       .loss = p->loss,
                                       .router_loss = p->router_loss,
                                       .router_accuracy = p->router_accuracy,
                                       .learning_rate = p->learning_rate,
                                       .grad_norm = p->grad_norm,
                                       .tokens_per_second = p->tokens_per_second,
                                       .seconds_left = p->seconds_left,
                                       .message = p->message};

    relay->o->progress(relay->o->user, &out);
}

static struct run_options run_options_of(struct relay *relay)
{
    const struct artel_train_options *const o = relay->o;

    return (struct run_options){.progress = o->progress ? relay_progress : NULL,
                                .user = relay,
                                .stop = o->stopped,
                                .memory_bytes = o->memory_bytes,
                                .changes = o->changes == 1   ? CHANGES_SAFE
                                           : o->changes == 2 ? CHANGES_RETRAIN
                                                             : CHANGES_REFUSE,
                                .must_resume = o->must_resume != 0,
                                .force = o->force != 0,
                                .nonfinite = o->nonfinite != 0,
                                .only = o->only};
}

int artel_train(char **output, const char *path, const char *const *overrides, size_t n,
                const struct artel_train_options *o, struct artel_error *err)
{
    struct artel_train_options defaults = {0};
    struct relay relay = {.o = o ? o : &defaults};
    const struct run_options ro = run_options_of(&relay);
    struct recipe *recipe = NULL;
    int rc;

    if (output)
        *output = NULL;
    rc = recipe_open(&recipe, path, overrides, n, err);
    if (rc < 0)
        return rc;
    if (output && !(*output = strdup(recipe->output)))
        rc = error_nomem(err, strlen(recipe->output));
    if (rc == 0)
        rc = run_recipe(recipe, &ro, err);
    recipe_close(recipe);
    if (rc < 0 && output) {
        free(*output);
        *output = NULL;
    }
    return rc;
}

static struct grow_options grow_options_of(struct relay *relay)
{
    const struct artel_train_options *const o = relay->o;

    return (struct grow_options){.run = run_options_of(relay),
                                 .joint = o->joint != 0,
                                 .valid = o->valid,
                                 .test = o->test,
                                 .score = o->score,
                                 .max_rows = o->max_rows,
                                 .score_rows = o->score_rows,
                                 .model = o->model};
}

static json_t *cost_json(const struct grow_cost *c)
{
    return json_pack("{s:I, s:I, s:I, s:f}", "parameters", (json_int_t)c->parameters,
                     "tokens", (json_int_t)c->tokens, "steps", (json_int_t)c->steps,
                     "seconds", c->seconds);
}

/* KEY's share of the cost of training all anew, null where that is nothing. */
static void put_share(json_t *o, const char *key, double part, double whole)
{
    json_object_set_new(o, key, eval_number(whole > 0 ? part / whole : (double)NAN));
}

/* What it cost, beside training all domains anew. */
static void put_costs(json_t *root, const struct grow_report *r)
{
    const struct grow_cost *const c = &r->cost, *const all = &r->everything;
    json_t *const share = json_object();

    put_share(share, "parameters", (double)c->parameters, (double)all->parameters);
    put_share(share, "tokens", (double)c->tokens, (double)all->tokens);
    put_share(share, "steps", (double)c->steps, (double)all->steps);
    put_share(share, "seconds", c->seconds, all->seconds);
    json_object_set_new(root, "cost", cost_json(c));
    json_object_set_new(root, "everything_anew", cost_json(all));
    json_object_set_new(root, "share", share);
}

static json_t *interval_json(double low, double high)
{
    return isfinite(low) ? json_pack("[f, f]", low, high) : json_null();
}

/* The score of D's answers, where it has one. */
static void put_score(json_t *o, const struct grow_domain *d)
{
    if (!d->score_name)
        return;
    json_object_set_new(o, "score_name", json_string(d->score_name));
    json_object_set_new(o, "score_rows", json_integer((json_int_t)d->score_rows));
    json_object_set_new(o, "score_before", eval_number(d->score_before));
    json_object_set_new(o, "score_after", eval_number(d->score_after));
    json_object_set_new(o, "score_change", eval_number(d->score_change));
    json_object_set_new(o, "score_ci95", interval_json(d->score_low, d->score_high));
}

/* The other domains, before and after. */
static json_t *domains_json(const struct grow_report *r)
{
    json_t *const domains = json_array();

    for (size_t i = 0; i < r->n_domains; i++) {
        const struct grow_domain *const d = &r->domains[i];
        json_t *const o = json_pack(
            "{s:s, s:s, s:s, s:b, s:s?, s:o, s:o, s:o, s:o, s:o, s:o}", "name", d->name,
            "digest_before", d->digest_before, "digest_after", d->digest_after,
            "unchanged", d->unchanged, "text", d->text, "perplexity_before",
            eval_number(d->perplexity_before), "perplexity_after",
            eval_number(d->perplexity_after), "change", eval_number(d->change), "ci95",
            interval_json(d->change_low, d->change_high), "routing_before",
            eval_number(d->routing_before), "routing_after",
            eval_number(d->routing_after));

        put_score(o, d);
        json_array_append_new(domains, o);
    }
    return domains;
}

/* NAME_KEY: what became of the domain. */
static json_t *report_json(const struct grow_report *r, const char *name_key)
{
    json_t *const root = json_pack("{s:s, s:s}", "path", r->path, name_key, r->name);

    put_costs(root, r);
    json_object_set_new(root, "others_unchanged", json_boolean(r->others_unchanged));
    json_object_set_new(root, "domains", domains_json(r));
    return root;
}

int artel_add(char **json, const char *path, const char *name, const char *adapter,
              const char *data, const struct artel_train_options *o,
              struct artel_error *err)
{
    struct artel_train_options defaults;
    struct relay relay = {.o = o ? o : &defaults};
    struct grow_options go;
    struct grow_report report = {0};
    json_t *root;
    int rc;

    *json = NULL;
    artel_train_options_default(&defaults);
    go = grow_options_of(&relay);
    rc = run_add(path, name, adapter, data, &go, &report, err);
    if (rc < 0)
        return rc;
    root = report_json(&report, "name");
    *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    grow_report_release(&report);
    return *json ? 0 : error_nomem(err, 0);
}

int artel_remove(char **json, const char *path, const char *name,
                 const struct artel_train_options *o, struct artel_error *err)
{
    struct artel_train_options defaults;
    struct relay relay = {.o = o ? o : &defaults};
    struct grow_options go;
    struct grow_report report = {0};
    json_t *root;
    int rc;

    *json = NULL;
    artel_train_options_default(&defaults);
    go = grow_options_of(&relay);
    rc = run_remove(path, name, &go, &report, err);
    if (rc < 0)
        return rc;
    root = report_json(&report, "removed");
    *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    grow_report_release(&report);
    return *json ? 0 : error_nomem(err, 0);
}
