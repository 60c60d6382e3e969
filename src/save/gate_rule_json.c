/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words for each choice of a rule stand in tables, in the order of the enums.
 */
#include "save/gate_rule_json.h"

#include <string.h>

#include "base/error.h"
#include "files/json.h"

static const char *const places[] = {"none", "layer", "ffn", "linear",
                                     "base", "text",  NULL};
static const char *const decisions[] = {"sequence", "token", NULL};
static const char *const pools[] = {"mean", "last", NULL};
static const char *const kinds[] = {"one-hot", "softmax", "top-k", "top-p", NULL};
static const char *const selectors[] = {"last", "vote", NULL};

static const char *const distances[] = {"mean", "max", NULL};
static const char *const masks[] = {"fixed", "expected", "none", NULL};

static json_t *reads_new(const struct gate_rule *rule)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < rule->n_reads; i++)
        json_array_append_new(list, json_integer(rule->reads[i]));
    return list;
}

json_t *gate_rule_new(const struct gate_rule *rule)
{
    const struct cluster_options *c = &rule->clusters;
    const struct mask_rule *m = &rule->masks;
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:s, s:I}", "place", places[rule->place],
        "decides", decisions[rule->decides], "pool", pools[rule->pool], "gate",
        kinds[rule->kind], "top_k", (json_int_t)rule->top_k, "bias", (int)rule->bias,
        "fix_expert", (int)rule->fix_expert, "selector", selectors[rule->selector],
        "fixed", (json_int_t)rule->n_fixed);

    if (o && rule->n_reads)
        json_object_set_new(o, "reads", reads_new(rule));
    if (o && rule->place == ROUTER_TEXT)
        json_object_set_new(o, "ngrams",
                            json_pack("{s:I, s:I, s:I, s:b}", "min",
                                      (json_int_t)rule->ngrams.min, "max",
                                      (json_int_t)rule->ngrams.max, "buckets",
                                      (json_int_t)rule->ngrams.buckets, "lowercase",
                                      (int)rule->ngrams.lowercase));
    if (o && rule->absolute)
        json_object_set_new(o, "absolute", json_true());
    if (o && rule->temperature > 0)
        json_object_set_new(o, "temperature", json_real((double)rule->temperature));
    if (o && rule->n_clusters)
        json_object_set_new(o, "clusters",
                            json_pack("{s:I, s:f, s:s, s:f}", "n",
                                      (json_int_t)rule->n_clusters, "momentum",
                                      (double)c->momentum, "distance",
                                      distances[c->distance], "beta", (double)c->beta));
    if (o && m->drop > 0.0f)
        json_object_set_new(o, "masks",
                            json_pack("{s:f, s:b, s:s, s:I}", "drop", (double)m->drop,
                                      "rescale", (int)m->rescale, "inference",
                                      masks[m->kind], "seed", (json_int_t)m->seed));
    if (o && rule->kind == GATE_TOP_P)
        json_object_set_new(o, "top_p", json_real((double)rule->top_p));
    if (o && rule->silent)
        json_object_set_new(o, "residual", json_false());
    if (o && rule->whole_ffn)
        json_object_set_new(o, "whole_ffn", json_true());
    return o;
}

/* The index of KEY's word among WORDS, or -1 with the error told. */
static int word_of(const json_t *o, const char *key, const char *const *words,
                   struct artel_error *err)
{
    const json_t *value = json_object_get(o, key);
    char shown[64];

    for (int i = 0; json_is_string(value) && words[i]; i++)
        if (!strcmp(json_string_value(value), words[i]))
            return i;
    error_set(err, ARTEL_EFORMAT, "MIX05", key, "'%s' is not known here",
              json_is_string(value)
                  ? escape_text(shown, sizeof(shown), json_string_value(value),
                                json_string_length(value))
                  : "");
    return -1;
}

/* What only some methods have, and older files do not. */
static int read_scores(struct gate_rule *rule, const json_t *o, struct artel_error *err)
{
    const json_t *t = json_object_get(o, "temperature");
    const double value = json_number_value(t);

    if (t && !(json_is_number(t) && value >= 1e-6 && value <= 1e6))
        return error_set(err, ARTEL_EFORMAT, "MIX05", "temperature",
                         "expected a number from 1e-6 to 1e6");
    rule->temperature = t ? (float)value : 0.0f;
    return json_want_bool(o, "absolute", &rule->absolute, err);
}

