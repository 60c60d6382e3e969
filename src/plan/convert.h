/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of artel_convert(): what is converted, opened and ready.
 */
#ifndef ARTEL_PLAN_CONVERT_H
#define ARTEL_PLAN_CONVERT_H

#include <jansson.h>
#include <stdbool.h>

#include "decoder/frozen.h"
#include "experts/expert.h"

struct artel_convert_options;
struct artel_error;

enum source_kind { SOURCE_MODEL, SOURCE_ADAPTER, SOURCE_GGUF_LORA, SOURCE_MIXTURE };

struct conversion {
    const struct artel_convert_options *o; /* borrowed */
    const char *source, *out;              /* paths; borrowed */
    enum source_kind kind;
    char *base;                /* path of the base, of a bare model its own; owned */
    struct artel_model *model; /* the base; owned */
    struct expert expert;      /* experts under gates are one here; n_params 0: none */
    json_t *gates; /* {name: gate} of what the expert is made of, or NULL; owned */
};

/* What SOURCE is (an adapter's folder, a mixture's, a GGUF LoRA file, or a model, which
 * has no expert) and where its base lies, by its descriptions alone. ARTEL_EUSAGE (CNV08):
 * OUT would be written over something that is read. All is borrowed. */
int conversion_find(struct conversion *c, const char *source, const char *out,
                    const struct artel_convert_options *o, struct artel_error *err);
/* Base and expert of what was found. */
int conversion_open(struct conversion *c, struct artel_error *err);
void conversion_release(struct conversion *c);

/* The base with the expert merged in as a GGUF file, else a Hugging Face folder; what
 * became of the tensors goes into REPORT. */
int conversion_merge(json_t *report, const struct conversion *c, const char *out,
                     bool to_gguf, enum dtype type, struct artel_error *err);
/* Likelihood of the answers by base, base and expert, and what stands at OUT. */
int conversion_measure(json_t *report, const struct conversion *c, const char *out,
                       struct artel_error *err);

#endif
