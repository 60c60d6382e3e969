/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration from GGUF metadata. Keys start with the architecture's name.
 * Codes are listed in config_check.h.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "files/gguf.h"
#include "model/architectures.h"
#include "model/config_check.h"

#define KEY_SIZE 96

static const char *full_key(char out[KEY_SIZE], const struct architecture *a,
                            const char *key)
{
    snprintf(out, KEY_SIZE, "%s.%s", a->name, key);
    return out;
}

static int find_architecture(const struct architecture **out, const struct gguf *g,
                             struct artel_error *err)
{
    const struct gguf_value name = gguf_get(g, "general.architecture");
    const struct gguf_value type = gguf_get(g, "general.type");
    char shown[140];

    if (name.kind != GGUF_STRING)
        return error_set(err, ARTEL_EFORMAT, "GGUF20", "general.architecture",
                         "expected a string, found %s",
                         name.kind == GGUF_ABSENT ? "nothing" : "another type");
    if (type.kind == GGUF_STRING &&
        (type.length != 5 || memcmp(type.text, "model", 5) != 0))
        return error_set(err, ARTEL_EFORMAT, "CFG01", "general.type",
                         "the file holds '%.60s', expected a model",
                         escape_text(shown, sizeof(shown), type.text, type.length));
    *out = architecture_find(name.text, name.length);
    if (!*out)
        return error_set(err, ARTEL_EFORMAT, "CFG01", "general.architecture",
                         "'%.100s' is not supported, these are: %s",
                         escape_text(shown, sizeof(shown), name.text, name.length),
                         architecture_list());
    return 0;
}

static bool value_fits(const struct gguf_value *v, const struct forbidden_key *f)
{
    const double number = v->kind == GGUF_FLOAT ? v->f : (double)v->i;
    const bool is_number =
        v->kind == GGUF_INT || v->kind == GGUF_FLOAT || v->kind == GGUF_BOOL;

    switch (f->rule) {
    case KEY_NONE:
        return is_number ? number == 0.0 : v->length == 0;
    case KEY_NUMBER:
        return is_number && number == f->number;
    case KEY_TRUE:
        return v->kind == GGUF_BOOL && v->i;
    case KEY_TEXT:
        return v->kind == GGUF_STRING && word_among(f->text, v->text, v->length);
    }
    return false;
}

static int check_keys(const struct gguf *g, const struct architecture *a,
                      struct artel_error *err)
{
    char key[KEY_SIZE];

    for (const struct forbidden_key *f = a->gguf_keys; f->key; f++) {
        const struct gguf_value v = gguf_get(g, full_key(key, a, f->key));

        if (v.kind != GGUF_ABSENT && !value_fits(&v, f))
            return error_set(
                err, ARTEL_EFORMAT, "CFG05", key,
                "is set to something that changes the mathematics and is not "
                "supported");
    }
    return 0;
}

/* A size that may be one number or a list of one number a layer, all equal. */
static int want_size(const struct gguf *g, const char *key, uint64_t *out, bool *absent,
                     struct artel_error *err)
{
    const struct gguf_value v = gguf_get(g, key);
    struct gguf_value e;
    size_t cursor = 0;
    int64_t first = 0;

    *absent = v.kind == GGUF_ABSENT;
    if (v.kind != GGUF_ARRAY || v.of != GGUF_INT || !v.length)
        return gguf_want_uint(g, key, out, err);
    for (size_t i = 0; gguf_next(&v, &cursor, &e); i++) {
        if (i == 0)
            first = e.i;
        if (e.i != first || e.i < 0)
            return error_set(err, ARTEL_EFORMAT, "CFG09", key,
                             "layer 0 has %" PRId64 ", layer %zu has %" PRId64
                             "; layers of different sizes are not supported",
                             first, i, e.i);
    }
    *out = (uint64_t)first;
    return 0;
}

/* Rows of the embedding; a stated vocabulary size must agree. */
static int read_vocab(struct raw_config *raw, const struct gguf *g,
                      const struct architecture *a, struct artel_error *err)
{
    const struct tensor *embed = gguf_find(g, a->gguf[PLACE_EMBED]);
    uint64_t stated = 0;
    char key[KEY_SIZE];
    int rc = gguf_want_uint(g, full_key(key, a, "vocab_size"), &stated, err);

    if (rc < 0)
        return rc;
    if (!embed)
        return error_set(err, ARTEL_EFORMAT, "WT01", a->gguf[PLACE_EMBED],
                         "the tensor is missing");
    snprintf(raw->keys[FIELD_VOCAB], KEY_SIZE, "%s", a->gguf[PLACE_EMBED]);
    raw->values[FIELD_VOCAB] = embed->shape[0];
    if (stated && stated != embed->shape[0])
        return error_set(err, ARTEL_EFORMAT, "CFG08", key,
                         "%" PRIu64 " tokens, but '%s' has %zu rows", stated,
                         a->gguf[PLACE_EMBED], embed->shape[0]);
    return 0;
}

static int read_sizes(struct raw_config *raw, const struct gguf *g,
                      const struct architecture *a, struct artel_error *err)
{
    static const char *const names[FIELD_VOCAB] = {
        "block_count",          "embedding_length",
        "attention.head_count", "attention.head_count_kv",
        "attention.key_length", "feed_forward_length",
        "context_length"};
    int rc = 0;

    for (size_t i = 0; i < FIELD_VOCAB && rc == 0; i++)
        rc = want_size(g, full_key(raw->keys[i], a, names[i]), &raw->values[i],
                       &raw->absent[i], err);
    if (rc < 0)
        return rc;
    raw->theta = 10000.0;
    full_key(raw->theta_key, a, "rope.freq_base");
    full_key(raw->eps_key, a, "attention.layer_norm_rms_epsilon");
    rc = gguf_want_float(g, raw->theta_key, &raw->theta, err);
    if (rc == 0)
        rc = gguf_need_float(g, raw->eps_key, &raw->eps, err);
    return rc < 0 ? rc : read_vocab(raw, g, a, err);
}

