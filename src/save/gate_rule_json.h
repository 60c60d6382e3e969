/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rule of a mixture as a JSON object.
 */
#ifndef ARTEL_SAVE_GATE_RULE_JSON_H
#define ARTEL_SAVE_GATE_RULE_JSON_H

#include <jansson.h>

#include "experts/mixture.h"

struct artel_error;

json_t *gate_rule_new(const struct gate_rule *rule); /* NULL without memory */

/* Every field but "fixed", which older files do not have, must be there and known (MIX05);
 * N_EXPERTS bounds top_k and fixed. */
int gate_rule_read(struct gate_rule *rule, const json_t *value, size_t n_experts,
                   struct artel_error *err);

#endif
