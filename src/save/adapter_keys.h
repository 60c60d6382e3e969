/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of tensors in adapter files, as PEFT and its neighbours spell them.
 */
#ifndef ARTEL_SAVE_ADAPTER_KEYS_H
#define ARTEL_SAVE_ADAPTER_KEYS_H

#include <stddef.h>

#include "model/weights.h"

struct artel_error;

struct adapter_key {
    size_t layer;
    enum site site;
    int half;            /* 0: lora_A, 1: lora_B */
    const char *adapter; /* name inside the key (n_adapter bytes of it), or NULL */
    size_t n_adapter;
};

/* 1: KEY is half of a LoRA of this base; 0: of something else; ARTEL_EFORMAT (ADP12) where
 * it belongs to a feature that is not supported. */
int adapter_key_parse(struct adapter_key *out, const char *key, size_t n_layers,
                      struct artel_error *err);

#endif
