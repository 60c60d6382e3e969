/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The places of a model's vectors in blocks of 32 columns.
 */
#include "tiles/tile_shape.h"

#include <string.h>

#define HALF 16

static size_t blocks_of(size_t n)
{
    return (n + 31) / 32;
}

static void map_init(struct tile_map *m, struct arena *a, size_t blocks, bool output)
{
    *m = (struct tile_map){.blocks = blocks};
    m->index = arena_take(a, blocks * 32 * sizeof(*m->index));
    m->site = output ? arena_take(a, blocks * 32) : NULL;
    for (size_t i = 0; m->index && i < blocks * 32; i++)
        m->index[i] = -1;
}

static void map_put(struct tile_map *m, size_t place, size_t index, enum site s)
{
    if (!m->index)
        return; /* only measured */
    m->index[place] = (int32_t)index;
    if (m->site)
        m->site[place] = (uint8_t)s;
}

/* N elements in their order, from PLACE on. */
static void map_plain(struct tile_map *m, size_t place, size_t n, size_t index,
                      enum site s)
{
    for (size_t i = 0; i < n; i++)
        map_put(m, place + i, index + i, s);
}

/* One head of q or k: rope's pairs face to face in each block. */
static void map_turned(struct tile_map *m, size_t place, size_t head, size_t head_dim,
                       bool interleaved, enum site s)
{
    const size_t pairs = head_dim / 2, first = head * head_dim;

    for (size_t i = 0; i < pairs; i++) {
        const size_t at = place + i / HALF * 32 + i % HALF;

        map_put(m, at, first + (interleaved ? 2 * i : i), s);
        map_put(m, at + HALF, first + (interleaved ? 2 * i + 1 : i + pairs), s);
    }
}

static void map_qkv(struct tile_shape *s, struct arena *a, bool interleaved)
{
    struct tile_map *m = &s->out[TILE_QKV];
    const size_t qk = s->qk_blocks * 32, d = s->head_dim;
    size_t place = 0;

    map_init(m, a,
             (s->n_heads + s->n_kv_heads) * s->qk_blocks + s->n_kv_heads * s->v_blocks,
             true);
    for (size_t h = 0; h < s->n_heads; h++, place += qk)
        map_turned(m, place, h, d, interleaved, SITE_Q);
    for (size_t g = 0; g < s->n_kv_heads; g++, place += qk)
        map_turned(m, place, g, d, interleaved, SITE_K);
    for (size_t g = 0; g < s->n_kv_heads; g++, place += s->v_blocks * 32)
        map_plain(m, place, d, g * d, SITE_V);
}

static void map_gate_up(struct tile_shape *s, struct arena *a)
{
    struct tile_map *m = &s->out[TILE_GATE_UP];

    map_init(m, a, 2 * blocks_of(s->ffn_dim), true);
    for (size_t i = 0; i < s->ffn_dim; i++) {
        map_put(m, i / HALF * 32 + i % HALF, i, SITE_GATE);
        map_put(m, i / HALF * 32 + HALF + i % HALF, i, SITE_UP);
    }
}

void tile_shape_init(struct tile_shape *s, struct arena *arena,
                     const struct model_config *c)
{
    *s = (struct tile_shape){.dim = c->dim,
                             .ffn_dim = c->ffn_dim,
                             .n_vocab = c->n_vocab,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .qk_blocks = (c->head_dim / 2 + HALF - 1) / HALF,
                             .v_blocks = blocks_of(c->head_dim)};
    map_init(&s->in[TILE_QKV], arena, blocks_of(s->dim), false);
    map_plain(&s->in[TILE_QKV], 0, s->dim, 0, SITE_Q);
    s->in[TILE_GATE_UP] = s->in[TILE_QKV];
    map_init(&s->in[TILE_O], arena, s->n_heads * s->v_blocks, false);
    for (size_t h = 0; h < s->n_heads; h++)
        map_plain(&s->in[TILE_O], h * s->v_blocks * 32, s->head_dim, h * s->head_dim,
                  SITE_O);
    map_init(&s->in[TILE_DOWN], arena, blocks_of(s->ffn_dim), false);
    map_plain(&s->in[TILE_DOWN], 0, s->ffn_dim, 0, SITE_DOWN);

    map_qkv(s, arena, c->rope_interleaved);
    map_gate_up(s, arena);
    map_init(&s->out[TILE_O], arena, blocks_of(s->dim), true);
    map_plain(&s->out[TILE_O], 0, s->dim, 0, SITE_O);
    map_init(&s->out[TILE_DOWN], arena, blocks_of(s->dim), true);
    map_plain(&s->out[TILE_DOWN], 0, s->dim, 0, SITE_DOWN);
}

enum tile_group tile_group_of(enum site s)
{
    switch (s) {
    case SITE_O:
        return TILE_O;
    case SITE_GATE:
    case SITE_UP:
        return TILE_GATE_UP;
    case SITE_DOWN:
        return TILE_DOWN;
    default:
        return TILE_QKV;
    }
}
