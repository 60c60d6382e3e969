/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decoder layer backward: the forward's lines read from below. D_X holds
 * the gradient of the residual stream all the way; each branch adds its own.
 */
#include "decoder/pass.h"

#include <string.h>

#include "math/kernels.h"
#include "math/rmsnorm.h"
#include "math/rope.h"

/* The norm's output again, from its input and the kept 1 / rms. */
static void norm_again(float *xn, const float *x, const float *gain,
                       const float *inv_rms, size_t T, size_t D)
{
    for (size_t t = 0; t < T; t++)
        kernels()->scale_mul(xn + t * D, x + t * D, gain, inv_rms[t], D);
}

struct gates_slope pass_gates_slope(const struct decoder_pass *p)
{
    const struct gate_rule *rule = &p->mixture->rule;

    return (struct gates_slope){
        .rule = p->options.routing == ROUTE_ROUTER ? rule : NULL,
        .straight = p->options.straight,
        .ce_weight = rule->decides == DECIDE_SEQUENCE ? p->options.router_ce : 0.0f,
        .label = p->labels,
        .pools = p->pools,
        .pool = rule->pool,
    };
}

void pass_router_backward(struct decoder_pass *p, size_t router, float *d_src,
                          const float *src, struct mixture_grads *grads)
{
    const struct mixture *m = p->mixture;
    const struct router *r = &m->routers[router];
    const struct gates_slope slope = pass_gates_slope(p);
    float *d_params = grads->routers;

    gates_backward(&p->gates[router], r, &slope,
                   d_params ? d_params + (r->w - m->router_params) : NULL,
                   d_params && r->b ? d_params + (r->b - m->router_params) : NULL,
                   p->options.detach_router ? NULL : d_src, src, p->router_scratch);
}

static void router_at(struct decoder_pass *p, enum router_place place, size_t layer,
                      enum site s, float *d_src, const float *src,
                      struct mixture_grads *grads)
{
    if (pass_routes(p) && p->mixture->rule.place == place)
        pass_router_backward(p, (size_t)mixture_router_of(p->mixture, layer, s), d_src,
                             src, grads);
}

/* D_X = beta D_X + D_Y W and what the experts add; D_X may be NULL: nothing below needs it. */
static void linear_backward(struct decoder_pass *p, float *d_x, float beta,
                            const float *d_y, const float *x, size_t layer, enum site s,
                            struct mixture_grads *grads)
{
    const struct apply_place at = {.mixture = p->mixture,
                                   .layer = layer,
                                   .site = s,
                                   .gates = pass_gates(p, layer, s),
                                   .dropout = p->options.dropout,
                                   .dropout_seed = p->options.dropout_seed,
                                   .kept = p->acts[layer].h[s]};

    if (d_x)
        matrix_backward(d_x, beta, d_y, &p->model->layers[layer].site[s], p->T);
    if (p->mixture)
        experts_backward(d_x, grads, &at, d_y, x, &p->apply);
    router_at(p, ROUTER_LINEAR, layer, s, d_x, x, grads);
}

static void attend_backward(struct decoder_pass *p, const struct layer_acts *a)
{
    const size_t heads = p->heads.n_heads * p->heads.head_dim;
    const size_t groups = p->heads.n_kv_heads * p->heads.head_dim;
    size_t row = 0;

    memset(p->d_q, 0, p->T * heads * sizeof(float));
    memset(p->d_k, 0, p->T * groups * sizeof(float));
    memset(p->d_v, 0, p->T * groups * sizeof(float));
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const size_t n = p->block->seqs[s].n;

        attention_backward(p->d_q + row * heads, p->d_k + row * groups,
                           p->d_v + row * groups, p->d_attn + row * heads,
                           a->q + row * heads, a->k + row * groups, a->v + row * groups,
                           a->attn + row * heads, a->lse + row * p->heads.n_heads, n,
                           &p->heads, p->attention);
        row += n;
    }
}

