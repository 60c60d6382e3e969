/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys (after rope) and values of one sequence, for every layer, in blocks of KV_BLOCK
 * tokens: of the sequence's own room, one behind the other, or of a pool.
 *
 *   L layers   G key-value heads of d   W = G d
 */
#ifndef ARTEL_DECODER_KV_CACHE_H
#define ARTEL_DECODER_KV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "decoder/kv_pool.h"

/* Under what a block's rows were computed, in all layers. */
struct kv_name {
    uint64_t mixture; /* its stamp; 0: none */
    int expert;       /* or one of: */
};

enum {
    KV_BASE = -1,
    KV_BY_TOKEN = -2, /* each row as the routers decide for it */
    KV_FIXED = -3     /* the fixed experts alone */
};

struct kv_cache {
    size_t n_context; /* most tokens */
    size_t width;     /* W */
    size_t n;         /* tokens held */
    float *k, *v;     /* of the first block in the first layer */
    size_t layer;     /* floats from a layer to the next */
    uint32_t *blocks; /* (n_context in blocks) */
    size_t n_blocks;  /* of them that are there */
    /* Of a pool: */
    struct kv_pool *pool; /* borrowed; NULL: its own room, whose blocks are all there */
    size_t n_named;       /* the first so many are known to the pool */
    size_t n_found;       /* the first so many were found and are not charged yet */
    uint64_t parent;      /* the serial of the last that is known */
    size_t promised;      /* blocks that it may yet take */
};

/* POOL may be NULL. */
void kv_cache_carve(struct kv_cache *c, struct arena *a, size_t n_layers, size_t width,
                    size_t n_context, struct kv_pool *pool);

static inline size_t kv_row(const struct kv_cache *c, size_t pos)
{
    return (c->blocks[pos / KV_BLOCK] * (size_t)KV_BLOCK + pos % KV_BLOCK) * c->width;
}

/* Row of position POS. */
static inline float *kv_keys(const struct kv_cache *c, size_t layer, size_t pos)
{
    return c->k + layer * c->layer + kv_row(c, pos);
}

static inline float *kv_values(const struct kv_cache *c, size_t layer, size_t pos)
{
    return c->v + layer * c->layer + kv_row(c, pos);
}

/* How many of the N rows from POS on lie together. */
static inline size_t kv_run(const struct kv_cache *c, size_t pos, size_t n)
{
    size_t b = pos / KV_BLOCK, run = KV_BLOCK - pos % KV_BLOCK;

    for (; run < n && c->blocks[b + 1] == c->blocks[b] + 1; b++)
        run += KV_BLOCK;
    return run < n ? run : n;
}

/* Keys and values of the first N positions behind one another, where they lie or copied
 * together; valid until the next such call. */
void kv_gather(float **k, float **v, const struct kv_cache *c, size_t layer, size_t n);

/* Blocks for N tokens in all, which were promised. Nothing without a pool. */
void kv_cache_grow(struct kv_cache *c, size_t n);

/*
 * ---- of a pool; nothing happens without one ----
 *
 * Let go of everything, and be promised blocks for N_ROOM tokens; ARTEL_ELIMIT KV01, and
 * nothing has changed, where so many cannot be promised.
 */
int kv_cache_begin(struct kv_cache *c, size_t n_room, struct artel_error *err);
/* The promise becomes one for N_ROOM tokens, those that are there included; KV01 as above.
 * Not between kv_cache_find() and kv_cache_settle(). */
int kv_cache_promise(struct kv_cache *c, size_t n_room, struct artel_error *err);
/* Take what is there under NAME of the first tokens IDS, N at most, in whole blocks; the
 * cache holds nothing before. To KEEP means for sure. Else they are held beside the promise
 * until kv_cache_settle(), so that kv_cache_drop() can always go back; where there is no
 * room for both, less is taken. */
void kv_cache_find(struct kv_cache *c, const struct kv_name *name, const int32_t *ids,
                   size_t n, bool keep);
void kv_cache_drop(struct kv_cache *c); /* all blocks, but not the promise */
void kv_cache_settle(struct kv_cache *c);
/* The whole blocks of the first N tokens IDS were computed under NAME: others may find
 * them. */
void kv_cache_name(struct kv_cache *c, const struct kv_name *name, const int32_t *ids,
                   size_t n);
void kv_cache_end(struct kv_cache *c); /* let go of everything, the promise too */

#endif
