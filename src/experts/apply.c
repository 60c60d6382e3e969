/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of an expert come as ranges where they are long, and gathered into
 * scratch where they are scattered or thinned out by dropout. All ways give the
 * same bits, since a row of a product depends on that row alone, and an element of
 * Y takes one expert's ranks after the other's, stacked or not.
 */
#include "experts/apply.h"

#include <string.h>

#include "base/rng.h"
#include "math/kernels.h"
#include "math/matmul.h"

/* Below this many rows a range costs more than gathering does. */
#define SHORT_RUN 8
/* Numbers of h a row above which keeping them takes more room than it saves time. */
#define KEPT_MAX 64

/* Several experts serve every row. */
static bool is_dense(const struct mixture *m)
{
    return (m->rule.kind == GATE_SOFTMAX && m->n_routers) || m->rule.n_fixed;
}

/* Ranks of a stack, the widest expert's alone where nothing is stacked. */
static size_t most_ranks(const struct mixture *m)
{
    const bool dense = is_dense(m);
    size_t most = 1;

    for (size_t i = 0; i < m->n_layers * N_SITES; i++) {
        size_t sum = 0;

        for (size_t e = 0; e < m->n_experts; e++) {
            const size_t rank = m->experts[e].lora[i].rank;

            sum = dense ? sum + rank : rank > sum ? rank : sum;
        }
        most = sum > most ? sum : most;
    }
    return most;
}

void apply_scratch_carve(struct apply_scratch *s, struct arena *a,
                         const struct mixture *m, const struct model_config *c,
                         size_t n_rows)
{
    const bool dense = is_dense(m);
    size_t widest = c->dim;

    for (int site = 0; site < N_SITES; site++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)site, &n_out, &n_in);
        widest = n_out > widest ? n_out : widest;
        widest = n_in > widest ? n_in : widest;
    }
    s->max_rank = most_ranks(m);
    s->h = arena_f32(a, n_rows * s->max_rank);
    s->d_h = arena_f32(a, n_rows * s->max_rank);
    s->x = arena_f32(a, n_rows * widest);
    s->y = arena_f32(a, n_rows * widest);
    s->a = dense ? arena_f32(a, s->max_rank * widest) : NULL;
    s->b = dense ? arena_f32(a, s->max_rank * widest) : NULL;
    s->turned = arena_f32(a, s->max_rank * widest);
    s->member = arena_take(a, m->n_experts * sizeof(*s->member));
}

size_t apply_kept_floats(const struct mixture *m, size_t n_rows)
{
    const size_t times = !m->n_routers                ? 1
                         : m->rule.kind == GATE_TOP_K ? m->rule.top_k
                         : m->rule.kind == GATE_TOP_P ? m->n_experts
                                                      : 1;
    const size_t n = most_ranks(m) * times;

    return n <= KEPT_MAX ? n_rows * n : 0;
}

/* Rows that one expert or a stack of them serves, a range of the block or a list. */
struct part {
    const size_t *expert; /* (n_experts) */
    size_t n_experts, n;
    const uint32_t *row; /* (n) */
    bool gathered;
    size_t rank, n_in, n_out; /* R, N, M */
    const float *a, *b;       /* (R, N), (M, R) */
    float *kept;              /* (n, R) or NULL */
};

static const struct lora *lora_of(const struct apply_place *at, size_t e)
{
    return expert_lora(&at->mixture->experts[e], at->layer, at->site);
}

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

/* Cut an expert's rows into parts; false when there is none from *DONE on. */
static bool next_part(struct part *p, const struct apply_place *at, size_t *expert,
                      size_t *done)
{
    const struct gates *g = at->gates;
    const uint32_t *row = g->row + g->first[*expert];
    const size_t n = g->first[*expert + 1] - g->first[*expert];
    const struct lora *lora = lora_of(at, *expert);

    if (*done >= n)
        return false;
    p->expert = expert;
    p->n_experts = 1;
    p->rank = lora->rank;
    p->n_in = lora->n_in;
    p->n_out = lora->n_out;
    p->a = lora->down;
    p->b = lora->b;
    p->row = row + *done;
    p->gathered = (at->dropout && at->mixture->experts[*expert].dropout > 0.0f) ||
                  is_scattered(row, n);
    p->n = p->gathered ? n : run_length(p->row, n - *done);
    *done += p->n;
    return true;
}

/* One part of all experts where all of them serve every row, but for the silent; false
 * where they do not. */