void pass_zero_gate_slopes(struct decoder_pass *p, size_t layer)
{
    const struct mixture *m = p->mixture;

    if (!pass_routes(p))
        return;
    for (int s = 0; s < N_SITES; s++) {
        const int router = mixture_router_of(m, layer, (enum site)s);

        if (router >= 0)
            memset(p->gates[router].d_gate, 0,
                   p->gates[router].n_units * m->n_experts * sizeof(float));
    }
}

static void ffn_backward(struct decoder_pass *p, size_t layer,
                         struct mixture_grads *grads)
{
    const struct model_config *c = &p->model->weights->config;
    const struct frozen_layer *w = &p->model->layers[layer];
    const struct layer_acts *a = &p->acts[layer];
    const struct kernels *k = kernels();
    const size_t T = p->T, D = c->dim, F = c->ffn_dim;

    k->swiglu(p->act, a->gate, a->up, T * F);
    linear_backward(p, p->d_act, 0.0f, p->d_x, p->act, layer, SITE_DOWN, grads);
    k->swiglu_backward(p->d_gate, p->d_up, p->d_act, a->gate, a->up, T * F);
    norm_again(p->xn, a->x_mid, w->ffn_norm, a->inv_rms_ffn, T, D);
    linear_backward(p, p->d_xn, 0.0f, p->d_gate, p->xn, layer, SITE_GATE, grads);
    linear_backward(p, p->d_xn, 1.0f, p->d_up, p->xn, layer, SITE_UP, grads);
    router_at(p, ROUTER_FFN, layer, SITE_GATE, p->d_xn, p->xn, grads);
    rmsnorm_backward(p->d_x, p->d_xn, a->x_mid, w->ffn_norm, a->inv_rms_ffn, T, D);
}

static void attention_branch_backward(struct decoder_pass *p, size_t layer,
                                      struct mixture_grads *grads)
{
    const struct model_config *c = &p->model->weights->config;
    const struct frozen_layer *w = &p->model->layers[layer];
    const struct layer_acts *a = &p->acts[layer];
    const size_t T = p->T, D = c->dim;
    float *d_xn = layer > p->options.first_layer ? p->d_xn : NULL;

    linear_backward(p, p->d_attn, 0.0f, p->d_x, a->attn, layer, SITE_O, grads);
    attend_backward(p, a);
    rope_backward(&p->model->rope, p->d_q, p->pos, T, c->n_heads);
    rope_backward(&p->model->rope, p->d_k, p->pos, T, c->n_kv_heads);
    norm_again(p->xn, a->x_in, w->attn_norm, a->inv_rms_attn, T, D);
    linear_backward(p, d_xn, 0.0f, p->d_q, p->xn, layer, SITE_Q, grads);
    linear_backward(p, d_xn, 1.0f, p->d_k, p->xn, layer, SITE_K, grads);
    linear_backward(p, d_xn, 1.0f, p->d_v, p->xn, layer, SITE_V, grads);
    router_at(p, ROUTER_LAYER, layer, SITE_Q, d_xn, p->xn, grads);
    if (d_xn)
        rmsnorm_backward(p->d_x, d_xn, a->x_in, w->attn_norm, a->inv_rms_attn, T, D);
}

void layer_backward(struct decoder_pass *p, size_t layer, struct mixture_grads *grads)
{
    if (p->options.recompute) {
        p->again = true;
        layer_forward(p, layer);
        p->again = false;
    }
    pass_zero_gate_slopes(p, layer);
    ffn_backward(p, layer, grads);
    attention_branch_backward(p, layer, grads);
}

void decoder_backward(struct decoder_pass *p, struct mixture_grads *grads)
{
    if (p->in_tiles) {
        tile_backward(p, grads);
        return;
    }
    for (size_t l = p->model->weights->config.n_layers; l-- > p->options.first_layer;)
        layer_backward(p, l, grads);
}
