/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decoder layer backward: the forward's lines read from below. D_X holds
 * the gradient of the residual stream all the way; each branch adds its own.
 */
#include "decoder/pass.h"

#include <string.h>

/* What the backward of group G finds; ROUTERS is where its routers are told. */
static struct step_slopes slopes_of(struct step_routers *routers,
                                    const struct decoder_pass *p, size_t layer,
                                    enum step_group g, struct mixture_grads *grads)
{
    routers_find(routers, p, layer, g, grads);
    return (struct step_slopes){
        .grads = grads,
        .routers = routers,
        /* below the first layer that learns nothing needs a gradient */
        .wants_d_x = g != GROUP_QKV || layer > p->options.first_layer,
    };
}

static void ffn_backward(struct decoder_pass *p, size_t layer,
                         struct mixture_grads *grads)
{
    const struct step_ops *ops = p->ops;
    struct step_routers rs;
    struct step_slopes to = slopes_of(&rs, p, layer, GROUP_DOWN, grads);

    ops->down_backward(p, layer, &to);
    to = slopes_of(&rs, p, layer, GROUP_GATE_UP, grads);
    ops->gate_up_backward(p, layer, &to);
    ops->norm_backward(p, layer, BRANCH_FFN);
}

static void attention_branch_backward(struct decoder_pass *p, size_t layer,
                                      struct mixture_grads *grads)
{
    const struct step_ops *ops = p->ops;
    struct step_routers rs;
    struct step_slopes to = slopes_of(&rs, p, layer, GROUP_O, grads);

    ops->output_backward(p, layer, &to);
    ops->attend_backward(p, layer);
    to = slopes_of(&rs, p, layer, GROUP_QKV, grads);
    ops->qkv_backward(p, layer, &to);
    if (to.wants_d_x)
        ops->norm_backward(p, layer, BRANCH_ATTENTION);
}

/* Slopes of gates are gathered over the linears that a router serves: zero a layer's. */
static void zero_gate_slopes(struct decoder_pass *p, size_t layer)
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

void layer_backward(struct decoder_pass *p, size_t layer, struct mixture_grads *grads)
{
    if (p->options.recompute) {
        p->again = true;
        layer_forward(p, layer);
        p->again = false;
    }
    zero_gate_slopes(p, layer);
    ffn_backward(p, layer, grads);
    attention_branch_backward(p, layer, grads);
}

void decoder_backward(struct decoder_pass *p, struct mixture_grads *grads)
{
    for (size_t l = p->model->weights->config.n_layers; l-- > p->options.first_layer;)
        layer_backward(p, l, grads);
}
