/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of thing artel_inspect() knows. Each adds its fields to ROOT.
 */
#ifndef ARTEL_PLAN_API_INSPECT_H
#define ARTEL_PLAN_API_INSPECT_H

#include <jansson.h>

#include "artel.h"

struct expert;
struct gguf;

int inspect_model(json_t *root, const char *path, const struct artel_inspect_options *o,
                  struct artel_error *err);
int inspect_adapter(json_t *root, const char *path,
                    const struct artel_inspect_options *o, struct artel_error *err);
int inspect_mixture(json_t *root, const char *path,
                    const struct artel_inspect_options *o, struct artel_error *err);
int inspect_recipe(json_t *root, const char *path,
                   const struct artel_inspect_options *o, struct artel_error *err);
int inspect_dataset(json_t *root, const char *path,
                    const struct artel_inspect_options *o, struct artel_error *err);
/* An adapter as one file. */
int inspect_gguf_lora(json_t *root, const char *path, const struct gguf *g,
                      const struct artel_inspect_options *o, struct artel_error *err);

json_t *inspect_expert_json(const struct expert *e);

#endif
