/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both readers of configurations share. Used by config*.c only.
 *
 *     CFG01 unknown architecture      CFG02 missing         CFG03 out of range
 *     CFG04 heads do not fit          CFG05 a key that changes the mathematics
 *     CFG06 rotary scaling            CFG07 token id        CFG08 two files disagree
 *     CFG09 layers of different sizes
 */
#ifndef ARTEL_MODEL_CONFIG_CHECK_H
#define ARTEL_MODEL_CONFIG_CHECK_H

#include <stdint.h>

#include "model/config.h"

enum config_field {
    FIELD_LAYERS,
    FIELD_DIM,
    FIELD_HEADS,
    FIELD_KV_HEADS,
    FIELD_HEAD_DIM,
    FIELD_FFN,
    FIELD_CONTEXT,
    FIELD_VOCAB,
    N_FIELDS
};

/* Values as read, with the names they have in their file. */
struct raw_config {
    char keys[N_FIELDS][96];
    uint64_t
        values[N_FIELDS]; /* 0 in KV_HEADS and HEAD_DIM where not ABSENT is a value */
    bool absent[N_FIELDS];
    char eps_key[96], theta_key[96];
    double eps, theta;
};

/* Check RAW and store it in C. */
int config_take(struct model_config *c, const struct raw_config *raw,
                struct artel_error *err);
/* All divisors FACTOR. */
int config_scale_linear(struct model_config *c, double factor, const char *key,
                        struct artel_error *err);
/* ID must be a token of C's vocabulary; -1 passes as "none". */
int config_take_token(const struct model_config *c, int *out, int64_t id,
                      const char *key, struct artel_error *err);
/* One more end token, unless it is known already. The first becomes EOS. */
void config_add_end(struct model_config *c, int id);

#endif
