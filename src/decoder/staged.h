/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model whose linears are unpacked layer by layer (MATRIX_STAGED), and the blocks that
 * go through it together: every block of a wave takes a layer before any takes the next,
 * so that a weight is unpacked once for all of them.
 *
 *     fill layer 0
 *     for each layer:  every block goes through it; fill the next one
 *
 * Two layers have room, in turn: one is filled while the one before it is used. What a
 * block keeps between layers is its state; a thread's pass works for one at a time.
 */
#ifndef ARTEL_DECODER_STAGED_H
#define ARTEL_DECODER_STAGED_H

#include "decoder/decoder.h"

/* Pieces of work to fill a layer, for any thread in any order. */
size_t stage_pieces(const struct artel_model *m);
/* Bytes of scratch that a thread needs for them. */
size_t stage_room(const struct artel_model *m);
/* For forwards (MATRIX_FORWARD), for backwards, which run a layer's forward again (both),
 * or for a backward after the same layer's forward (MATRIX_BACKWARD). */
void stage_fill(const struct artel_model *m, size_t layer, size_t piece, int use,
                void *room);

struct pass_state;

/* Laid in ARENA, or measured (NULL), for a block of N_ROWS rows in N_SEQS sequences and
 * passes opened with O. */
struct pass_state *pass_state_carve(struct arena *a, const struct artel_model *model,
                                    const struct mixture *mixture,
                                    const struct pass_options *o, size_t n_rows,
                                    size_t n_seqs);

/* The parts of decoder_forward, _loss and _backward for the block of a state, by any pass
 * opened with STAGED. */
void staged_begin(struct decoder_pass *p, struct pass_state *s,
                  const struct block *block, uint64_t dropout_seed);
void staged_forward(struct decoder_pass *p, struct pass_state *s, size_t layer);
void staged_backward(struct decoder_pass *p, struct pass_state *s, size_t layer,
                     struct mixture_grads *grads);
/* P answers for the block of S from now on: decoder_loss, decoder_routing, pass_*. */
void staged_enter(struct decoder_pass *p, const struct pass_state *s);

#endif
