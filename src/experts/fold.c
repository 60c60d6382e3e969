/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row by row of A: a row of A' depends on that row and the universal expert alone. What
 * passes between the two small products is as wide as the universal rank.
 */
#include "experts/fold.h"

#include <string.h>

#include "math/kernels.h"

/* C (R_*) = a B_*, for the row A (M). */
static void through_up(float *c, const float *a, const struct lora *u)
{
    memset(c, 0, u->rank * sizeof(*c));
    for (size_t m = 0; m < u->n_out; m++)
        kernels()->axpy(c, a[m], u->b + m * u->rank, u->rank);
}

static void fold(const struct lora *l, const struct lora *u)
{
    float c[EXPERT_MAX_RANK];

    for (size_t r = 0; r < l->rank; r++) {
        float *row = l->down + r * l->n_in;

        through_up(c, l->a + r * l->n_a, u);
        memset(row, 0, l->n_in * sizeof(*row));
        for (size_t k = 0; k < u->rank; k++)
            kernels()->axpy(row, u->scale * c[k], u->a + k * l->n_in, l->n_in);
    }
}

void mixture_fold(struct mixture *m, const bool *changed)
{
    for (size_t e = 1; e < m->n_experts; e++) {
        const struct expert *own = &m->experts[e];

        if (own->kind != EXPERT_RES || (changed && !changed[e] && !changed[0]))
            continue;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < m->n_layers * N_SITES; i++)
            fold(&own->lora[i], &m->experts[0].lora[i]);
    }
}

/* One linear. G (R, N) is the gradient of A', D_A that of A; D_UA, D_UB the universal
 * expert's, or NULL both. */
static void unfold(float *d_a, float *d_ua, float *d_ub, const float *g,
                   const struct lora *l, const struct lora *u)
{
    float t[EXPERT_MAX_RANK], c[EXPERT_MAX_RANK];

    for (size_t r = 0; r < l->rank; r++) {
        const float *row = g + r * l->n_in, *a = l->a + r * l->n_a;

        for (size_t k = 0; k < u->rank; k++)
            t[k] = u->scale * kernels()->dot(row, u->a + k * l->n_in, l->n_in);
        for (size_t m = 0; d_a && m < u->n_out; m++)
            d_a[r * l->n_a + m] += kernels()->dot(t, u->b + m * u->rank, u->rank);
        if (!d_ua)
            continue;
        for (size_t m = 0; m < u->n_out; m++)
            kernels()->axpy(d_ub + m * u->rank, a[m], t, u->rank);
        through_up(c, a, u);
        for (size_t k = 0; k < u->rank; k++)
            kernels()->axpy(d_ua + k * l->n_in, u->scale * c[k], row, l->n_in);
    }
}

void mixture_unfold(float *d_own, float *d_universal, const struct mixture *m,
                    size_t expert, const float *folded)
{
    const struct expert *own = &m->experts[expert], *universal = &m->experts[0];

#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < m->n_layers * N_SITES; i++) {
        const struct lora *l = &own->lora[i], *u = &universal->lora[i];

        if (!l->rank)
            continue;
        unfold(d_own ? d_own + (l->a - own->params) : NULL,
               d_universal ? d_universal + u->d_a : NULL,
               d_universal ? d_universal + u->d_b : NULL, folded + l->d_a, l, u);
        if (d_own)
            kernels()->axpy(d_own + (l->b - own->params), 1.0f, folded + l->d_b,
                            l->rank * l->n_out);
    }
}
