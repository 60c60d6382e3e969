/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of sizes that do not depend on the file they come from. The limits are far
 * above any published model; they keep products of sizes within 64 bits.
 */
#include "model/config.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/error.h"
#include "model/config_check.h"

#define MAX_HEAD_DIM                                                                   \
    (2 * sizeof(((struct model_config *)0)->rope_divisor) / sizeof(float))
#define MAX_ENDS (sizeof(((struct model_config *)0)->ends) / sizeof(int))

static int check_range(const struct raw_config *raw, enum config_field f,
                       struct artel_error *err)
{
    static const uint64_t most[N_FIELDS] = {
        [FIELD_LAYERS] = 4096,           [FIELD_DIM] = 1u << 20,
        [FIELD_HEADS] = 1u << 16,        [FIELD_KV_HEADS] = 1u << 16,
        [FIELD_HEAD_DIM] = MAX_HEAD_DIM, [FIELD_FFN] = 1u << 24,
        [FIELD_CONTEXT] = 1u << 31,      [FIELD_VOCAB] = 1u << 24};

    if (raw->absent[f])
        return error_set(err, ARTEL_EFORMAT, "CFG02", raw->keys[f],
                         "missing, an integer was expected");
    if (raw->values[f] < 1 || raw->values[f] > most[f])
        return error_set(err, ARTEL_EFORMAT, "CFG03", raw->keys[f],
                         "%" PRIu64 " is not within 1 ... %" PRIu64, raw->values[f],
                         most[f]);
    return 0;
}

/* KV heads default to heads, the head's size to width / heads. */
static int fill_defaults(struct raw_config *raw, struct artel_error *err)
{
    uint64_t *v = raw->values;
    int rc;

    for (int f = 0; f < N_FIELDS; f++) {
        if (raw->absent[f] && (f == FIELD_KV_HEADS || f == FIELD_HEAD_DIM))
            continue;
        rc = check_range(raw, (enum config_field)f, err);
        if (rc < 0)
            return rc;
    }
    if (raw->absent[FIELD_KV_HEADS])
        v[FIELD_KV_HEADS] = v[FIELD_HEADS];
    if (raw->absent[FIELD_HEAD_DIM]) {
        if (v[FIELD_DIM] % v[FIELD_HEADS])
            return error_set(err, ARTEL_EFORMAT, "CFG04", raw->keys[FIELD_HEADS],
                             "%" PRIu64 " heads do not divide the width %" PRIu64,
                             v[FIELD_HEADS], v[FIELD_DIM]);
        v[FIELD_HEAD_DIM] = v[FIELD_DIM] / v[FIELD_HEADS];
        raw->absent[FIELD_HEAD_DIM] = false;
        rc = check_range(raw, FIELD_HEAD_DIM, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_heads(const struct raw_config *raw, struct artel_error *err)
{
    const uint64_t heads = raw->values[FIELD_HEADS], kv = raw->values[FIELD_KV_HEADS];

    if (heads % kv)
        return error_set(err, ARTEL_EFORMAT, "CFG04", raw->keys[FIELD_KV_HEADS],
                         "%" PRIu64 " key-value heads do not divide %" PRIu64 " heads",
                         kv, heads);
    if (raw->values[FIELD_HEAD_DIM] % 2)
        return error_set(err, ARTEL_EFORMAT, "CFG04", raw->keys[FIELD_HEAD_DIM],
                         "heads of odd size %" PRIu64 " cannot be rotated in pairs",
                         raw->values[FIELD_HEAD_DIM]);
    return 0;
}

static int check_numbers(const struct raw_config *raw, struct artel_error *err)
{
    /* A smaller one is 0 as a float, or where tiny floats are taken for 0: another norm. */
    if (!(raw->eps >= (double)FLT_MIN && raw->eps < 1.0))
        return error_set(
            err, ARTEL_EFORMAT, "CFG03", raw->eps_key,
            "%g is not within %.2g (the smallest normal float) and below 1", raw->eps,
            (double)FLT_MIN);
    if (!(raw->theta >= 1.0 && raw->theta <= 1e15))
        return error_set(err, ARTEL_EFORMAT, "CFG03", raw->theta_key,
                         "%g is not within 1 ... 1e15", raw->theta);
    return 0;
}

int config_take(struct model_config *c, const struct raw_config *raw,
                struct artel_error *err)
{
    struct raw_config full = *raw;
    int rc = fill_defaults(&full, err);

    if (rc == 0)
        rc = check_heads(&full, err);
    if (rc == 0)
        rc = check_numbers(&full, err);
    if (rc < 0)
        return rc;
    c->n_layers = (size_t)full.values[FIELD_LAYERS];
    c->dim = (size_t)full.values[FIELD_DIM];
    c->n_heads = (size_t)full.values[FIELD_HEADS];
    c->n_kv_heads = (size_t)full.values[FIELD_KV_HEADS];
    c->head_dim = (size_t)full.values[FIELD_HEAD_DIM];
    c->ffn_dim = (size_t)full.values[FIELD_FFN];
    c->context = (size_t)full.values[FIELD_CONTEXT];
    c->n_vocab = (size_t)full.values[FIELD_VOCAB];
    c->norm_eps = (float)full.eps;
    c->rope_theta = (float)full.theta;
    c->bos = c->eos = c->pad = -1;
    for (size_t i = 0; i < MAX_HEAD_DIM / 2; i++)
        c->rope_divisor[i] = 1.0f;
    return 0;
}

int config_scale_linear(struct model_config *c, double factor, const char *key,
                        struct artel_error *err)
{
    if (!(factor >= 1.0 && factor <= 1e6))
        return error_set(err, ARTEL_EFORMAT, "CFG06", key,
                         "the factor %g is not within 1 ... 1e6", factor);
    for (size_t i = 0; i < c->head_dim / 2; i++)
        c->rope_divisor[i] *= (float)factor;
    return 0;
}

int config_take_token(const struct model_config *c, int *out, int64_t id,
                      const char *key, struct artel_error *err)
{
    if (id < -1 || (id >= 0 && (uint64_t)id >= c->n_vocab))
        return error_set(err, ARTEL_EFORMAT, "CFG07", key,
                         "token %" PRId64 " is not one of the %zu in the vocabulary",
                         id, c->n_vocab);
    *out = (int)id;
    return 0;
}

void config_add_end(struct model_config *c, int id)
{
    if (id < 0 || c->n_ends == MAX_ENDS)
        return;
    for (size_t i = 0; i < c->n_ends; i++)
        if (c->ends[i] == id)
            return;
    c->ends[c->n_ends++] = id;
    c->eos = c->ends[0];
}
