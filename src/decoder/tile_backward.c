/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer backward on tiles: the forward's lines read from below. D_X is the gradient
 * of the residual stream in float, D_XB the same in bf16, which the products read.
 */
#include <string.h>

#include "decoder/tile_parts.h"
#include "math/kernels.h"

/* What the routers that read X add to its gradient D (T, PITCH), in the places of X. */
static void routers_at(struct decoder_pass *p, enum router_place place, size_t layer,
                       enum tile_group g, struct tiles x, float *d, size_t pitch,
                       struct mixture_grads *grads)
{
    struct tile_pass *t = p->tiles;
    const struct tile_map *map = &t->model->shape.in[g];
    const float *src;
    size_t dim = 0;
    float *to = d;

    if (!pass_routes(p) || p->mixture->rule.place != place)
        return;
    src = tile_natural(t, t->natural, x, g);
    for (size_t i = 0; i < map->blocks * 32; i++)
        dim += map->index[i] >= 0;
    if (dim != pitch && d) {
        to = t->spread;
        memset(to, 0, p->T * dim * sizeof(*to));
    }
    for (int s = 0; s < N_SITES; s++)
        if (tile_group_of((enum site)s) == g && tile_reads(place, (enum site)s))
            pass_router_backward(
                p, (size_t)mixture_router_of(p->mixture, layer, (enum site)s), to, src,
                grads);
    for (size_t r = 0; to != d && r < p->T; r++)
        for (size_t i = 0; i < map->blocks * 32; i++)
            if (map->index[i] >= 0)
                d[r * pitch + i] += to[r * dim + (size_t)map->index[i]];
}

/*
 * Gradients of the experts of group G and of their gates, and the product for the
 * gradient of its input X, the routers of single linears in its PLUS.
 */
static struct tile_product group_backward(struct decoder_pass *p,
                                          struct mixture_grads *grads, size_t layer,
                                          enum tile_group g, struct tiles x,
                                          struct tiles d_y)
{
    struct tile_pass *t = p->tiles;
    struct stacked_place at = tile_place(p, layer, g);
    struct tile_product product = tile_backward_product(t, layer, g, d_y);

    at.wants_d_x = layer > p->options.first_layer || g != TILE_QKV;
    if (t->stack) {
        const struct stacked_slopes s =
            stacked_backward(&t->room[0], &at, x, d_y, grads, 0, t->rows);

        product.low = s.low;
        product.plus = s.plus;
        product.plus_pitch = s.plus_pitch;
    }
    if (pass_routes(p) && p->mixture->rule.place == ROUTER_LINEAR) {
        const size_t wide = t->model->shape.in[g].blocks * 32;

        if (product.plus)
            memcpy(t->plus, product.plus, t->rows * wide * sizeof(*t->plus));
        else
            memset(t->plus, 0, t->rows * wide * sizeof(*t->plus));
        routers_at(p, ROUTER_LINEAR, layer, g, x, t->plus, wide, grads);
        product.plus = t->plus;
        product.plus_pitch = wide;
    }
    return product;
}

static void ffn_backward(struct decoder_pass *p, size_t layer,
                         struct mixture_grads *grads)
{
    const struct tile_set *set = tile_set();
    struct tile_pass *t = p->tiles;
    const struct tile_acts *a = &t->acts[layer];
    const struct tile_layer *w = &t->model->layers[layer];
    const size_t blocks = t->pitch / 32;
    struct tile_product product;

    set->swiglu(t->act, a->gate_up, t->model->shape.in[TILE_DOWN].blocks, 0, t->rows);
    product = group_backward(p, grads, layer, TILE_DOWN, t->act, t->d_xb);
    set->product_swiglu_backward(&product, t->d_gate_up, a->gate_up);
    product = group_backward(p, grads, layer, TILE_GATE_UP, a->xn_ffn, t->d_gate_up);
    set->product_float(&product, t->y, t->pitch);
    routers_at(p, ROUTER_FFN, layer, TILE_GATE_UP, a->xn_ffn, t->y, t->pitch, grads);
    set->norm_backward(t->d_xb, t->d_x, t->y, a->xn_ffn, a->inv_ffn, w->ffn_gain,
                       t->model->shape.dim, blocks, 0, t->rows);
}

static void heads_backward(struct decoder_pass *p, struct tile_acts *a)
{
    struct tile_pass *t = p->tiles;
    struct tile_attention at = tile_attention_of(p, a, t->attention[0]);
    struct tile_attention_slopes slopes = {t->d_o, t->d_qkv, t->model->rope};

    slopes.rope.pos = p->pos;
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        at.n = p->block->seqs[s].n;
        tile_set()->attention_backward(&at, &slopes);
        at.row += at.n;
    }
    tile_clear(t->d_qkv, t->d_qkv.pitch, p->T, t->rows);
}

static void attention_branch_backward(struct decoder_pass *p, size_t layer,
                                      struct mixture_grads *grads)
{
    const struct tile_set *set = tile_set();
    struct tile_pass *t = p->tiles;
    struct tile_acts *a = &t->acts[layer];
    struct tile_product product;

    product = group_backward(p, grads, layer, TILE_O, a->o, t->d_xb);
    set->product_tiles(&product, t->d_o);
    heads_backward(p, a);
    product = group_backward(p, grads, layer, TILE_QKV, a->xn_attn, t->d_qkv);
    if (layer <= p->options.first_layer) { /* nothing below needs a gradient */
        routers_at(p, ROUTER_LAYER, layer, TILE_QKV, a->xn_attn, NULL, 0, grads);
        return;
    }
    set->product_float(&product, t->y, t->pitch);
    routers_at(p, ROUTER_LAYER, layer, TILE_QKV, a->xn_attn, t->y, t->pitch, grads);
    set->norm_backward(t->d_xb, t->d_x, t->y, a->xn_attn, a->inv_attn,
                       t->model->layers[layer].attn_gain, t->model->shape.dim,
                       t->pitch / 32, 0, t->rows);
}

void tile_backward(struct decoder_pass *p, struct mixture_grads *grads)
{
    struct tile_pass *t = p->tiles;

    tile_set()->to_tiles(t->d_xb, t->d_x, t->pitch, t->pitch / 32, 0, t->rows);
    for (size_t l = p->model->weights->config.n_layers; l-- > p->options.first_layer;) {
        if (t->x_in)
            tile_layer_again(p, l);
        pass_zero_gate_slopes(p, l);
        ffn_backward(p, l, grads);
        attention_branch_backward(p, l, grads);
    }
}
