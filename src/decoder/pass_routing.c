/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the routers of a pass said: for whole sequences, and on average over rows where
 * every row decides for itself.
 */
#include "decoder/pass.h"

/* The unit that decides for a sequence: itself, or its last row where tokens decide. */
static size_t unit_of_seq(const struct decoder_pass *p, size_t seq)
{
    size_t last = 0;

    if (p->mixture->rule.decides == DECIDE_SEQUENCE)
        return seq;
    for (size_t s = 0; s <= seq; s++)
        last += p->block->seqs[s].n;
    return last - 1;
}

const float *pass_router_probs(const struct decoder_pass *p, size_t router, size_t seq)
{
    return p->gates[router].probs + unit_of_seq(p, seq) * p->mixture->n_experts;
}

const float *pass_router_input(const struct decoder_pass *p, size_t router, size_t seq)
{
    return p->gates[router].z + seq * p->mixture->routers[router].dim;
}

const float *pass_router_seen(const struct decoder_pass *p, size_t router, size_t seq)
{
    return p->gates[router].seen + seq * p->mixture->routers[router].dim;
}

/* Votes of all routers; ties go to the larger summed probability, then the lower index. */
static size_t vote(const struct decoder_pass *p, size_t unit)
{
    const size_t E = p->mixture->n_experts, n_routers = p->mixture->n_routers;
    size_t best = 0, best_votes = 0;
    float best_sum = -1.0f;

    for (size_t e = 0; e < E; e++) {
        size_t votes = 0;
        float sum = 0.0f;

        for (size_t r = 0; r < n_routers; r++) {
            votes += gates_argmax(&p->gates[r], unit) == e;
            sum += p->gates[r].probs[unit * E + e];
        }
        if (votes > best_votes || (votes == best_votes && sum > best_sum)) {
            best = e;
            best_votes = votes;
            best_sum = sum;
        }
    }
    return best;
}

int pass_select(const struct decoder_pass *p, size_t seq, size_t *agreeing)
{
    size_t chosen, n = 0, unit;

    if (!p->mixture || !p->mixture->n_routers)
        return -1;
    unit = unit_of_seq(p, seq);
    if (p->mixture->rule.selector == SELECT_VOTE)
        chosen = vote(p, unit);
    else
        chosen = gates_argmax(&p->gates[p->mixture->n_routers - 1], unit);
    for (size_t r = 0; r < p->mixture->n_routers; r++)
        n += gates_argmax(&p->gates[r], unit) == chosen;
    if (agreeing) /* with the router of the base none has been used yet */
        *agreeing = p->mixture->rule.place == ROUTER_BASE ? 0 : n;
    return (int)chosen;
}

size_t pass_add_gates(const struct decoder_pass *p, size_t seq,
                      const unsigned char *loss, double *sum)
{
    const size_t E = p->mixture->n_experts, end = unit_of_seq(p, seq) + 1;
    const size_t n = p->block->seqs[seq].n, first = end - n;
    size_t n_rows = 0;

    for (size_t t = first; t < end; t++) {
        if (loss ? t + 1 == end || !loss[t + 1 - first] : t + 1 < end)
            continue;
        n_rows++;
        for (size_t r = 0; r < p->mixture->n_routers; r++)
            for (size_t e = 0; e < E; e++)
                sum[r * E + e] += (double)p->gates[r].gate[t * E + e];
    }
    return n_rows;
}

int mixture_heaviest(const struct mixture *m, const double *sum)
{
    double best = -1;
    int chosen = -1;

    for (size_t e = m->rule.n_fixed; e < m->n_experts; e++) {
        double all = 0;

        for (size_t r = 0; r < m->n_routers; r++)
            if (mixture_router_used(m, r))
                all += sum[r * m->n_experts + e];
        if (all > best) {
            best = all;
            chosen = (int)e;
        }
    }
    return chosen;
}
