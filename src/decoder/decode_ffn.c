/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding where each expert makes an FFN of its own: gate and up of the frozen model are
 * spread to a row for every expert that serves, the experts add theirs there, and what
 * SwiGLU makes of them is what their A of down reads:
 *
 *     own gate, own up = gate, up    += B h        each thread's part of the F outputs
 *     own gate = silu(own gate) * own up
 *     gate = sum over experts of their gate * own gate, or SwiGLU where none serves
 */
#include <string.h>

#include "decoder/decode_parts.h"
#include "math/kernels.h"

bool decode_whole_ffn(const struct worker *w)
{
    const struct mixture *m = w->step->mixture;

    return m && m->n_experts && m->rule.whole_ffn;
}

void decode_spread(const struct worker *w)
{
    const struct decode_room *r = w->step->room;
    const struct gates *g = w->gates[0];
    const size_t F = w->step->model->weights->config.ffn_dim;
    size_t from, end;

    decode_part(w, F, &from, &end);
    for (uint32_t i = g->first[g->n_fixed]; i < g->first[g->n_experts]; i++) {
        const size_t to = decode_own_row(g, i) * F + from, at = g->row[i] * F + from;

        memcpy(r->own_gate + to, r->gate + at, (end - from) * sizeof(float));
        memcpy(r->own_up + to, r->up + at, (end - from) * sizeof(float));
    }
}

/* Does any expert that is not fixed serve row T? */
static bool is_served(const struct gates *g, size_t t)
{
    bool any = false;

    for (size_t e = g->n_fixed; e < g->n_experts; e++)
        any |= g->gate[t * g->n_experts + e] != 0.0f;
    return any;
}

void decode_own_swiglu(const struct worker *w)
{
    const struct decode_room *r = w->step->room;
    const struct kernels *k = kernels();
    const struct gates *g = w->gates[0];
    const size_t F = w->step->model->weights->config.ffn_dim;
    size_t from, end;

    decode_part(w, F, &from, &end);
    for (size_t t = 0; t < w->step->T; t++) {
        float *gate = r->gate + t * F + from;

        if (is_served(g, t))
            memset(gate, 0, (end - from) * sizeof(*gate));
        else
            k->swiglu(gate, gate, r->up + t * F + from, end - from);
    }
    for (size_t e = g->n_fixed; e < g->n_experts; e++)
        for (uint32_t i = g->first[e]; i < g->first[e + 1]; i++) {
            float *own = r->own_gate + decode_own_row(g, i) * F + from;
            const size_t t = g->row[i];

            k->swiglu(own, own, r->own_up + decode_own_row(g, i) * F + from,
                      end - from);
            k->axpy(r->gate + t * F + from, g->gate[t * g->n_experts + e], own,
                    end - from);
        }
}
