/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of an expert come as ranges where they are long, and gathered into
 * scratch where they are scattered or thinned out by dropout. Both ways give
 * the same bits, since a row of a product depends on that row alone.
 */
#include "experts/apply.h"

#include <string.h>

#include "base/rng.h"
#include "math/kernels.h"
#include "math/matmul.h"

/* Below this many rows a range costs more than gathering does. */
#define SHORT_RUN 8

void apply_scratch_carve(struct apply_scratch *s, struct arena *a,
                         const struct mixture *m, const struct model_config *c,
                         size_t n_rows)
{
    size_t widest = c->dim;

    s->max_rank = 1;
    for (size_t e = 0; e < m->n_experts; e++)
        for (size_t i = 0; i < m->n_layers * N_SITES; i++)
            if (m->experts[e].lora[i].rank > s->max_rank)
                s->max_rank = m->experts[e].lora[i].rank;
    for (int site = 0; site < N_SITES; site++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)site, &n_out, &n_in);
        widest = n_out > widest ? n_out : widest;
        widest = n_in > widest ? n_in : widest;
    }
    s->h = arena_f32(a, n_rows * s->max_rank);
    s->d_h = arena_f32(a, n_rows * s->max_rank);
    s->x = arena_f32(a, n_rows * widest);
    s->y = arena_f32(a, n_rows * widest);
}

/* Some rows of one expert, either a range of the block or a gathered list. */
struct part {
    const struct lora *lora;
    size_t expert, n;
    const uint32_t *row; /* (n) */
    bool gathered;
};

static size_t run_length(const uint32_t *row, size_t n)
{
    size_t i = 1;

    while (i < n && row[i] == row[i - 1] + 1)
        i++;
    return i;
}

static bool is_scattered(const uint32_t *row, size_t n)
{
    size_t runs = 0;

    for (size_t i = 0; i < n; i += run_length(row + i, n - i))
        runs++;
    return runs > 1 && runs * SHORT_RUN > n;
}

/* Cut an expert's rows into parts; false when there is none from *AT on. */
static bool next_part(struct part *p, const struct apply_place *at, size_t expert,
                      size_t *done)
{
    const struct gates *g = at->gates;
    const uint32_t *row = g->row + g->first[expert];
    const size_t n = g->first[expert + 1] - g->first[expert];
    const struct expert *e = &at->mixture->experts[expert];

    if (*done >= n)
        return false;
    p->expert = expert;
    p->lora = expert_lora(e, at->layer, at->site);
    p->row = row + *done;
    p->gathered = (at->dropout && e->dropout > 0.0f) || is_scattered(row, n);
    p->n = p->gathered ? n : run_length(p->row, n - *done);
    *done += p->n;
    return true;
}

static void gather(float *out, const float *x, const struct part *p, size_t width)
{
    for (size_t i = 0; i < p->n; i++)
        memcpy(out + i * width, x + p->row[i] * width, width * sizeof(*out));
}

/*
 * Multiply the rows of X by their dropout masks, 0 or 1 / (1 - p). The mask of
 * a row is a pure function of seed, place, expert and row.
 */
static void thin_out(float *x, const struct part *p, const struct apply_place *at)
{
    const float drop = at->mixture->experts[p->expert].dropout;
    const uint32_t limit = (uint32_t)((double)drop * 4294967296.0);
    const float keep = 1.0f / (1.0f - drop);
    const size_t N = p->lora->n_in;

    if (!at->dropout || drop <= 0.0f)
        return;
    for (size_t i = 0; i < p->n; i++) {
        struct rng rng;

        rng_init(&rng, at->dropout_seed + p->row[i],
                 (p->expert * at->mixture->n_layers + at->layer) * N_SITES + at->site);
        for (size_t k = 0; k < N; k++)
            x[i * N + k] *= rng_u32(&rng) < limit ? 0.0f : keep;
    }
}

static float gate_of(const struct gates *g, const struct part *p, size_t i)
{
    return g->gate[g->unit_of_row[p->row[i]] * g->n_experts + p->expert];
}

/* Rows of the block that the part reads: in place, or gathered into ROOM. */
static const float *rows_of(float *room, const float *x, const struct part *p,
                            size_t width)
{
    if (!p->gathered)
        return x + p->row[0] * width;
    gather(room, x, p, width);
    return room;
}

