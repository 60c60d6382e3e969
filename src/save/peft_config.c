/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading adapter_config.json. Absent keys have PEFT's defaults (r 8, alpha 8).
 *
 *     scale = alpha / r, or alpha / sqrt(r) with use_rslora; r and alpha of a linear come,
 *     each for itself, from the first key of rank_pattern or alpha_pattern that matches the
 *     end of its path, else from r and lora_alpha
 */
#include "save/peft_config.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/log.h"
#include "files/json.h"
#include "save/target_modules.h"

#define CONFIG_MAX_BYTES ((size_t)4 << 20)
#define MAX_PATTERN_KEYS 16384

/* Keys that must be absent, null, false, empty or "none". */
static const char *const unsupported[] = {
    "use_dora",          "lora_bias",
    "fan_in_fan_out",    "alora_invocation_tokens",
    "use_qalora",        "use_bdlora",
    "layer_replication", "target_parameters",
    "arrow_config",      "kasa_config",
    "modules_to_save",   "trainable_token_indices",
    "megatron_config",   "monteclora_config",
};

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && !json_array_size(value)) ||
           (json_is_object(value) && !json_object_size(value));
}

static int refuse_features(const json_t *root, struct artel_error *err)
{
    const json_t *bias = json_object_get(root, "bias");

    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++)
        if (!is_off(json_object_get(root, unsupported[i])))
            return error_set(err, ARTEL_EFORMAT, "ADP12", unsupported[i],
                             "this feature of PEFT is not supported; merge the adapter "
                             "or train it without");
    if (!is_off(bias) &&
        !(json_is_string(bias) && !strcmp(json_string_value(bias), "none")))
        return error_set(err, ARTEL_EFORMAT, "ADP12", "bias",
                         "trained biases are not supported, expected \"none\"");
    return 0;
}

/* Some ways to draw the first A and B also change the base: such an adapter fits only that
 * changed base. PEFT writes true once it has turned the weights back. */
static int refuse_changed_base(const json_t *root, struct artel_error *err)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal"};
    const json_t *value = json_object_get(root, "init_lora_weights");
    char shown[64];

    if (!value || json_is_null(value) || json_is_boolean(value))
        return 0;
    for (size_t i = 0; json_is_string(value) && i < 3; i++)
        if (!strcasecmp(json_string_value(value), harmless[i]))
            return 0;
    if (!json_is_string(value))
        return error_set(err, ARTEL_EFORMAT, "ADP09", "init_lora_weights",
                         "expected true, false or a name");
    return error_set(
        err, ARTEL_EFORMAT, "ADP12", "init_lora_weights",
        "'%s' may have changed the base the adapter stands on; save it from "
        "PEFT as an ordinary LoRA first",
        escape_text(shown, sizeof(shown), json_string_value(value),
                    json_string_length(value)));
}

const char *peft_type_of(enum expert_kind kind)
{
    return kind == EXPERT_RES   ? PEFT_TYPE_RES
           : kind == EXPERT_FFN ? PEFT_TYPE_FFN
                                : "LORA";
}

enum expert_kind peft_type_kind(const char *type)
{
    return !type                          ? EXPERT_LORA
           : !strcmp(type, PEFT_TYPE_RES) ? EXPERT_RES
           : !strcmp(type, PEFT_TYPE_FFN) ? EXPERT_FFN
                                          : EXPERT_LORA;
}

/* LORA, or what one of our own experts calls itself. */
static int read_type(struct peft_config *p, const json_t *root, struct artel_error *err)
{
    const json_t *type = json_object_get(root, "peft_type");
    const json_t *slope = json_object_get(root, "negative_slope");
    const json_t *residual = json_object_get(root, "residual");
    char shown[64];

    p->kind = peft_type_kind(json_string_value(type));
    p->slope = 1.0f;
    if (p->kind == EXPERT_FFN)
        return 0;
    if (p->kind == EXPERT_RES) {
        p->slope = slope ? (float)json_number_value(slope) : RES_SLOPE;
        if (residual && !json_is_boolean(residual))
            return error_set(err, ARTEL_EFORMAT, "ADP09", "residual",
                             "expected true or false");
        p->instead = residual && json_is_false(residual);
        if (!(p->slope >= 0.0f && p->slope <= 1.0f))
            return error_set(err, ARTEL_EFORMAT, "ADP09", "negative_slope",
                             "expected a number from 0 to 1");
        return 0;
    }

    if (!json_is_string(type))
        return error_set(err, ARTEL_EFORMAT, "ADP09", "peft_type",
                         "expected \"LORA\", found %s",
                         type ? "something that is not text" : "nothing");
    if (strcmp(json_string_value(type), "LORA") != 0)
        return error_set(err, ARTEL_EFORMAT, "ADP12", "peft_type",
                         "expected \"LORA\", found \"%s\"",
                         escape_text(shown, sizeof(shown), json_string_value(type),
                                     json_string_length(type)));
    return 0;
}

