/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What experts add while decoding. Gates are found by every thread for itself,
 * which costs less than a meeting; the inner sides of all LoRAs that serve a row are
 * shared out like outputs:
 *
 *     h = s gate . A x        y += B h        experts in ascending order
 */
#include <string.h>

#include "decoder/decode_parts.h"
#include "math/kernels.h"

#define BLOCK 64 /* outputs whose rows of B stay in cache for all rows of h */

size_t decode_h_width(const struct mixture *m)
{
    static const struct {
        enum site first;
        size_t n;
    } inputs[] = {{SITE_Q, 3}, {SITE_O, 1}, {SITE_GATE, 2}, {SITE_DOWN, 1}};
    size_t widest = 0;

    for (size_t l = 0; m && l < m->n_layers; l++)
        for (size_t i = 0; i < sizeof(inputs) / sizeof(*inputs); i++) {
            size_t width = 0;

            for (size_t e = 0; e < m->n_experts; e++)
                for (size_t k = 0; k < inputs[i].n; k++)
                    width +=
                        expert_lora(&m->experts[e], l, (enum site)(inputs[i].first + k))
                            ->rank;
            widest = width > widest ? width : widest;
        }
    return widest;
}

/* For those who ask afterwards which experts were at work. */
static void note_gates(const struct step *s, const struct gates *g, size_t router)
{
    const size_t E = g->n_experts;

    for (size_t t = 0; t < s->T; t++)
        for (size_t e = 0; s->rows[t].gate_sum && e < E; e++)
            s->rows[t].gate_sum[router * E + e] += (double)g->gate[t * E + e];
}

/* What router R decides for all rows; rows that obey none get the expert they came with. */
static void decide(struct worker *w, struct gates *g, size_t r, const float *x)
{
    const struct step *s = w->step;
    const struct mixture *m = s->mixture;
    const size_t E = m->n_experts;
    const int always = gates_always(g); /* where no router is asked */

    g->n_rows = s->T;
    g->n_units = s->T;
    g->unit_of_row = s->room->row_self;
    if (r && s->reading) {
        g->identity = m->identity;
        for (size_t t = 0; g->yield && t < s->T; t++)
            g->yield[t] = s->rows[t].yield ? s->rows[t].yield[r - 1] : 0.0f;
        gates_read(g, &m->routers[r - 1], m->rule.pool, NULL, x);
        gates_decide(g, &m->rule);
    }
    for (size_t t = 0; t < s->T; t++) {
        const struct decode_row *row = &s->rows[t];
        float *gate = g->gate + t * E;

        if (row->routed && r && !row->held)
            continue;
        if (row->routed && r)
            memcpy(gate, row->held + (r - 1) * E, E * sizeof(*gate));
        else
            gates_give_unit(g, t, row->routed ? always : row->expert);
    }
    gates_index(g);
    if (r && w->member->index == 0)
        note_gates(s, g, r - 1);
}

/* The gates of site I of those from FIRST on. A router of several linears has decided when
 * the first of them is asked for, and stays decided while its inputs last. */
static const struct gates *gates_of(struct worker *w, const float *x, size_t layer,
                                    enum site first, size_t i)
{
    const struct mixture *m = w->step->mixture;
    const size_t slot = m->rule.place == ROUTER_LINEAR ? i : 0;
    size_t router;

    if (!w->step->routed)
        return &w->step->room->given;
    router = (size_t)(mixture_router_of(m, layer, (enum site)(first + i)) + 1);
    if (m->rule.place == ROUTER_LINEAR || w->router[slot] != router)
        decide(w, &w->desk->gates[slot], router, x);
    w->router[slot] = router;
    return &w->desk->gates[slot];
}

/* A LoRA that serves some row, and where its h lies. Starts as zeros. */
struct serving {
    const struct lora *lora;
    const struct gates *gates;
    size_t expert, site_idx;
    size_t at; /* in a row of h */
    size_t next;
};

/* The next of N linears and all experts; every thread walks the same way. */
static bool next_serving(const struct worker *w, struct serving *p, size_t layer,
                         enum site first, size_t n)
{
    const struct mixture *m = w->step->mixture;

