/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer forward on tiles:
 *
 *     xn = norm(x)
 *     q | k | v = xn W + experts           turned by rope on the way out
 *     x += heads(q, k, v) W_o + experts
 *     xn = norm(x)
 *     gate | up = xn W + experts           SwiGLU on the way out
 *     x += act W_down + experts
 *
 * Routers read the input of a product before it.
 */
#include <omp.h>
#include <string.h>

#include "decoder/pass.h"
#include "decoder/tile_parts.h"
#include "math/kernels.h"

/* A stretch of rows that one thread takes through the layers. */
struct part {
    size_t thread, n; /* of n threads */
    size_t row, rows;
};

/* All threads of the forward meet. */
static void meet(const struct part *part)
{
    if (part->n > 1) {
#pragma omp barrier
    }
}

/* Let the routers of group G read X; one thread for all. */
static void route(struct decoder_pass *p, const struct part *part, size_t layer,
                  enum tile_group g, struct tiles x)
{
    if (p->again || !tile_routed(p, layer, g))
        return;
    meet(part);
    if (part->thread == 0)
        tile_route(p, layer, g, x);
    meet(part);
}

/* What a product of group G needs: the frozen weights and the experts of these rows. */
static struct tile_product group_product(struct decoder_pass *p,
                                         const struct part *part, size_t layer,
                                         enum tile_group g, struct tiles x)
{
    struct tile_pass *t = p->tiles;
    const struct stacked_place at = tile_place(p, layer, g);
    struct tile_product product = tile_forward_product(t, layer, g, x);

    route(p, part, layer, g, x);
    product.row = part->row;
    product.rows = part->rows;
    if (t->stack)
        product.low =
            stacked_forward(&t->room[part->thread], &at, x, part->row, part->rows);
    return product;
}

/* Keys and values of the part's rows to the session's cache, in natural order. */
static void keep_in_cache(struct decoder_pass *p, const struct part *part, size_t layer,
                          struct tiles qkv)
{
    const struct tile_model *m = p->tiles->model;
    const struct tile_shape *s = &m->shape;
    const size_t n_k = s->n_kv_heads * s->qk_blocks, n_v = s->n_kv_heads * s->v_blocks;
    const size_t width = p->kv->width, first = s->n_heads * s->qk_blocks;
    const size_t left = p->T - part->row, rows = part->rows < left ? part->rows : left;

    tile_set()->spread(kv_keys(p->kv, layer) + p->kv->n * width, width,
                       tiles_from(qkv, first), n_k, m->k_index, part->row, rows);
    tile_set()->spread(kv_values(p->kv, layer) + p->kv->n * width, width,
                       tiles_from(qkv, first + n_k), n_v, m->v_index, part->row, rows);
}

static void attend(struct decoder_pass *p, const struct part *part, size_t layer,
                   struct tile_acts *a)
{
    const struct tile_pass *t = p->tiles;
    struct tile_attention at = tile_attention_of(p, a, t->attention[part->thread]);

    at.part = part->thread;
    at.n_parts = part->n;
    if (p->kv) {
        const struct tile_cache cache = {.k = kv_keys(p->kv, layer),
                                         .v = kv_values(p->kv, layer),
                                         .pitch = p->kv->width,
                                         .n = p->kv->n + p->T,
                                         .k_index = t->model->k_index,
                                         .v_index = t->model->v_index};

        keep_in_cache(p, part, layer, a->qkv);
        meet(part);
        at.cache = p->kv->n ? &cache : NULL; /* all keys are here: the same numbers */
        at.n = p->T;
        tile_set()->attention(&at);
        meet(part);
        return;
    }
    meet(part);
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        at.n = p->block->seqs[s].n;
        tile_set()->attention(&at);
        at.row += at.n;
    }
    meet(part);
}

/* Where the layer adds to the residual stream; what comes in stays where it is kept. */
static float *stream(const struct tile_pass *t, const struct part *part, size_t layer)
{
    const size_t from = part->row * t->pitch;

    if (!t->x_in)
        return t->x;
    memcpy(t->x_in[layer + 1] + from, t->x_in[layer] + from,
           part->rows * t->pitch * sizeof(float));
    return t->x_in[layer + 1];
}