static int rank_of(size_t *out, const json_t *value, const char *key,
                   struct artel_error *err)
{
    if (!json_is_integer(value))
        return error_set(err, ARTEL_EFORMAT, "ADP02", key,
                         "a rank is a whole number from 1 to %d", EXPERT_MAX_RANK);
    if (json_integer_value(value) < 1 || json_integer_value(value) > EXPERT_MAX_RANK)
        return error_set(err, ARTEL_EFORMAT, "ADP02", key,
                         "rank %lld is out of range, expected 1 to %d",
                         (long long)json_integer_value(value), EXPERT_MAX_RANK);
    *out = (size_t)json_integer_value(value);
    return 0;
}

static int alpha_of(float *out, const json_t *value, const char *key,
                    struct artel_error *err)
{
    if (!json_is_number(value))
        return error_set(err, ARTEL_EFORMAT, "ADP04", key, "alpha is a number");
    if (!(fabs(json_number_value(value)) <= (double)FLT_MAX))
        return error_set(err, ARTEL_EFORMAT, "ADP04", key,
                         "alpha %g gives no finite scale", json_number_value(value));
    *out = (float)json_number_value(value);
    return 0;
}

static int read_numbers(struct peft_config *p, struct artel_error *err)
{
    const json_t *rank = json_object_get(p->root, "r");
    const json_t *alpha = json_object_get(p->root, "lora_alpha");
    const json_t *dropout = json_object_get(p->root, "lora_dropout");
    const json_t *rslora = json_object_get(p->root, "use_rslora");
    int rc = 0;

    p->rank = 8;
    p->alpha = 8.0f;
    if (rank)
        rc = rank_of(&p->rank, rank, "r", err);
    if (rc == 0 && alpha)
        rc = alpha_of(&p->alpha, alpha, "lora_alpha", err);
    if (rc < 0)
        return rc;
    if (dropout && !json_is_null(dropout)) {
        p->dropout = (float)json_number_value(dropout);
        if (!json_is_number(dropout) || !(p->dropout >= 0.0f && p->dropout < 1.0f))
            return error_set(err, ARTEL_EFORMAT, "ADP09", "lora_dropout",
                             "expected a number from 0 to below 1");
    }
    if (rslora && !json_is_boolean(rslora) && !json_is_null(rslora))
        return error_set(err, ARTEL_EFORMAT, "ADP09", "use_rslora",
                         "expected true or false");
    p->use_rslora = json_is_true(rslora);
    if (p->alpha == 0.0f)
        log_warn("lora_alpha is 0: this adapter changes nothing");
    return 0;
}

int peft_config_parse(struct peft_config *p, json_t *root, struct artel_error *err)
{
    const json_t *base = json_object_get(root, "base_model_name_or_path");
    int rc;

    *p = (struct peft_config){0};
    rc = read_type(p, root, err);
    if (rc == 0)
        rc = refuse_features(root, err);
    if (rc == 0)
        rc = refuse_changed_base(root, err);
    p->root = json_incref(root);
    if (rc == 0)
        rc = read_numbers(p, err);
    if (rc < 0) {
        peft_config_release(p);
        return rc;
    }
    p->base_path = json_is_string(base) ? json_string_value(base) : NULL;
    return 0;
}

