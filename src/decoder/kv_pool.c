/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks, their users and their names. Names are found by hash and compared in full.
 */
#include "decoder/kv_pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "decoder/kv_blocks.h"

static void carve(struct kv_pool *p, struct arena *a, const struct model_config *c,
                  size_t n)
{
    const size_t floats = n * KV_BLOCK * c->n_kv_heads * c->head_dim;

    p->n_blocks = n;
    p->layer = floats;
    for (p->n_buckets = 1; p->n_buckets < n;)
        p->n_buckets *= 2;
    p->blocks = arena_take(a, (n + 1) * sizeof(*p->blocks));
    p->ids = arena_take(a, n * KV_BLOCK * sizeof(*p->ids));
    p->buckets = arena_take(a, p->n_buckets * sizeof(*p->buckets));
    p->all_k = arena_f32(a, floats);
    p->all_v = arena_f32(a, floats);
    p->k = arena_f32(a, c->n_layers * floats);
    p->v = arena_f32(a, c->n_layers * floats);
}

static size_t bytes_of_block(const struct model_config *c)
{
    const size_t row = (c->n_layers + 1) * 2 * c->n_kv_heads * c->head_dim;

    return KV_BLOCK * (row * sizeof(float) + sizeof(int32_t)) +
           sizeof(struct kv_block) + 2 * sizeof(uint32_t);
}

/* Of so many bytes; what rounding adds is left out. */
static size_t blocks_of(size_t bytes, const struct model_config *c)
{
    const size_t n = bytes / bytes_of_block(c);

    return n < KV_LEAST ? KV_LEAST : n < KV_NONE / 2 ? n : KV_NONE / 2;
}

size_t kv_pool_tokens(const struct artel_model *model, size_t bytes)
{
    return blocks_of(bytes, &model->weights->config) * KV_BLOCK;
}

size_t kv_pool_least(const struct artel_model *model)
{
    return KV_LEAST * bytes_of_block(&model->weights->config);
}

/* BLOCK behind the unused one AT. */
static void link_behind(struct kv_pool *p, uint32_t block, uint32_t at)
{
    struct kv_block *b = &p->blocks[block];

    b->before = at;
    b->after = p->blocks[at].after;
    p->blocks[b->after].before = block;
    p->blocks[at].after = block;
    p->n_unused++;
}

static void take_out(struct kv_pool *p, uint32_t block)
{
    const struct kv_block *b = &p->blocks[block];

    p->blocks[b->before].after = b->after;
    p->blocks[b->after].before = b->before;
    p->n_unused--;
}

int kv_pool_open(struct kv_pool **out, const struct artel_model *model, size_t bytes,
                 struct artel_error *err)
{
    const struct model_config *c = &model->weights->config;
    const size_t n = blocks_of(bytes, c);
    struct kv_pool *p = calloc(1, sizeof(*p));
    struct arena measure = {0};
    int rc;

    *out = NULL;
    if (!p)
        return error_nomem(err, sizeof(*p));
    carve(p, &measure, c, n);
    rc = arena_init(&p->arena, measure.used, err);
    if (rc < 0) {
        free(p);
        return rc;
    }
    carve(p, &p->arena, c, n);
    p->block_bytes =
        KV_BLOCK * c->n_layers * 2 * c->n_kv_heads * c->head_dim * sizeof(float);
    memset(p->buckets, 0xff, p->n_buckets * sizeof(*p->buckets)); /* KV_NONE */
    p->blocks[n].before = p->blocks[n].after = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        link_behind(p, (uint32_t)i, p->blocks[n].before);
    *out = p;
    return 0;
}

void kv_pool_close(struct kv_pool *p)
{
    if (!p)
        return;
    assert(p->n_unused == p->n_blocks && !p->promised);
    arena_release(&p->arena);
    free(p);
}

/* FNV-1a over words. */
static uint32_t *bucket_of(const struct kv_pool *p, uint64_t parent,
                           const struct kv_name *name, const int32_t *ids)
{
    const uint64_t prime = 0x100000001b3u;
    uint64_t h = 0xcbf29ce484222325u;

    h = (h ^ parent) * prime;
    h = (h ^ name->mixture) * prime;
    h = (h ^ (uint64_t)(int64_t)name->expert) * prime;
    for (size_t i = 0; i < KV_BLOCK; i++)
        h = (h ^ (uint32_t)ids[i]) * prime;
    return p->buckets + ((h ^ h >> 32) & (p->n_buckets - 1));
}

uint32_t kv_pool_find(const struct kv_pool *p, uint64_t parent,
                      const struct kv_name *name, const int32_t *ids)
{
    uint32_t at = *bucket_of(p, parent, name, ids);

    for (; at != KV_NONE; at = p->blocks[at].next) {
        const struct kv_block *b = &p->blocks[at];

        if (b->parent == parent && b->name.mixture == name->mixture &&
            b->name.expert == name->expert &&
            !memcmp(p->ids + (size_t)at * KV_BLOCK, ids, KV_BLOCK * sizeof(*ids)))
            return at;
    }
    return KV_NONE;
}

uint64_t kv_pool_name(struct kv_pool *p, uint32_t block, uint64_t parent,
                      const struct kv_name *name, const int32_t *ids)
{
    struct kv_block *b = &p->blocks[block];
    uint32_t *bucket = bucket_of(p, parent, name, ids);

    assert(!b->serial && b->n_users == 1);
    memcpy(p->ids + (size_t)block * KV_BLOCK, ids, KV_BLOCK * sizeof(*ids));
    b->serial = ++p->serial;
    b->parent = parent;
    b->name = *name;
    b->next = *bucket;
    *bucket = block;
    return b->serial;
}

static void forget(struct kv_pool *p, uint32_t block)
{
    struct kv_block *b = &p->blocks[block];
    uint32_t *at = bucket_of(p, b->parent, &b->name, p->ids + (size_t)block * KV_BLOCK);

    if (!b->serial)
        return;
    while (*at != block)
        at = &p->blocks[*at].next;
    *at = b->next;
    b->serial = 0;
}

void kv_pool_hold(struct kv_pool *p, uint32_t block)
{
    if (!p->blocks[block].n_users++)
        take_out(p, block);
}

void kv_pool_leave(struct kv_pool *p, uint32_t block)
{
    struct kv_block *b = &p->blocks[block];
    const uint32_t between = (uint32_t)p->n_blocks;

    assert(b->n_users);
    if (!--b->n_users)
        link_behind(p, block, b->serial ? p->blocks[between].before : between);
}

uint32_t kv_pool_take(struct kv_pool *p, uint32_t wish)
{
    const bool granted =
        wish < p->n_blocks && !p->blocks[wish].n_users && !p->blocks[wish].serial;
    const uint32_t block = granted ? wish : p->blocks[p->n_blocks].after;

    assert(p->n_unused);
    forget(p, block);
    kv_pool_hold(p, block);
    return block;
}

void kv_pool_forget(struct kv_pool *p)
{
    for (uint32_t i = 0; i < p->n_blocks; i++)
        if (!p->blocks[i].n_users)
            forget(p, i);
}

void kv_pool_stats(const struct kv_pool *p, struct kv_pool_stats *out)
{
    *out = (struct kv_pool_stats){.blocks = p->n_blocks,
                                  .used = p->n_blocks - p->n_unused,
                                  .promised = p->promised,
                                  .block_bytes = p->block_bytes};
    for (size_t i = 0; i < p->n_blocks; i++)
        out->kept += !p->blocks[i].n_users && p->blocks[i].serial;
}
