/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's operations backward in float. Each linear adds to the slopes of its input
 * what its frozen product, its experts and its router send, in this order.
 */
#include <string.h>

#include "decoder/float_pass.h"
#include "math/kernels.h"
#include "math/rmsnorm.h"
#include "math/rope.h"

/* The norm's output again, from its input and the kept 1 / rms. */
static void norm_again(struct decoder_pass *p, size_t layer, enum step_branch branch)
{
    const struct frozen_layer *w = &p->model->layers[layer];
    const struct float_acts *a = float_acts_of(p, layer);
    const bool attention = branch == BRANCH_ATTENTION;
    const float *x = attention ? p->x[layer] : a->x_mid;
    const float *gain = attention ? w->attn_norm : w->ffn_norm;
    const float *inv_rms = attention ? a->inv_rms_attn : a->inv_rms_ffn;
    const size_t D = p->pitch;

    for (size_t t = 0; t < p->T; t++)
        kernels()->scale_mul(p->floats->xn + t * D, x + t * D, gain, inv_rms[t], D);
}

void float_routers_after(struct decoder_pass *p, enum site s, float *d_x,
                         const float *x, const struct step_routers *rs)
{
    struct gates_slope slope;

    if (!rs->n)
        return;
    slope = pass_gates_slope(p);
    for (size_t i = 0; i < rs->n; i++)
        if (rs->after[i] == s)
            gates_backward(rs->gates[i], rs->router[i], &slope, rs->d_w[i], rs->d_b[i],
                           p->options.detach_router ? NULL : d_x, x,
                           p->floats->router_scratch);
}

/* D_X = beta D_X + D_Y W, what the experts and what the routers add; D_X may be NULL:
 * nothing below needs it. */
static void linear_backward(struct decoder_pass *p, float *d_x, float beta,
                            const float *d_y, const float *x, size_t layer, enum site s,
                            const struct step_slopes *to)
{
    const struct apply_place at = float_place(p, layer, s);

    if (d_x)
        matrix_backward(d_x, beta, d_y, &p->model->layers[layer].site[s], p->T);
    if (p->mixture)
        experts_backward(d_x, to->grads, &at, d_y, x, &p->floats->apply);
    float_routers_after(p, s, d_x, x, to->routers);
}

void float_down_backward(struct decoder_pass *p, size_t layer,
                         const struct step_slopes *to)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);
    const struct kernels *k = kernels();
    const size_t n = p->T * p->model->weights->config.ffn_dim;

    if (float_whole_ffn(p)) { /* SwiGLU is behind the experts: the rest follows */
        matrix_backward(f->d_act, 0.0f, p->d_x,
                        &p->model->layers[layer].site[SITE_DOWN], p->T);
        return;
    }
    k->swiglu(f->act, a->gate, a->up, n);
    linear_backward(p, f->d_act, 0.0f, p->d_x, f->act, layer, SITE_DOWN, to);
    k->swiglu_backward(f->d_gate, f->d_up, f->d_act, a->gate, a->up, n);
}

void float_gate_up_backward(struct decoder_pass *p, size_t layer,
                            const struct step_slopes *to)
{
    const struct float_pass *f = p->floats;

    norm_again(p, layer, BRANCH_FFN);
    if (float_whole_ffn(p)) {
        float_ffn_backward(p, layer, to);
        return;
    }
    linear_backward(p, f->d_xn, 0.0f, f->d_gate, f->xn, layer, SITE_GATE, to);
    linear_backward(p, f->d_xn, 1.0f, f->d_up, f->xn, layer, SITE_UP, to);
}

void float_output_backward(struct decoder_pass *p, size_t layer,
                           const struct step_slopes *to)
{
    const struct float_acts *a = float_acts_of(p, layer);

    linear_backward(p, p->floats->d_attn, 0.0f, p->d_x, a->attn, layer, SITE_O, to);
}

void float_attend_backward(struct decoder_pass *p, size_t layer)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);
    const struct attention_shape *h = &f->heads;
    const size_t heads = h->n_heads * h->head_dim, groups = h->n_kv_heads * h->head_dim;
    size_t row = 0;

    memset(f->d_q, 0, p->T * heads * sizeof(float));
    memset(f->d_k, 0, p->T * groups * sizeof(float));
    memset(f->d_v, 0, p->T * groups * sizeof(float));
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const size_t n = p->block->seqs[s].n;

        attention_backward(f->d_q + row * heads, f->d_k + row * groups,
                           f->d_v + row * groups, f->d_attn + row * heads,
                           a->q + row * heads, a->k + row * groups, a->v + row * groups,
                           a->attn + row * heads, a->lse + row * h->n_heads, n, h,
                           f->attention);
        row += n;
    }
    rope_backward(&p->model->rope, f->d_q, p->pos, p->T, h->n_heads);
    rope_backward(&p->model->rope, f->d_k, p->pos, p->T, h->n_kv_heads);
}

void float_qkv_backward(struct decoder_pass *p, size_t layer,
                        const struct step_slopes *to)
{
    const struct float_pass *f = p->floats;
    float *d_xn = to->wants_d_x ? f->d_xn : NULL;

    norm_again(p, layer, BRANCH_ATTENTION);
    linear_backward(p, d_xn, 0.0f, f->d_q, f->xn, layer, SITE_Q, to);
    linear_backward(p, d_xn, 1.0f, f->d_k, f->xn, layer, SITE_K, to);
    linear_backward(p, d_xn, 1.0f, f->d_v, f->xn, layer, SITE_V, to);
}

void float_norm_backward(struct decoder_pass *p, size_t layer, enum step_branch branch)
{
    const struct frozen_layer *w = &p->model->layers[layer];
    const struct float_acts *a = float_acts_of(p, layer);
    const bool attention = branch == BRANCH_ATTENTION;

    rmsnorm_backward(p->d_x, p->floats->d_xn, attention ? p->x[layer] : a->x_mid,
                     attention ? w->attn_norm : w->ffn_norm,
                     attention ? a->inv_rms_attn : a->inv_rms_ffn, p->T, p->pitch);
}
