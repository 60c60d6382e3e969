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

#define LANES       ((size_t)16)
#define FEW_EXPERTS ((size_t)32) /* whose numbers for LANES units stay in L1 */

void gates_carve(struct gates *g, struct arena *a, size_t n_rows, size_t n_units,
                 size_t n_experts, size_t dim, bool backward)
{
    const size_t UE = n_units * n_experts;

    g->n_experts = n_experts;
    g->yield = g->seen = NULL;
    g->z = dim ? arena_f32(a, n_units * dim) : NULL;
    g->probs = arena_f32(a, UE);
    g->gate = arena_f32(a, UE);
    g->d_gate = backward ? arena_f32(a, UE) : NULL;
    g->first = arena_take(a, (n_experts + 1) * sizeof(*g->first));
    g->row = arena_take(a, n_rows * n_experts * sizeof(*g->row));
}

static float fixed_gate(const struct gates *g)
{
    return g->silent ? 0.0f : 1.0f;
}

void gates_give_unit(struct gates *g, size_t unit, int expert)
{
    float *gate = g->gate + unit * g->n_experts;

    memset(gate, 0, g->n_experts * sizeof(*gate));
    for (size_t e = 0; expert >= 0 && e < g->n_fixed; e++)
        gate[e] = fixed_gate(g);
    if (expert >= 0)
        gate[expert] = 1.0f;
}

int gates_always(const struct gates *g)
{
    return g->n_fixed && !g->silent ? 0 : -1;
}

void gates_give_fixed(struct gates *g)
{
    for (size_t u = 0; u < g->n_units; u++)
        gates_give_unit(g, u, gates_always(g));
    gates_index(g);
}

void gates_carve_yield(struct gates *g, struct arena *a, size_t n_units, size_t n_seqs,
                       size_t dim)
{
    g->yield = arena_f32(a, n_units);
    g->seen = n_seqs ? arena_f32(a, n_seqs * dim) : NULL;
}

void gates_give(struct gates *g, const int *expert_of_unit)
{
    for (size_t u = 0; u < g->n_units; u++)
        gates_give_unit(g, u, expert_of_unit[u]);
    gates_index(g);
}