int peft_config_read(struct peft_config *p, const char *path, struct artel_error *err)
{
    json_t *root;
    int rc;

    *p = (struct peft_config){0};
    rc = json_read_file(&root, path, CONFIG_MAX_BYTES, err);
    if (rc < 0)
        return rc;
    rc = peft_config_parse(p, root, err);
    json_decref(root);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

void peft_config_release(struct peft_config *p)
{
    json_decref(p->root);
    *p = (struct peft_config){0};
}

/* Puts VALUE into a plan's field for the linears that KEY matches and that no key before
 * has taken. */
typedef int set_field(struct module_plan *plan, const json_t *value, const char *key,
                      struct artel_error *err);

static int set_rank(struct module_plan *plan, const json_t *value, const char *key,
                    struct artel_error *err)
{
    return rank_of(&plan->rank, value, key, err);
}

static int set_alpha(struct module_plan *plan, const json_t *value, const char *key,
                     struct artel_error *err)
{
    return alpha_of(&plan->alpha, value, key, err);
}

static int apply_key(struct module_plan *plan, bool *taken, const char *where,
                     const char *key, const json_t *value, size_t n, set_field *set,
                     struct artel_error *err)
{
    struct pattern *p;
    char path[MODULE_PATH_SIZE];
    int rc = pattern_open(&p, key, true, where, err);

    for (size_t i = 0; rc >= 0 && i < n; i++) {
        if (!plan[i].rank || taken[i])
            continue;
        rc = pattern_matches(
            p, module_path(path, i / N_SITES, (enum site)(i % N_SITES)), err);
        if (rc != 1)
            continue;
        taken[i] = true;
        rc = set(&plan[i], value, where, err);
    }
    pattern_close(p);
    return rc < 0 ? rc : 0;
}

static int apply_patterns(struct module_plan *plan, const json_t *root,
                          const char *where, size_t n, set_field *set,
                          struct artel_error *err)
{
    json_t *map = json_object_get(root, where), *value;
    const char *key;
    bool *taken;
    int rc = 0;

    if (!map || json_is_null(map))
        return 0;
    if (!json_is_object(map) || json_object_size(map) > MAX_PATTERN_KEYS)
        return error_set(err, ARTEL_EFORMAT, "ADP09", where,
                         "expected an object of at most %d keys", MAX_PATTERN_KEYS);
    taken = calloc(n, sizeof(*taken));
    if (!taken)
        return error_nomem(err, n);
    json_object_foreach(map, key, value)
    {
        rc = apply_key(plan, taken, where, key, value, n, set, err);
        if (rc < 0)
            break;
    }
    free(taken);
    return rc;
}

/* Ranks and scales that could not be computed with. */
static int check_plan(struct module_plan *plan, const struct peft_config *p,
                      const struct model_config *c, struct artel_error *err)
{
    char path[MODULE_PATH_SIZE];

    for (size_t i = 0; i < c->n_layers * N_SITES; i++) {
        const enum site s = (enum site)(i % N_SITES);
        size_t n_out, n_in;

        if (!plan[i].rank)
            continue;
        site_shape(c, s, &n_out, &n_in);
        module_path(path, i / N_SITES, s);
        if (plan[i].rank > n_out && plan[i].rank > n_in)
            return error_set(err, ARTEL_EFORMAT, "ADP02", path,
                             "rank %zu is larger than the matrix of %zu x %zu",
                             plan[i].rank, n_out, n_in);
        plan[i].scale = lora_scale(plan[i].alpha, plan[i].rank, p->use_rslora);
        if (!isfinite(plan[i].scale))
            return error_set(err, ARTEL_EFORMAT, "ADP04", path,
                             "alpha %g gives no finite scale", (double)plan[i].alpha);
    }
    return 0;
}

int peft_config_plan(struct module_plan *plan, const struct peft_config *p,
                     const struct model_config *c, struct artel_error *err)
{
    const size_t n = c->n_layers * N_SITES;
    bool *targeted = calloc(n, sizeof(*targeted));
    int rc;

    if (!targeted)
        return error_nomem(err, n);
    rc = modules_targeted(targeted, p->root, c->n_layers, err);
    for (size_t i = 0; i < n; i++)
        plan[i] = targeted[i] ? (struct module_plan){.rank = p->rank, .alpha = p->alpha}
                              : (struct module_plan){0};
    free(targeted);
    if (rc == 0)
        rc = apply_patterns(plan, p->root, "rank_pattern", n, set_rank, err);
    if (rc == 0)
        rc = apply_patterns(plan, p->root, "alpha_pattern", n, set_alpha, err);
    if (rc == 0)
        rc = check_plan(plan, p, c, err);
    return rc;
}
