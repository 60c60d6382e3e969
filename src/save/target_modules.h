/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which linears a PEFT configuration means: target_modules, exclude_modules,
 * layers_to_transform and the keys of rank_pattern and alpha_pattern, matched
 * against module paths such as "model.layers.3.self_attn.q_proj".
 *
 * Patterns come from strangers: each match has a limit of steps and of depth,
 * and one that runs into it refuses the adapter.
 */
#ifndef ARTEL_SAVE_TARGET_MODULES_H
#define ARTEL_SAVE_TARGET_MODULES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "model/weights.h"

struct artel_error;

#define MODULE_PATH_SIZE 64 /* "model.layers.N.self_attn.gate_proj" and the end */

/* Path of a linear inside the model, as PEFT matches it. Returns OUT. */
const char *module_path(char out[MODULE_PATH_SIZE], size_t layer, enum site s);

/* A pattern that must match a whole module path. */
struct pattern;

/* KEY names the place in the configuration for messages. With SUFFIX, TEXT may also stand
 * after "anything.", as PEFT reads the keys of rank_pattern. */
int pattern_open(struct pattern **out, const char *text, bool suffix, const char *key,
                 struct artel_error *err);
void pattern_close(struct pattern *p);
/* 1, 0, or ARTEL_EFORMAT (ADP13) where the limit was reached. */
int pattern_matches(struct pattern *p, const char *path, struct artel_error *err);

/* TARGETED (n_layers * N_SITES) by the configuration ROOT. */
int modules_targeted(bool *targeted, const json_t *root, size_t n_layers,
                     struct artel_error *err);

#endif
