/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Place of a logit: expert e of the i-th router stands at i * E + e.
 */
#include "experts/router_tiles.h"

#include <assert.h>
#include <string.h>

#include "math/kernels.h"
#include "math/matmul.h"

static size_t n_places(const struct tile_routers *rs)
{
    return rs->n * rs->router[0]->n_experts;
}

static size_t n_blocks(const struct tile_routers *rs)
{
    return tile_round(n_places(rs)) / 32;
}

void routers_room_carve(struct routers_room *r, struct arena *a,
                        const struct mixture *m, const struct tile_shape *shape,
                        size_t max_rows, size_t max_units, bool backward)
{
    const size_t most = tile_round(ROUTERS_MOST * m->n_experts) / 32;
    const size_t rows = tile_round(max_rows);
    const size_t tiles = most * rows * TILE_COLS * sizeof(uint16_t);
    size_t widest = 0;

    for (int g = 0; g < N_TILE_GROUPS; g++)
        if (shape->in[g].blocks > widest)
            widest = shape->in[g].blocks;
    *r = (struct routers_room){.max_rows = rows, .most_blocks = most};
    r->logits = arena_f32(a, rows * most * 32);
    r->zeros = arena_f32(a, widest * 32);
    r->down = arena_take(a, most * widest * PACK_ELEMS * sizeof(uint16_t));
    if (!backward)
        return;
    r->turned = arena_take(a, most * widest * PACK_ELEMS * sizeof(uint16_t));
    r->d_logits = arena_take(a, tiles);
    r->left = arena_take(a, tiles);
    r->d_units = arena_f32(a, max_units * m->n_experts);
    r->blocks = arena_take(a, most * sizeof(*r->blocks));
    r->targets = arena_take(a, most * ROUTERS_MOST * sizeof(*r->targets));
    r->stacked = arena_take(a, most * sizeof(*r->stacked));
    r->scratch = arena_take(a, tile_rank_set() ? tile_rank_set()->scratch(rows) : 0);
}

/* W of all of them to R->DOWN and, where TURNED, to R->TURNED. */
static void pack(struct routers_room *r, const struct tile_routers *rs, bool turned)
{
    const size_t E = rs->router[0]->n_experts, n = n_blocks(rs);

    /* In order: its rows lie too far apart to be fetched from where they are read. */
    for (size_t i = 0; i < rs->n; i++)
        for (size_t at = 0; at < E * rs->router[i]->dim; at += 16)
            __builtin_prefetch(rs->router[i]->w + at, 0, 2);
    for (size_t b = 0; b < n; b++) {
        struct rank_rows rows;

        for (size_t i = 0; i < 32; i++) {
            const size_t place = b * 32 + i;
            const struct router *own =
                place < n_places(rs) ? rs->router[place / E] : NULL;

            rows.row[i] = own ? own->w + place % E * own->dim : r->zeros;
        }
        tile_rank_set()->pack_rows(r->down + b * rs->map->blocks * PACK_ELEMS,
                                   turned ? r->turned + b * PACK_ELEMS : NULL,
                                   n * PACK_ELEMS, &rows, rs->map);
    }
}

/* Logits of every row. */
static void read_rows(struct routers_room *r, const struct tile_routers *rs,
                      struct tiles x, size_t rows)
{
    const size_t E = rs->router[0]->n_experts, pitch = n_blocks(rs) * 32;

    pack(r, rs, false);
    for (size_t b = 0; b < n_blocks(rs); b++) {
        const struct rank_product p = {
            x, rs->map->blocks, r->down + b * rs->map->blocks * PACK_ELEMS, 0, rows};
        const size_t left = n_places(rs) - b * 32;

        tile_rank_set()->product(r->logits + b * 32, pitch, &p,
                                 left >= 32 ? UINT32_MAX : (1u << left) - 1);
    }
    for (size_t i = 0; i < rs->n; i++)
        gates_read_logits(rs->gates[i], rs->router[i], r->logits + i * E, pitch);
}

void routers_pool(float *z, const struct pool *pool, enum router_pool kind,
                  struct tiles x, const struct tile_map *map, size_t dim)
{
    const size_t n = kind == POOL_LAST ? 1 : pool->n;
    const float share = 1.0f / (float)n;

    if (!pool->n) {
        memset(z, 0, dim * sizeof(*z));
        return;
    }
    for (size_t b = 0; b < map->blocks; b++) {
        float sum[TILE_COLS] = {0.0f};

        tile_set()->sum_rows(sum, tiles_from(x, b), pool->first + pool->n - n, n);
        for (size_t i = 0; i < TILE_COLS; i++)
            if (map->index[b * 32 + i] >= 0)
                z[map->index[b * 32 + i]] = sum[i] * share;
    }
}

