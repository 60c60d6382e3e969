/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One expert as a PEFT adapter folder: adapter_config.json,
 * adapter_model.safetensors and our own artel.json beside them.
 */
#ifndef ARTEL_SAVE_ADAPTER_H
#define ARTEL_SAVE_ADAPTER_H

#include <jansson.h>

#include "experts/expert.h"

struct artel_error;
struct artel_model;

/* What artel.json tells of an expert beside its shape. Strings are borrowed. */
struct adapter_notes {
    const char *domain;
    const char *base_path; /* base_model_name_or_path */
    const char *base_digest, *tokenizer_digest, *chat_digest,
        *data_digest; /* or NULL */
    const char
        *universal_digest;  /* of the weights that an EXPERT_RES acts on, or NULL */
    const json_t *training; /* summary object, or NULL; borrowed */
};

/* FOLDER is made. Q and K rows of B are turned to Hugging Face's order where the base
 * holds its heads interleaved (GGUF llama), so PEFT computes the same. Weights in F32. */
int adapter_write(const char *folder, const struct expert *e,
                  const struct model_config *c, const struct lora_options *as_asked,
                  const struct adapter_notes *notes, struct artel_error *err);

/* Any PEFT LoRA folder of this base: prefixes, adapter names in keys, f16/bf16, rsLoRA,
 * rank and alpha patterns, target_modules in each form. The tensors decide the ranks and
 * must agree with the configuration. FORCE passes over digests of another base. */
int adapter_read(struct expert *e, const char *name, const char *folder,
                 const struct artel_model *model, bool force, struct artel_error *err);

/* The same of a folder that holds an expert of KIND: one of EXPERT_RES is no adapter, for it
 * serves only beside the universal expert of its mixture (ADP22). */
int adapter_read_kind(struct expert *e, const char *name, const char *folder,
                      enum expert_kind kind, const struct artel_model *model,
                      bool force, struct artel_error *err);

/* The expert at FOLDER, an EXPERT_RES, learnt beside the universal one at UNIVERSAL as far
 * as its artel.json says; else MIX14. */
int adapter_check_universal(const char *folder, const char *universal,
                            struct artel_error *err);

/* artel.json of an adapter folder, a new reference. 1: read, 0: there is none. */
int adapter_notes_read(json_t **out, const char *folder, struct artel_error *err);

#endif
