/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums over one block in its order, so that adding up blocks in their order gives the
 * same bits whoever computed them.
 */
#include "decoder/gate_sums.h"

#include <math.h>

#include "decoder/pass.h"

size_t gate_sums_bytes(size_t n_routers, size_t n_experts)
{
    return sizeof(struct gate_sums) + n_routers * n_experts * sizeof(double);
}

static void add_unit(struct gate_sums *sums, double *mean, const struct mixture *m,
                     const float *probs, const float *gate)
{
    for (size_t e = 0; e < m->n_experts; e++) {
        const double q = (double)probs[e], g = (double)gate[e];

        mean[e] += g;
        if (q > 0)
            sums->entropy -= q * log(q);
        if (m->experts[e].kind == EXPERT_IDENTITY)
            sums->identity += g;
    }
}

void gate_sums_add(struct gate_sums *sums, const struct decoder_pass *p)
{
    const struct mixture *const m = p->mixture;
    const bool by_sequence = m->rule.decides == DECIDE_SEQUENCE;
    const size_t E = m->n_experts;
    double n = 0;

    for (size_t s = 0; s < p->block->n_seqs; s++)
        if (!by_sequence)
            n += (double)p->block->seqs[s].n;
        else
            n += !p->block->seqs[s].after;
    sums->n += n;
    for (size_t r = 0; r < m->n_routers; r++) {
        const struct gates *const g = &p->gates[r];

        if (!mixture_router_used(m, r))
            continue; /* nothing reads it, nothing was decided */
        sums->decisions += n;
        for (size_t u = 0; u < g->n_units; u++)
            if (!by_sequence || !p->block->seqs[u].after)
                add_unit(sums, sums->gate + r * E, m, g->probs + u * E,
                         g->gate + u * E);
    }
}

void gate_sums_join(struct gate_sums *a, const struct gate_sums *b, size_t n_routers,
                    size_t n_experts)
{
    a->n += b->n;
    a->decisions += b->decisions;
    a->entropy += b->entropy;
    a->identity += b->identity;
    for (size_t i = 0; i < n_routers * n_experts; i++)
        a->gate[i] += b->gate[i];
}
