/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One expert as a GGUF LoRA file, which llama.cpp loads beside its base:
 *
 *     general.type = adapter          general.architecture = the base's
 *     adapter.type = lora             adapter.lora.alpha   = one F32 for all linears
 *     blk.N.attn_q.weight.lora_a (R, N)   blk.N.attn_q.weight.lora_b (M, R)
 *
 *     y += alpha / R * (x A^T) B^T, R of each linear its own; without alpha: 1
 *
 * Rows of B of q and k are in GGUF's order, interleaved for llama. artel.base_digest is
 * ours: the base that the expert was written beside.
 *
 *     GLA01 not a LoRA file     GLA02 another architecture or base   GLA03 a tensor without
 *     a linear   GLA04 half of a pair    GLA05 shape    GLA06 numbers    GLA07 alpha
 */
#ifndef ARTEL_SAVE_GGUF_LORA_H
#define ARTEL_SAVE_GGUF_LORA_H

#include "experts/expert.h"

struct artel_error;
struct gguf;

struct gguf_lora_notes {
    const char *name;        /* of the expert */
    const char *base_digest; /* or NULL */
};

/* What could not be kept as it was. */
struct gguf_lora_result {
    float alpha; /* as stored */
    size_t n_linears;
    size_t n_folded; /* linears whose B took on a factor, their alpha being another */
    bool exact; /* every number of the file is one of the expert's, or a power of two
                        times it */
};

/* TYPE is F32, F16 or BF16. */
int gguf_lora_write(struct gguf_lora_result *out, const char *path,
                    const struct expert *e, const struct model_config *c,
                    enum dtype type, const struct gguf_lora_notes *notes,
                    struct artel_error *err);

/* Is this the metadata of a LoRA file? */
bool gguf_lora_is(const struct gguf *g);
/* The expert's name in the file into OUT (EXPERT_NAME_MAX + 1), or false. */
bool gguf_lora_name(char *out, const struct gguf *g);

/* What names and shapes tell without the base. */
struct gguf_lora_sizes {
    size_t n_params, n_layers; /* layers with an adapted linear */
    size_t smallest_rank, largest_rank;
    bool sites[N_SITES]; /* adapted in some layer */
};

int gguf_lora_sizes(struct gguf_lora_sizes *out, const struct gguf *g,
                    struct artel_error *err);
/* BASE_DIGEST NULL: of any base whose sizes fit. */
int gguf_lora_read(struct expert *e, const char *name, const struct gguf *g,
                   const struct model_config *c, const char *base_digest,
                   struct artel_error *err);

#endif
