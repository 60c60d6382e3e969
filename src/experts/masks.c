/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Masks of rows and columns, drawn and applied.
 */
#include "experts/masks.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "math/kernels.h"

size_t mask_kept(size_t n, float drop)
{
    return (size_t)lround((double)n * sqrt(1.0 - (double)drop));
}

static size_t widest(const struct model_config *c)
{
    size_t most = 0;

    for (int s = 0; s < N_SITES; s++) {
        size_t in, out;

        site_shape(c, (enum site)s, &out, &in);
        most = in > most ? in : most;
        most = out > most ? out : most;
    }
    return most;
}

size_t mask_scratch(const struct model_config *c)
{
    return 2 * widest(c) * sizeof(uint32_t);
}

/* KEPT (N): nonzero for each place that stays. ORDER (N) is room. */
static void draw(uint32_t *kept, uint32_t *order, size_t n, float drop, struct rng *r)
{
    const size_t stay = mask_kept(n, drop);

    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    memset(kept, 0, n * sizeof(*kept));
    for (size_t i = 0; i < stay; i++) { /* Fisher-Yates, as far as places stay */
        const size_t j = i + rng_below(r, (uint32_t)(n - i));
        const uint32_t place = order[j];

        order[j] = order[i];
        kept[place] = 1;
    }
}

/* One mask, one stream: the step is the seed's, the place is the stream's. */
static void open_stream(struct rng *r, const struct mask *m, size_t index, size_t layer,
                        int site)
{
    const uint64_t place = ((uint64_t)index * 4096 + layer) * N_SITES + (uint64_t)site;

    rng_init(r, m->seed ^ (m->step + 1) * 0x9e3779b97f4a7c15ull, place);
}

/* One linear's A and B at TO, which lie as FROM's: what is dropped becomes zero, what stays
 * is FROM's, B weighed by WEIGHT. */
static void mask_linear(float *to_a, float *to_b, const float *from_a,
                        const float *from_b, const struct lora *l, float drop,
                        float weight, struct rng *r, uint32_t *room)
{
    const size_t R = l->rank, N = l->n_in, M = l->n_out;
    uint32_t *order = room + (N > M ? N : M);

    draw(room, order, N, drop, r);
    for (size_t i = 0; i < R; i++)
        for (size_t j = 0; j < N; j++)
            to_a[i * N + j] = room[j] ? from_a[i * N + j] : 0.0f;
    draw(room, order, M, drop, r);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < R; j++)
            to_b[i * R + j] = room[i] ? weight * from_b[i * R + j] : 0.0f;
}

static void mask_all(float *to, const float *from, const struct expert *e, size_t index,
                     const struct mask *m, void *scratch)
{
    const float weight = m->rescale ? 1.0f / (1.0f - m->drop) : 1.0f;

    for (size_t layer = 0; layer < e->n_layers; layer++)
        for (int s = 0; s < N_SITES; s++) {
            const struct lora *l = expert_lora(e, layer, (enum site)s);
            const size_t a = (size_t)(l->a - e->params), b = (size_t)(l->b - e->params);
            struct rng r;

            if (!l->rank)
                continue;
            open_stream(&r, m, index, layer, s);
            mask_linear(to + a, to + b, from + a, from + b, l, m->drop, weight, &r,
                        scratch);
        }
}

void mask_params(float *to, const float *from, const struct expert *e, size_t index,
                 const struct mask *m, void *scratch)
{
    mask_all(to, from, e, index, m, scratch);
}

void mask_slopes(float *grad, const struct expert *e, size_t index,
                 const struct mask *m, void *scratch)
{
    mask_all(grad, grad, e, index, m, scratch);
}

void mask_expected(float *to, const float *from, const struct expert *e,
                   const struct mask *m)
{
    /* what was kept was weighed so much in training */
    const float weight = m->rescale ? 1.0f : 1.0f - m->drop;

    if (to != from && e->n_params) /* an identity has none */
        memcpy(to, from, e->n_params * sizeof(*to));
    for (size_t i = 0; i < e->n_layers * N_SITES; i++)
        if (e->lora[i].rank)
            kernels()->scale(to + (e->lora[i].b - e->params), weight,
                             e->lora[i].rank * e->lora[i].n_out);
}
