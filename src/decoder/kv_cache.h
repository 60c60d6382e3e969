/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys (after rope) and values of one sequence, for every layer.
 *
 *   L layers   G key-value heads of d
 */
#ifndef ARTEL_DECODER_KV_CACHE_H
#define ARTEL_DECODER_KV_CACHE_H

#include <stddef.h>

#include "base/arena.h"

struct kv_cache {
    size_t n_context; /* room, in tokens */
    size_t width;     /* G * d */
    size_t n;         /* tokens held */
    float *k, *v;     /* (L, n_context, width) */
};

void kv_cache_carve(struct kv_cache *c, struct arena *a, size_t n_layers, size_t width,
                    size_t n_context);

/* First row of a layer. */
static inline float *kv_keys(const struct kv_cache *c, size_t layer)
{
    return c->k + layer * c->n_context * c->width;
}

static inline float *kv_values(const struct kv_cache *c, size_t layer)
{
    return c->v + layer * c->n_context * c->width;
}

#endif
