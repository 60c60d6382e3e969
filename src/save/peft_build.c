/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The adapter_config.json of an expert, with every key that PEFT itself writes
 * and that older readers ask for.
 *
 * Where ranks or scales differ between linears, rank_pattern and alpha_pattern
 * say so: a site's name where all its layers agree, else "layers.N.SITE" for
 * each. PEFT takes the first key that matches in sorted order, so a linear
 * never has two. Where only some layers have a site, layers_to_transform does,
 * if it is the same layers for all sites, else a pattern for whole paths.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "save/peft_config.h"
#include "save/target_modules.h"

/* What the top level of the file says; linears that differ are listed. */
struct common {
    size_t rank;
    float alpha;
    bool use_rslora;
};

float lora_alpha_for(float scale, size_t rank, bool use_rslora)
{
    const double root = use_rslora ? sqrt((double)rank) : (double)rank;
    const float near = (float)((double)scale * root);
    const float tries[] = {roundf(near), near, nextafterf(near, INFINITY),
                           nextafterf(near, -INFINITY)};

    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
        if (lora_scale(tries[i], rank, use_rslora) == scale)
            return tries[i];
    return near;
}

/* 16 as PEFT has it, not 16.0, where that is the number. */
static json_t *number_new(float x)
{
    if (x == truncf(x) && fabsf(x) < 1e9f)
        return json_integer((json_int_t)x);
    return json_real((double)x);
}

