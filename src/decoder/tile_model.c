/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing a base: 32 outputs of a group at a time are unpacked from the disk's form,
 * cut into pieces of 32 x 32 by the maps of their places, and packed for both directions.
 */
#include "decoder/tile_model.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "base/error.h"
#include "math/kernels.h"
#include "math/matrix.h"

#define TINY_GAIN 1e-6f /* stands for a norm's weight of zero: tiles/tiles.h */

static const enum site any_site[N_TILE_GROUPS] = {SITE_Q, SITE_O, SITE_GATE, SITE_DOWN};

static size_t group_elems(const struct tile_shape *s, int g)
{
    return s->in[g].blocks * s->out[g].blocks * PACK_ELEMS;
}

static void rope_carve(struct tile_model *m, struct arena *a, size_t n_positions)
{
    m->rope.half = 16 * m->shape.qk_blocks;
    m->rope.cos = arena_f32(a, n_positions * m->rope.half);
    m->rope.sin = arena_f32(a, n_positions * m->rope.half);
}

/* Where k's and v's places lie in a row of all key-value heads. */
static void cache_maps_carve(struct tile_model *m, struct arena *a)
{
    const struct tile_shape *s = &m->shape;
    const struct tile_map *out = &s->out[TILE_QKV];
    const size_t first_k = s->n_heads * s->qk_blocks * 32;
    const size_t n_k = s->n_kv_heads * s->qk_blocks * 32,
                 n_v = s->n_kv_heads * s->v_blocks * 32;

    m->k_index = arena_take(a, n_k * sizeof(*m->k_index));
    m->v_index = arena_take(a, n_v * sizeof(*m->v_index));
    for (size_t i = 0; m->k_index && i < n_k; i++)
        m->k_index[i] = out->index[first_k + i];
    for (size_t i = 0; m->v_index && i < n_v; i++)
        m->v_index[i] = out->index[first_k + n_k + i];
}

static void packed_carve(struct tile_layer *t, struct arena *arena,
                         const struct tile_shape *s, int use)
{
    for (int g = 0; g < N_TILE_GROUPS; g++) {
        const size_t bytes = group_elems(s, g) * sizeof(uint16_t);

        t->forward[g] = arena_take(arena, bytes);
        t->backward[g] = use & MATRIX_BACKWARD ? arena_take(arena, bytes) : NULL;
    }
}

void tile_model_carve(struct tile_model *m, struct arena *arena,
                      const struct model_config *c, size_t n_positions, int use)
{
    const struct tile_set *set = tile_set();
    const struct tile_shape *s = &m->shape;
    const bool staged = use & MATRIX_STAGED, backward = use & MATRIX_BACKWARD;
    struct tile_layer stage[2] = {0};
    size_t D;

    tile_shape_init(&m->shape, arena, c);
    D = s->in[TILE_QKV].blocks * 32;
    m->layers = arena_take(arena, c->n_layers * sizeof(*m->layers));
    for (size_t i = 0; staged && i < 2; i++)
        packed_carve(&stage[i], arena, s, use);
    for (size_t l = 0; l < c->n_layers; l++) {
        struct tile_layer t = stage[l % 2];

        t.attn_gain = arena_f32(arena, D);
        t.ffn_gain = arena_f32(arena, D);
        if (!staged)
            packed_carve(&t, arena, s, use);
        if (m->layers)
            m->layers[l] = t;
    }
    m->final_gain = arena_f32(arena, D);
    m->head = (struct tile_head){.blocks = D / 32, .n_vocab = c->n_vocab};
    m->head.forward = arena_take(arena, set->head_bytes(D / 32, c->n_vocab, false));
    if (backward)
        m->head.backward = arena_take(arena, set->head_bytes(D / 32, c->n_vocab, true));
    rope_carve(m, arena, n_positions);
    cache_maps_carve(m, arena);
}

static void fill_gain(float *out, const struct tensor *t, size_t n)
{
    kernels()->dequant[t->dtype](out, t->data, n);
    for (size_t i = 0; i < n; i++)
        if (fabsf(out[i]) < TINY_GAIN)
            out[i] = copysignf(TINY_GAIN, out[i]);
}

/* Place i of a head holds pair i of rope, wherever the pair's elements are. */
static void fill_rope(struct tile_rope *to, const struct rope *from)
{
    const size_t pairs = from->head_dim / 2;
    float *cos = (float *)to->cos, *sin = (float *)to->sin;

    for (size_t pos = 0; pos < from->n_positions; pos++)
        for (size_t i = 0; i < to->half; i++) {
            const bool pair = i < pairs;

            cos[pos * to->half + i] = pair ? from->cos[pos * pairs + i] : 1.0f;
            sin[pos * to->half + i] = pair ? from->sin[pos * pairs + i] : 0.0f;
        }
}

/* Row of W behind place P of a group's outputs into OUT; zeros for a gap. */
static void unpack_row(float *out, const struct layer_weights *w,
                       const struct tile_map *map, size_t place, size_t n_in)
{
    const struct tensor *t;
    size_t row_bytes;

    if (map->index[place] < 0) {
        memset(out, 0, n_in * sizeof(*out));
        return;
    }
    t = &w->site[map->site[place]];
    row_bytes = n_in / dtype_block_elems(t->dtype) * dtype_block_bytes(t->dtype);
    kernels()->dequant[t->dtype](
        out, (const char *)t->data + (size_t)map->index[place] * row_bytes, n_in);
}

