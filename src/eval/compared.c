/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two methods of one name are told apart by their seeds where those differ, else by
 * their paths.
 */
#include "eval/compared.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"

const json_t *compared_method(const struct compared *c, size_t i)
{
    return json_array_get(json_object_get(c->root, "methods"), i);
}

const json_t *compared_set(const struct compared *c, size_t i, const char *group,
                           const char *set)
{
    return json_object_get(json_object_get(compared_method(c, i), group), set);
}

double compared_number(const json_t *o, const char *key)
{
    const char *const dot = strchr(key, '.');
    const json_t *v;

    if (dot) {
        char first[32];

        snprintf(first, sizeof(first), "%.*s", (int)(dot - key), key);
        return compared_number(json_object_get(o, first), dot + 1);
    }
    v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

const char *compared_text(const json_t *o, const char *key)
{
    const char *const text = json_string_value(json_object_get(o, key));

    return text ? text : "";
}

const char *compared_score_name(const struct compared *c, const char *group,
                                const char *set)
{
    for (size_t i = 0; i < c->n; i++) {
        const char *name = compared_text(compared_set(c, i, group, set), "score_name");

        if (*name)
            return name;
    }
    return "";
}

bool compared_any(const struct compared *c, const char *group, const char *set,
                  const char *key)
{
    for (size_t i = 0; i < c->n; i++)
        if (isfinite(compared_number(compared_set(c, i, group, set), key)))
            return true;
    return false;
}

double compared_mean(const struct compared *c, size_t i, const char *group,
                     const char *key, bool geometric)
{
    const json_t *const sets = !strcmp(group, "general") ? c->general : c->domains;
    double sum = 0;
    size_t n = 0;

    for (size_t k = 0; k < json_array_size(sets); k++) {
        const char *const set = json_string_value(json_array_get(sets, k));
        const double v = compared_number(compared_set(c, i, group, set), key);

        if (!compared_any(c, group, set, key))
            continue;
        if (!isfinite(v) || (geometric && v <= 0))
            return (double)NAN;
        sum += geometric ? log(v) : v;
        n++;
    }
    if (!n)
        return (double)NAN;
    sum /= (double)n;
    return geometric ? exp(sum) : sum;
}

bool compared_is_share(const struct compared *c, const char *set)
{
    for (size_t i = 0; i < c->n; i++) {
        const json_t *const e = compared_set(c, i, "general", set);
        const double score = compared_number(e, "score");

        if (isfinite(score))
            return score != compared_number(e, "perplexity");
    }
    return false;
}

bool compared_is_base(const struct compared *c, size_t i)
{
    return !strcmp(compared_text(compared_method(c, i), "name"), "base");
}

size_t compared_base(const struct compared *c, size_t i)
{
    const char *const own = compared_text(compared_method(c, i), "base");

    for (size_t k = 0; *own && k < c->n; k++)
        if (compared_is_base(c, k) &&
            !strcmp(compared_text(compared_method(c, k), "path"), own))
            return k;
    return c->base;
}

double compared_change(const struct compared *c, size_t i)
{
    double sum = 0;
    size_t n = 0;

    for (size_t k = 0; k < json_array_size(c->general); k++) {
        const char *const set = json_string_value(json_array_get(c->general, k));
        const double v = compared_number(compared_set(c, i, "general", set), "change");

        if (!compared_is_share(c, set) || !compared_any(c, "general", set, "change"))
            continue;
        if (!isfinite(v))
            return compared_is_base(c, i) ? 0 : (double)NAN;
        sum += v;
        n++;
    }
    return n ? sum / (double)n : (double)NAN;
}

/* ---- opening ---- */

static bool has_name(const json_t *names, const char *name)
{
    for (size_t i = 0; i < json_array_size(names); i++)
        if (!strcmp(json_string_value(json_array_get(names, i)), name))
            return true;
    return false;
}

static json_t *names_of(const struct compared *c, const char *group)
{
    json_t *names = json_array();

    for (size_t i = 0; names && i < c->n; i++) {
        json_t *sets = json_object_get(compared_method(c, i), group), *unused;
        const char *name;

        json_object_foreach(sets, name, unused)
        {
            if (!has_name(names, name))
                json_array_append_new(names, json_string(name));
        }
    }
    return names;
}

static void label(struct compared *c, size_t i)
{
    const json_t *const m = compared_method(c, i);
    const char *const name = compared_text(m, "name"), *path = compared_text(m, "path");
    const json_t *const seed = json_object_get(m, "seed");
    bool again = false, seeds = json_is_number(seed);
    char raw[COMPARED_LABEL];

    for (size_t k = 0; k < c->n; k++) {
        const json_t *const other = compared_method(c, k);

        if (k == i || strcmp(compared_text(other, "name"), name) != 0)
            continue;
        again = true;
        if (json_equal((json_t *)(uintptr_t)seed, json_object_get(other, "seed")))
            seeds = false;
    }
    if (!again)
        snprintf(raw, sizeof(raw), "%.40s", *name ? name : "?");
    else if (seeds)
        snprintf(raw, sizeof(raw), "%.40s, seed %.0f", name, json_number_value(seed));
    else /* the end of a path tells more than its start */
        snprintf(raw, sizeof(raw), "%.30s (%s%.50s)", name,
                 strlen(path) > 50 ? ".." : "",
                 strlen(path) > 50 ? path + strlen(path) - 50 : path);
    escape_text(c->label[i], COMPARED_LABEL, raw, strlen(raw));
}

int compared_open(struct compared *c, const char *json, struct artel_error *err)
{
    const json_t *methods;
    int rc;

    *c = (struct compared){0};
    rc = json_parse(&c->root, json, strlen(json), "evaluation", 0, err);
    if (rc < 0)
        return rc;
    methods = json_object_get(c->root, "methods");
    if (!json_is_array(methods)) {
        compared_release(c);
        return error_set(err, ARTEL_EFORMAT, "EVL03", NULL, "this is no evaluation");
    }
    c->n = c->base = json_array_size(methods);
    c->label = calloc(c->n + 1, sizeof(*c->label));
    c->domains = names_of(c, "domains");
    c->general = names_of(c, "general");
    if (!c->label || !c->domains || !c->general) {
        compared_release(c);
        return error_nomem(err, c->n * sizeof(*c->label));
    }
    for (size_t i = 0; i < c->n; i++) {
        label(c, i);
        if (c->base == c->n && compared_is_base(c, i))
            c->base = i;
    }
    return 0;
}

void compared_release(struct compared *c)
{
    json_decref(c->root);
    json_decref(c->domains);
    json_decref(c->general);
    free(c->label);
    *c = (struct compared){0};
}
