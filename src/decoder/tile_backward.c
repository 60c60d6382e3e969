/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer backward on tiles: the forward's lines read from below. D_X is the gradient
 * of the residual stream in float, D_XB the same in bf16, which the products read.
 */
#include <string.h>

#include "decoder/tile_parts.h"
#include "math/kernels.h"

/*
 * Gradients of the experts of group G and of their gates, and the product for the
 * gradient of its input X with its routers.
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
    product.more = tile_routers_backward(p, grads, layer, g, x, at.wants_d_x);
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
    if (layer <= p->options.first_layer)
        return; /* nothing below needs a gradient */
    set->product_float(&product, t->y, t->pitch);
    set->norm_backward(t->d_xb, t->d_x, t->y, a->xn_attn, a->inv_attn,
                       t->model->layers[layer].attn_gain, t->model->shape.dim,
                       t->pitch / 32, 0, t->rows);
}

void tile_layer_backward(struct decoder_pass *p, size_t layer,
                         struct mixture_grads *grads)
{
    const struct tile_pass *t = p->tiles;

    if (layer + 1 == p->model->weights->config.n_layers)
        tile_set()->to_tiles(t->d_xb, t->d_x, t->pitch, t->pitch / 32, 0, t->rows);
    if (t->x_in)
        tile_layer_again(p, layer);
    pass_zero_gate_slopes(p, layer);
    ffn_backward(p, layer, grads);
    attention_branch_backward(p, layer, grads);
}

void tile_backward(struct decoder_pass *p, struct mixture_grads *grads)
{
    for (size_t l = p->model->weights->config.n_layers; l-- > p->options.first_layer;)
        tile_layer_backward(p, l, grads);
}
