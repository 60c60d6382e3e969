/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gates are found in float with the softmax's maximum taken off first; every
 * unit is computed alone, so a decision never depends on its company.
 */
#include "experts/router.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "math/kernels.h"
#include "math/matmul.h"

void gates_carve(struct gates *g, struct arena *a, size_t n_rows, size_t n_units,
                 size_t n_experts, size_t dim, bool backward)
{
    const size_t UE = n_units * n_experts;

    g->n_experts = n_experts;
    g->z = dim ? arena_f32(a, n_units * dim) : NULL;
    g->probs = arena_f32(a, UE);
    g->gate = arena_f32(a, UE);
    g->d_gate = backward ? arena_f32(a, UE) : NULL;
    g->first = arena_take(a, (n_experts + 1) * sizeof(*g->first));
    g->row = arena_take(a, n_rows * n_experts * sizeof(*g->row));
}

void gates_give(struct gates *g, const int *expert_of_unit)
{
    const size_t E = g->n_experts;

    memset(g->gate, 0, g->n_units * E * sizeof(*g->gate));
    for (size_t u = 0; u < g->n_units; u++)
        if (expert_of_unit[u] >= 0)
            g->gate[u * E + (size_t)expert_of_unit[u]] = 1.0f;
    gates_index(g);
}

static void read_pool(float *z, const float *src, const struct pool *pool, size_t D,
                      enum router_pool kind)
{
    const struct kernels *k = kernels();
    const size_t last = pool->first + pool->n - 1;

    memset(z, 0, D * sizeof(*z));
    if (!pool->n)
        return;
    if (kind == POOL_LAST) {
        memcpy(z, src + last * D, D * sizeof(*z));
        return;
    }
    for (size_t t = pool->first; t <= last; t++)
        k->axpy(z, 1.0f / (float)pool->n, src + t * D, D);
}

