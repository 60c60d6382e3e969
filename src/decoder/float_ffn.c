/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FFN of a layer in float where each expert makes one of its own. Forward, all of it
 * but the frozen down is done where gate and up are; backward likewise.
 */
#include <string.h>

#include "decoder/float_pass.h"

bool float_whole_ffn(const struct decoder_pass *p)
{
    return p->mixture && p->mixture->rule.whole_ffn && p->mixture->n_experts;
}

static struct ffn_place place(struct decoder_pass *p, size_t layer)
{
    return (struct ffn_place){.at = float_place(p, layer, SITE_GATE),
                              .apply = &p->floats->apply,
                              .own = &p->floats->whole_ffn};
}

void float_ffn_forward(struct decoder_pass *p, size_t layer)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);
    const struct matrix *w = p->model->layers[layer].site;
    const struct ffn_place at = place(p, layer);

    float_frozen(p, a->gate, 0.0f, f->xn, &w[SITE_GATE]);
    float_frozen(p, a->up, 0.0f, f->xn, &w[SITE_UP]);
    if (!p->again)
        ffn_experts_forward(f->act, f->ffn_out, &at, f->xn, a->gate, a->up);
}

/* D_ACT holds what the frozen down sends. */
void float_ffn_backward(struct decoder_pass *p, size_t layer,
                        const struct step_slopes *to)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);
    const struct matrix *w = p->model->layers[layer].site;
    const struct ffn_place at = place(p, layer);

    memset(f->d_xn, 0, p->T * p->pitch * sizeof(float));
    ffn_experts_backward(f->d_xn, f->d_gate, f->d_up, to->grads, &at, p->d_x, f->d_act,
                         f->xn, a->gate, a->up);
    matrix_backward(f->d_xn, 1.0f, f->d_gate, &w[SITE_GATE], p->T);
    matrix_backward(f->d_xn, 1.0f, f->d_up, &w[SITE_UP], p->T);
    float_routers_after(p, SITE_UP, f->d_xn, f->xn, to->routers);
}
