/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of an expert are gathered some at a time, so that what lies between the
 * linears stays in cache and takes room for a few rows only. The low-rank products are
 * those of every other mixture (apply.h): the rows at hand are a block of their own,
 * which one expert serves.
 *
 * A row takes one expert after the other in ascending order, and depends on nothing but
 * itself.
 */
#include "experts/whole_ffn.h"

#include <string.h>

#include "math/kernels.h"

#define SOME_ROWS 64

void ffn_scratch_carve(struct ffn_scratch *s, struct arena *a, const struct mixture *m,
                       const struct model_config *c, size_t n_rows, bool backward)
{
    const size_t C = n_rows < SOME_ROWS ? n_rows : SOME_ROWS;
    const size_t D = c->dim, F = c->ffn_dim;
    uint32_t *self = arena_take(a, C * sizeof(*self));

    *s = (struct ffn_scratch){.dim = D, .ffn_dim = F};
    gates_carve(&s->some, a, C, C, m->n_experts, 0, backward);
    for (size_t i = 0; self && i < C; i++)
        self[i] = (uint32_t)i;
    s->some.unit_of_row = self;
    s->x = arena_f32(a, C * D);
    s->y = arena_f32(a, C * D);
    s->gate = arena_f32(a, C * F);
    s->up = arena_f32(a, C * F);
    s->mid = arena_f32(a, C * F);
    s->served = arena_take(a, n_rows * sizeof(*s->served));
    if (!backward)
        return;
    s->d_mid = arena_f32(a, C * F);
    s->d_x = arena_f32(a, C * D);
}

/* Rows that expert E serves, from the FIRST-th on. */
struct some {
    size_t expert, first, n;
    const uint32_t *row; /* (n) of the block */
};

static bool next_some(struct some *r, const struct mixture *m, const struct gates *g)
{
    for (r->first += r->n; r->expert < g->n_experts; r->expert++, r->first = 0) {
        const size_t n = g->first[r->expert + 1] - g->first[r->expert];

        if (r->expert < m->rule.n_fixed || r->first >= n)
            continue;
        r->n = n - r->first < SOME_ROWS ? n - r->first : SOME_ROWS;
        r->row = g->row + g->first[r->expert] + r->first;
        return true;
    }
    return false;
}

static void gather(float *out, const float *x, const struct some *r, size_t width)
{
    for (size_t i = 0; i < r->n; i++)
        memcpy(out + i * width, x + r->row[i] * width, width * sizeof(*out));
}

static void scatter_add(float *y, const float *x, const struct some *r, size_t width)
{
    for (size_t i = 0; i < r->n; i++)
        kernels()->axpy(y + r->row[i] * width, 1.0f, x + i * width, width);
}

static float gate_of(const struct gates *g, const struct some *r, size_t i)
{
    return g->gate[g->unit_of_row[r->row[i]] * g->n_experts + r->expert];
}

/* The block of R's rows, which its expert serves, for linear S; its gates are those of the
 * rows or, in front of SwiGLU, 1. */
static struct apply_place place_of(const struct ffn_place *p, const struct some *r,
                                   enum site s)
{
    struct gates *some = &p->own->some;
    struct apply_place at = p->at;
    const size_t E = some->n_experts;

    some->n_rows = some->n_units = r->n;
    for (size_t i = 0; i < r->n; i++) {
        some->row[i] = (uint32_t)i;
        some->gate[i * E + r->expert] =
            s == SITE_DOWN ? gate_of(p->at.gates, r, i) : 1.0f;
    }
    for (size_t e = 0; e <= E; e++)
        some->first[e] = e <= r->expert ? 0 : (uint32_t)r->n;
    at.site = s;
    at.gates = some;
    at.dropout_seed += r->first; /* every row has a mask of its own */
    at.kept = NULL;
    return at;
}

/* X, GATE, UP and MID of the rows. */
static void rows_forward(const struct ffn_place *p, const struct some *r,
                         const float *x, const float *gate, const float *up)
{
    const struct ffn_scratch *s = p->own;
    struct apply_place at = place_of(p, r, SITE_GATE);

    gather(s->x, x, r, s->dim);
    gather(s->gate, gate, r, s->ffn_dim);
    gather(s->up, up, r, s->ffn_dim);
    experts_forward(s->gate, &at, s->x, p->apply);
    at.site = SITE_UP;
    experts_forward(s->up, &at, s->x, p->apply);
    kernels()->swiglu(s->mid, s->gate, s->up, r->n * s->ffn_dim);
}

/* Which rows some expert serves. */
static void find_served(const struct ffn_place *p)
{
    struct some r = {0};

    memset(p->own->served, 0, p->at.gates->n_rows * sizeof(*p->own->served));
    while (next_some(&r, p->at.mixture, p->at.gates))
        for (size_t i = 0; i < r.n; i++)
            p->own->served[r.row[i]] = true;
}

