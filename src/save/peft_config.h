/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_config.json as PEFT writes it: what it says of each linear of a base.
 */
#ifndef ARTEL_SAVE_PEFT_CONFIG_H
#define ARTEL_SAVE_PEFT_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "experts/expert.h"

struct artel_error;

#define PEFT_TYPE_RES "ARTEL_RES"
#define PEFT_TYPE_FFN "ARTEL_FFN"

struct peft_config {
    json_t *root; /* owned */
    enum expert_kind
        kind;     /* EXPERT_RES and _FFN: peft_type is our own, PEFT refuses it */
    float slope;  /* negative_slope of that kind */
    bool instead; /* not its residual: as the expert's */
    size_t rank;  /* r */
    float alpha;  /* lora_alpha */
    float dropout;
    bool use_rslora;
    const char *base_path; /* base_model_name_or_path, or NULL; in ROOT */
};

/* peft_type of an expert of KIND; the kind that has it, EXPERT_LORA where none has. */
const char *peft_type_of(enum expert_kind kind);
enum expert_kind peft_type_kind(const char *type);

/* Refuses by its key whatever would change the mathematics and is not done here. */
int peft_config_read(struct peft_config *p, const char *path, struct artel_error *err);
/* The same of the object ROOT, which P holds a reference of from then on. */
int peft_config_parse(struct peft_config *p, json_t *root, struct artel_error *err);
void peft_config_release(struct peft_config *p);

/* What one linear gets. rank 0: nothing. */
struct module_plan {
    size_t rank;
    float alpha, scale;
};

/* PLAN (n_layers * N_SITES) */
int peft_config_plan(struct module_plan *plan, const struct peft_config *p,
                     const struct model_config *c, struct artel_error *err);

/* The alpha that gives SCALE at RANK to the bit where a float can. */
float lora_alpha_for(float scale, size_t rank, bool use_rslora);

/* The configuration of E, a new reference. AS_ASKED tells r, alpha and rsLoRA and may be
 * NULL: the commonest rank and scale are taken then. */
int peft_config_build(json_t **out, const struct expert *e,
                      const struct lora_options *as_asked, const char *base_path,
                      struct artel_error *err);

#endif
