/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool from within: what kv_pool.c keeps, and what a sequence (kv_cache.c) asks of it.
 *
 * A block is used by the sequences that hold it, or waits among the unused, in the order
 * in which they were left; there the nameless come first, since nobody will ask for
 * them. A promise is a number of unused blocks that somebody may take for sure:
 *
 *     promised <= n_unused
 */
#ifndef ARTEL_DECODER_KV_BLOCKS_H
#define ARTEL_DECODER_KV_BLOCKS_H

#include "decoder/kv_cache.h"

struct kv_block {
    uint64_t serial; /* of its name, never given twice; 0: it has none */
    uint64_t parent; /* the serial of the block before it; 0: it begins a sequence */
    struct kv_name name;
    size_t n_users;
    uint32_t next;          /* in its bucket */
    uint32_t before, after; /* among the unused */
};

struct kv_pool {
    struct arena arena;
    size_t n_blocks, n_unused, promised;
    size_t layer;       /* floats from a layer to the next */
    size_t block_bytes; /* of keys and values */
    uint64_t serial;    /* the last that was given */
    /* (n_blocks + 1) and one that stands between the newest and the oldest unused */
    struct kv_block *blocks;
    int32_t *ids;         /* (n_blocks, KV_BLOCK) of blocks with a name */
    uint32_t *buckets;    /* (n_buckets) first block of each */
    size_t n_buckets;     /* a power of two */
    float *k, *v;         /* (L, n_blocks, KV_BLOCK, W) */
    float *all_k, *all_v; /* (n_blocks, KV_BLOCK, W) of one layer, copied together */
};

#define KV_NONE UINT32_MAX

/* The block known as IDS (KV_BLOCK) behind PARENT under NAME, or KV_NONE. */
uint32_t kv_pool_find(const struct kv_pool *p, uint64_t parent,
                      const struct kv_name *name, const int32_t *ids);
/* One user more. */
void kv_pool_hold(struct kv_pool *p, uint32_t block);
void kv_pool_leave(struct kv_pool *p, uint32_t block);
/* An unused block, WISH if it is one without a name, else the longest unused; its name is
 * forgotten. There must be one. */
uint32_t kv_pool_take(struct kv_pool *p, uint32_t wish);
/* BLOCK, which has none, gets a name; its serial. */
uint64_t kv_pool_name(struct kv_pool *p, uint32_t block, uint64_t parent,
                      const struct kv_name *name, const int32_t *ids);

#endif
