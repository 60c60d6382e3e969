/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the routers did over many blocks, in sums that can be added up:
 *
 *     entropy    of a decision: - sum_e p_e ln p_e, in nats
 *     identity   of a decision: gates of identity experts together
 *
 *   R routers   E experts   p router probabilities   g gates
 */
#ifndef ARTEL_DECODER_GATE_SUMS_H
#define ARTEL_DECODER_GATE_SUMS_H

#include <stddef.h>

struct decoder_pass;

struct gate_sums {
    double n;         /* sequences or rows that were decided for */
    double decisions; /* of all routers that serve an expert */
    double entropy, identity;
    double gate[]; /* (R, E) */
};
/* Bytes of one with room for its gates. */
size_t gate_sums_bytes(size_t n_routers, size_t n_experts);

/* Add what the routers decided in P's last forward, in which they did decide. Sequences
 * that continue others count once, with what they continue. */
void gate_sums_add(struct gate_sums *sums, const struct decoder_pass *p);
/* Add B to A. */
void gate_sums_join(struct gate_sums *a, const struct gate_sums *b, size_t n_routers,
                    size_t n_experts);

#endif
