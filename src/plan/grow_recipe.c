/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mixture.json keeps its settings in the recipe's own words, so a recipe for the
 * next domain is those words again with one domain more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"
#include "plan/grow_parts.h"

/* The text that an old domain is known by: its file while that is as it was, else the
 * sample that was stored. NULL and 0: neither. */
static int find_text(char **out, const char **which, const struct mixture_file *f,
                     const struct domain_notes *d, struct artel_error *err)
{
    char digest[DIGEST_SIZE];
    char *sample = NULL;
    int rc = 0;

    *out = NULL;
    if (d->train && access(d->train, R_OK) == 0 &&
        digest_file(digest, d->train, NULL) == 0 && !strcmp(digest, d->train_digest)) {
        *which = "recorded";
        *out = strdup(d->train);
        return *out ? 0 : error_nomem(err, strlen(d->train));
    }
    if (d->sample) {
        sample = path_join(f->folder, d->sample);
        if (!sample)
            rc = error_nomem(err, strlen(f->folder));
        else if (access(sample, R_OK) == 0)
            *which = "sample";
        else {
            free(sample);
            sample = NULL;
        }
    }
    *out = sample;
    return rc;
}

/* Whole, also where there is no such file: the recipe would seek it in the mixture. */
static void put_path(json_t *o, const char *key, const char *path)
{
    char *real = path ? realpath(path, NULL) : NULL;
    char *here = path && !real && *path != '/' ? realpath(".", NULL) : NULL;
    char *whole = here ? path_join(here, path) : NULL;
    const char *value = real ? real : whole ? whole : path;

    if (value)
        json_object_set_new(o, key, json_string(value));
    free(whole);
    free(here);
    free(real);
}

static int no_text(const struct domain_notes *d, struct artel_error *err)
{
    return error_set(
        err, ARTEL_EUSAGE, "ADD03", d->name,
        "text of this domain is needed to teach the routers: %.120s is gone "
        "or changed, and no sample is stored",
        d->train ? d->train : "its file");
}

/* The universal text again; its expert's rank stands in the settings already. */
static int add_universal(json_t *root, const struct mixture_file *f,
                         struct grow_report *report, struct artel_error *err)
{
    json_t *o = json_object_get(root, "universal");
    const char *which = "";
    char *text;
    int rc;

    if (!f->universal) {
        json_object_del(root, "universal");
        return 0;
    }
    if (!json_is_object(o)) {
        o = json_object();
        json_object_set_new(root, "universal", o);
    }
    rc = find_text(&text, &which, f, f->universal, err);
    if (rc == 0 && !text)
        rc = no_text(f->universal, err);
    json_object_del(o, "valid");
    if (rc == 0)
        put_path(o, "train", text);
    report->domains[f->n_domains].text = which;
    if (strcmp(which, "recorded") != 0)
        json_object_del(o, "max_rows");
    free(text);
    return rc;
}

static int add_old_domains(json_t *domains, const struct mixture_file *f,
                           struct grow_report *report, struct artel_error *err)
{
    const json_t *rows = json_object_get(f->settings, "domain_max_rows");

    for (size_t i = 0; i < f->n_domains; i++) {
        const struct domain_notes *d = &f->domains[i];
        json_t *o = json_object(), *max = json_object_get(rows, d->name);
        char *text;
        int rc = find_text(&text, &report->domains[i].text, f, d, err);

        if (rc < 0 || !text) {
            json_decref(o);
            return rc < 0 ? rc : no_text(d, err);
        }
        put_path(o, "train", text);
        if (max && !strcmp(report->domains[i].text, "recorded"))
            json_object_set(o, "max_rows", max);
        json_object_set_new(domains, d->name, o);
        free(text);
    }
    return 0;
}

static void add_new_domain(json_t *domains, const struct newcomer *n)
{
    json_t *o = json_object();

    put_path(o, "train", n->data);
    put_path(o, "adapter", n->adapter);
    put_path(o, "valid", n->o->valid);
    put_path(o, "test", n->o->test);
    if (n->o->score)
        json_object_set_new(o, "score", json_string(n->o->score));
    if (n->o->max_rows)
        json_object_set_new(o, "max_rows", json_integer((json_int_t)n->o->max_rows));
    json_object_set_new(domains, n->name, o);
}

int grow_recipe(struct recipe **out, const struct mixture_file *f,
                const struct newcomer *n, const char *model, const char *output,
                struct grow_report *report, struct artel_error *err)
{
    json_t *root = f->settings ? json_deep_copy(f->settings) : json_object();
    json_t *domains = json_object();
    struct gate_rule rule;
    char *text = NULL;
    int rc = root && domains ? 0 : error_nomem(err, 1024);

    *out = NULL;
    method_rule(&rule, f->mixture.method);
    if (rc == 0 && rule.place != ROUTER_NONE && !method_traits(f->mixture.method)->made)
        rc = add_old_domains(domains, f, report, err);
    if (rc == 0)
        rc = add_universal(root, f, report, err);
    if (rc == 0) {
        add_new_domain(domains, n);
        json_object_del(root, "domain_max_rows");
        put_path(root, "model", model);
        put_path(root, "output", output);
        json_object_set_new(root, "method", json_string(f->mixture.method));
        json_object_set(root, "domains", domains);
        text = json_dumps(root, JSON_INDENT(1));
        rc = text ? recipe_parse(out, text, strlen(text), "settings of the mixture",
                                 f->folder, NULL, 0, err)
                  : error_nomem(err, 4096);
    }
    free(text);
    json_decref(domains);
    json_decref(root);
    return rc;
}
