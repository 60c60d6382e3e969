/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of the bf16 step: activations in tiles, the residual stream and its
 * gradient in float. One thread's room for them, and what their files share.
 *
 * A forward may be shared: each thread takes a stretch of rows through every product.
 *
 *   T rows, rounded up to pairs of row blocks   P width in whole blocks of 32
 */
#ifndef ARTEL_DECODER_TILE_PASS_H
#define ARTEL_DECODER_TILE_PASS_H

#include "decoder/pass.h"
#include "experts/router_tiles.h"
#include "experts/stacked.h"

/* What a layer keeps for the backward. */
struct tile_acts {
    struct tiles xn_attn, xn_ffn; /* outputs of the norms */
    struct tiles qkv;             /* after rope */
    struct tiles o;               /* output of the heads */
    struct tiles gate_up;
    float *inv_attn, *inv_ffn; /* (T) */
    float *lse;                /* (H, T) */
};

struct tile_pass {
    const struct tile_model *model;   /* borrowed */
    const struct expert_stack *stack; /* borrowed; NULL: no experts */
    size_t max_rows;
    struct tile_acts *acts; /* (L), or one for all layers */
    struct tiles act;       /* SwiGLU's output */
    struct routers_room routers;
    struct stacked_room *room; /* (threads) */
    void **attention;          /* (threads) scratch */

    float *y;          /* (T, P) slopes of a norm's output */
    struct tiles d_xb; /* D_X in bf16, which the products read */
    struct tiles d_gate_up, d_qkv, d_o;

    struct tiles head_xn; /* (chunk) */
    float *head_d_xn;     /* (chunk, P) */
    float *head_inv, *head_scale;
    int32_t *head_target;
    void *head_scratch;
};

/* Where layer LAYER keeps. */
struct tile_acts *tile_acts_of(const struct decoder_pass *p, size_t layer);
/* Where the experts of a group stand, and the gates that weigh them. */
struct stacked_place tile_place(struct decoder_pass *p, size_t layer,
                                enum tile_group g);
/* Those of RS as routers of the input of group G. */
struct tile_routers tile_routers_of(const struct decoder_pass *p,
                                    const struct step_routers *rs, enum tile_group g);
/* Attention over the layer that keeps in A, by THREAD. */
struct tile_attention tile_attention_of(const struct decoder_pass *p,
                                        const struct tile_acts *a, size_t thread);
/* Zero the rows of T behind the last of the block. */
void tile_clear_behind(const struct decoder_pass *p, struct tiles t);

/* The operations (step_ops.h), by name. */
void tile_norm(struct decoder_pass *p, const struct step_part *part, size_t layer,
               enum step_branch branch);
void tile_qkv(struct decoder_pass *p, const struct step_part *part, size_t layer);
void tile_attend(struct decoder_pass *p, const struct step_part *part, size_t layer);
void tile_output(struct decoder_pass *p, const struct step_part *part, size_t layer);
void tile_gate_up(struct decoder_pass *p, const struct step_part *part, size_t layer);
void tile_down(struct decoder_pass *p, const struct step_part *part, size_t layer);
void tile_read_routers(struct decoder_pass *p, const struct step_routers *rs,
                       size_t layer, enum step_group g);
void tile_read_pools(struct decoder_pass *p, float *mean, size_t dim, size_t layer,
                     enum step_group g);

void tile_down_backward(struct decoder_pass *p, size_t layer,
                        const struct step_slopes *to);
void tile_gate_up_backward(struct decoder_pass *p, size_t layer,
                           const struct step_slopes *to);
void tile_output_backward(struct decoder_pass *p, size_t layer,
                          const struct step_slopes *to);
void tile_attend_backward(struct decoder_pass *p, size_t layer);
void tile_qkv_backward(struct decoder_pass *p, size_t layer,
                       const struct step_slopes *to);
void tile_norm_backward(struct decoder_pass *p, size_t layer, enum step_branch branch);

void tile_loss(struct decoder_pass *p, const struct loss_row *rows, size_t n);

#endif
