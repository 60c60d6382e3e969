/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was measured as the JSON that artel.h describes.
 */
#ifndef ARTEL_EVAL_EVAL_JSON_H
#define ARTEL_EVAL_EVAL_JSON_H

#include <jansson.h>

#include "eval/bootstrap.h"
#include "eval/measure.h"

/* A number, or null where it is not finite. */
json_t *eval_number(double v);

json_t *eval_set_json(const struct measured *r, enum answer_score score,
                      bool has_expert);
/* CHANGE may be NULL: there was nothing to compare with. */
void eval_change_json(json_t *set, const struct change *change);
json_t *eval_confusion_json(const struct measured *r, const struct artel_mixture *m);
/* Mean gates: a list of experts for each router. */
json_t *eval_gates_json(const struct measured *r);
/* Mean entropy and identity share into O, null where nothing decided. */
void eval_routing_json(json_t *o, double decisions, double entropy, double identity);
/* Name, path, cost and experts of a method. */
void eval_method_json(json_t *method, const struct artel_mixture *m, bool is_base);

#endif
