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

#define GGUF_LORA_NAME 96 /* bytes of a tensor's name */

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