static void softmax_row(float *x, size_t n)
{
    const struct kernels *k = kernels();
    const float sum = k->exp_sum(x, k->max(x, n), n);

    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

void gates_read(struct gates *g, const struct router *r, enum router_pool pool,
                const struct pool *pools, const float *src)
{
    const size_t U = g->n_units, E = g->n_experts, D = r->dim;
    const float *z = src;

    if (g->z) {
        for (size_t u = 0; u < U; u++)
            read_pool(g->z + u * D, src, &pools[u], D, pool);
        z = g->z;
    }
    gemm_nt(g->probs, 0.0f, z, r->w, U, E, D);
    for (size_t u = 0; u < U; u++) {
        if (r->b)
            kernels()->axpy(g->probs + u * E, 1.0f, r->b, E);
        softmax_row(g->probs + u * E, E);
    }
}

size_t gates_argmax(const struct gates *g, size_t unit)
{
    const float *p = g->probs + unit * g->n_experts;
    size_t best = 0;

    for (size_t e = 1; e < g->n_experts; e++)
        if (p[e] > p[best])
            best = e;
    return best;
}

/* The k largest, the lower index first on ties, renormalised. */
static void keep_top(float *gate, const float *p, size_t E, size_t top_k)
{
    float sum = 0.0f;

    memset(gate, 0, E * sizeof(*gate));
    for (size_t k = 0; k < top_k && k < E; k++) {
        size_t best = E;

        for (size_t e = 0; e < E; e++)
            if (gate[e] == 0.0f && (best == E || p[e] > p[best]))
                best = e;
        /* A probability that underflowed to 0 would look free: keep it tiny instead. */
        gate[best] = p[best] > 0.0f ? p[best] : 1e-38f;
        sum += gate[best];
    }
    for (size_t e = 0; e < E; e++)
        gate[e] /= sum;
}

void gates_decide(struct gates *g, const struct gate_rule *rule)
{
    const size_t E = g->n_experts;

    for (size_t u = 0; u < g->n_units; u++) {
        const float *p = g->probs + u * E;
        float *gate = g->gate + u * E;

        switch (rule->kind) {
        case GATE_SOFTMAX:
            memcpy(gate, p, E * sizeof(*gate));
            break;
        case GATE_TOP_K:
            keep_top(gate, p, E, rule->top_k);
            break;
        case GATE_ONE_HOT:
            memset(gate, 0, E * sizeof(*gate));
            gate[gates_argmax(g, u)] = 1.0f;
            break;
        }
    }
    gates_index(g);
}

void gates_index(struct gates *g)
{
    const size_t E = g->n_experts;
    uint32_t used = 0;

    for (size_t e = 0; e < E; e++) {
        g->first[e] = used;
        for (size_t t = 0; t < g->n_rows; t++)
            if (g->gate[g->unit_of_row[t] * E + e] != 0.0f)
                g->row[used++] = (uint32_t)t;
    }
    g->first[E] = used;
}

/* D_P (E) from the gates' gradients of one unit. */
static void slope_of_gates(float *d_p, const struct gates *g, size_t u,
                           const struct gates_slope *slope)
{
    const size_t E = g->n_experts;
    const float *p = g->probs + u * E, *gate = g->gate + u * E;
    const float *d_gate = g->d_gate ? g->d_gate + u * E : NULL;
    float kept = 0.0f, mean = 0.0f;

    memset(d_p, 0, E * sizeof(*d_p));
    if (!slope->rule || !d_gate)
        return;
    switch (slope->rule->kind) {
    case GATE_SOFTMAX:
        memcpy(d_p, d_gate, E * sizeof(*d_p));
        break;
    case GATE_ONE_HOT:
        for (size_t e = 0; e < E && slope->straight; e++)
            if (gate[e] != 0.0f)
                d_p[e] = d_gate[e] / p[e];
        break;
    case GATE_TOP_K:
        for (size_t e = 0; e < E; e++) {
            kept += gate[e] != 0.0f ? p[e] : 0.0f;
            mean += gate[e] * d_gate[e];
        }
        for (size_t e = 0; e < E; e++)
            if (gate[e] != 0.0f && kept > 0.0f)
                d_p[e] = (d_gate[e] - mean) / kept;
        break;
    }
}

/* The gradient of one unit's logits into D_LOGITS (E). */
static void slope_of_logits(float *d_logits, const struct gates *g, size_t u,
                            const struct gates_slope *slope)
{
    const size_t E = g->n_experts;
    const float *p = g->probs + u * E;
    float mean = 0.0f;

    slope_of_gates(d_logits, g, u, slope);
    for (size_t e = 0; e < E; e++)
        mean += p[e] * d_logits[e];
    for (size_t e = 0; e < E; e++)
        d_logits[e] = p[e] * (d_logits[e] - mean);
    if (slope->ce_weight == 0.0f || slope->label[u] < 0)
        return;
    for (size_t e = 0; e < E; e++)
        d_logits[e] += slope->ce_weight * (p[e] - ((int)e == slope->label[u]));
}

/* D_Z of a pooled unit back onto the rows that it was read from. */
static void spread(float *d_src, const float *d_z, const struct pool *pool, size_t D,
                   enum router_pool kind)
{
    const struct kernels *k = kernels();

    if (!pool->n)
        return;
    if (kind == POOL_LAST) {
        k->axpy(d_src + (pool->first + pool->n - 1) * D, 1.0f, d_z, D);
        return;
    }
    for (size_t t = pool->first; t < pool->first + pool->n; t++)
        k->axpy(d_src + t * D, 1.0f / (float)pool->n, d_z, D);
}

void gates_backward(const struct gates *g, const struct router *r,
                    const struct gates_slope *slope, float *d_w, float *d_b,
                    float *d_src, const float *src, float *scratch)
{
    const size_t U = g->n_units, E = g->n_experts, D = r->dim;
    float *d_logits = scratch, *d_z = scratch + U * E;

    for (size_t u = 0; u < U; u++)
        slope_of_logits(d_logits + u * E, g, u, slope);
    if (d_w)
        gemm_tn(d_w, 1.0f, d_logits, g->z ? g->z : src, E, D, U);
    for (size_t u = 0; u < U && d_b && r->b; u++)
        kernels()->axpy(d_b, 1.0f, d_logits + u * E, E);
    if (!d_src)
        return;
    if (!g->z) {
        gemm_nn(d_src, 1.0f, d_logits, r->w, U, D, E);
        return;
    }
    gemm_nn(d_z, 0.0f, d_logits, r->w, U, D, E);
    for (size_t u = 0; u < U; u++)
        spread(d_src, d_z + u * D, &slope->pools[u], D, slope->pool);
}