/* What some mixtures leave out of the sum, and older files say nothing of. */
static int read_residual(struct gate_rule *rule, const json_t *o, uint64_t fixed,
                         struct artel_error *err)
{
    bool residual = true;
    const int rc = json_want_bool(o, "residual", &residual, err);

    if (rc < 0)
        return rc;
    if (!residual && (!fixed || rule->whole_ffn))
        return error_set(err, ARTEL_EFORMAT, "MIX05", "residual",
                         "there is no universal expert whose part could be left out");
    rule->silent = !residual;
    return 0;
}

/* A number from LOW to HIGH. */
static int want_real(const json_t *o, const char *key, double low, double high,
                     float *out, struct artel_error *err)
{
    const json_t *value = json_object_get(o, key);
    const double x = json_number_value(value);

    if (!json_is_number(value) || !(x >= low && x <= high))
        return error_set(err, ARTEL_EFORMAT, "MIX05", key,
                         "expected a number from %g to %g", low, high);
    *out = (float)x;
    return 0;
}

static int read_clusters(struct gate_rule *rule, const json_t *o,
                         struct artel_error *err)
{
    const int distance = word_of(o, "distance", distances, err);
    uint64_t n = 0;
    int rc = distance < 0 ? ARTEL_EFORMAT
                          : json_want_uint(o, "n", 1, CLUSTERS_MOST, &n, err);

    if (rc == 0)
        rc = want_real(o, "momentum", 0, 1, &rule->clusters.momentum, err);
    if (rc == 0)
        rc = want_real(o, "beta", 0, 1e6, &rule->clusters.beta, err);
    if (rc < 0)
        return rc;
    if (!n)
        return error_set(err, ARTEL_EFORMAT, "MIX05", "clusters", "n is missing");
    if (rule->decides != DECIDE_TOKEN ||
        (rule->place != ROUTER_LAYER && rule->place != ROUTER_FFN))
        return error_set(err, ARTEL_EFORMAT, "MIX05", "clusters",
                         "only a layer's or an FFN's routers that decide for tokens "
                         "have clusters");
    rule->n_clusters = (size_t)n;
    rule->clusters.distance = (enum distance_kind)distance;
    return 0;
}

static int read_masks(struct gate_rule *rule, const json_t *o, struct artel_error *err)
{
    const int kind = word_of(o, "inference", masks, err);
    int rc = kind < 0 ? ARTEL_EFORMAT
                      : want_real(o, "drop", 0, 0.99, &rule->masks.drop, err);

    if (rc == 0)
        rc = json_want_bool(o, "rescale", &rule->masks.rescale, err);
    if (rc == 0)
        rc = json_want_uint(o, "seed", 0, INT64_MAX, &rule->masks.seed, err);
    if (rc == 0)
        rule->masks.kind = (enum mask_kind)kind;
    return rc;
}

/* That a router which decides before the experts are asked does so as it can. */
static int check_fixes(const struct gate_rule *rule, struct artel_error *err)
{
    if (rule->decides != DECIDE_SEQUENCE || rule->kind != GATE_ONE_HOT ||
        !rule->fix_expert || rule->n_fixed)
        return error_set(err, ARTEL_EFORMAT, "MIX05", "place",
                         "a router of the base or of the text fixes one expert for a "
                         "sequence");
    return 0;
}

/* A router of the base: which layers it reads. */
static int read_base(struct gate_rule *rule, const json_t *o, struct artel_error *err)
{
    const json_t *list = json_object_get(o, "reads");
    const size_t n = json_array_size(list);

    if (n < 1 || n > ROUTER_READS)
        return error_set(err, ARTEL_EFORMAT, "MIX05", "reads",
                         "expected a list of 1 to %d layers", ROUTER_READS);
    for (size_t i = 0; i < n; i++) {
        const json_t *layer = json_array_get(list, i);
        const json_int_t value = json_integer_value(layer);

        if (!json_is_integer(layer) || value < 1 || value > UINT16_MAX ||
            (i && value <= rule->reads[i - 1]))
            return error_set(err, ARTEL_EFORMAT, "MIX05", "reads",
                             "expected layers from 1 on in ascending order");
        rule->reads[i] = (uint16_t)value;
    }
    rule->n_reads = n;
    return check_fixes(rule, err);
}