static bool stack(struct part *p, const struct apply_place *at, struct apply_scratch *s)
{
    const struct gates *g = at->gates;
    size_t n = 0, R = 0, at_rank = 0;

    for (size_t e = 0; s->a && e < g->n_experts; e++) {
        const size_t n_rows = g->first[e + 1] - g->first[e];

        if (!lora_of(at, e)->rank || (g->silent && e < g->n_fixed && !n_rows))
            continue;
        if (n_rows != g->n_rows ||
            (at->dropout && at->mixture->experts[e].dropout > 0.0f))
            return false;
        s->member[n++] = e;
        R += lora_of(at, e)->rank;
    }
    if (n < 2)
        return false;
    *p = (struct part){.expert = s->member,
                       .n_experts = n,
                       .n = g->n_rows,
                       .row = g->row + g->first[s->member[0]],
                       .rank = R,
                       .n_in = lora_of(at, s->member[0])->n_in,
                       .n_out = lora_of(at, s->member[0])->n_out,
                       .a = s->a,
                       .b = s->b};
    for (size_t i = 0; i < n; i++) {
        const struct lora *lora = lora_of(at, s->member[i]);
        const size_t rank = lora->rank;

        memcpy(s->a + at_rank * p->n_in, lora->down, rank * p->n_in * sizeof(float));
        for (size_t m = 0; m < p->n_out; m++)
            memcpy(s->b + m * R + at_rank, lora->b + m * rank, rank * sizeof(float));
        at_rank += rank;
    }
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
    const float drop = at->mixture->experts[*p->expert].dropout;
    const uint32_t limit = (uint32_t)((double)drop * 4294967296.0);
    const float keep = 1.0f / (1.0f - drop);
    const size_t N = p->n_in;

    if (!at->dropout || drop <= 0.0f)
        return;
    for (size_t i = 0; i < p->n; i++) {
        struct rng rng;

        rng_init(&rng, at->dropout_seed + p->row[i],
                 (*p->expert * at->mixture->n_layers + at->layer) * N_SITES + at->site);
        for (size_t k = 0; k < N; k++)
            x[i * N + k] *= rng_u32(&rng) < limit ? 0.0f : keep;
    }
}

static float gate_of(const struct gates *g, const struct part *p, size_t i, size_t e)
{
    return g->gate[g->unit_of_row[p->row[i]] * g->n_experts + e];
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

static float slope_of(const struct apply_place *at, size_t e)
{
    return at->mixture->experts[e].slope;
}

/* OUT (n, R) = s gate phi(h) */
static void weigh(float *out, const float *h, const struct part *p,
                  const struct apply_place *at)
{
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->n_experts; k++) {
            const struct lora *lora = lora_of(at, p->expert[k]);
            const float factor = lora->scale * gate_of(at->gates, p, i, p->expert[k]);
            const float below = factor * slope_of(at, p->expert[k]);

            for (size_t r = 0; r < lora->rank; r++, h++)
                *out++ = *h * (*h < 0.0f ? below : factor);
        }
}

static void part_forward(float *y, const struct part *p, const struct apply_place *at,
                         const float *x, struct apply_scratch *s)
{
    const size_t R = p->rank, N = p->n_in, M = p->n_out;
    const float *rows = rows_of(s->x, x, p, N);
    float *h = p->kept ? p->kept : s->h;

    if (p->gathered)
        thin_out(s->x, p, at);
    gemm_nt(h, 0.0f, rows, p->a, p->n, R, N);
    weigh(s->h, h, p, at);
    if (!p->gathered) {
        gemm_nt(y + p->row[0] * M, 1.0f, s->h, p->b, p->n, M, R);
        return;
    }
    gather(s->y, y, p, M);
    gemm_nt(s->y, 1.0f, s->h, p->b, p->n, M, R);
    for (size_t i = 0; i < p->n; i++)
        memcpy(y + p->row[i] * M, s->y + i * M, M * sizeof(*y));
}

void experts_forward(float *y, const struct apply_place *at, const float *x,
                     struct apply_scratch *s)
{
    struct part p = {0};
    float *kept = at->kept;

    if (!at->gates)
        return;
    if (stack(&p, at, s)) {
        p.kept = kept;
        part_forward(y, &p, at, x, s);
        return;
    }
    for (size_t e = 0; e < at->mixture->n_experts; e++) {
        size_t done = 0;

        if (!lora_of(at, e)->rank)
            continue;
        while (next_part(&p, at, &e, &done)) {
            p.kept = kept;
            part_forward(y, &p, at, x, s);
            if (kept)
                kept += p.n * p.rank;
        }
    }
}

