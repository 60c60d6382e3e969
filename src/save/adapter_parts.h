/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reader and the writer of adapters share: file names and the order of
 * the rows of q_proj and k_proj.
 */
#ifndef ARTEL_SAVE_ADAPTER_PARTS_H
#define ARTEL_SAVE_ADAPTER_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#include "model/weights.h"

#define ADAPTER_CONFIG  "adapter_config.json"
#define ADAPTER_WEIGHTS "adapter_model.safetensors"
#define ADAPTER_NOTES   "artel.json"

#define SAVE_FORMAT_VERSION 1 /* of artel.json, mixture.json and state.json */

/* Row of an interleaved head's matrix that is row J of Hugging Face's: inside a head of D
 * rows, interleaved 2 i + j is theirs j D / 2 + i. */
static inline size_t interleaved_row(size_t D, size_t j)
{
    const size_t in_head = j % D;

    return j - in_head + 2 * (in_head % (D / 2)) + in_head / (D / 2);
}

/* Row of B in our order that is row J of Hugging Face's. The same but where the base keeps
 * the heads of q and k interleaved (GGUF llama). */
static inline size_t hf_row(const struct model_config *c, enum site s, size_t j)
{
    if (!c->rope_interleaved || (s != SITE_Q && s != SITE_K))
        return j;
    return interleaved_row(c->head_dim, j);
}

#endif