    p->at += p->lora ? p->lora->rank : 0;
    while (p->next < n * m->n_experts) {
        const size_t i = p->next / m->n_experts, e = p->next % m->n_experts;
        const struct gates *g = w->gates[i];

        p->next++;
        p->lora = expert_lora(&m->experts[e], layer, (enum site)(first + i));
        if (!p->lora->rank || g->first[e] == g->first[e + 1])
            continue;
        p->gates = g;
        p->expert = e;
        p->site_idx = i;
        return true;
    }
    p->lora = NULL;
    return false;
}

/* Sides FIRST to END of h for the rows that the expert serves, adjacent ones together. */
static void inner_sides(const struct worker *w, const struct serving *p, const float *x,
                        size_t first, size_t end)
{
    const struct decode_room *room = w->step->room;
    const struct gates *g = p->gates;
    const struct lora *lora = p->lora;
    const size_t N = lora->n_in, E = g->n_experts;
    const float slope = w->step->mixture->experts[p->expert].slope;

    for (uint32_t i = g->first[p->expert], n; i < g->first[p->expert + 1]; i += n) {
        const uint32_t t = g->row[i], last = g->first[p->expert + 1];
        const float *from = w->rows == ROWS_FROM_OWN
                                ? room->own_gate + decode_own_row(g, i) * N
                                : x + t * N;
        float *h[DECODE_ROWS];

        for (n = 0; i + n < last && g->row[i + n] == t + n; n++)
            h[n] = room->h + (t + n) * room->h_width + p->at + first;
        kernels()->matvec[DTYPE_F32](h, from, n, lora->down + first * N, end - first,
                                     N);
        for (uint32_t k = 0; k < n; k++) {
            const float gate = g->gate[(t + k) * E + p->expert];
            const float by = lora->scale * (w->rows == ROWS_TO_OWN ? 1.0f : gate);

            for (size_t r = 0; r < end - first; r++)
                h[k][r] *= h[k][r] < 0.0f ? by * slope : by;
        }
    }
}

bool decode_lora_down(struct worker *w, const float *x, size_t layer, enum site first,
                      size_t n)
{
    const struct mixture *m = w->step->mixture;
    struct serving p = {0};
    size_t from, to;

    if (!m || !m->n_experts)
        return false;
    for (size_t i = 0; i < n; i++)
        w->gates[i] = gates_of(w, x, layer, first, i);
    while (next_serving(w, &p, layer, first, n)) {
    }
    team_share(w->member, p.at, 1, &from, &to);
    if (!p.at)
        return false;
    p = (struct serving){0};
    while (next_serving(w, &p, layer, first, n)) {
        const size_t R = p.lora->rank, a = from > p.at ? from - p.at : 0;
        const size_t b = to < p.at ? 0 : to - p.at < R ? to - p.at : R;

        if (a < b)
            inner_sides(w, &p, x, a, b);
    }
    return true;
}

/* Where what the expert adds to the K-th row served goes. */
static float *output(const struct worker *w, float *const *y, const struct serving *p,
                     uint32_t k)
{
    const struct decode_room *room = w->step->room;
    float *const own = p->site_idx ? room->own_up : room->own_gate;

    return w->rows == ROWS_TO_OWN ? own + decode_own_row(p->gates, k) * p->lora->n_out
                                  : y[p->site_idx] + p->gates->row[k] * p->lora->n_out;
}

void decode_lora_up(struct worker *w, float *const *y, size_t layer, enum site first,
                    size_t n)
{
    const struct decode_room *room = w->step->room;
    struct serving p = {0};

    while (next_serving(w, &p, layer, first, n)) {
        const size_t M = p.lora->n_out, R = p.lora->rank;
        const uint32_t *row = p.gates->row;
        size_t from, to;

        decode_part(w, M, &from, &to);
        for (size_t i = from; i < to; i += BLOCK)
            for (uint32_t k = p.gates->first[p.expert];
                 k < p.gates->first[p.expert + 1]; k++)
                kernels()->rows(output(w, y, &p, k) + i, true,
                                room->h + row[k] * room->h_width + p.at,
                                p.lora->b + i * R, R, to - i < BLOCK ? to - i : BLOCK,
                                R);
    }
}
