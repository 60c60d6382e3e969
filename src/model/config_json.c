/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration from config.json, in the keys of transformers 4 (rope_theta,
 * rope_scaling) and 5 (rope_parameters). Codes are listed in config_check.h.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "model/architectures.h"
#include "model/config_check.h"

#define TWO_PI 6.283185307179586

static int find_architecture(const struct architecture **out, const json_t *root,
                             struct artel_error *err)
{
    const json_t *classes = json_object_get(root, "architectures");
    const json_t *first = json_array_get(classes, 0);
    const char *type;
    char shown[140];
    int rc = json_need_string(root, "model_type", &type, err);

    if (rc < 0)
        return rc;
    *out = architecture_of_model_type(type);
    if (!*out)
        return error_set(err, ARTEL_EFORMAT, "CFG01", "model_type",
                         "'%.100s' is not supported, these are: %s",
                         escape_text(shown, sizeof(shown), type, strlen(type)),
                         architecture_list());
    if (!classes || json_is_null(classes))
        return 0;
    if (!json_is_string(first) || !word_among((*out)->classes, json_string_value(first),
                                              json_string_length(first)))
        return error_set(err, ARTEL_EFORMAT, "CFG01", "architectures",
                         "'%.100s' is not supported, expected one of: %s",
                         json_is_string(first) ? escape_text(shown, sizeof(shown),
                                                             json_string_value(first),
                                                             json_string_length(first))
                                               : "not a list of names",
                         (*out)->classes);
    return 0;
}

static bool is_nothing(const json_t *v)
{
    if (json_is_number(v))
        return json_number_value(v) == 0.0;
    if (json_is_string(v))
        return json_string_length(v) == 0;
    return json_is_null(v) || json_is_false(v) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool is_word(const json_t *v, const char *words)
{
    return json_is_string(v) &&
           word_among(words, json_string_value(v), json_string_length(v));
}

static bool value_fits(const json_t *v, const struct forbidden_key *f)
{
    size_t i;
    const json_t *e;

    if (!v || json_is_null(v))
        return true;
    switch (f->rule) {
    case KEY_NONE:
        return is_nothing(v);
    case KEY_NUMBER:
        return json_is_number(v) && json_number_value(v) == f->number;
    case KEY_TRUE:
        return json_is_true(v);
    case KEY_TEXT:
        json_array_foreach(v, i, e) if (!is_word(e, f->text)) return false;
        return json_is_array(v) || is_word(v, f->text);
    }
    return false;
}

static int check_keys(const json_t *root, const struct architecture *a,
                      struct artel_error *err)
{
    for (const struct forbidden_key *f = a->hf_keys; f->key; f++)
        if (!value_fits(json_object_get(root, f->key), f))
            return error_set(
                err, ARTEL_EFORMAT, "CFG05", f->key,
                "is set to something that changes the mathematics and is not "
                "supported");
    return 0;
}

static int read_sizes(struct raw_config *raw, const json_t *root,
                      struct artel_error *err)
{
    static const char *const names[N_FIELDS] = {
        "num_hidden_layers",       "hidden_size", "num_attention_heads",
        "num_key_value_heads",     "head_dim",    "intermediate_size",
        "max_position_embeddings", "vocab_size"};
    int rc = 0;

    for (size_t i = 0; i < N_FIELDS && rc == 0; i++) {
        const json_t *v = json_object_get(root, names[i]);

        snprintf(raw->keys[i], sizeof(raw->keys[i]), "%s", names[i]);
        raw->absent[i] = !v || json_is_null(v);
        rc = json_want_uint(root, names[i], 0, INT64_MAX, &raw->values[i], err);
    }
    if (rc < 0)
        return rc;
    snprintf(raw->eps_key, sizeof(raw->eps_key), "rms_norm_eps");
    snprintf(raw->theta_key, sizeof(raw->theta_key), "rope_theta");
    raw->eps = 1e-6; /* transformers' default for these architectures */
    raw->theta = 10000.0;
    rc = json_want_double(root, raw->eps_key, &raw->eps, err);
    return rc < 0 ? rc : json_want_double(root, raw->theta_key, &raw->theta, err);
}

/* rope_scaling, or rope_parameters where that is what the file has; NULL for none. */
static int find_scaling(const json_t **out, const char **key, const json_t *root,
                        struct artel_error *err)
{
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};

    *out = NULL;
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_object_get(root, keys[i]);

        if (!v || json_is_null(v))
            continue;
        if (!json_is_object(v))
            return error_set(err, ARTEL_EFORMAT, "CFG06", keys[i], "must be an object");
        if (!*out) {
            *out = v;
            *key = keys[i];
        } else if (!json_equal((json_t *)(size_t)*out, (json_t *)(size_t)v)) {
            return error_set(err, ARTEL_EFORMAT, "CFG06", keys[i],
                             "differs from rope_parameters");
        }
    }
    return 0;
}

static int need_positive(const json_t *o, const char *key, double *out,
                         struct artel_error *err)
{
    int rc;

    *out = 0.0;
    rc = json_want_double(o, key, out, err);
    if (rc == 0 && !(*out > 0.0 && *out <= 1e9))
        rc = error_set(err, ARTEL_EFORMAT, "CFG06", key,
                       "%g, or missing: a number above 0 was expected", *out);
    return rc;
}

