/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bf16 step over one row block: activations in tiles, the residual stream and its
 * gradient in float.
 *
 * In training a thread has a pass of its own. A session's prefill is shared: each
 * thread takes a stretch of rows through every product, and all meet before and
 * after attention.
 *
 *   T rows, rounded up to pairs of row blocks   P width in whole blocks of 32
 */
#ifndef ARTEL_DECODER_TILE_PASS_H
#define ARTEL_DECODER_TILE_PASS_H

#include "decoder/tile_model.h"
#include "experts/router_tiles.h"
#include "experts/stacked.h"

struct decoder_pass;
struct block_loss;
struct pass_options;

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
    size_t rows;                      /* of the block at hand, rounded up */
    size_t pitch;                     /* P */
    size_t n_threads;                 /* that share a forward */
    size_t max_rows;
    struct tile_acts *acts; /* (L) */
    bool one_layer;         /* all ACTS are the same place */
    float *x;               /* (T, P) residual stream; behind the last layer */
    float **x_in;           /* (L + 1) (T, P) at each layer's input, or NULL */
    struct tiles act;       /* SwiGLU's output */
    struct routers_room routers;
    struct stacked_room *room; /* (n_threads) */
    void **attention;          /* (n_threads) scratch */

    float *d_x, *y;    /* (T, P) */
    struct tiles d_xb; /* d_x in bf16 */
    struct tiles d_gate_up, d_qkv, d_o;

    size_t chunk;                      /* rows with loss at a time */
    struct tiles head_x;               /* (chunk) */
    float *head_in, *head_d, *head_dx; /* (chunk, P) */
    float *head_inv, *head_scale;
    int32_t *head_target;
    double *head_nll;
    void *head_scratch;
};

/* Lay out for OPTIONS, or measure. Sequences have up to N_KEYS tokens. */
void tile_pass_carve(struct tile_pass *t, struct arena *a,
                     const struct tile_model *model, const struct expert_stack *stack,
                     const struct mixture *mixture, const struct pass_options *o,
                     size_t n_layers, size_t n_keys);

/* The counterparts of decoder_forward, decoder_loss and decoder_backward. */
void tile_begin(struct decoder_pass *p); /* after the rows of the block are laid */
void tile_forward(struct decoder_pass *p);
void tile_loss(struct decoder_pass *p, struct block_loss *out, double *nll,
               size_t n_rows);
void tile_backward(struct decoder_pass *p, struct mixture_grads *grads);
/* One layer by the calling thread. */
void tile_layer_forward(struct decoder_pass *p, size_t layer);
void tile_layer_backward(struct decoder_pass *p, size_t layer,
                         struct mixture_grads *grads);
/* First layer that the last forward left non-finite; n_layers: none. */
size_t tile_nonfinite_layer(const struct decoder_pass *p);

#endif
