/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the reader and the writer of GGUF LoRA files share.
 */
#ifndef ARTEL_SAVE_GGUF_LORA_PARTS_H
#define ARTEL_SAVE_GGUF_LORA_PARTS_H

#include <assert.h>
#include <string.h>

#include "model/architectures.h"
#include "save/adapter_parts.h"

#define GGUF_LORA_NAME   96     /* bytes of a tensor's name */
#define GGUF_LORA_LAYERS 100000 /* that a tensor's name can have: five digits */

struct gguf;

/* Is it a LoRA, and one that works from the first token on? GLA01, ADP12. */
int gguf_lora_check(const struct gguf *g, struct artel_error *err);
/* Linear and half of tensor T, 2 * linear + half; -1: none of N_LAYERS layers. */
ptrdiff_t gguf_lora_slot(const struct architecture *a, size_t n_layers,
                         const struct tensor *t);

static inline const struct architecture *
config_architecture(const struct model_config *c)
{
    const struct architecture *a =
        architecture_find(c->architecture, strlen(c->architecture));

    assert(a); /* a model has been opened with it */
    return a;
}

/* Row in GGUF's order, for row I of our own. */
static inline size_t gguf_row(const struct model_config *c, enum site s, size_t i)
{
    if (c->rope_interleaved || !config_architecture(c)->gguf_interleaved ||
        (s != SITE_Q && s != SITE_K))
        return i;
    return interleaved_row(c->head_dim, i);
}

#endif