/* The decimal that a reader of floats takes for X: 0.01, not 0.00999999977. */
static double shortest_double(float x)
{
    for (int digits = 1; digits < 9; digits++) {
        char text[32];

        snprintf(text, sizeof(text), "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            return strtod(text, NULL);
    }
    return (double)x;
}

/* The commonest (rank, scale) of E, where nobody says what was asked for. */
static struct common find_common(const struct expert *e)
{
    const size_t n = e->n_layers * N_SITES;
    struct common best = {.rank = 8, .alpha = 8.0f};
    size_t best_count = 0;

    for (size_t i = 0; i < n; i++) {
        size_t count = 0;

        for (size_t k = 0; e->lora[i].rank && k < n; k++)
            count += e->lora[k].rank == e->lora[i].rank &&
                     e->lora[k].scale == e->lora[i].scale;
        if (count <= best_count)
            continue;
        best_count = count;
        best.rank = e->lora[i].rank;
        best.alpha = lora_alpha_for(e->lora[i].scale, best.rank, false);
    }
    return best;
}

enum field { FIELD_RANK, FIELD_ALPHA };

/* The value of FIELD for a linear: NULL where the top level already gives it. */
static json_t *field_new(const struct lora *l, const struct common *c, enum field field)
{
    if (field == FIELD_RANK)
        return l->rank == c->rank ? NULL : json_integer((json_int_t)l->rank);
    if (lora_scale(c->alpha, l->rank, c->use_rslora) == l->scale)
        return NULL;
    return number_new(lora_alpha_for(l->scale, l->rank, c->use_rslora));
}

static bool site_agrees(const struct expert *e, enum site s, const struct common *c,
                        enum field field)
{
    json_t *first = NULL;
    bool seen = false, same = true;

    for (size_t l = 0; l < e->n_layers; l++) {
        const struct lora *lora = expert_lora(e, l, s);
        json_t *value;

        if (!lora->rank)
            continue;
        value = field_new(lora, c, field);
        if (!seen)
            first = json_incref(value);
        else
            same = same && (value && first ? json_equal(value, first) : value == first);
        seen = true;
        json_decref(value);
    }
    json_decref(first);
    return same;
}

/* rank_pattern or alpha_pattern, a new reference. */
static json_t *pattern_new(const struct expert *e, const struct common *c,
                           enum field field)
{
    json_t *map = json_object();

    for (size_t i = 0; map && i < e->n_layers * N_SITES; i++) {
        const enum site s = (enum site)(i % N_SITES);
        char path[MODULE_PATH_SIZE];
        const char *key;
        json_t *value;

        if (!e->lora[i].rank)
            continue;
        value = field_new(&e->lora[i], c, field);
        if (!value)
            continue;
        key = site_agrees(e, s, c, field)
                  ? site_name(s)
                  : module_path(path, i / N_SITES, s) + strlen("model.");
        if (json_object_set_new(map, key, value) < 0) {
            json_decref(map);
            map = NULL;
        }
    }
    return map;
}

static bool has_site(const struct expert *e, enum site s)
{
    for (size_t l = 0; l < e->n_layers; l++)
        if (expert_lora(e, l, s)->rank)
            return true;
    return false;
}

/* Every adapted site is adapted in the same layers. */
static bool layers_alike(const struct expert *e)
{
    for (size_t l = 0; l < e->n_layers; l++) {
        bool any = false, all = true;

        for (int s = 0; s < N_SITES; s++) {
            if (!has_site(e, (enum site)s))
                continue;
            any = any || expert_lora(e, l, (enum site)s)->rank;
            all = all && expert_lora(e, l, (enum site)s)->rank;
        }
        if (any != all)
            return false;
    }
    return true;
}

/* model\.layers\.(?:(?:0|3)\.self_attn\.q_proj|...) for exactly the linears of E. */
static json_t *path_pattern_new(const struct expert *e)
{
    const size_t size = 64 + N_SITES * (e->n_layers * 21 + 64);
    char *text = malloc(size);
    size_t n;
    const char *between = "";
    json_t *value;

    if (!text)
        return NULL;
    n = (size_t)snprintf(text, size, "model\\.layers\\.(?:");
    for (int s = 0; s < N_SITES; s++) {
        const char *module = site_module((enum site)s);
        const char *bar = "(?:";

        if (!has_site(e, (enum site)s))
            continue;
        n += (size_t)snprintf(text + n, size - n, "%s", between);
        between = "|";
        for (size_t l = 0; l < e->n_layers; l++) {
            if (!expert_lora(e, l, (enum site)s)->rank)
                continue;
            n += (size_t)snprintf(text + n, size - n, "%s%zu", bar, l);
            bar = "|";
        }
        n += (size_t)snprintf(text + n, size - n, ")\\.%.*s\\.%s",
                              (int)strcspn(module, "."), module,
                              strchr(module, '.') + 1);
    }
    n += (size_t)snprintf(text + n, size - n, ")");
    assert(n < size);
    value = json_string(text);
    free(text);
    return value;
}

/* Site names in alphabetical order, as PEFT sorts them. */
static json_t *site_list_new(const struct expert *e)
{
    static const enum site order[] = {SITE_DOWN, SITE_GATE, SITE_K, SITE_O,
                                      SITE_Q,    SITE_UP,   SITE_V};
    json_t *list = json_array();

    for (size_t i = 0; list && i < N_SITES; i++)
        if (has_site(e, order[i]) &&
            json_array_append_new(list, json_string(site_name(order[i])))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static bool has_layer(const struct expert *e, size_t layer)
{
    for (int s = 0; s < N_SITES; s++)
        if (expert_lora(e, layer, (enum site)s)->rank)
            return true;
    return false;
}

/* The adapted layers; null where that is all of them. */
static json_t *layer_list_new(const struct expert *e)
{
    json_t *list = json_array();

    for (size_t l = 0; list && l < e->n_layers; l++)
        if (has_layer(e, l) &&
            json_array_append_new(list, json_integer((json_int_t)l))) {
            json_decref(list);
            list = NULL;
        }
    if (!list || json_array_size(list) < e->n_layers)
        return list;
    json_decref(list);
    return json_null();
}

/* Sets target_modules and layers_to_transform. */
static int set_targets(json_t *root, const struct expert *e)
{
    const bool alike = layers_alike(e);

    return json_object_set_new(root, "target_modules",
                               alike ? site_list_new(e) : path_pattern_new(e)) |
           json_object_set_new(root, "layers_to_transform",
                               alike ? layer_list_new(e) : json_null());
}

int peft_config_build(json_t **out, const struct expert *e,
                      const struct lora_options *as_asked, const char *base_path,
                      struct artel_error *err)
{
    struct common c;
    json_t *root;

    if (as_asked)
        c = (struct common){as_asked->rank, as_asked->alpha, as_asked->use_rslora};
    else
        c = find_common(e);
    *out = NULL;
    root = json_pack(
        "{s:s, s:s, s:s, s:s?, s:s, s:b, s:b, s:b, s:{}, s:n, s:n, s:f, s:b, s:n, s:n,"
        " s:b, s:b, s:i, s:o, s:o, s:o}",
        "peft_type", peft_type_of(e->kind), "task_type", "CAUSAL_LM", "bias", "none",
        "base_model_name_or_path", base_path, "megatron_core", "megatron.core",
        "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1,
        "loftq_config", "layers_pattern", "megatron_config", "lora_dropout",
        (double)e->dropout, "lora_bias", 0, "modules_to_save", "revision", "use_dora",
        0, "use_rslora", (int)c.use_rslora, "r", (int)c.rank, "lora_alpha",
        number_new(c.alpha), "rank_pattern", pattern_new(e, &c, FIELD_RANK),
        "alpha_pattern", pattern_new(e, &c, FIELD_ALPHA));
    if (!root || set_targets(root, e) ||
        (e->kind == EXPERT_RES &&
         json_object_set_new(root, "negative_slope",
                             json_real(shortest_double(e->slope)))) ||
        (e->instead && json_object_set_new(root, "residual", json_false()))) {
        json_decref(root);
        return error_nomem(err, 0);
    }
    *out = root;
    return 0;
}
