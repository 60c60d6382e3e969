/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's room for a row block: the residual stream, what is known of the rows,
 * the gates. Activations are the business of the operations (step_ops.h).
 *
 *   T rows   S sequences   L layers   D width   P pitch of the stream   C rows of the
 *   head at a time
 */
#ifndef ARTEL_DECODER_PASS_H
#define ARTEL_DECODER_PASS_H

#include "decoder/decoder.h"
#include "decoder/kv_cache.h"
#include "decoder/step_ops.h"

struct float_pass;
struct tile_pass;

struct loss_row {
    uint32_t row, seq;
    int32_t target;
};

/* Keys and values where one sequence continues another (continued.c). */
struct joined {
    float *k, *v;         /* (T, G * d) of the two behind one another */
    float *all_k, *all_v; /* (T, G * d) of the block, where the layer leaves tiles */
};

struct decoder_pass {
    const struct artel_model *model; /* borrowed */
    const struct mixture *mixture;   /* borrowed; NULL: the base alone */
    const struct step_ops *ops;
    struct pass_options options;
    bool laid_for_backward, dropout_asked;
    bool one_layer;            /* all layers keep their activations in the same place */
    size_t pitch;              /* P */
    size_t n_threads;          /* that may share a forward */
    const struct block *block; /* the last forward's; borrowed */
    size_t T, rows;            /* its rows; the same, padded */
    struct kv_cache *kv;       /* a session's, or NULL; borrowed */
    bool again;                /* a layer's forward is run for its backward */

    struct arena arena;
    float **x;            /* (L + 1) (T, P) */
    float *d_x;           /* (T, P) */
    int32_t *ids, *pos;   /* (T) */
    uint32_t *seq_of_row; /* (T) */
    uint32_t *row_self;   /* (T) 0, 1, 2 ... */
    struct pool *pools;   /* (S) */
    int *labels;          /* (S) */
    struct joined joined; /* of passes opened with CONTINUED */
    struct gates given;   /* experts told from outside */
    struct gates *gates;  /* (n_routers) */
    struct ngrams ngrams; /* of the sequence that a router of the text reads */

    size_t chunk;               /* C */
    struct loss_row *loss_rows; /* (T) */
    float *head_x, *head_d;     /* (C, P) */
    double *head_nll;           /* (C) */
    float *logits_x;            /* (PASS_FEW_ROWS, D) */

    /* Of the operations in use; the other is NULL. */
    struct float_pass *floats;
    struct tile_pass *tiles;
};

/* Rows of a pass opened with FEW, at most. */
#define PASS_FEW_ROWS 4

/* N rows, padded. */
static inline size_t pass_round(const struct step_ops *ops, size_t n)
{
    return (n + ops->row_step - 1) / ops->row_step * ops->row_step;
}

/* The operations of passes opened with O. */
const struct step_ops *pass_ops(const struct artel_model *model,
                                const struct pass_options *o);
/* Room for the residual stream of N_ROWS rows, as X. */
float **pass_stream_carve(struct arena *a, const struct artel_model *model,
                          const struct pass_options *o, size_t n_rows);
/* And for its gradient. */
float *pass_d_stream_carve(struct arena *a, const struct artel_model *model,
                           const struct pass_options *o, size_t n_rows);
/* The gates that weigh the experts of a linear, or NULL where there is none. */
struct gates *pass_gates(struct decoder_pass *p, size_t layer, enum site s);
/* Room for the gates of T rows in S sequences: GIVEN, and those of each router. */
struct gates *pass_gates_carve(struct gates *given, struct arena *a,
                               const struct mixture *m, size_t n_rows, size_t n_seqs,
                               bool backward);
/* The next forwards are over MODEL and MIXTURE: those that P was opened for, or MODEL with
 * experts merged into it and NULL. */
void pass_set_weights(struct decoder_pass *p, const struct artel_model *model,
                      const struct mixture *mixture);
/* Do routers run in this pass? */
bool pass_routes(const struct decoder_pass *p);

/* The routers that read the input of group G, with places for their gradients in GRADS,
 * which may be NULL. */
void routers_find(struct step_routers *out, const struct decoder_pass *p, size_t layer,
                  enum step_group g, struct mixture_grads *grads);
/* Let them read it and, where routers decide, find their gates. */
void routers_run(struct decoder_pass *p, const struct step_routers *rs, size_t layer,
                 enum step_group g);
/* A router of the base reads the output of LAYER in this forward; one thread for all. */
bool base_router_reads(const struct decoder_pass *p, size_t layer);
void base_router_read(struct decoder_pass *p, size_t layer);
/* The router of the text reads the sequences that are laid, and decides for them. */
void text_router_read(struct decoder_pass *p);
/* It reads IDS (N) alone, as sequence 0; the expert that it names. No row is laid. */
int text_router_choose(struct decoder_pass *p, const int32_t *ids, size_t n);
/* How this pass's gates lead back to logits. */
struct gates_slope pass_gates_slope(const struct decoder_pass *p);

/* decoder_forward up to the first layer. */
void decoder_begin(struct decoder_pass *p, const struct block *block);
/* Its end: the residual stream of the rows that are laid. */
void decoder_embed(struct decoder_pass *p);
/* Layers FIRST .. END - 1 over the rows that are laid; the threads share them where the
 * pass may. decoder_forward is begin and all of them. */
void decoder_layers(struct decoder_pass *p, size_t first, size_t end);
/* pass_logits of up to PASS_FEW_ROWS rows from ROW on, into LOGITS (N, V): the same bits. */
void pass_logits_rows(struct decoder_pass *p, float *logits, size_t row, size_t n);
/* decoder_begin, and what routers say that read the input of the first layer's attention. */
void decoder_route_first(struct decoder_pass *p, const struct block *block);
/* One layer by the calling thread alone. */
void layer_forward(struct decoder_pass *p, size_t layer);
void layer_backward(struct decoder_pass *p, size_t layer, struct mixture_grads *grads);

void joined_carve(struct decoder_pass *p, struct arena *a);
/* First row of sequence SEQ in the block. */
size_t pass_first_row(const struct decoder_pass *p, size_t seq);
/* Sequence SEQ continues another: keys and values of both, from K and V (T, G * d) of the
 * whole block, into p->joined. Their rows. */
size_t pass_join(struct decoder_pass *p, size_t seq, const float *k, const float *v);

#endif