static void part_forward(float *y, const struct part *p, const struct apply_place *at,
                         const float *x, struct apply_scratch *s)
{
    const struct lora *lora = p->lora;
    const size_t R = lora->rank, N = lora->n_in, M = lora->n_out;
    const float *rows = rows_of(s->x, x, p, N);

    if (p->gathered)
        thin_out(s->x, p, at);
    gemm_nt(s->h, 0.0f, rows, lora->a, p->n, R, N);
    for (size_t i = 0; i < p->n; i++) {
        const float factor = lora->scale * gate_of(at->gates, p, i);

        for (size_t r = 0; r < R; r++)
            s->h[i * R + r] *= factor;
    }
    if (!p->gathered) {
        gemm_nt(y + p->row[0] * M, 1.0f, s->h, lora->b, p->n, M, R);
        return;
    }
    gather(s->y, y, p, M);
    gemm_nt(s->y, 1.0f, s->h, lora->b, p->n, M, R);
    for (size_t i = 0; i < p->n; i++)
        memcpy(y + p->row[i] * M, s->y + i * M, M * sizeof(*y));
}

void experts_forward(float *y, const struct apply_place *at, const float *x,
                     struct apply_scratch *s)
{
    for (size_t e = 0; at->gates && e < at->mixture->n_experts; e++) {
        struct part p;
        size_t done = 0;

        if (!expert_lora(&at->mixture->experts[e], at->layer, at->site)->rank)
            continue;
        while (next_part(&p, at, e, &done))
            part_forward(y, &p, at, x, s);
    }
}

/* From d (s gate h), in S->D_H, to the gates' gradients and, in place, to d h; and from h
 * to s gate h, in place. */
static void turn_at_gate(const struct part *p, const struct gates *g, float scale,
                         struct apply_scratch *s)
{
    const size_t R = p->lora->rank;

    for (size_t i = 0; i < p->n; i++) {
        const size_t unit = g->unit_of_row[p->row[i]];
        const float factor = scale * gate_of(g, p, i);
        float *h = s->h + i * R, *d_h = s->d_h + i * R;
        float dot = 0.0f;

        for (size_t r = 0; r < R; r++) {
            dot += d_h[r] * h[r];
            d_h[r] *= factor;
            h[r] *= factor;
        }
        if (g->d_gate)
            g->d_gate[unit * g->n_experts + p->expert] += scale * dot;
    }
}

static void part_backward(float *d_x, struct mixture_grads *grads, const struct part *p,
                          const struct apply_place *at, const float *d_y,
                          const float *x, struct apply_scratch *s)
{
    const struct lora *lora = p->lora;
    const struct expert *e = &at->mixture->experts[p->expert];
    const size_t R = lora->rank, N = lora->n_in, M = lora->n_out;
    float *d_params = grads ? grads->expert[p->expert] : NULL;
    const float *rows = rows_of(s->x, x, p, N), *d_rows = rows_of(s->y, d_y, p, M);

    if (p->gathered)
        thin_out(s->x, p, at);
    gemm_nt(s->h, 0.0f, rows, lora->a, p->n, R, N);
    gemm_nn(s->d_h, 0.0f, d_rows, lora->b, p->n, R, M);
    turn_at_gate(p, at->gates, lora->scale, s);
    if (d_params) {
        gemm_tn(d_params + (lora->b - e->params), 1.0f, d_rows, s->h, M, R, p->n);
        gemm_tn(d_params + (lora->a - e->params), 1.0f, s->d_h, rows, R, N, p->n);
        grads->touched[p->expert] = true;
    }
    if (!d_x)
        return;
    if (!p->gathered) {
        gemm_nn(d_x + p->row[0] * N, 1.0f, s->d_h, lora->a, p->n, N, R);
        return;
    }
    gemm_nn(s->x, 0.0f, s->d_h, lora->a, p->n, N, R);
    thin_out(s->x, p, at);
    for (size_t i = 0; i < p->n; i++)
        kernels()->axpy(d_x + p->row[i] * N, 1.0f, s->x + i * N, N);
}

void experts_backward(float *d_x, struct mixture_grads *grads,
                      const struct apply_place *at, const float *d_y, const float *x,
                      struct apply_scratch *s)
{
    for (size_t e = 0; at->gates && e < at->mixture->n_experts; e++) {
        struct part p;
        size_t done = 0;

        if (!expert_lora(&at->mixture->experts[e], at->layer, at->site)->rank)
            continue;
        while (next_part(&p, at, e, &done))
            part_backward(d_x, grads, &p, at, d_y, x, s);
    }
}
