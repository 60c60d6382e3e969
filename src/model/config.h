/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sizes and switches of a decoder-only model, read from GGUF metadata or
 * config.json. What differs between architectures is data here and in
 * architectures.c, so that no other file asks for an architecture's name.
 */
#ifndef ARTEL_MODEL_CONFIG_H
#define ARTEL_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct artel_error;
struct gguf;

struct model_config {
    char architecture[32]; /* "llama" */
    size_t n_layers;       /* L */
    size_t dim;            /* D, width */
    size_t n_heads, n_kv_heads;
    size_t head_dim;
    size_t ffn_dim;
    size_t n_vocab; /* rows of the embedding */
    size_t context; /* tokens */
    float norm_eps;
    float rope_theta;
    float rope_divisor
        [512]; /* (head_dim / 2) angle = pos * theta^(-2i/d) / divisor[i]; 1 = unscaled */
    bool tied; /* the head is the embedding */
    bool
        rope_interleaved; /* pairs (2i, 2i+1), as GGUF stores llama; else (i, i + d/2) */
    int bos, eos, pad;    /* token ids, -1: none */
    int ends[16];  /* (n_ends) every id that config.json or the GGUF calls an end */
    size_t n_ends; /* the first is EOS */
};

/* Errors are CFG01 and on (config.c), naming key and value. */
int config_from_gguf(struct model_config *c, const struct gguf *g,
                     struct artel_error *err);
/* ROOT is config.json; PATH names the file in errors. */
int config_from_json(struct model_config *c, const json_t *root, const char *path,
                     struct artel_error *err);

#endif
