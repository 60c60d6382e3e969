/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that each make an FFN of their own out of the frozen one (struct gate_rule's
 * WHOLE_FFN): SwiGLU lies between their gate and up and their down.
 *
 *     g_e = G x + s B_g A_g x     u_e = U x + s B_u A_u x     m_e = silu(g_e) * u_e
 *     a   = sum_e gate_e m_e      y  += sum_e gate_e s B_d A_d m_e
 *
 * G x and U x are computed once for all experts, and so is W_d a, for the gates of a row add
 * up to 1. Where no expert serves a row, a = silu(G x) * U x.
 *
 *   T rows   C rows of an expert at a time   D width   F width of the FFN   E experts
 */
#ifndef ARTEL_EXPERTS_WHOLE_FFN_H
#define ARTEL_EXPERTS_WHOLE_FFN_H

#include "experts/apply.h"

struct ffn_scratch {
    size_t dim, ffn_dim; /* D, F */
    struct gates some;   /* of C rows that one expert serves */
    float *x, *y;        /* (C, D) */
    float *gate, *up;    /* (C, F) */
    float *mid;          /* (C, F) SwiGLU of those */
    float *d_mid;        /* (C, F) of a backward, as the next */
    float *d_x;          /* (C, D) */
    bool *served;        /* (T) */
};

/* BACKWARD: room for that, too. */
void ffn_scratch_carve(struct ffn_scratch *s, struct arena *a, const struct mixture *m,
                       const struct model_config *c, size_t n_rows, bool backward);

/* Where in the model; SITE and KEPT of it are left aside. APPLY is free to be used. */
struct ffn_place {
    struct apply_place at;
    struct apply_scratch *apply;
    struct ffn_scratch *own;
};

/* A (T, F) and OUT (T, D), both overwritten: a, and what the experts add to W_d a. X (T, D),
 * GATE and UP (T, F) of the frozen linears. */
void ffn_experts_forward(float *a, float *out, const struct ffn_place *p,
                         const float *x, const float *gate, const float *up);

/*
 * From D_Y (T, D) and D_A (T, F) = D_Y W_d to the slopes of G x and U x, D_GATE and D_UP
 * (T, F), which are overwritten. Adds to GRADS, to the gates' D_GATE, and to D_X (T, D)
 * what goes through the experts' A.
 */
void ffn_experts_backward(float *d_x, float *d_gate, float *d_up,
                          struct mixture_grads *grads, const struct ffn_place *p,
                          const float *d_y, const float *d_a, const float *x,
                          const float *gate, const float *up);

#endif