/* 32 x 32 of ROWS by the places of input block K; elements of a block ascend. */
static void cut(float *piece, const float *rows, size_t n_in, const struct tile_map *in,
                size_t k)
{
    const int32_t *index = in->index + k * 32;
    size_t n = 0;

    while (n < 32 && index[n] >= 0)
        n++;
    for (size_t r = 0; r < 32; r++) {
        if (n)
            memcpy(piece + r * 32, rows + r * n_in + index[0], n * sizeof(*piece));
        memset(piece + r * 32 + n, 0, (32 - n) * sizeof(*piece));
    }
}

/* Outputs 32 * PANEL and on of a group. ROOM: 32 rows of inputs. */
static void fill_panel(const struct tile_model *m, const struct weights *w,
                       size_t layer, int g, size_t panel, int use, float *room)
{
    const struct tile_set *set = tile_set();
    const struct tile_map *in = &m->shape.in[g], *out = &m->shape.out[g];
    const struct tile_layer *t = &m->layers[layer];
    size_t n_out, n_in;
    float piece[32 * 32] __attribute__((aligned(64)));

    site_shape(&w->config, any_site[g], &n_out, &n_in);
    for (size_t r = 0; r < 32; r++)
        unpack_row(room + r * n_in, &w->layers[layer], out, panel * 32 + r, n_in);
    for (size_t k = 0; k < in->blocks; k++) {
        cut(piece, room, n_in, in, k);
        if (use & MATRIX_FORWARD)
            set->pack_forward(t->forward[g] + (panel * in->blocks + k) * PACK_ELEMS,
                              piece, 32);
        if (use & MATRIX_BACKWARD)
            set->pack_backward(t->backward[g] + (k * out->blocks + panel) * PACK_ELEMS,
                               piece, 32);
    }
}

static void fill_head(const struct tile_model *m, const struct tensor *t, size_t first,
                      float *room)
{
    const size_t D = m->shape.dim, left = m->head.n_vocab - first,
                 n = left < 32 ? left : 32;
    const size_t row_bytes =
        D / dtype_block_elems(t->dtype) * dtype_block_bytes(t->dtype);

    for (size_t r = 0; r < n; r++)
        kernels()->dequant[t->dtype](
            room + r * D, (const char *)t->data + (first + r) * row_bytes, D);
    tile_set()->head_pack(&m->head, room, D, first, n);
}

size_t tile_model_panels(const struct tile_model *m)
{
    size_t n = 0;

    for (int g = 0; g < N_TILE_GROUPS; g++)
        n += m->shape.out[g].blocks;
    return n;
}

void tile_model_fill_panel(const struct tile_model *m, const struct weights *w,
                           size_t layer, size_t panel, int use, float *room)
{
    int g = 0;

    for (; panel >= m->shape.out[g].blocks; g++)
        panel -= m->shape.out[g].blocks;
    fill_panel(m, w, layer, g, panel, use, room);
}

/* The panels of a layer are dealt to the threads as they come free. */
static void fill_all(const struct tile_model *m, const struct weights *w, float *rooms,
                     size_t room, int use)
{
    const size_t L = use & MATRIX_STAGED ? 0 : w->config.n_layers;

#pragma omp parallel
    {
        float *own = rooms + (size_t)omp_get_thread_num() * room;

        for (size_t l = 0; l < L; l++) {
#pragma omp for schedule(dynamic, 4)
            for (size_t i = 0; i < tile_model_panels(m); i++)
                tile_model_fill_panel(m, w, l, i, use, own);
#pragma omp single nowait
            if (!(use & MATRIX_DECODE))
                weights_forget_layer(w, l);
        }
#pragma omp for schedule(dynamic, 4)
        for (size_t v = 0; v < m->head.n_vocab; v += 32)
            fill_head(m, &w->head, v, own);
    }
}

size_t tile_model_room(const struct model_config *c)
{
    const size_t heads = c->n_heads * c->head_dim;
    const size_t widest = c->ffn_dim > c->dim ? c->ffn_dim : c->dim;

    return 32 * (heads > widest ? heads : widest);
}

int tile_model_fill(struct tile_model *m, const struct weights *w,
                    const struct rope *rope, int use, struct artel_error *err)
{
    const struct model_config *c = &w->config;
    const size_t room = tile_model_room(c);
    float *rooms = malloc((size_t)omp_get_max_threads() * room * sizeof(*rooms));

    if (!rooms)
        return error_nomem(err, room * sizeof(*rooms));
    for (size_t l = 0; l < c->n_layers; l++) {
        fill_gain(m->layers[l].attn_gain, &w->layers[l].attn_norm, c->dim);
        fill_gain(m->layers[l].ffn_gain, &w->layers[l].ffn_norm, c->dim);
    }
    fill_gain(m->final_gain, &w->final_norm, c->dim);
    fill_rope(&m->rope, rope);
    fill_all(m, w, rooms, room, use);
    free(rooms);
    return 0;
}
