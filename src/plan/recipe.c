/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From YAML to struct recipe: walk each section, let the key table place each
 * value, then check what only the whole can tell.
 */
#include "plan/recipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "files/write.h"
#include "plan/recipe_check.h"
#include "plan/recipe_keys.h"
#include "plan/recipe_read.h"

#define MAX_KEYS       128
#define UNIVERSAL_RANK 16

struct reader {
    struct recipe *r;
    const char *folder;
    struct artel_error *err;
    const struct yaml_node
        *seen[MAX_KEYS]; /* where each key of the table was written */
};

static const struct recipe_train train_defaults = {
    .learning_rate = 2e-4,
    .epochs = 1,
    .batch_tokens = 2048,
    .accumulation = 1,
    .cutoff_len = 1024,
    .schedule = SCHEDULE_COSINE,
    .warmup_ratio = 0.03,
    .beta1 = 0.9,
    .beta2 = 0.999,
    .eps = 1e-8,
    .max_grad_norm = 1,
    .seed = 1,
    .save_steps = 200,
    .save_total_limit = 2,
    .shuffle = true,
    .packing = true,
    .together = 1,
    .logging_steps = 1,
    .tensorboard = true,
};

static const struct recipe_router router_defaults = {
    .eta = 0.1,
    .learning_rate = 1e-2,
    .selector = SELECT_LAST,
    .pool = POOL_MEAN,
    .freeze_old = true,
    .init_std = 0.02,
    .temperature = 1,
    .ridge_lambda = 1e-2,
    .classifier_lambda = 1e-3,
    .ngrams = {.min = 2, .max = 4, .buckets = 1 << 14, .lowercase = true},
    .cache_mib = 1024,
};

static const struct recipe_slim slim_defaults = {
    .identities = 2,
    .top_k = 2,
    .clusters = 8,
    .momentum = 0.99,
    .distance = DISTANCE_MEAN,
    .beta = 1,
    .drop = 0.5,
    .mask = MASK_FIXED,
    .l1 = 1e-4,
};

static const struct recipe_mixlora mixlora_defaults = {.top_k = 2, .balance = 1e-2};

static int read_map(struct reader *in, const char *section, void *base,
                    const struct yaml_node *map, bool once);

static void *section_base(struct recipe *r, const char *section)
{
    return !strcmp(section, "lora")      ? (void *)&r->lora
           : !strcmp(section, "train")   ? (void *)&r->train
           : !strcmp(section, "router")  ? (void *)&r->router
           : !strcmp(section, "slim")    ? (void *)&r->slim
           : !strcmp(section, "mixlora") ? (void *)&r->mixlora
           : !strcmp(section, "modula")  ? (void *)&r->modula
                                         : (void *)r;
}

static int unknown_key(struct reader *in, const char *section,
                       const struct yaml_node *node)
{
    const char *near = recipe_key_nearest(section, node->key);
    char shown[200];

    escape_text(shown, sizeof(shown), node->key, strnlen(node->key, 60));
    return recipe_fault(in->err, node, "RCP01", "unknown key '%s'%s%s%s%s%s", shown,
                        *section ? " in " : "", section, near ? ": did you mean '" : "",
                        near ? near : "", near ? "'?" : "");
}

static int unknown_method(struct reader *in, const struct yaml_node *item,
                          const char *shown, const char *near, const char *const *names,
                          size_t n)
{
    char list[160] = "";

    if (near)
        return recipe_fault(in->err, item, "RCP03",
                            "unknown method '%s': did you mean '%s'?", shown, near);
    for (size_t i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
                 i ? ", " : "", names[i]);
    return recipe_fault(in->err, item, "RCP03", "unknown method '%s'; known are %s",
                        shown, list);
}

