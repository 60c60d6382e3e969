/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Causal attention of one sequence with grouped heads, never forming more than
 * a block of the score matrix; what is masked is not computed.
 *
 *     o_h = softmax(q_h k_g^T / sqrt(d)) v_g      g = h / (H / G)
 *
 *   T  queries   S  keys (S >= T: the last T keys are the queries' own positions)
 *   H  query heads   G  key-value heads   d  size of a head
 */
#ifndef ARTEL_MATH_ATTENTION_H
#define ARTEL_MATH_ATTENTION_H

#include <stddef.h>

struct attention_shape {
    size_t n_heads, n_kv_heads, head_dim;
};

/* Floats of scratch for one call of either function with up to T queries and S keys. */
size_t attention_scratch(const struct attention_shape *a, size_t T, size_t S);

/* O (T, H*d) and LSE (T, H) log-sum-exp are overwritten; LSE may be NULL. Q (T, H*d),
 * K and V (S, G*d). A row of O depends on its own query and keys alone, to the bit. */
void attention_forward(float *o, float *lse, const float *q, const float *k,
                       const float *v, size_t T, size_t S,
                       const struct attention_shape *a, float *scratch);

/* Backward of a forward with S == T. Adds into D_Q (T, H*d), D_K and D_V (T, G*d). */
void attention_backward(float *d_q, float *d_k, float *d_v, const float *d_o,
                        const float *q, const float *k, const float *v, const float *o,
                        const float *lse, size_t T, const struct attention_shape *a,
                        float *scratch);

#endif
