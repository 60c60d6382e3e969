/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From router logits to gates, and back.
 *
 *     logits_u = W z_u + b      p = softmax(logits)      g = what the rule makes of p
 *     or p = softmax(|logits| / temperature), which has no way back
 *
 *   U units that share a decision: the sequences of a block, or its rows
 *   T rows   E experts   D width of what the router reads
 *
 * The first N_FIXED experts have gate 1, or 0 where they are silent, and no row in W:
 * logits and p are of the others.
 *
 *   softmax   g = p
 *   top-k     g_i = p_i / (sum of the k largest) for those k, else 0
 *   top-p     the same with the least k whose sum reaches a share
 *   one-hot   g = 1 at the largest p; with STRAIGHT its gradient is that of p / stop(p)
 */
#ifndef ARTEL_EXPERTS_ROUTER_H
#define ARTEL_EXPERTS_ROUTER_H

#include "experts/mixture.h"

/* Which rows a unit's decision is read from. */
struct pool {
    uint32_t first, n; /* rows of the block */
};

/* The decisions of one router over one block, and which rows each expert serves. */
struct gates {
    size_t n_rows, n_units, n_experts; /* T, U, E */
    size_t n_fixed;                    /* experts whose gate is 1 wherever one serves */
    bool silent;                       /* that gate is 0 unless one of them is given */
    const uint32_t *unit_of_row;       /* (T); borrowed */
    float *z; /* (U, D) pooled inputs; NULL: units are rows and read their own */
    /* Where the rule yields (clusters.h), else NULL: */
    float *seen;          /* (S, D) mean input of each sequence's pool */
    float *yield;         /* (U) what identities gain and the others lose */
    const bool *identity; /* (E); borrowed */
    float *probs;         /* (U, E) 0 of fixed experts */
    float *gate;          /* (U, E) */
    float *d_gate;        /* (U, E), NULL: gates carry no gradient */
    uint32_t
        *first;    /* (E + 1) expert e serves row[first[e]] .. row[first[e + 1] - 1] */
    uint32_t *row; /* (T * E at most) ascending for each expert */
};

/* Lay out gates for up to T rows and U units, or measure. DIM 0: no Z is kept. */
void gates_carve(struct gates *g, struct arena *a, size_t n_rows, size_t n_units,
                 size_t n_experts, size_t dim, bool backward);
/* And what yielding takes, for S sequences; 0: the session's own YIELD is held, nothing is
 * seen. */
void gates_carve_yield(struct gates *g, struct arena *a, size_t n_units, size_t n_seqs,
                       size_t dim);

/* Z (D): the mean of POOL's rows of SRC (T, D), or its last row. */
void pool_read(float *z, const float *src, const struct pool *pool, size_t D,
               enum router_pool kind);

/* One expert a unit from outside, the fixed ones with it; -1 serves none. Probabilities
 * are left alone. */
void gates_give(struct gates *g, const int *expert_of_unit);
/* Whom to give where no router is asked, for all that is fixed to serve: 0, or -1. */
int gates_always(const struct gates *g);
/* Every unit gets the fixed ones and no other. */
void gates_give_fixed(struct gates *g);
/* gates_give of one unit, without the rows served. */
void gates_give_unit(struct gates *g, size_t unit, int expert);

/* Read SRC (T, D): fills Z (where pooled) and PROBS. POOLS (U) for sequence units. */
void gates_read(struct gates *g, const struct router *r, enum router_pool pool,
                const struct pool *pools, const float *src);
/* The same from Z, which is filled. */
void gates_read_pooled(struct gates *g, const struct router *r);
/* The second half of gates_read: PROBS from W z, LOGITS (U, PITCH), which may be PROBS
 * where PITCH is the router's number of experts. */
void gates_read_logits(struct gates *g, const struct router *r, const float *logits,
                       size_t pitch);
/* PROBS to GATE by the rule, and the rows served. */
void gates_decide(struct gates *g, const struct gate_rule *rule);
/* Rows served, from GATE and UNIT_OF_ROW. */
void gates_index(struct gates *g);
/*
 * How unevenly rows are spread over K experts that are not fixed, summed over the units:
 * U K sum_i F_i P_i, F_i the share of i in all that was chosen, P_i its mean probability.
 * U where all is even. For units that are rows.
 */
double gates_balance(const struct gates *g);
/* Largest probability of a unit; the lower index on ties. */
size_t gates_argmax(const struct gates *g, size_t unit);

struct gates_slope {
    const struct gate_rule *rule; /* NULL: gates were given, D_GATE says nothing */
    bool straight;                /* one-hot gates are p / stop(p) */
    float ce_weight;              /* of -log p[label], 0: none */
    const int *label;             /* (U), -1: none; for the cross entropy */
    const struct pool *pools;
    enum router_pool pool;
    float balance; /* of gates_balance, its gradient through P alone; 0: none */
};

/* The first half of gates_backward: slopes of the logits into D_LOGITS (U, PITCH). */
void gates_backward_logits(const struct gates *g, const struct gates_slope *slope,
                           float *d_logits, size_t pitch);

/*
 * Back through gates and softmax. Adds into D_W (E, D), D_B (E) where not NULL, and into
 * D_SRC (T, D) where not NULL; E counts the router's rows. SCRATCH: U * E + U * D floats.
 */
void gates_backward(const struct gates *g, const struct router *r,
                    const struct gates_slope *slope, float *d_w, float *d_b,
                    float *d_src, const float *src, float *scratch);

#endif
