/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frozen base's tensors by their place in the model, from a GGUF file or a
 * Hugging Face folder (single or sharded safetensors), each checked for shape
 * and format. Nothing is copied: DATA points into the mapped files.
 */
#ifndef ARTEL_MODEL_WEIGHTS_H
#define ARTEL_MODEL_WEIGHTS_H

#include "files/digest.h"
#include "files/dtype.h"
#include "model/config.h"

struct artel_error;
struct gguf;

/* The seven linears that LoRA may adapt, in PEFT's names q_proj .. down_proj. */
enum site { SITE_Q, SITE_K, SITE_V, SITE_O, SITE_GATE, SITE_UP, SITE_DOWN, N_SITES };

const char *site_name(enum site s);   /* "q_proj" */
const char *site_module(enum site s); /* "self_attn.q_proj", "mlp.gate_proj" */
int site_from_name(const char *name); /* or -1 */
/* M outputs and N inputs of a site. */
void site_shape(const struct model_config *c, enum site s, size_t *n_out, size_t *n_in);

struct layer_weights {
    struct tensor attn_norm, ffn_norm; /* (D) */
    struct tensor site[N_SITES];       /* (M, N) */
};

struct weights {
    struct model_config config;
    struct layer_weights *layers; /* (L) */
    struct tensor embed;          /* (V, D) */
    struct tensor final_norm;     /* (D) */
    struct tensor head;           /* (V, D); the embedding where tied */
    size_t n_parameters;
    size_t file_bytes;
    char *path;        /* as given */
    struct gguf *gguf; /* metadata (tokenizer, template), or NULL */
    char *folder;      /* the Hugging Face folder, or NULL */
    void *files;       /* what keeps the data mapped */
};

/* PATH is a .gguf file or a folder with config.json and *.safetensors. */
int weights_open(struct weights **out, const char *path, struct artel_error *err);
void weights_close(struct weights *w);

/* Nobody will read a layer's linears soon: where they lie in a mapped file, let go of its
 * pages. They come back from the file when they are touched. */
void weights_forget_layer(const struct weights *w, size_t layer);

/* ARTEL_EFORMAT (DT01) naming file, tensor and index where a weight is NaN or infinite.
 * Reads all of the base, a layer's pages at a time. */
int weights_check_finite(const struct weights *w, struct artel_error *err);

/* SHA-256 over every tensor's name, type, shape and 64 KiB samples (start, middle,
 * end), or over all of its bytes where WHOLE. */
int weights_digest(char out[DIGEST_SIZE], const struct weights *w, bool whole,
                   struct artel_error *err);

#endif