/* From d (s gate phi(h)), in S->D_H, to the gates' gradients and, in place, to d h. */
static void turn_at_gate(const struct part *p, const struct apply_place *at,
                         const float *h, struct apply_scratch *s)
{
    const struct gates *g = at->gates;
    float *d_h = s->d_h;

    for (size_t i = 0; i < p->n; i++) {
        const size_t unit = g->unit_of_row[p->row[i]];

        for (size_t k = 0; k < p->n_experts; k++) {
            const size_t e = p->expert[k], R = lora_of(at, e)->rank;
            const float scale = lora_of(at, e)->scale;
            const float factor = scale * gate_of(g, p, i, e), slope = slope_of(at, e);
            float dot = 0.0f;

            for (size_t r = 0; r < R; r++) {
                const float bend = h[r] < 0.0f ? slope : 1.0f;

                dot += d_h[r] * (h[r] * bend);
                d_h[r] *= factor * bend;
            }
            if (g->d_gate)
                g->d_gate[unit * g->n_experts + e] += scale * dot;
            d_h += R;
            h += R;
        }
    }
}

/* The gradients of A and B of every expert of the part. S->H is s gate phi(h), S->D_H d h. */
static void params_backward(struct mixture_grads *grads, const struct part *p,
                            const struct apply_place *at, const float *d_rows,
                            const float *rows, struct apply_scratch *s)
{
    const size_t R = p->rank, N = p->n_in, M = p->n_out;
    size_t from = 0;
    bool any = false;

    for (size_t k = 0; k < p->n_experts; k++)
        any |= grads->expert[p->expert[k]] != NULL;
    if (!any)
        return;
    gemm_tn(s->turned, 0.0f, s->h, d_rows, R, M, p->n);
    for (size_t k = 0; k < p->n_experts; k++) {
        const struct lora *lora = lora_of(at, p->expert[k]);
        const size_t rank = lora->rank;
        float *d_params = grads->expert[p->expert[k]], *d_b;

        if (d_params) {
            d_b = d_params + lora->d_b;
            for (size_t m = 0; m < M; m++)
                for (size_t r = 0; r < rank; r++)
                    d_b[m * rank + r] += s->turned[(from + r) * M + m];
            gemm_tn_strided(d_params + lora->d_a, 1.0f, s->d_h + from, rows, rank, N,
                            p->n, (struct strides){N, R, N});
            grads->touched[p->expert[k]] = true;
        }
        from += rank;
    }
}

static void part_backward(float *d_x, struct mixture_grads *grads, const struct part *p,
                          const struct apply_place *at, const float *d_y,
                          const float *x, struct apply_scratch *s)
{
    const size_t R = p->rank, N = p->n_in, M = p->n_out;
    const float *rows = rows_of(s->x, x, p, N), *d_rows = rows_of(s->y, d_y, p, M);
    const float *h = p->kept ? p->kept : s->h;

    if (p->gathered)
        thin_out(s->x, p, at);
    if (!p->kept)
        gemm_nt(s->h, 0.0f, rows, p->a, p->n, R, N);
    gemm_nn(s->d_h, 0.0f, d_rows, p->b, p->n, R, M);
    turn_at_gate(p, at, h, s);
    weigh(s->h, h, p, at);
    if (grads)
        params_backward(grads, p, at, d_rows, rows, s);
    if (!d_x)
        return;
    if (!p->gathered) {
        gemm_nn(d_x + p->row[0] * N, 1.0f, s->d_h, p->a, p->n, N, R);
        return;
    }
    gemm_nn(s->x, 0.0f, s->d_h, p->a, p->n, N, R);
    thin_out(s->x, p, at);
    for (size_t i = 0; i < p->n; i++)
        kernels()->axpy(d_x + p->row[i] * N, 1.0f, s->x + i * N, N);
}

void experts_backward(float *d_x, struct mixture_grads *grads,
                      const struct apply_place *at, const float *d_y, const float *x,
                      struct apply_scratch *s)
{
    struct part p = {0};
    float *kept = at->kept;

    if (!at->gates)
        return;
    if (stack(&p, at, s)) {
        p.kept = kept;
        part_backward(d_x, grads, &p, at, d_y, x, s);
        return;
    }
    for (size_t e = 0; e < at->mixture->n_experts; e++) {
        size_t done = 0;

        if (!lora_of(at, e)->rank)
            continue;
        while (next_part(&p, at, &e, &done)) {
            p.kept = kept;
            part_backward(d_x, grads, &p, at, d_y, x, s);
            if (kept)
                kept += p.n * p.rank;
        }
    }
}