/* Rows behind the last of the block are zero wherever somebody reads them. */
static void layer_forward_part(struct decoder_pass *p, const struct part *part,
                               size_t layer)
{
    const struct tile_set *set = tile_set();
    struct tile_pass *t = p->tiles;
    const struct model_config *c = &p->model->weights->config;
    const struct tile_layer *w = &t->model->layers[layer];
    const struct tile_shape *s = &t->model->shape;
    struct tile_acts *a = &t->acts[layer];
    struct tile_rope rope = t->model->rope;
    struct tile_product product;
    float *x = stream(t, part, layer);

    rope.pos = p->pos;
    set->norm(a->xn_attn, a->inv_attn, x, w->attn_gain, c->norm_eps, c->dim,
              t->pitch / 32, part->row, part->rows);
    product = group_product(p, part, layer, TILE_QKV, a->xn_attn);
    set->product_rope(&product, a->qkv, (s->n_heads + s->n_kv_heads) * s->qk_blocks,
                      s->qk_blocks, &rope);
    attend(p, part, layer, a);
    product = group_product(p, part, layer, TILE_O, a->o);
    set->product_add(&product, x, t->pitch);

    set->norm(a->xn_ffn, a->inv_ffn, x, w->ffn_gain, c->norm_eps, c->dim, t->pitch / 32,
              part->row, part->rows);
    product = group_product(p, part, layer, TILE_GATE_UP, a->xn_ffn);
    if (p->again) {
        set->product_tiles(&product, a->gate_up);
        return;
    }
    set->product_swiglu(&product, a->gate_up, t->act);
    product = group_product(p, part, layer, TILE_DOWN, t->act);
    set->product_add(&product, x, t->pitch);
}

void tile_begin(struct decoder_pass *p)
{
    struct tile_pass *t = p->tiles;
    const size_t D = p->model->weights->config.dim;
    float *x = t->x_in ? t->x_in[0] : t->x;

    t->rows = tile_round(p->T);
    for (size_t r = 0; r < p->T; r++) {
        matrix_rows(x + r * t->pitch, &p->model->embed, p->ids + r, 1);
        memset(x + r * t->pitch + D, 0, (t->pitch - D) * sizeof(float));
    }
    memset(x + p->T * t->pitch, 0, (t->rows - p->T) * t->pitch * sizeof(float));
    for (size_t r = p->T; r < t->rows; r++)
        p->pos[r] = 0;
}

/* Attention writes the rows of its sequences alone. */
static void clear_behind(const struct decoder_pass *p)
{
    const struct tile_pass *t = p->tiles;
    const size_t L = p->model->weights->config.n_layers;

    for (size_t l = 0; l < L; l++) {
        tile_clear(t->acts[l].o, t->model->shape.in[TILE_O].blocks, p->T, t->rows);
        if (t->one_layer)
            return;
    }
}

void tile_layer_forward(struct decoder_pass *p, size_t layer)
{
    const struct part whole = {0, 1, 0, p->tiles->rows};

    clear_behind(p);
    layer_forward_part(p, &whole, layer);
}

void tile_layer_again(struct decoder_pass *p, size_t layer)
{
    p->again = true;
    tile_layer_forward(p, layer);
    p->again = false;
}

void tile_forward(struct decoder_pass *p)
{
    struct tile_pass *t = p->tiles;
    const size_t L = p->model->weights->config.n_layers, pairs = tile_round(p->T) / 32;
    const size_t n = pairs < t->n_threads ? pairs : t->n_threads;

    clear_behind(p);
    if (n == 1 || omp_in_parallel()) {
        const struct part whole = {0, 1, 0, t->rows};

        for (size_t l = 0; l < L; l++)
            layer_forward_part(p, &whole, l);
        return;
    }
#pragma omp parallel num_threads((int)n)
    {
        const size_t i = (size_t)omp_get_thread_num(),
                     team = (size_t)omp_get_num_threads();
        const size_t from = pairs * i / team, to = pairs * (i + 1) / team;
        const struct part part = {i, team, from * 32, (to - from) * 32};

        for (size_t l = 0; l < L; l++)
            layer_forward_part(p, &part, l);
    }
}
