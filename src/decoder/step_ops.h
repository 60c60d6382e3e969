/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations that a training step and a prefill are made of. The order in which
 * they work is written once, in layer_forward.c, layer_backward.c and head.c; a set of
 * them says how activations are held and in which numbers: float_*.c rows of float,
 * tile_*.c bf16 in tiles. A pass has its set from the day it is opened.
 *
 * What every set finds in struct decoder_pass: the block's rows and what is known of
 * them, the gates, and the residual stream in float. X[l] (rows, pitch) is the input of
 * layer l, X[L] the last one's output; where no layer's input is asked for again they
 * are all one place, and a layer adds to it. D_X is the stream's gradient. Between
 * attention and FFN the stream lies where the set likes.
 *
 * Rows from T to ROWS and columns from D to PITCH are zeros in the stream; the same
 * holds for whatever a set reads of its own.
 */
#ifndef ARTEL_DECODER_STEP_OPS_H
#define ARTEL_DECODER_STEP_OPS_H

#include "decoder/frozen.h"
#include "experts/apply.h"

struct arena;
struct artel_error;
struct decoder_pass;
struct loss_row;
struct pass_options;

/* Linears that read the same input; the order is that of enum tile_group. */
enum step_group { GROUP_QKV, GROUP_O, GROUP_GATE_UP, GROUP_DOWN, N_STEP_GROUPS };

/* A layer's two branches, each behind a norm. */
enum step_branch { BRANCH_ATTENTION, BRANCH_FFN };

/* The rows that one thread of N takes through a forward. */
struct step_part {
    size_t thread, n;
    size_t row, rows;
};

#define ROUTERS_OF_GROUP 3 /* at most: one each of q, k and v */

/* Those that read the input of a group. */
struct step_routers {
    size_t n;
    const struct router *router[ROUTERS_OF_GROUP];
    struct gates *gates[ROUTERS_OF_GROUP];
    /* backward: */
    enum site after[ROUTERS_OF_GROUP]; /* slopes of the gates are complete
                                           behind this linear of the group */
    float *d_w[ROUTERS_OF_GROUP], *d_b[ROUTERS_OF_GROUP]; /* NULL: not wanted */
};

/* What the backward of a group is to find beside the slopes that it hands down. */
struct step_slopes {
    struct mixture_grads *grads;        /* or NULL */
    const struct step_routers *routers; /* of the group */
    bool wants_d_x;                     /* the slopes of its input, too */
};

struct step_ops {
    size_t row_step;   /* rows of a block are padded to a multiple of this */
    bool in_parts;     /* threads may share a forward: a part is any rows between two
                          multiples of ROW_STEP; else a part is all rows of the block */
    bool reads_inputs; /* the backward reads X: every layer keeps its own */

    /* ---- room ---- */

    size_t (*pitch)(const struct artel_model *m); /* floats of a row of the stream */
    /* What passes over MIXTURE share, made before the first is laid out; may be NULL. */
    int (*prepare)(const struct artel_model *m, const struct mixture *mixture,
                   bool training, struct artel_error *err);
    /* Lay out, or measure, the set's own room for P->OPTIONS. */
    void (*carve)(struct decoder_pass *p, struct arena *a);

    /*
     * ---- forward ----
     *
     * Each works on the rows of PART and finds what those above it left for the same
     * rows. With several parts all threads meet before and after ATTEND and READ_ROUTERS.
     * Where P->AGAIN, a layer is run for its backward, with gates as they are and as far
     * as GATE_UP.
     */

    /* The norm of a branch over the stream at its beginning. */
    void (*norm)(struct decoder_pass *p, const struct step_part *part, size_t layer,
                 enum step_branch branch);
    /* q, k, v, the first two turned by rope; a session's k and v to its cache */
    void (*qkv)(struct decoder_pass *p, const struct step_part *part, size_t layer);
    /* Attention of each sequence, or over the cache: reads k and v of all parts and
     * finds a share of the heads' output, whose rows belong to any part. */
    void (*attend)(struct decoder_pass *p, const struct step_part *part, size_t layer);
    /* the stream behind attention = X[layer] + o of the heads' output */
    void (*output)(struct decoder_pass *p, const struct step_part *part, size_t layer);
    /* gate and up, and SwiGLU unless AGAIN */
    void (*gate_up)(struct decoder_pass *p, const struct step_part *part, size_t layer);
    /* X[layer + 1] = the stream behind attention + down of SwiGLU's output */
    void (*down)(struct decoder_pass *p, const struct step_part *part, size_t layer);

    /* gates_read of RS from the input of group G, all rows; one thread. */
    void (*read_routers)(struct decoder_pass *p, const struct step_routers *rs,
                         size_t layer, enum step_group g);

    /* MEAN (S, dim): of each sequence's pool, the input of group G; one thread. */
    void (*read_pools)(struct decoder_pass *p, float *mean, size_t dim, size_t layer,
                       enum step_group g);

    /*
     * ---- backward, all rows by one thread ----
     *
     * Those of a group go from the slopes of its outputs to those of its input, add the
     * gradients of its experts to TO->GRADS and D_GATE, and those of the routers that read
     * there, whose slopes join those of the input.
     */

    /* D_X -> SwiGLU's output, and on to gate and up */
    void (*down_backward)(struct decoder_pass *p, size_t layer,
                          const struct step_slopes *to);
    /* -> the FFN's norm */
    void (*gate_up_backward)(struct decoder_pass *p, size_t layer,
                             const struct step_slopes *to);
    /* D_X -> the heads' output */
    void (*output_backward)(struct decoder_pass *p, size_t layer,
                            const struct step_slopes *to);
    /* -> q, k, v before rope */
    void (*attend_backward)(struct decoder_pass *p, size_t layer);
    /* -> the norm of attention */
    void (*qkv_backward)(struct decoder_pass *p, size_t layer,
                         const struct step_slopes *to);
    /* D_X += what the slopes of a branch's norm make of it */
    void (*norm_backward)(struct decoder_pass *p, size_t layer,
                          enum step_branch branch);

    /*
     * ---- head ----
     *
     * Final norm, logits and cross entropy of HEAD_X (N rows, then zeros to a multiple of
     * ROW_STEP): -log p[target] of each into HEAD_NLL, and where the pass keeps for a
     * backward its slopes by HEAD_X, scaled for its sequence, into HEAD_D.
     */
    void (*loss)(struct decoder_pass *p, const struct loss_row *rows, size_t n);
};

extern const struct step_ops float_ops, tile_ops;

#endif