void routers_read(struct routers_room *r, const struct tile_routers *rs,
                  enum router_pool pool, const struct pool *pools, struct tiles x,
                  size_t rows)
{
    const struct gates *first = rs->gates[0];

    assert(rs->n && rows % PAIR_ROWS == 0 && rows <= r->max_rows);
    if (!first->z) {
        read_rows(r, rs, x, rows);
        return;
    }
    for (size_t i = 0; i < rs->n; i++) {
        const struct router *own = rs->router[i];
        struct gates *g = rs->gates[i];

        for (size_t u = 0; i == 0 && u < g->n_units; u++)
            routers_pool(g->z + u * own->dim, &pools[u], pool, x, rs->map, own->dim);
        if (i)
            memcpy(g->z, first->z, g->n_units * own->dim * sizeof(*g->z));
        gemm_nt(g->probs, 0.0f, g->z, own->w, g->n_units, own->n_experts, own->dim);
        gates_read_logits(g, own, g->probs, own->n_experts);
    }
}

/* Slopes of a pooled router: those of its parameters, and what each row of a pool has of
 * D_LOGITS (rows, PITCH). */
static void pooled_slopes(struct routers_room *r, const struct tile_routers *rs,
                          size_t i, const struct gates_slope *slope, float *d_logits,
                          size_t pitch)
{
    const struct gates *g = rs->gates[i];
    const size_t E = rs->router[i]->n_experts;

    gates_backward_logits(g, slope, r->d_units, E);
    if (rs->d_w[i])
        gemm_tn(rs->d_w[i], 1.0f, r->d_units, g->z, E, rs->router[i]->dim, g->n_units);
    for (size_t u = 0; u < g->n_units; u++) {
        const struct pool *pool = &slope->pools[u];
        const size_t n = slope->pool == POOL_LAST && pool->n ? 1 : pool->n;
        const float *d = r->d_units + u * E;

        if (rs->d_b[i])
            kernels()->axpy(rs->d_b[i], 1.0f, d, E);
        for (size_t t = pool->first + pool->n - n; t < pool->first + pool->n; t++)
            for (size_t e = 0; e < E; e++)
                d_logits[t * pitch + e] = d[e] / (float)n;
    }
}

/* dW of routers whose units are rows: X meets all of their slopes at once. */
static void row_gradients(struct routers_room *r, const struct tile_routers *rs,
                          struct tiles x, struct tiles d_logits, size_t rows)
{
    const size_t E = rs->router[0]->n_experts, n = n_blocks(rs);

    for (size_t b = 0; b < n; b++) {
        uint16_t *left = r->left + b * rows * TILE_COLS;
        struct rank_target *targets = r->targets + b * ROUTERS_MOST;

        r->blocks[b] = (struct rank_block){left, 0, rows, targets, 0};
        tile_rank_set()->turn(left, tiles_from(d_logits, b), 0, rows);
        for (size_t i = 0; i < rs->n; i++) {
            const size_t from = i * E > b * 32 ? i * E : b * 32;
            const size_t end = (i + 1) * E < b * 32 + 32 ? (i + 1) * E : b * 32 + 32;
            const size_t dim = rs->router[i]->dim;

            if (rs->d_w[i] && from < end)
                targets[r->blocks[b].n_targets++] =
                    (struct rank_target){.to = rs->d_w[i] + (from - i * E) * dim,
                                         .pitch = dim,
                                         .first = (uint8_t)(from - b * 32),
                                         .n = (uint8_t)(end - from)};
        }
    }
    tile_rank_set()->gradients(r->blocks, n, x, rs->map->blocks, rs->map, 0, rows,
                               r->scratch);
}

const struct tile_low *routers_backward(struct routers_room *r,
                                        const struct tile_routers *rs,
                                        const struct gates_slope *slope, struct tiles x,
                                        bool wants_d_x, size_t rows)
{
    const size_t E = rs->router[0]->n_experts, n = n_blocks(rs), pitch = n * 32;
    const struct tiles d_logits = {r->d_logits, n};
    const bool by_row = !rs->gates[0]->z;

    /* gaps and rows that decide nothing stay zero */
    memset(r->logits, 0, rows * pitch * sizeof(*r->logits));
    for (size_t i = 0; i < rs->n; i++) {
        const struct gates *g = rs->gates[i];
        float *d = r->logits + i * E;

        if (!by_row) {
            pooled_slopes(r, rs, i, slope, d, pitch);
            continue;
        }
        gates_backward_logits(g, slope, d, pitch);
        for (size_t u = 0; rs->d_b[i] && u < g->n_units; u++)
            kernels()->axpy(rs->d_b[i], 1.0f, d + u * pitch, E);
    }
    tile_set()->to_tiles(d_logits, r->logits, pitch, n, 0, rows);
    if (by_row && rs->d_w[0])
        row_gradients(r, rs, x, d_logits, rows);
    if (!wants_d_x)
        return NULL;
    pack(r, rs, true);
    for (size_t b = 0; b < n; b++)
        r->stacked[b] = (struct tile_stacked){(uint16_t)b, (uint16_t)b};
    r->share = (struct tile_share){rs->map->blocks, n, r->stacked};
    r->low = (struct tile_low){d_logits, r->turned, n, &r->share};
    return &r->low;
}
