/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What training does where a mixture yields and wears masks (SLIM): clusters follow what
 * routers have seen, slopes are those of the numbers beneath the masks, and the L1 term
 *
 *     lambda * sum over layers, linears and experts of |B|_1 / (R M) + |A|_1 / (R N)
 *
 * adds its own. Within a step clusters stand still; behind it they take the step's rows in
 * their order, so that the result is the same for any number of threads.
 */
#include <math.h>
#include <string.h>

#include "experts/stack.h"
#include "train/trainer_parts.h"

static size_t widths(const struct artel_trainer *t)
{
    return t->mixture->n_routers * t->mixture->routers[0].dim;
}

size_t seen_floats(const struct artel_trainer *t)
{
    return t->learns_clusters ? widths(t) : 0;
}

void trainer_see(struct artel_trainer *t, const struct decoder_pass *p,
                 const struct block *block)
{
    const size_t first = t->n_seen + (size_t)(block->seqs - t->seqs);
    const size_t D = t->learns_clusters ? t->mixture->routers[0].dim : 0;

    for (size_t s = 0; D && s < block->n_seqs; s++) {
        float *to = t->seen + (first + s) * widths(t);

        t->saw[first + s] = block->seqs[s].pool_n > 0;
        for (size_t r = 0; r < t->mixture->n_routers; r++)
            memcpy(to + r * D, pass_router_seen(p, r, s), D * sizeof(*to));
    }
}

void trainer_learn_seen(struct artel_trainer *t)
{
    const struct mixture *m = t->mixture;

    if (!t->learns_clusters)
        return;
#pragma omp parallel for schedule(static) num_threads(t->n_threads)
    for (size_t r = 0; r < m->n_routers; r++) {
        struct clusters c;

        mixture_clusters(&c, m, r);
        for (size_t i = 0; i < t->n_seen; i++)
            if (t->saw[i])
                clusters_add(&c, t->seen + i * widths(t) + r * m->routers[r].dim,
                             &m->rule.clusters);
    }
}

void trainer_wear(struct artel_trainer *t, uint64_t step)
{
    struct mixture *m = t->mixture;

    if (!m->bare)
        return;
    /* no memory is asked for: trainer_open() was the first to call this */
    (void)mixture_wear(m, &t->model->weights->config, step, NULL);
    if (m->stack)
        expert_stack_pack(m->stack, NULL);
}

void trainer_unmask_slopes(struct artel_trainer *t)
{
    const struct mixture *m = t->mixture;
    const struct mask_rule *rule = &m->rule.masks;
    const struct mask mask = {rule->drop, rule->rescale, rule->seed, t->step};

    for (size_t e = 0; m->bare && e < m->n_experts; e++)
        if (t->sum.expert[e] && t->sum.touched[e])
            mask_slopes(t->sum.expert[e], &m->experts[e], e, &mask, m->mask_room);
}

/* Adds BY times the sign of each of P (N) to G; returns the sum of their sizes. */
static double add_signs(float *g, const float *p, size_t n, float by)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++) {
        sum += (double)fabsf(p[i]);
        g[i] += p[i] > 0.0f ? by : p[i] < 0.0f ? -by : 0.0f;
    }
    return sum;
}

/* Of one expert, whose learnt numbers are P. */
static double add_l1(float *g, const float *p, const struct expert *x, float lambda)
{
    double sum = 0.0;

    for (size_t i = 0; i < x->n_layers * N_SITES; i++) {
        const struct lora *l = &x->lora[i];
        const size_t a = l->rank ? (size_t)(l->a - x->params) : 0;
        const size_t b = l->rank ? (size_t)(l->b - x->params) : 0;
        const size_t n_a = l->rank * l->n_in, n_b = l->rank * l->n_out;

        if (!l->rank)
            continue;
        sum += add_signs(g + a, p + a, n_a, lambda / (float)n_a) / (double)n_a;
        sum += add_signs(g + b, p + b, n_b, lambda / (float)n_b) / (double)n_b;
    }
    return (double)lambda * sum;
}

float trainer_add_l1(struct artel_trainer *t)
{
    const struct mixture *m = t->mixture;
    double sum = 0.0;

    for (size_t e = 0; t->options.l1 > 0.0f && e < m->n_experts; e++) {
        const struct expert *x = &m->experts[e];

        if (!t->sum.expert[e])
            continue;
        sum += add_l1(t->sum.expert[e], m->bare ? m->bare[e] : x->params, x,
                      t->options.l1);
        t->sum.touched[e] = true;
    }
    return (float)sum;
}
