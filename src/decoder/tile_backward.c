/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's operations backward on tiles: what experts and routers send to the slopes
 * of a group's input rides in the product for them.
 */
#include <string.h>

#include "decoder/tile_pass.h"
#include "math/kernels.h"

/* N gradients of a thread's own to what all blocks share, while the caches hold them. */
static void share(const struct mixture_grads *grads, float *own, size_t n)
{
    kernels()->axpy(grads->router_sums + (own - grads->routers), 1.0f, own, n);
    memset(own, 0, n * sizeof(*own));
}

/* The block's turn at the sums of a group ends. */
static void hand_on(const struct step_slopes *to)
{
    const struct step_routers *rs = to->routers;

    if (!to->grads || !to->grads->relay)
        return;
    relay_wait(to->grads->relay, to->grads->item);
    for (size_t i = 0; i < rs->n; i++) {
        const struct router *r = rs->router[i];

        if (rs->d_w[i])
            share(to->grads, rs->d_w[i], r->n_experts * r->dim);
        if (rs->d_b[i])
            share(to->grads, rs->d_b[i], r->n_experts);
    }
    relay_pass(to->grads->relay, to->grads->item);
}

/*
 * Gradients of the experts of group G, of their gates and of its routers, and the product
 * for the gradient of its input X.
 */
static struct tile_product group_backward(struct decoder_pass *p, size_t layer,
                                          enum tile_group g,
                                          const struct step_slopes *to, struct tiles x,
                                          struct tiles d_y)
{
    struct tile_pass *t = p->tiles;
    const size_t k = t->model->shape.out[g].blocks;
    struct tile_product product = {.a = d_y,
                                   .k = k,
                                   .b = t->model->layers[layer].backward[g],
                                   .b_pitch = k * PACK_ELEMS,
                                   .panels = t->model->shape.in[g].blocks,
                                   .rows = p->rows};

    if (t->stack) {
        struct stacked_place at = tile_place(p, layer, g);
        struct stacked_slopes s;

        at.wants_d_x = to->wants_d_x;
        s = stacked_backward(&t->room[0], &at, x, d_y, to->grads, 0, p->rows);
        product.low = s.low;
        product.plus = s.plus;
        product.plus_pitch = s.plus_pitch;
    }
    if (to->routers->n) {
        const struct tile_routers rs = tile_routers_of(p, to->routers, g);
        const struct gates_slope slope = pass_gates_slope(p);

        product.more =
            routers_backward(&t->routers, &rs, &slope, x,
                             to->wants_d_x && !p->options.detach_router, p->rows);
    }
    hand_on(to);
    return product;
}

void tile_down_backward(struct decoder_pass *p, size_t layer,
                        const struct step_slopes *to)
{
    const struct tile_set *set = tile_set();
    const struct tile_pass *t = p->tiles;
    const struct tile_acts *a = tile_acts_of(p, layer);
    const bool top = layer + 1 == p->model->weights->config.n_layers;
    struct tile_product product;

    if (top || p->options.staged) /* behind the head, or behind another block */
        set->to_tiles(t->d_xb, p->d_x, p->pitch, p->pitch / TILE_COLS, 0, p->rows);
    set->swiglu(t->act, a->gate_up, t->model->shape.in[TILE_DOWN].blocks, 0, p->rows);
    product = group_backward(p, layer, TILE_DOWN, to, t->act, t->d_xb);
    set->product_swiglu_backward(&product, t->d_gate_up, a->gate_up);
}

void tile_gate_up_backward(struct decoder_pass *p, size_t layer,
                           const struct step_slopes *to)
{
    const struct tile_pass *t = p->tiles;
    const struct tile_product product = group_backward(
        p, layer, TILE_GATE_UP, to, tile_acts_of(p, layer)->xn_ffn, t->d_gate_up);

    tile_set()->product_float(&product, t->y, p->pitch);
}

void tile_output_backward(struct decoder_pass *p, size_t layer,
                          const struct step_slopes *to)
{
    const struct tile_pass *t = p->tiles;
    const struct tile_product product =
        group_backward(p, layer, TILE_O, to, tile_acts_of(p, layer)->o, t->d_xb);

    tile_set()->product_tiles(&product, t->d_o);
}

void tile_attend_backward(struct decoder_pass *p, size_t layer)
{
    const struct tile_pass *t = p->tiles;
    struct tile_attention at = tile_attention_of(p, tile_acts_of(p, layer), 0);
    struct tile_attention_slopes slopes = {t->d_o, t->d_qkv, t->model->rope};

    slopes.rope.pos = p->pos;
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        at.n = p->block->seqs[s].n;
        tile_set()->attention_backward(&at, &slopes);
        at.row += at.n;
    }
    tile_clear_behind(p, t->d_qkv);
}

void tile_qkv_backward(struct decoder_pass *p, size_t layer,
                       const struct step_slopes *to)
{
    const struct tile_pass *t = p->tiles;
    const struct tile_product product = group_backward(
        p, layer, TILE_QKV, to, tile_acts_of(p, layer)->xn_attn, t->d_qkv);

    if (to->wants_d_x)
        tile_set()->product_float(&product, t->y, p->pitch);
}

void tile_norm_backward(struct decoder_pass *p, size_t layer, enum step_branch branch)
{
    const struct tile_pass *t = p->tiles;
    const struct tile_layer *w = &t->model->layers[layer];
    const struct tile_acts *a = tile_acts_of(p, layer);
    const bool attention = branch == BRANCH_ATTENTION;

    tile_set()->norm_backward(t->d_xb, p->d_x, t->y, attention ? a->xn_attn : a->xn_ffn,
                              attention ? a->inv_attn : a->inv_ffn,
                              attention ? w->attn_gain : w->ffn_gain,
                              t->model->shape.dim, p->pitch / TILE_COLS, 0, p->rows);
}
