/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's room for a row block: what the forward keeps for the backward,
 * scratch, and the gates.
 *
 *   T rows   S sequences   D width   H query heads, G key-value heads of d   F width of
 *   the FFN   C rows of the head at a time
 */
#ifndef ARTEL_DECODER_PASS_H
#define ARTEL_DECODER_PASS_H

#include "decoder/decoder.h"
#include "decoder/kv_cache.h"
#include "decoder/tile_pass.h"
#include "math/attention.h"

/* What a layer keeps. Norm outputs and SwiGLU are cheap and computed anew. */
struct layer_acts {
    float *x_in;         /* (T, D) residual stream at the layer's input */
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

struct loss_row {
    uint32_t row, seq;
    int32_t target;
};

/* Softmax of a row of logits as far as it has been seen: sum of exp(logit - max). */
struct head_row {
    double sum;
    float max, at_target;
};

/* Columns of logits at a time. */
#define PASS_HEAD_COLS ((size_t)3 * MATRIX_PART)

struct decoder_pass {
    const struct artel_model *model; /* borrowed */
    const struct mixture *mixture;   /* borrowed; NULL: the base alone */
    struct pass_options options;
    bool laid_for_backward, dropout_asked;
    struct attention_shape heads;
    const struct block *block; /* the last forward's; borrowed */
    size_t T;                  /* its rows */
    struct kv_cache *kv;       /* a session's, or NULL; borrowed */
    bool again;                /* a layer's forward is run for its backward */
    struct tile_pass *tiles;   /* the bf16 step's, or NULL: all is float */
    bool in_tiles;             /* the last forward was its */

    struct arena arena;
    struct layer_acts *acts; /* (L + 1) the last holds only x_in; they share without
                                backward, and where they are computed anew */
    int32_t *ids, *pos;      /* (T) */
    uint32_t *seq_of_row;    /* (T) */
    uint32_t *row_self;      /* (T) 0, 1, 2 ... */
    struct pool *pools;      /* (S) */
    int *labels;             /* (S) */
    struct gates given;      /* experts told from outside */
    struct gates *gates;     /* (n_routers) */
    struct apply_scratch apply;
    float *router_scratch;

    float *xn;        /* (T, D) a norm's output */
    float *act;       /* (T, F) */
    float *attention; /* scratch of attention */
    float *step; /* (4, max(D, F)) products of a few rows on the way to a residual */

    float *d_x, *d_xn;            /* (T, D) */
    float *d_q, *d_k, *d_v;       /* as q, k, v */
    float *d_attn;                /* (T, H * d) */
    float *d_act, *d_gate, *d_up; /* (T, F) */

    size_t chunk;                     /* C */
    struct head_row *head_rows;       /* (C) */
    struct loss_row *loss_rows;       /* (T) */
    float *logits;                    /* (C, PASS_HEAD_COLS) */
    float *head_x, *head_xn, *head_d; /* (C, D) */
    float *head_inv;                  /* (C) */
};

/* Rows up to this many of a session take the kernels that read the disk's form. */
#define PASS_DECODE_ROWS 4

/* The gates that weigh the experts of a linear, or NULL where there is none. */
struct gates *pass_gates(struct decoder_pass *p, size_t layer, enum site s);
/* Room for the gates of T rows in S sequences: GIVEN, and those of each router. */
struct gates *pass_gates_carve(struct gates *given, struct arena *a,
                               const struct mixture *m, size_t n_rows, size_t n_seqs,
                               bool backward);
/* Do routers run in this pass? */
bool pass_routes(const struct decoder_pass *p);
/* The rows and units of a router's gates. */
void pass_route_begin(struct decoder_pass *p, size_t router);
/* Let a router read SRC (T, its width) and, where routers decide, find its gates. */
void pass_route(struct decoder_pass *p, size_t router, const float *src);
/* Slopes of gates are gathered over the linears that a router serves: zero a layer's. */
void pass_zero_gate_slopes(struct decoder_pass *p, size_t layer);
/* How this pass's gates lead back to logits. */
struct gates_slope pass_gates_slope(const struct decoder_pass *p);
/* Gradient of a router, and what it adds to that of SRC, which may be NULL. */
void pass_router_backward(struct decoder_pass *p, size_t router, float *d_src,
                          const float *src, struct mixture_grads *grads);

/* decoder_forward up to the first layer. */
void decoder_begin(struct decoder_pass *p, const struct block *block);
void layer_forward(struct decoder_pass *p, size_t layer);
void layer_backward(struct decoder_pass *p, size_t layer, struct mixture_grads *grads);

#endif