/*
 * Llama 3: long waves are slowed by FACTOR, short ones kept, those between blended.
 *
 *     wave = 2 pi / f;  s = (L / wave - low) / (high - low)
 *     f' = f | f / factor | (1 - s) f / factor + s f;   divisor = f / f'
 */
static int scale_llama3(struct model_config *c, const json_t *o,
                        struct artel_error *err)
{
    double factor, low, high, length;
    int rc = need_positive(o, "factor", &factor, err);

    if (rc == 0)
        rc = need_positive(o, "low_freq_factor", &low, err);
    if (rc == 0)
        rc = need_positive(o, "high_freq_factor", &high, err);
    if (rc == 0)
        rc = need_positive(o, "original_max_position_embeddings", &length, err);
    if (rc < 0)
        return rc;
    if (factor < 1.0 || high <= low)
        return error_set(err, ARTEL_EFORMAT, "CFG06", "rope_scaling",
                         "factor %g must be 1 or more, and low_freq_factor %g below "
                         "high_freq_factor %g",
                         factor, low, high);
    for (size_t i = 0; i < c->head_dim / 2; i++) {
        const double f =
            pow((double)c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
        const double wave = TWO_PI / f, s = (length / wave - low) / (high - low);

        if (wave > length / low)
            c->rope_divisor[i] = (float)factor;
        else if (wave >= length / high)
            c->rope_divisor[i] = (float)(1.0 / ((1.0 - s) / factor + s));
    }
    return 0;
}

static int read_scaling(struct model_config *c, const json_t *o, const char *key,
                        struct artel_error *err)
{
    const char *type = NULL;
    char shown[140];
    double factor;
    int rc = json_want_string(o, "type", &type, err);

    if (rc == 0)
        rc = json_want_string(o, "rope_type", &type, err); /* the newer name wins */
    if (rc < 0)
        return rc;
    if (!type && json_object_size(o) > 0 && !json_object_get(o, "rope_theta"))
        return error_set(err, ARTEL_EFORMAT, "CFG06", key, "rope_type is missing");
    if (!type || !strcmp(type, "default"))
        return 0;
    if (!strcmp(type, "llama3"))
        return scale_llama3(c, o, err);
    if (strcmp(type, "linear") != 0)
        return error_set(err, ARTEL_EFORMAT, "CFG06", key,
                         "'%.60s' is not supported, default, linear and llama3 are",
                         escape_text(shown, sizeof(shown), type, strlen(type)));
    rc = need_positive(o, "factor", &factor, err);
    return rc < 0 ? rc : config_scale_linear(c, factor, key, err);
}

static int take_token(const struct model_config *c, int *out, const json_t *v,
                      const char *key, struct artel_error *err)
{
    *out = -1;
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_integer(v))
        return error_set(err, ARTEL_EFORMAT, "JSON07", key,
                         "expected a token id, found something else");
    return config_take_token(c, out, json_integer_value(v), key, err);
}

static int read_tokens(struct model_config *c, const json_t *root,
                       struct artel_error *err)
{
    const json_t *eos = json_object_get(root, "eos_token_id");
    const size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    int rc, id;

    rc = take_token(c, &c->bos, json_object_get(root, "bos_token_id"), "bos_token_id",
                    err);
    if (rc == 0)
        rc = take_token(c, &c->pad, json_object_get(root, "pad_token_id"),
                        "pad_token_id", err);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = take_token(c, &id, json_is_array(eos) ? json_array_get(eos, i) : eos,
                        "eos_token_id", err);
        if (rc == 0)
            config_add_end(c, id);
    }
    return rc;
}

static int read_all(struct model_config *c, const json_t *root, struct artel_error *err)
{
    struct raw_config raw = {.theta = 0};
    const struct architecture *a = NULL;
    const struct forbidden_key whole = {"partial_rotary_factor", KEY_NUMBER, NULL, 1};
    const json_t *scaling = NULL;
    const char *key = NULL;
    int rc = find_architecture(&a, root, err);

    if (rc == 0)
        rc = check_keys(root, a, err);
    if (rc == 0)
        rc = read_sizes(&raw, root, err);
    if (rc == 0)
        rc = find_scaling(&scaling, &key, root, err);
    if (rc == 0 && scaling)
        rc = json_want_double(scaling, "rope_theta", &raw.theta, err);
    if (rc == 0 && scaling && !value_fits(json_object_get(scaling, whole.key), &whole))
        rc = error_set(err, ARTEL_EFORMAT, "CFG05", whole.key, "must be 1");
    if (rc == 0)
        rc = config_take(c, &raw, err);
    if (rc == 0 && scaling)
        rc = read_scaling(c, scaling, key, err);
    if (rc == 0)
        rc = read_tokens(c, root, err);
    if (rc < 0)
        return rc;
    snprintf(c->architecture, sizeof(c->architecture), "%s", a->name);
    c->tied = a->tied_by_default;
    return json_want_bool(root, "tie_word_embeddings", &c->tied, err);
}

int config_from_json(struct model_config *c, const json_t *root, const char *path,
                     struct artel_error *err)
{
    int rc;

    *c = (struct model_config){.bos = -1, .eos = -1, .pad = -1};
    rc = read_all(c, root, err);
    return rc < 0 ? error_in(err, rc, path) : 0;
}