/* A router of the text: what it reads of it. */
static int read_text(struct gate_rule *rule, const json_t *o, struct artel_error *err)
{
    const json_t *n = json_object_get(o, "ngrams");
    uint64_t min = 0, max = 0, buckets = 0;
    int rc;

    if (!json_is_object(n))
        return error_set(err, ARTEL_EFORMAT, "MIX05", "ngrams", "expected an object");
    rc = json_want_uint(n, "min", 1, NGRAM_MOST, &min, err);
    if (rc == 0)
        rc = json_want_uint(n, "max", 1, NGRAM_MOST, &max, err);
    if (rc == 0)
        rc = json_want_uint(n, "buckets", NGRAM_BUCKETS_LEAST, NGRAM_BUCKETS_MOST,
                            &buckets, err);
    if (rc == 0)
        rc = json_want_bool(n, "lowercase", &rule->ngrams.lowercase, err);
    if (rc < 0)
        return rc;
    if (!min || max < min || !buckets)
        return error_set(err, ARTEL_EFORMAT, "MIX05", "ngrams",
                         "expected min up to max, and buckets");
    rule->ngrams.min = (size_t)min;
    rule->ngrams.max = (size_t)max;
    rule->ngrams.buckets = (size_t)buckets;
    return check_fixes(rule, err);
}

int gate_rule_read(struct gate_rule *rule, const json_t *value, size_t n_experts,
                   struct artel_error *err)
{
    const int place = word_of(value, "place", places, err);
    const int decides = place < 0 ? -1 : word_of(value, "decides", decisions, err);
    const int pool = decides < 0 ? -1 : word_of(value, "pool", pools, err);
    const int kind = pool < 0 ? -1 : word_of(value, "gate", kinds, err);
    const int selector = kind < 0 ? -1 : word_of(value, "selector", selectors, err);
    const double top_p = json_number_value(json_object_get(value, "top_p"));
    uint64_t top_k = 0, fixed = 0;
    int rc;

    *rule = (struct gate_rule){0};
    if (selector < 0)
        return ARTEL_EFORMAT;
    rc = json_want_uint(value, "top_k", 0, UINT32_MAX, &top_k, err);
    if (rc == 0)
        rc = json_want_uint(value, "fixed", 0, n_experts, &fixed, err);
    if (rc == 0)
        rc = json_want_bool(value, "bias", &rule->bias, err);
    if (rc == 0)
        rc = json_want_bool(value, "whole_ffn", &rule->whole_ffn, err);
    if (rc == 0)
        rc = json_want_bool(value, "fix_expert", &rule->fix_expert, err);
    if (rc == 0)
        rc = read_scores(rule, value, err);
    if (rc == 0)
        rc = read_residual(rule, value, fixed, err);
    if (rc < 0)
        return rc;
    /* Where scores are absolute a mixture may start with fewer experts than it keeps. */
    if (kind == GATE_TOP_K &&
        (top_k < 1 || (top_k > n_experts - fixed && !rule->absolute)))
        return error_set(err, ARTEL_EFORMAT, "MIX09", "top_k",
                         "%llu of %zu experts cannot be chosen",
                         (unsigned long long)top_k, n_experts - (size_t)fixed);
    if (kind == GATE_TOP_P && !(top_p > 0 && top_p <= 1))
        return error_set(err, ARTEL_EFORMAT, "MIX09", "top_p",
                         "expected a number above 0 and up to 1");
    if (rule->whole_ffn && (place != ROUTER_FFN || decides != DECIDE_TOKEN ||
                            (kind != GATE_TOP_K && kind != GATE_TOP_P)))
        return error_set(err, ARTEL_EFORMAT, "MIX05", "whole_ffn",
                         "experts make whole FFNs by top-k or top-p gates of an FFN's "
                         "router, a token at a time");
    rule->place = (enum router_place)place;
    rule->decides = (enum router_decides)decides;
    rule->pool = (enum router_pool)pool;
    rule->kind = (enum gate_kind)kind;
    rule->selector = (enum selector)selector;
    rule->top_k = (size_t)top_k;
    rule->n_fixed = (size_t)fixed;
    rule->top_p = (float)top_p;
    if (json_object_get(value, "clusters"))
        rc = read_clusters(rule, json_object_get(value, "clusters"), err);
    if (rc == 0 && json_object_get(value, "masks"))
        rc = read_masks(rule, json_object_get(value, "masks"), err);
    if (rc == 0 && place == ROUTER_BASE)
        rc = read_base(rule, value, err);
    if (rc == 0 && place == ROUTER_TEXT)
        rc = read_text(rule, value, err);
    return rc;
}
