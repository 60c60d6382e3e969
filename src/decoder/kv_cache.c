/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence's blocks. It writes only into those that it alone holds and that have no
 * name: what it finds ends at the border of a block, and it goes on in one of its own.
 */
#include "decoder/kv_cache.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "decoder/kv_blocks.h"

static size_t blocks_for(size_t n)
{
    return (n + KV_BLOCK - 1) / KV_BLOCK;
}

void kv_cache_carve(struct kv_cache *c, struct arena *a, size_t n_layers, size_t width,
                    size_t n_context, struct kv_pool *pool)
{
    const size_t n = blocks_for(n_context);

    *c = (struct kv_cache){.n_context = n_context, .width = width, .pool = pool};
    c->blocks = arena_take(a, n * sizeof(*c->blocks));
    if (pool) {
        c->layer = pool->layer;
        c->k = pool->k;
        c->v = pool->v;
        return;
    }
    c->layer = n_context * width;
    c->k = arena_f32(a, n_layers * c->layer);
    c->v = arena_f32(a, n_layers * c->layer);
    c->n_blocks = n;
    for (size_t i = 0; c->k && i < n; i++)
        c->blocks[i] = (uint32_t)i;
}

void kv_gather(float **k, float **v, const struct kv_cache *c, size_t layer, size_t n)
{
    *k = kv_keys(c, layer, 0);
    *v = kv_values(c, layer, 0);
    if (kv_run(c, 0, n) == n)
        return;
    *k = c->pool->all_k;
    *v = c->pool->all_v;
    for (size_t at = 0, run; at < n; at += run) {
        run = kv_run(c, at, n - at);
        memcpy(*k + at * c->width, kv_keys(c, layer, at), run * c->width * sizeof(**k));
        memcpy(*v + at * c->width, kv_values(c, layer, at),
               run * c->width * sizeof(**v));
    }
}

void kv_cache_grow(struct kv_cache *c, size_t n)
{
    struct kv_pool *p = c->pool;

    for (; p && c->n_blocks * KV_BLOCK < n; c->n_blocks++) {
        const size_t i = c->n_blocks;

        assert(c->promised);
        c->blocks[i] = kv_pool_take(p, i ? c->blocks[i - 1] + 1 : KV_NONE);
        c->promised--;
        p->promised--;
    }
    assert(!p || n <= c->n ||
           (c->n / KV_BLOCK >= c->n_named &&
            p->blocks[c->blocks[c->n / KV_BLOCK]].n_users == 1));
}

/* The last first, so that the beginning of a sequence is kept longest. */
static void leave_all(struct kv_cache *c)
{
    while (c->n_blocks)
        kv_pool_leave(c->pool, c->blocks[--c->n_blocks]);
    c->n = 0;
    c->n_named = 0;
    c->n_found = 0;
    c->parent = 0;
}

void kv_cache_end(struct kv_cache *c)
{
    if (!c->pool)
        return;
    leave_all(c);
    c->pool->promised -= c->promised;
    c->promised = 0;
}

int kv_cache_begin(struct kv_cache *c, size_t n_room, struct artel_error *err)
{
    struct kv_pool *p = c->pool;
    const size_t need = blocks_for(n_room);
    size_t free;

    if (!p)
        return 0;
    free = p->n_unused - (p->promised - c->promised);
    for (size_t i = 0; i < c->n_blocks; i++)
        free += p->blocks[c->blocks[i]].n_users == 1;
    if (need > free)
        return error_set(err, ARTEL_ELIMIT, "KV01", "cache",
                         "%zu tokens need %zu blocks, %zu of %zu are free", n_room,
                         need, free, p->n_blocks);
    kv_cache_end(c);
    c->promised = need;
    p->promised += need;
    return 0;
}

int kv_cache_promise(struct kv_cache *c, size_t n_room, struct artel_error *err)
{
    struct kv_pool *p = c->pool;
    const size_t need = blocks_for(n_room), have = c->n_blocks + c->promised;

    if (!p)
        return 0;
    assert(need >= c->n_blocks && !c->n_found);
    if (need > have && need - have > p->n_unused - p->promised)
        return error_set(err, ARTEL_ELIMIT, "KV01", "cache",
                         "%zu tokens need %zu more blocks, %zu of %zu are free", n_room,
                         need - have, p->n_unused - p->promised, p->n_blocks);
    c->promised = need - c->n_blocks;
    p->promised = p->promised + need - have;
    return 0;
}

void kv_cache_find(struct kv_cache *c, const struct kv_name *name, const int32_t *ids,
                   size_t n, bool keep)
{
    struct kv_pool *p = c->pool;

    if (!p)
        return;
    assert(!c->n_blocks && !c->n);
    for (; c->n + KV_BLOCK <= n; c->n += KV_BLOCK) {
        const uint32_t b = kv_pool_find(p, c->parent, name, ids + c->n);

        if (b == KV_NONE)
            break;
        if (!keep && !p->blocks[b].n_users && p->n_unused == p->promised)
            break;
        kv_pool_hold(p, b);
        c->promised -= keep;
        p->promised -= keep;
        c->parent = p->blocks[b].serial;
        c->blocks[c->n_blocks++] = b;
    }
    c->n_named = c->n_blocks;
    c->n_found = keep ? 0 : c->n_blocks;
}

void kv_cache_settle(struct kv_cache *c)
{
    if (!c->pool)
        return;
    c->promised -= c->n_found;
    c->pool->promised -= c->n_found;
    c->n_found = 0;
}

void kv_cache_drop(struct kv_cache *c)
{
    struct kv_pool *p = c->pool;
    const size_t own = c->n_blocks - c->n_found;

    if (!p)
        return;
    leave_all(c);
    c->promised += own;
    p->promised += own;
    assert(p->promised <= p->n_unused);
}

void kv_cache_name(struct kv_cache *c, const struct kv_name *name, const int32_t *ids,
                   size_t n)
{
    struct kv_pool *p = c->pool;

    for (; p && (c->n_named + 1) * KV_BLOCK <= n; c->n_named++) {
        const int32_t *of = ids + c->n_named * KV_BLOCK;
        const uint32_t there = kv_pool_find(p, c->parent, name, of);

        c->parent = there == KV_NONE
                        ? kv_pool_name(p, c->blocks[c->n_named], c->parent, name, of)
                        : p->blocks[there].serial;
    }
}
