/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the model itself says of a token: log-softmax of its logits, whatever a sampler
 * then makes of them.
 *
 *     log p_i = x_i - max x - log sum_j exp(x_j - max x)
 */
#ifndef ARTEL_DECODER_LOGPROBS_H
#define ARTEL_DECODER_LOGPROBS_H

#include "decoder/sampler.h"

/*
 * *OF_ID that of token ID among LOGITS (N_VOCAB), -INFINITY where it cannot come (its logit
 * is no number, or none is); TOP (room for N_TOP) the likeliest, largest first, equal ones
 * lowest id first. Returns how many of these there are: tokens that can come.
 */
size_t logprobs_of(float *of_id, struct candidate *top, size_t n_top,
                   const float *logits, size_t n_vocab, int32_t id);

#endif
