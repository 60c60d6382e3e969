/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes carried out and mixtures grown, for callers of the library.
 */
#include <jansson.h>
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
    *o = (struct artel_train_options){0};
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
                                 .model = o->model};
}

static json_t *cost_json(const struct grow_cost *c)
{
    return json_pack("{s:I, s:I, s:I, s:f}", "parameters", (json_int_t)c->parameters,
                     "tokens", (json_int_t)c->tokens, "steps", (json_int_t)c->steps,
                     "seconds", c->seconds);
}

/* The other domains, before and after. */
static json_t *domains_json(const struct grow_report *r)
{
    json_t *const domains = json_array();

    for (size_t i = 0; i < r->n_domains; i++) {
        const struct grow_domain *const d = &r->domains[i];

        json_array_append_new(
            domains,
            json_pack("{s:s, s:s, s:s, s:b, s:s?, s:f, s:f, s:f, s:[f, f], s:o, s:o}",
                      "name", d->name, "digest_before", d->digest_before,
                      "digest_after", d->digest_after, "unchanged", d->unchanged,
                      "text", d->text, "perplexity_before", d->perplexity_before,
                      "perplexity_after", d->perplexity_after, "change", d->change,
                      "ci95", d->change_low, d->change_high, "routing_before",
                      eval_number(d->routing_before), "routing_after",
                      eval_number(d->routing_after)));
    }
    return domains;
}

static json_t *report_json(const struct grow_report *r)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:b, s:o}", "path", r->path, "name", r->name,
                     "cost", cost_json(&r->cost), "everything_anew",
                     cost_json(&r->everything), "others_unchanged", r->others_unchanged,
                     "domains", domains_json(r));
}

int artel_add(char **json, const char *path, const char *name, const char *adapter,
              const char *data, const struct artel_train_options *o,
              struct artel_error *err)
{
    struct artel_train_options defaults = {0};
    struct relay relay = {.o = o ? o : &defaults};
    const struct grow_options go = grow_options_of(&relay);
    struct grow_report report = {0};
    json_t *root;
    int rc;

    *json = NULL;
    rc = run_add(path, name, adapter, data, &go, &report, err);
    if (rc < 0)
        return rc;
    root = report_json(&report);
    *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    grow_report_release(&report);
    return *json ? 0 : error_nomem(err, 0);
}

static json_t *removal_json(const struct grow_report *r)
{
    return json_pack("{s:s, s:s, s:b, s:o}", "path", r->path, "removed", r->name,
                     "others_unchanged", r->others_unchanged, "domains",
                     domains_json(r));
}

int artel_remove(char **json, const char *path, const char *name,
                 const struct artel_train_options *o, struct artel_error *err)
{
    struct artel_train_options defaults = {0};
    struct relay relay = {.o = o ? o : &defaults};
    const struct grow_options go = grow_options_of(&relay);
    struct grow_report report = {0};
    json_t *root;
    int rc;

    *json = NULL;
    rc = run_remove(path, name, &go, &report, err);
    if (rc < 0)
        return rc;
    root = removal_json(&report);
    *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    grow_report_release(&report);
    return *json ? 0 : error_nomem(err, 0);
}