/* Widths that are stated apart must be those of the head. */
static int check_widths(const struct model_config *c, const struct gguf *g,
                        const struct architecture *a, struct artel_error *err)
{
    static const char *const names[] = {"attention.value_length",
                                        "rope.dimension_count"};
    char key[KEY_SIZE];

    for (size_t i = 0; i < 2; i++) {
        /* values default to width / heads, whatever the keys are */
        uint64_t n = i == 0 ? c->dim / c->n_heads : c->head_dim;
        const int rc = gguf_want_uint(g, full_key(key, a, names[i]), &n, err);

        if (rc < 0)
            return rc;
        if (n != c->head_dim)
            return error_set(err, ARTEL_EFORMAT, "CFG05", key,
                             "%" PRIu64
                             " differs from the head's size %zu, which is not "
                             "supported",
                             n, c->head_dim);
    }
    return 0;
}

/* Divisors that a converter has worked out (Llama 3). */
static int take_divisors(struct model_config *c, const struct gguf *g,
                         struct artel_error *err)
{
    const char *name = "rope_freqs.weight";
    const struct tensor *t = gguf_find(g, name);

    if (!t)
        return 0;
    if (t->dtype != DTYPE_F32 || t->n_dims != 1 || t->shape[0] != c->head_dim / 2)
        return error_set(err, ARTEL_EFORMAT, "CFG06", name,
                         "expected F32 (%zu), found %s (%zu%s)", c->head_dim / 2,
                         dtype_name(t->dtype), t->shape[0],
                         t->n_dims > 1 ? ", ..." : "");
    for (size_t i = 0; i < c->head_dim / 2; i++) {
        float v;

        memcpy(&v, (const char *)t->data + i * sizeof(v), sizeof(v));
        if (!(v > 0.0f && v <= 1e6f))
            return error_set(err, ARTEL_EFORMAT, "CFG06", name,
                             "element %zu is %g, expected a divisor from 0 to 1e6", i,
                             (double)v);
        c->rope_divisor[i] = v;
    }
    return 0;
}

static int read_scaling(struct model_config *c, const struct gguf *g,
                        const struct architecture *a, struct artel_error *err)
{
    char key[KEY_SIZE], shown[140];
    const struct gguf_value type = gguf_get(g, full_key(key, a, "rope.scaling.type"));
    double factor = 0.0;
    int rc = take_divisors(c, g, err);

    if (rc < 0)
        return rc;
    if (type.kind != GGUF_ABSENT &&
        (type.kind != GGUF_STRING ||
         !word_among("none linear", type.text, type.length)))
        return error_set(err, ARTEL_EFORMAT, "CFG06", key,
                         "'%.60s' is not supported, none and linear are",
                         type.kind == GGUF_STRING
                             ? escape_text(shown, sizeof(shown), type.text, type.length)
                             : "not a string");
    if (type.kind == GGUF_STRING && type.length == 4) /* none */
        return 0;
    rc = gguf_want_float(g, full_key(key, a, "rope.scale_linear"), &factor, err);
    if (rc == 0)
        rc = gguf_want_float(g, full_key(key, a, "rope.scaling.factor"), &factor, err);
    return rc < 0 || factor == 0.0 ? rc : config_scale_linear(c, factor, key, err);
}

static int read_token(const struct model_config *c, int *out, const struct gguf *g,
                      const char *key, struct artel_error *err)
{
    uint64_t id = 0;
    int rc = gguf_want_uint(g, key, &id, err);

    *out = -1;
    if (rc < 0 || gguf_get(g, key).kind == GGUF_ABSENT)
        return rc;
    /* 2^32 - 1 is how writers of u32 say "none" */
    return id == UINT32_MAX ? 0 : config_take_token(c, out, (int64_t)id, key, err);
}

static int read_tokens(struct model_config *c, const struct gguf *g,
                       struct artel_error *err)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    int id, rc = read_token(c, &c->bos, g, "tokenizer.ggml.bos_token_id", err);

    if (rc == 0)
        rc = read_token(c, &c->pad, g, "tokenizer.ggml.padding_token_id", err);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) && rc == 0; i++) {
        rc = read_token(c, &id, g, ends[i], err);
        if (rc == 0)
            config_add_end(c, id);
    }
    return rc;
}

int config_from_gguf(struct model_config *c, const struct gguf *g,
                     struct artel_error *err)
{
    struct raw_config raw = {.theta = 0};
    const struct architecture *a = NULL;
    int rc = find_architecture(&a, g, err);

    *c = (struct model_config){.bos = -1, .eos = -1, .pad = -1};
    if (rc == 0)
        rc = check_keys(g, a, err);
    if (rc == 0)
        rc = read_sizes(&raw, g, a, err);
    if (rc == 0)
        rc = config_take(c, &raw, err);
    if (rc == 0)
        rc = check_widths(c, g, a, err);
    if (rc == 0)
        rc = read_scaling(c, g, a, err);
    if (rc == 0)
        rc = read_tokens(c, g, err);
    if (rc < 0)
        return error_in(err, rc, gguf_path(g));
    snprintf(c->architecture, sizeof(c->architecture), "%s", a->name);
    c->tied = !gguf_find(g, a->gguf[PLACE_HEAD]);
    c->rope_interleaved = a->gguf_interleaved;
    return 0;
}