static int read_methods(struct reader *in, const struct yaml_node *node)
{
    const struct yaml_node *item = node->kind == YAML_LIST ? node->child : node;
    const char *names[32];
    size_t n_names = 0, n = 0;

    while (n_names < 32 && (names[n_names] = method_name(n_names)))
        n_names++;
    for (const struct yaml_node *i = item; i;
         i = node->kind == YAML_LIST ? i->next : NULL)
        n++;
    if (!n)
        return recipe_fault(in->err, node, "RCP02", "'method' names no method");
    in->r->methods = calloc(n, sizeof(*in->r->methods));
    if (!in->r->methods)
        return error_nomem(in->err, n * sizeof(*in->r->methods));
    for (; item; item = node->kind == YAML_LIST ? item->next : NULL) {
        struct gate_rule rule;
        char shown[200];
        const char *near;

        if (item->kind != YAML_SCALAR)
            return recipe_fault(in->err, item, "RCP02",
                                "'method' must be a name or a list of names");
        escape_text(shown, sizeof(shown), item->text, strnlen(item->text, 40));
        near = nearest_name(item->text, names, n_names);
        if (method_rule(&rule, item->text) < 0)
            return unknown_method(in, item, shown, near, names, n_names);
        for (size_t i = 0; i < in->r->n_methods; i++)
            if (!strcmp(in->r->methods[i], item->text))
                return recipe_fault(in->err, item, "RCP06",
                                    "method '%s' is given twice", shown);
        snprintf(in->r->methods[in->r->n_methods++], sizeof(*in->r->methods), "%s",
                 item->text);
    }
    return 0;
}

/* A text and what else stands beside it; SECTION's struct at BASE begins with D. */
static int read_text(struct reader *in, const char *section, void *base,
                     struct recipe_domain *d, const struct yaml_node *node)
{
    d->line = node->line;
    if (node->kind == YAML_SCALAR && !recipe_is_null(node)) { /* its text, in short */
        d->train = recipe_path(in->folder, node->text);
        return d->train ? 0 : error_nomem(in->err, strlen(node->text));
    }
    if (node->kind != YAML_MAP)
        return recipe_fault(in->err, node, "RCP02",
                            "domain '%s' must be a map such as {train: FILE}", d->name);
    return read_map(in, section, base, node, false);
}

static int read_universal(struct reader *in, const struct yaml_node *node)
{
    struct recipe_universal *u = calloc(1, sizeof(*u));

    if (!u)
        return error_nomem(in->err, sizeof(*u));
    in->r->universal = u;
    u->rank = UNIVERSAL_RANK;
    snprintf(u->text.name, sizeof(u->text.name), "%s", UNIVERSAL_NAME);
    return read_text(in, "universal", u, &u->text, node);
}

static int take_name(struct reader *in, char out[EXPERT_NAME_MAX + 1],
                     const struct yaml_node *node)
{
    char shown[200];

    escape_text(shown, sizeof(shown), node->key, strnlen(node->key, 80));
    if (!expert_name_valid(node->key))
        return recipe_fault(in->err, node, "RCP05",
                            "'%s' cannot name a domain: 1 to %d letters, digits, dots, "
                            "dashes, underscores, not starting with a dot or dash",
                            shown, EXPERT_NAME_MAX);
    if (!strcasecmp(node->key, "auto") || !strcasecmp(node->key, "base"))
        return recipe_fault(
            in->err, node, "RCP05",
            "'%s' cannot name a domain: --expert %s means another thing", shown, shown);
    snprintf(out, EXPERT_NAME_MAX + 1, "%s", node->key);
    return 0;
}