void pool_read(float *z, const float *src, const struct pool *pool, size_t D,
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

/* What a router makes of the products of its rows before the softmax. */
static void score(float *x, const struct router *r, size_t n)
{
    for (size_t i = 0; r->absolute && i < n; i++)
        x[i] = fabsf(x[i]);
    for (size_t i = 0; r->temperature > 0.0f && r->temperature != 1.0f && i < n; i++)
        x[i] /= r->temperature;
}

/*
 * Softmax of LANES units, a unit a lane, so that what is done for one expert is done
 * for all units at once. To the bit what softmax_row does. PROBS of a unit lie TO apart.
 */
static void softmax_lanes(float *probs, size_t to, const struct router *r,
                          const float *b, const float *logits, size_t pitch, size_t E)
{
    float x[FEW_EXPERTS][LANES], top[LANES], sum[LANES] = {0.0f};

    for (size_t u = 0; u < LANES; u++)
        for (size_t e = 0; e < E; e++)
            x[e][u] = logits[u * pitch + e] + (b ? b[e] : 0.0f);
    score(x[0], r, E * LANES);
    memcpy(top, x[0], sizeof(top));
    for (size_t e = 1; e < E; e++)
        for (size_t u = 0; u < LANES; u++)
            top[u] = x[e][u] > top[u] ? x[e][u] : top[u];
    for (size_t e = 0; e < E; e++)
        for (size_t u = 0; u < LANES; u++)
            x[e][u] -= top[u];
    kernels()->exp_sum(x[0], 0.0f, E * LANES);
    for (size_t e = 0; e < E; e++)
        for (size_t u = 0; u < LANES; u++)
            sum[u] += x[e][u];
    for (size_t u = 0; u < LANES; u++)
        sum[u] = 1.0f / sum[u];
    for (size_t u = 0; u < LANES; u++)
        for (size_t e = 0; e < E; e++)
            probs[u * to + e] = x[e][u] * sum[u];
}

static void softmax_row(float *probs, const struct router *r, const float *b,
                        const float *logits, size_t E)
{
    const struct kernels *k = kernels();
    float sum = 0.0f;

    memmove(probs, logits, E * sizeof(*probs)); /* they may overlap */
    for (size_t e = 0; e < E; e++)
        probs[e] += b ? b[e] : 0.0f;
    score(probs, r, E);
    k->exp_sum(probs, k->max(probs, E), E);
    for (size_t e = 0; e < E; e++)
        sum += probs[e];
    for (size_t e = 0; e < E; e++)
        probs[e] *= 1.0f / sum;
}

/* The softmax of logits where identities gain what the others lose. */
static void yield_rows(float *probs, const struct gates *g, const struct router *r,
                       const float *logits, size_t pitch)
{
    const size_t E = g->n_experts, K = r->n_experts;

    for (size_t u = g->n_units; u-- > 0;) {
        float *p = probs + u * E;

        for (size_t e = K; e-- > 0;) {
            const float by = g->identity[g->n_fixed + e] ? g->yield[u] : -g->yield[u];

            p[e] = logits[u * pitch + e] + (r->b ? r->b[e] : 0.0f) + by;
        }
        softmax_row(p, r, NULL, p, K);
    }
}

/* From the last unit to the first: where LOGITS are PROBS, those of fixed experts push a
 * unit's numbers to higher places. */
void gates_read_logits(struct gates *g, const struct router *r, const float *logits,
                       size_t pitch)
{
    const size_t U = g->n_units, E = g->n_experts, K = r->n_experts, F = g->n_fixed;
    const size_t in_lanes = K <= FEW_EXPERTS && !g->yield ? U / LANES * LANES : 0;
    float *probs = g->probs + F;

    if (g->yield)
        yield_rows(probs, g, r, logits, pitch);
    for (size_t u = U; !g->yield && u-- > in_lanes;)
        softmax_row(probs + u * E, r, r->b, logits + u * pitch, K);
    for (size_t u = in_lanes; u; u -= LANES)
        softmax_lanes(probs + (u - LANES) * E, E, r, r->b, logits + (u - LANES) * pitch,
                      pitch, K);
    for (size_t u = 0; F && u < U; u++)
        memset(g->probs + u * E, 0, F * sizeof(*probs));
}

void gates_read(struct gates *g, const struct router *r, enum router_pool pool,
                const struct pool *pools, const float *src)
{
    const size_t U = g->n_units, K = r->n_experts, D = r->dim;
    const float *z = src;

    if (g->z) {
        for (size_t u = 0; u < U; u++)
            pool_read(g->z + u * D, src, &pools[u], D, pool);
        z = g->z;
    }
    gemm_nt(g->probs, 0.0f, z, r->w, U, K, D);
    gates_read_logits(g, r, g->probs, K);
}

void gates_read_pooled(struct gates *g, const struct router *r)
{
    gemm_nt(g->probs, 0.0f, g->z, r->w, g->n_units, r->n_experts, r->dim);
    gates_read_logits(g, r, g->probs, r->n_experts);
}

size_t gates_argmax(const struct gates *g, size_t unit)
{
    const float *p = g->probs + unit * g->n_experts;
    size_t best = g->n_fixed;

    for (size_t e = best + 1; e < g->n_experts; e++)
        if (p[e] > p[best])
            best = e;
    return best;
}

/*
 * keep_top of LANES units, a unit a lane; to the bit what keep_top does where all is
 * finite. Probabilities are not negative, so their bits are ordered as they are; whole
 * numbers can be chosen among without a branch, and which is chosen is hard to foresee.
 */
static void keep_top_lanes(float *gate, const float *p, size_t pitch, size_t E,
                           size_t top_k)
{
    int32_t left[FEW_EXPERTS][LANES], kept[FEW_EXPERTS][LANES];
    float sum[LANES] = {0.0f}, number[LANES];
    int32_t tiny;

    memcpy(&tiny, &(const float){1e-38f}, sizeof(tiny)); /* as in keep_top */
    for (size_t u = 0; u < LANES; u++)
        for (size_t e = 0; e < E; e++)
            memcpy(&left[e][u], &p[u * pitch + e], sizeof(left[e][u]));
    memset(kept, 0, E * sizeof(*kept));
    for (size_t k = 0; k < top_k && k < E; k++) {
        int32_t best[LANES] = {0}, most[LANES];

        memcpy(most, left[0], sizeof(most));
        for (int32_t e = 1; e < (int32_t)E; e++)
            for (size_t u = 0; u < LANES; u++) {
                best[u] = left[e][u] > most[u] ? e : best[u];
                most[u] = left[e][u] > most[u] ? left[e][u] : most[u];
            }
        for (size_t u = 0; u < LANES; u++)
            most[u] = most[u] > 0 ? most[u] : tiny;
        memcpy(number, most, sizeof(number));
        for (size_t u = 0; u < LANES; u++)
            sum[u] += number[u];
        for (int32_t e = 0; e < (int32_t)E; e++)
            for (size_t u = 0; u < LANES; u++) {
                kept[e][u] = best[u] == e ? most[u] : kept[e][u];
                left[e][u] = best[u] == e ? -1 : left[e][u];
            }
    }
    for (size_t e = 0; e < E; e++) {
        memcpy(number, kept[e], sizeof(number));
        for (size_t u = 0; u < LANES; u++)
            number[u] /= sum[u];
        for (size_t u = 0; u < LANES; u++)
            gate[u * pitch + e] = number[u];
    }
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

/* As many of the largest as reach TOP_P together, renormalised: keep_top of that many. */
static void keep_share(float *gate, const float *p, size_t E, float top_p)
{
    size_t n = 0;
    float sum = 0.0f;

    memset(gate, 0, E * sizeof(*gate)); /* 1: counted */
    while (n < E && (!n || sum < top_p)) {
        size_t best = E;

        for (size_t e = 0; e < E; e++)
            if (gate[e] == 0.0f && (best == E || p[e] > p[best]))
                best = e;
        gate[best] = 1.0f;
        sum += p[best];
        n++;
    }
    keep_top(gate, p, E, n);
}

void gates_decide(struct gates *g, const struct gate_rule *rule)
{
    const size_t U = g->n_units, E = g->n_experts, F = g->n_fixed, K = E - F;
    size_t u = 0;

    for (; rule->kind == GATE_TOP_K && K <= FEW_EXPERTS && u + LANES <= U; u += LANES)
        keep_top_lanes(g->gate + u * E + F, g->probs + u * E + F, E, K, rule->top_k);
    for (; u < U; u++) {
        const float *p = g->probs + u * E + F;
        float *gate = g->gate + u * E + F;

        switch (rule->kind) {
        case GATE_SOFTMAX:
            memcpy(gate, p, K * sizeof(*gate));
            break;
        case GATE_TOP_K:
            keep_top(gate, p, K, rule->top_k);
            break;
        case GATE_TOP_P:
            keep_share(gate, p, K, rule->top_p);
            break;
        case GATE_ONE_HOT:
            memset(gate, 0, K * sizeof(*gate));
            gate[gates_argmax(g, u) - F] = 1.0f;
            break;
        }
    }
    for (u = 0; F && u < U; u++)
        for (size_t e = 0; e < F; e++)
            g->gate[u * E + e] = fixed_gate(g);
    gates_index(g);
}

void gates_index(struct gates *g)
{
    const size_t E = g->n_experts;
    uint32_t used = 0;

    for (size_t e = 0; e < E; e++) {
        g->first[e] = used;
        /* without a branch: which rows an expert serves is hard to foresee */
        for (size_t t = 0; t < g->n_rows; t++) {
            g->row[used] = (uint32_t)t;
            used += g->gate[g->unit_of_row[t] * E + e] != 0.0f;
        }
    }
    g->first[E] = used;
}

/* D_P (K) from the gates' gradients of one unit, K experts that are not fixed. */
static void slope_of_gates(float *d_p, const struct gates *g, size_t u,
                           const struct gates_slope *slope)
{
    const size_t E = g->n_experts - g->n_fixed;
    const size_t at = u * g->n_experts + g->n_fixed;
    const float *p = g->probs + at, *gate = g->gate + at;
    const float *d_gate = g->d_gate ? g->d_gate + at : NULL;
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
    case GATE_TOP_P:
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

/* Rows that those which are not fixed serve, an expert counted for each of its own. */
static size_t choices(const struct gates *g)
{
    return g->first[g->n_experts] - g->first[g->n_fixed];
}

double gates_balance(const struct gates *g)
{
    const size_t E = g->n_experts, K = E - g->n_fixed;
    double sum = 0.0;

    for (size_t e = g->n_fixed; e < E; e++) {
        double p = 0.0;

        for (size_t u = 0; u < g->n_units; u++)
            p += (double)g->probs[u * E + e];
        sum += p * (double)(g->first[e + 1] - g->first[e]);
    }
    return choices(g) ? sum * (double)K / (double)choices(g) : 0.0;
}

/* What the balance loss adds to the slope of every unit's probability of the E-th of those
 * that are not fixed. */
static float balance_slope(const struct gates *g, const struct gates_slope *slope,
                           size_t e)
{
    const size_t i = g->n_fixed + e, n = choices(g);
    const float K = (float)(g->n_experts - g->n_fixed);

    return n ? slope->balance * K * (float)(g->first[i + 1] - g->first[i]) / (float)n
             : 0.0f;
}

/* The gradient of one unit's logits into D_LOGITS (K). */
static void slope_of_logits(float *d_logits, const struct gates *g, size_t u,
                            const struct gates_slope *slope)
{
    const size_t E = g->n_experts - g->n_fixed;
    const float *p = g->probs + u * g->n_experts + g->n_fixed;
    const int label = slope->label ? slope->label[u] - (int)g->n_fixed : -1;
    float mean = 0.0f;

    slope_of_gates(d_logits, g, u, slope);
    for (size_t e = 0; e < E && slope->rule && slope->balance > 0.0f; e++)
        d_logits[e] += balance_slope(g, slope, e);
    for (size_t e = 0; e < E; e++)
        mean += p[e] * d_logits[e];
    for (size_t e = 0; e < E; e++)
        d_logits[e] = p[e] * (d_logits[e] - mean);
    if (slope->ce_weight == 0.0f || label < 0)
        return;
    for (size_t e = 0; e < E; e++)
        d_logits[e] += slope->ce_weight * (p[e] - ((int)e == label));
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

/* X where MASK is all ones, else 0, in each lane. */
static inline void only_where(float x[LANES], const int32_t mask[LANES])
{
    int32_t bits[LANES];

    memcpy(bits, x, sizeof(bits));
    for (size_t u = 0; u < LANES; u++)
        bits[u] &= mask[u];
    memcpy(x, bits, sizeof(bits));
}

/* All ones where X is not 0. */
static inline void where_not_zero(int32_t mask[LANES], const float x[LANES])
{
    memcpy(mask, x, LANES * sizeof(*mask));
    for (size_t u = 0; u < LANES; u++)
        mask[u] = mask[u] ? -1 : 0;
}

/* Slopes of P (E, LANES) from those of the gates, both in D, where the rule is top-k. */
static void top_k_slope_lanes(float d[][LANES], float p[][LANES], float gate[][LANES],
                              size_t E)
{
    float kept[LANES] = {0.0f}, mean[LANES] = {0.0f};
    int32_t served[LANES], any[LANES];

    for (size_t e = 0; e < E; e++) {
        float mine[LANES];

        where_not_zero(served, gate[e]);
        memcpy(mine, p[e], sizeof(mine));
        only_where(mine, served);
        for (size_t u = 0; u < LANES; u++)
            kept[u] += mine[u];
        for (size_t u = 0; u < LANES; u++)
            mean[u] += gate[e][u] * d[e][u];
    }
    where_not_zero(any, kept);
    for (size_t e = 0; e < E; e++) {
        for (size_t u = 0; u < LANES; u++)
            d[e][u] = (d[e][u] - mean[u]) / kept[u];
        where_not_zero(served, gate[e]);
        only_where(d[e], served);
        only_where(d[e], any);
    }
}

/* The slopes of LANES units whose gates are soft, a unit a lane; to the bit those of
 * slope_of_logits where all is finite. */
static void soft_slope_lanes(float *d_logits, size_t pitch, const struct gates *g,
                             size_t first, const struct gates_slope *slope)
{
    const size_t E = g->n_experts - g->n_fixed;
    float p[FEW_EXPERTS][LANES], gate[FEW_EXPERTS][LANES], d[FEW_EXPERTS][LANES];
    float own[LANES] = {0.0f};

    for (size_t u = 0; u < LANES; u++)
        for (size_t e = 0; e < E; e++) {
            const size_t at = (first + u) * g->n_experts + g->n_fixed + e;

            p[e][u] = g->probs[at];
            gate[e][u] = g->gate[at];
            d[e][u] = g->d_gate[at];
        }
    if (slope->rule->kind != GATE_SOFTMAX)
        top_k_slope_lanes(d, p, gate, E);
    for (size_t e = 0; e < E && slope->balance > 0.0f; e++) {
        const float by = balance_slope(g, slope, e);

        for (size_t u = 0; u < LANES; u++)
            d[e][u] += by;
    }
    for (size_t e = 0; e < E; e++)
        for (size_t u = 0; u < LANES; u++)
            own[u] += p[e][u] * d[e][u];
    for (size_t e = 0; e < E; e++)
        for (size_t u = 0; u < LANES; u++)
            d[e][u] = p[e][u] * (d[e][u] - own[u]);
    for (size_t u = 0; u < LANES; u++)
        for (size_t e = 0; e < E; e++)
            d_logits[u * pitch + e] = d[e][u];
}

void gates_backward_logits(const struct gates *g, const struct gates_slope *slope,
                           float *d_logits, size_t pitch)
{
    const size_t U = g->n_units;
    const bool soft = slope->rule && slope->rule->kind != GATE_ONE_HOT && g->d_gate &&
                      slope->ce_weight == 0.0f &&
                      g->n_experts - g->n_fixed <= FEW_EXPERTS;
    size_t u = 0;

    for (; soft && u + LANES <= U; u += LANES)
        soft_slope_lanes(d_logits + u * pitch, pitch, g, u, slope);
    for (; u < U; u++)
        slope_of_logits(d_logits + u * pitch, g, u, slope);
}

void gates_backward(const struct gates *g, const struct router *r,
                    const struct gates_slope *slope, float *d_w, float *d_b,
                    float *d_src, const float *src, float *scratch)
{
    const size_t U = g->n_units, E = r->n_experts, D = r->dim;
    float *d_logits = scratch, *d_z = scratch + U * E;

    gates_backward_logits(g, slope, d_logits, E);
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