void ffn_experts_forward(float *a, float *out, const struct ffn_place *p,
                         const float *x, const float *gate, const float *up)
{
    const struct kernels *k = kernels();
    const struct ffn_scratch *s = p->own;
    const size_t T = p->at.gates->n_rows, D = s->dim, F = s->ffn_dim;
    struct some r = {0};

    find_served(p);
    memset(out, 0, T * D * sizeof(*out));
    for (size_t t = 0; t < T; t++)
        if (s->served[t])
            memset(a + t * F, 0, F * sizeof(*a));
        else
            k->swiglu(a + t * F, gate + t * F, up + t * F, F);
    while (next_some(&r, p->at.mixture, p->at.gates)) {
        struct apply_place at;

        rows_forward(p, &r, x, gate, up);
        for (size_t i = 0; i < r.n; i++)
            k->axpy(a + r.row[i] * F, gate_of(p->at.gates, &r, i), s->mid + i * F, F);
        at = place_of(p, &r, SITE_DOWN);
        memset(s->y, 0, r.n * D * sizeof(*s->y));
        experts_forward(s->y, &at, s->mid, p->apply);
        scatter_add(out, s->y, &r, D);
    }
}

/* From the slopes of the FFN's output and of a to those of SwiGLU's output, D_MID, and of
 * the gates. */
static void down_backward(const struct ffn_place *p, struct mixture_grads *grads,
                          const struct some *r, const float *d_y, const float *d_a)
{
    const struct kernels *k = kernels();
    const struct gates *g = p->at.gates;
    struct ffn_scratch *s = p->own;
    const struct apply_place at = place_of(p, r, SITE_DOWN);
    const size_t E = g->n_experts, F = s->ffn_dim;

    gather(s->y, d_y, r, s->dim);
    memset(s->d_mid, 0, r->n * F * sizeof(*s->d_mid));
    memset(s->some.d_gate, 0, r->n * E * sizeof(*s->some.d_gate));
    for (size_t i = 0; i < r->n; i++) {
        const float *slope = d_a + r->row[i] * F;

        k->axpy(s->d_mid + i * F, gate_of(g, r, i), slope, F);
        s->some.d_gate[i * E + r->expert] = k->dot(slope, s->mid + i * F, F);
    }
    experts_backward(s->d_mid, grads, &at, s->y, s->mid, p->apply);
    for (size_t i = 0; i < r->n && g->d_gate; i++)
        g->d_gate[g->unit_of_row[r->row[i]] * E + r->expert] +=
            s->some.d_gate[i * E + r->expert];
}

/* From D_MID to the slopes of the gate and up of the expert's own, in the places of these,
 * and of what they read. */
static void inner_backward(const struct ffn_place *p, struct mixture_grads *grads,
                           const struct some *r)
{
    struct ffn_scratch *s = p->own;
    struct apply_place at = place_of(p, r, SITE_GATE);
    float *const d_gate = s->some.d_gate;

    kernels()->swiglu_backward(s->gate, s->up, s->d_mid, s->gate, s->up,
                               r->n * s->ffn_dim);
    memset(s->d_x, 0, r->n * s->dim * sizeof(*s->d_x));
    s->some.d_gate = NULL; /* nothing is weighed here */
    experts_backward(s->d_x, grads, &at, s->gate, s->x, p->apply);
    at.site = SITE_UP;
    experts_backward(s->d_x, grads, &at, s->up, s->x, p->apply);
    s->some.d_gate = d_gate;
}

void ffn_experts_backward(float *d_x, float *d_gate, float *d_up,
                          struct mixture_grads *grads, const struct ffn_place *p,
                          const float *d_y, const float *d_a, const float *x,
                          const float *gate, const float *up)
{
    const struct ffn_scratch *s = p->own;
    const size_t T = p->at.gates->n_rows, F = s->ffn_dim;
    struct some r = {0};

    find_served(p);
    for (size_t t = 0; t < T; t++)
        if (s->served[t]) {
            memset(d_gate + t * F, 0, F * sizeof(*d_gate));
            memset(d_up + t * F, 0, F * sizeof(*d_up));
        } else {
            kernels()->swiglu_backward(d_gate + t * F, d_up + t * F, d_a + t * F,
                                       gate + t * F, up + t * F, F);
        }
    while (next_some(&r, p->at.mixture, p->at.gates)) {
        rows_forward(p, &r, x, gate, up);
        down_backward(p, grads, &r, d_y, d_a);
        inner_backward(p, grads, &r);
        scatter_add(d_gate, s->gate, &r, F);
        scatter_add(d_up, s->up, &r, F);
        scatter_add(d_x, s->d_x, &r, s->dim);
    }
}