static int read_domains(struct reader *in, const struct yaml_node *map)
{
    struct recipe *r = in->r;
    size_t n = 0;

    if (map->kind != YAML_MAP || !map->child)
        return recipe_fault(in->err, map, "RCP02",
                            "'domains' must be a map of names to domains");
    for (const struct yaml_node *d = map->child; d; d = d->next)
        n++;
    r->domains = calloc(n, sizeof(*r->domains));
    if (!r->domains)
        return error_nomem(in->err, n * sizeof(*r->domains));
    for (const struct yaml_node *node = map->child; node; node = node->next) {
        struct recipe_domain *d = &r->domains[r->n_domains];
        int rc = take_name(in, d->name, node);

        for (size_t i = 0; rc == 0 && i < r->n_domains; i++)
            if (!strcasecmp(r->domains[i].name, d->name))
                rc = recipe_fault(
                    in->err, node, "RCP05",
                    "domains '%s' and '%s' (line %zu) would share a folder", d->name,
                    r->domains[i].name, r->domains[i].line);
        r->n_domains++;
        if (rc == 0)
            rc = read_text(in, "domain", d, d, node);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_general(struct reader *in, const struct yaml_node *map)
{
    struct recipe *r = in->r;
    size_t n = 0;

    if (map->kind != YAML_MAP)
        return recipe_fault(in->err, map, "RCP02",
                            "'general' must be a map of names to paths");
    for (const struct yaml_node *g = map->child; g; g = g->next)
        n++;
    r->general = calloc(n ? n : 1, sizeof(*r->general));
    if (!r->general)
        return error_nomem(in->err, n * sizeof(*r->general));
    for (const struct yaml_node *node = map->child; node; node = node->next) {
        struct recipe_general *g = &r->general[r->n_general++];
        int rc = take_name(in, g->name, node);

        if (rc < 0)
            return rc;
        if (node->kind != YAML_SCALAR || recipe_is_null(node))
            return recipe_fault(in->err, node, "RCP02", "'%s' must be a path", g->name);
        g->path = recipe_path(in->folder, node->text);
        if (!g->path)
            return error_nomem(in->err, strlen(node->text));
    }
    return 0;
}

/* The kinds that are more than a value. */
static int read_structure(struct reader *in, const struct recipe_key *key,
                          const struct yaml_node *node)
{
    switch (key->kind) {
    case KEY_METHODS:
        return read_methods(in, node);
    case KEY_DOMAINS:
        return read_domains(in, node);
    case KEY_GENERAL:
        return read_general(in, node);
    case KEY_UNIVERSAL:
        return read_universal(in, node);
    default:
        if (node->kind != YAML_MAP)
            return recipe_fault(in->err, node, "RCP02", "'%s' must be a map",
                                key->name);
        return read_map(in, key->name, section_base(in->r, key->name), node, true);
    }
}

/* ONCE: a key may be written once in the whole recipe, under any of its names. */
static int read_map(struct reader *in, const char *section, void *base,
                    const struct yaml_node *map, bool once)
{
    for (const struct yaml_node *node = map->child; node; node = node->next) {
        const struct recipe_key *key = recipe_key_find(section, node->key);
        const struct yaml_node **seen;
        void *place = base;
        int rc;

        if (!key)
            return unknown_key(in, section, node);
        if (recipe_is_null(node))
            continue;
        seen = &in->seen[key - recipe_key_at(0)];
        if (once && *seen)
            return recipe_fault(in->err, node, "RCP06",
                                "'%s' sets '%s', which line %zu sets already",
                                node->key, key->name, (*seen)->line);
        *seen = node;
        if (strcmp(key->section, section) != 0)
            place = section_base(in->r, key->section);
        if (key->kind >= KEY_METHODS)
            rc = read_structure(in, key, node);
        else
            rc = recipe_read_value(place, key, node, in->folder, in->err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static const struct yaml_node *where_set(const struct reader *in, const char *section,
                                         const char *name)
{
    return in->seen[recipe_key_find(section, name) - recipe_key_at(0)];
}

/* A method whose routers are taught by the domains' labels. */
static bool labelled(const struct recipe *r)
{
    for (size_t i = 0; i < r->n_methods; i++)
        if (method_traits(r->methods[i])->labelled)
            return true;
    return false;
}

/* Every method keeps the scale at 1 where nobody says otherwise. */
static bool all_scale_one(const struct recipe *r)
{
    for (size_t i = 0; i < r->n_methods; i++)
        if (!method_traits(r->methods[i])->scale_one)
            return false;
    return true;
}

/* Routers that choose for themselves are taught by the language loss through their own
 * choice; steps of the routers alone follow the labels, which would teach another one. */
static int check_argmax(struct reader *in)
{
    const struct recipe_router *const router = &in->r->router;

    if (!labelled(in->r) || router->label != LABEL_ARGMAX)
        return 0;
    if (router->router_only)
        return recipe_fault(in->err, where_set(in, "router", "router_only"), "RCP06",
                            "router_only goes by labels, and label: argmax does not");
    if (router->refresh > 0)
        return recipe_fault(in->err, where_set(in, "router", "refresh"), "RCP06",
                            "a refresh goes by labels, and label: argmax does not");
    return 0;
}

/* Routers alone are taught beside the LoRAs that the mixture will have; new ones would
 * neither learn nor be kept. */
static int check_init(struct reader *in)
{
    const struct recipe_router *const router = &in->r->router;

    if (!labelled(in->r) || !router->router_only || router->init != INIT_FRESH)
        return 0;
    return recipe_fault(in->err, where_set(in, "router", "init"), "RCP06",
                        "init: fresh starts from new LoRAs, and router_only trains "
                        "none");
}

/* What a classifier of the characters cannot use is said where no other method asks. */
static int check_ngrams(struct reader *in)
{
    const struct recipe_router *const router = &in->r->router;
    bool classifier = false, others = false;

    for (size_t i = 0; i < in->r->n_methods; i++) {
        classifier |= !strcmp(in->r->methods[i], "classifier");
        others |= !strcmp(in->r->methods[i], "ridge");
    }
    if (router->ngrams.min > router->ngrams.max)
        return recipe_fault(in->err,
                            where_set(in, "router", "ngram_min")
                                ? where_set(in, "router", "ngram_min")
                                : where_set(in, "router", "ngram_max"),
                            "RCP06", "ngram_min is %zu, and ngram_max %zu",
                            router->ngrams.min, router->ngrams.max);
    if (classifier && !others && router->classifier == CLASSIFY_NGRAMS &&
        router->ridge_layers.n)
        return recipe_fault(in->err, where_set(in, "router", "ridge_layers"), "RCP06",
                            "ridge_layers are layers of the base, and classifier: "
                            "ngrams reads the question's characters alone");
    return 0;
}

static int check_whole(struct reader *in, const struct yaml_node *root)
{
    static const char *const needed[] = {"model", "output", "domains"};
    struct recipe *r = in->r;
    int rc;

    for (size_t i = 0; i < 3; i++)
        if (!where_set(in, "", needed[i]))
            return recipe_fault(in->err, root, "RCP04", "the recipe has no '%s'",
                                needed[i]);
    if (!r->n_methods) {
        r->methods = calloc(1, sizeof(*r->methods));
        if (!r->methods)
            return error_nomem(in->err, sizeof(*r->methods));
        snprintf(r->methods[r->n_methods++], sizeof(*r->methods), "moa");
    }
    if (where_set(in, "train", "batch_size")) {
        if (where_set(in, "train", "batch_tokens"))
            return recipe_fault(in->err, where_set(in, "train", "batch_size"), "RCP06",
                                "give batch_size (rows) or batch_tokens, not both");
        r->train.batch_tokens = 0;
    }
    r->eval_given = where_set(in, "train", "eval_steps") && r->train.eval_steps;
    r->best_given = where_set(in, "train", "load_best_model_at_end") != NULL;
    if (!r->best_given)
        r->train.load_best = r->eval_given;
    if (r->train.patience && !r->train.eval_steps)
        return recipe_fault(in->err, where_set(in, "train", "early_stopping_patience"),
                            "RCP06", "early_stopping_patience needs eval_steps");
    if (labelled(r) && r->router.label == LABEL_DOMAIN && !(r->router.eta > 0))
        return recipe_fault(in->err, where_set(in, "router", "eta"), "RCP06",
                            "eta 0 with label: domain would teach the routers nothing");
    if (labelled(r) && r->router.router_only && !(r->router.eta > 0))
        return recipe_fault(in->err, where_set(in, "router", "router_only"), "RCP06",
                            "router_only needs an eta above 0");
    rc = check_argmax(in);
    if (rc == 0)
        rc = check_init(in);
    if (rc == 0)
        rc = check_ngrams(in);
    if (rc < 0)
        return rc;
    if (!where_set(in, "lora", "alpha") && all_scale_one(r))
        r->lora.alpha = (float)r->lora.rank;
    return recipe_check_texts(r, in->err);
}

static int take_overrides(struct yaml_node *root, const char *const *overrides,
                          size_t n, struct artel_error *err)
{
    for (size_t i = 0; i < n; i++) {
        int rc = yaml_override(root, overrides[i], err);

        if (rc == ARTEL_EFORMAT) {
            rc = ARTEL_EUSAGE;
            if (err)
                err->exit = -rc;
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int recipe_from_tree(struct recipe **out, struct yaml_node *root,
                            const char *folder, struct artel_error *err)
{
    struct recipe *r = calloc(1, sizeof(*r));
    struct reader in = {.r = r, .folder = folder, .err = err};
    int rc;

    if (!r)
        return error_nomem(err, sizeof(*r));
    r->train = train_defaults;
    r->router = router_defaults;
    r->slim = slim_defaults;
    r->mixlora = mixlora_defaults;
    r->modula.residual = true;
    r->store_sample = 200;
    lora_options_default(&r->lora);
    rc = root->kind == YAML_MAP
             ? read_map(&in, "", r, root, true)
             : recipe_fault(err, root, "RCP02", "a recipe is a map of keys");
    if (rc == 0)
        rc = check_whole(&in, root);
    if (rc < 0) {
        recipe_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

/* A recipe is the user's own words: what is wrong in it is wrong use. */
static int as_usage(int rc, struct artel_error *err)
{
    if (rc != ARTEL_EFORMAT)
        return rc;
    if (err)
        err->exit = -ARTEL_EUSAGE;
    return ARTEL_EUSAGE;
}

int recipe_parse(struct recipe **out, const char *text, size_t n, const char *name,
                 const char *folder, const char *const *overrides, size_t n_overrides,
                 struct artel_error *err)
{
    struct yaml_node *root = NULL;
    int rc;

    *out = NULL;
    rc = as_usage(yaml_parse(&root, text, n, name, err), err);
    if (rc == 0 && !root)
        rc = error_set(err, ARTEL_EUSAGE, "RCP04", "1:1", "the recipe is empty");
    if (rc == 0)
        rc = take_overrides(root, overrides, n_overrides, err);
    if (rc == 0)
        rc = recipe_from_tree(out, root, folder, err);
    yaml_close(root);
    if (rc == 0) {
        (*out)->path = strdup(name);
        if (!(*out)->path) {
            recipe_close(*out);
            *out = NULL;
            rc = error_nomem(err, strlen(name));
        }
    }
    return rc < 0 ? error_in(err, rc, name) : 0;
}

int recipe_open(struct recipe **out, const char *path, const char *const *overrides,
                size_t n_overrides, struct artel_error *err)
{
    struct yaml_node *root = NULL;
    char *absolute = realpath(path, NULL), *folder = NULL;
    int rc;

    *out = NULL;
    if (!absolute)
        return error_errno(err, path, "open");
    rc = as_usage(yaml_read_file(&root, path, err), err);
    if (rc == 0 && !root)
        rc = error_set(err, ARTEL_EUSAGE, "RCP04", "1:1", "the recipe is empty");
    if (rc == 0)
        rc = take_overrides(root, overrides, n_overrides, err);
    if (rc == 0) {
        folder = strdup(absolute);
        rc = folder ? 0 : error_nomem(err, strlen(absolute));
    }
    if (rc == 0) {
        strrchr(folder, '/')[strrchr(folder, '/') == folder] = '\0';
        rc = recipe_from_tree(out, root, folder, err);
    }
    if (rc == 0) {
        (*out)->path = absolute;
        absolute = NULL;
    }
    yaml_close(root);
    free(folder);
    free(absolute);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

static void domain_release(struct recipe_domain *d)
{
    free(d->train);
    free(d->valid);
    free(d->test);
    free(d->score);
    free(d->adapter);
}

void recipe_close(struct recipe *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_domains; i++)
        domain_release(&r->domains[i]);
    if (r->universal)
        domain_release(&r->universal->text);
    for (size_t i = 0; i < r->n_general; i++)
        free(r->general[i].path);
    free(r->domains);
    free(r->universal);
    free(r->general);
    free(r->methods);
    free(r->path);
    free(r->model);
    free(r->output);
    free(r);
}
