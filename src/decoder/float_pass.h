/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations in float: one thread's room for them, and what their files share.
 *
 *   T rows   S sequences   D width   H query heads, G key-value heads of d   F width of
 *   the FFN   C rows of the head at a time
 */
#ifndef ARTEL_DECODER_FLOAT_PASS_H
#define ARTEL_DECODER_FLOAT_PASS_H

#include "decoder/pass.h"
#include "experts/whole_ffn.h"
#include "math/attention.h"

/* What a layer keeps. Norm outputs and SwiGLU are cheap and computed anew. */
struct float_acts {
    float *inv_rms_attn; /* (T) */
    float *q;            /* (T, H * d) after rope */
    float *k, *v;        /* (T, G * d) */
    float *attn;         /* (T, H * d) output of the heads */
    float *lse;          /* (T, H) */
    float *x_mid;        /* (T, D) residual stream between attention and FFN */
    float *inv_rms_ffn;  /* (T) */
    float *gate, *up;    /* (T, F) before SwiGLU */
    float *h[N_SITES];   /* of the experts; NULL: computed anew */
};

/* Softmax of a row of logits as far as it has been seen: sum of exp(logit - max). */
struct head_row {
    double sum;
    float max, at_target;
};

/* Columns of logits at a time. */
#define FLOAT_HEAD_COLS ((size_t)3 * MATRIX_PART)

struct float_pass {
    struct attention_shape heads;
    struct float_acts *acts; /* (L), or one for all layers */
    struct apply_scratch apply;
    float *router_scratch;
    struct ffn_scratch whole_ffn; /* where experts make whole FFNs, and the next: */
    float *ffn_out;               /* (T, D) what they add behind down */

    float *xn;        /* (T, D) a norm's output */
    float *act;       /* (T, F) */
    float *attention; /* scratch of attention */
    float *few;       /* (PASS_FEW_ROWS, max(D, F)) products on the way to a residual */

    float *d_xn;                  /* (T, D) */
    float *d_q, *d_k, *d_v;       /* as q, k, v */
    float *d_attn;                /* (T, H * d) */
    float *d_act, *d_gate, *d_up; /* (T, F) */

    struct head_row *head_rows; /* (C) */
    float *logits;              /* (C, FLOAT_HEAD_COLS) */
    float *head_xn, *head_mix;  /* (C, D) */
    float *head_inv;            /* (C) */
};

/* Where layer LAYER keeps. */
struct float_acts *float_acts_of(const struct decoder_pass *p, size_t layer);
/* A linear of the block, for the experts' forward and backward. */
struct apply_place float_place(struct decoder_pass *p, size_t layer, enum site s);

/* The operations (step_ops.h), by name. */
void float_norm(struct decoder_pass *p, const struct step_part *part, size_t layer,
                enum step_branch branch);
void float_qkv(struct decoder_pass *p, const struct step_part *part, size_t layer);
void float_attend(struct decoder_pass *p, const struct step_part *part, size_t layer);
void float_output(struct decoder_pass *p, const struct step_part *part, size_t layer);
void float_gate_up(struct decoder_pass *p, const struct step_part *part, size_t layer);
void float_down(struct decoder_pass *p, const struct step_part *part, size_t layer);
void float_read_routers(struct decoder_pass *p, const struct step_routers *rs,
                        size_t layer, enum step_group g);
void float_read_pools(struct decoder_pass *p, float *mean, size_t dim, size_t layer,
                      enum step_group g);

void float_down_backward(struct decoder_pass *p, size_t layer,
                         const struct step_slopes *to);
void float_gate_up_backward(struct decoder_pass *p, size_t layer,
                            const struct step_slopes *to);
void float_output_backward(struct decoder_pass *p, size_t layer,
                           const struct step_slopes *to);
void float_attend_backward(struct decoder_pass *p, size_t layer);
void float_qkv_backward(struct decoder_pass *p, size_t layer,
                        const struct step_slopes *to);
void float_norm_backward(struct decoder_pass *p, size_t layer, enum step_branch branch);

/* The FFN where experts make one of their own each (float_ffn.c). */
bool float_whole_ffn(const struct decoder_pass *p);
void float_ffn_forward(struct decoder_pass *p, size_t layer);
void float_ffn_backward(struct decoder_pass *p, size_t layer,
                        const struct step_slopes *to);
/* Y = beta Y + X W^T of a frozen linear. */
void float_frozen(struct decoder_pass *p, float *y, float beta, const float *x,
                  const struct matrix *w);
/* The routers whose gates have all their slopes once linear S is done. */
void float_routers_after(struct decoder_pass *p, enum site s, float *d_x,
                         const float *x, const struct step_routers *rs);

void float_loss(struct decoder_pass *p, const struct loss_row *rows, size_t n);

#endif
