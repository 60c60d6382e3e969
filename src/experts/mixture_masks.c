/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixture puts its masks on and takes them off: whoever computes with its experts sees
 * masked numbers, whoever learns or writes sees what lies beneath.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "experts/mixture.h"

static int open_bare(struct mixture *m, const struct model_config *c,
                     struct artel_error *err)
{
    const size_t E = m->n_experts, room = mask_scratch(c);

    m->bare = calloc(E ? E : 1, sizeof(*m->bare));
    m->mask_room = malloc(room);
    if (!m->bare || !m->mask_room) {
        mixture_bare(m);
        return error_nomem(err, room);
    }
    for (size_t e = 0; e < E; e++) {
        const size_t bytes = m->experts[e].n_params * sizeof(**m->bare);

        m->bare[e] = malloc(bytes ? bytes : 1);
        if (!m->bare[e]) {
            mixture_bare(m);
            return error_nomem(err, bytes);
        }
        if (bytes)
            memcpy(m->bare[e], m->experts[e].params, bytes);
    }
    return 0;
}

int mixture_wear(struct mixture *m, const struct model_config *c, uint64_t step,
                 struct artel_error *err)
{
    const struct mask_rule *rule = &m->rule.masks;
    const struct mask mask = {rule->drop, rule->rescale, rule->seed, step};
    const enum mask_kind kind = step == MASK_INFERENCE ? rule->kind : MASK_FIXED;
    int rc;

    if (rule->drop == 0.0f)
        return 0;
    rc = m->bare ? 0 : open_bare(m, c, err);
    if (rc < 0)
        return rc;
    for (size_t e = 0; e < m->n_experts; e++) {
        struct expert *x = &m->experts[e];

        if (kind == MASK_FIXED)
            mask_params(x->params, m->bare[e], x, e, &mask, m->mask_room);
        else if (kind == MASK_EXPECTED)
            mask_expected(x->params, m->bare[e], x, &mask);
        else if (x->n_params)
            memcpy(x->params, m->bare[e], x->n_params * sizeof(*x->params));
    }
    return 0;
}

int mixture_learnt(struct expert *out, const struct mixture *m, size_t index,
                   struct artel_error *err)
{
    const struct expert *x = &m->experts[index];
    const size_t n = x->n_layers * N_SITES;

    *out = *x;
    out->lora = malloc(n * sizeof(*out->lora));
    if (!out->lora)
        return error_nomem(err, n * sizeof(*out->lora));
    memcpy(out->lora, x->lora, n * sizeof(*out->lora));
    if (!m->bare)
        return 0;
    out->params = m->bare[index];
    for (size_t i = 0; i < n; i++)
        if (x->lora[i].rank) {
            out->lora[i].down = out->lora[i].a =
                out->params + (x->lora[i].a - x->params);
            out->lora[i].b = out->params + (x->lora[i].b - x->params);
        }
    return 0;
}

void mixture_bare(struct mixture *m)
{
    for (size_t e = 0; m->bare && e < m->n_experts; e++) {
        struct expert *x = &m->experts[e];

        if (m->bare[e] && x->n_params)
            memcpy(x->params, m->bare[e], x->n_params * sizeof(*x->params));
        free(m->bare[e]);
    }
    free(m->bare);
    free(m->mask_room);
    m->bare = NULL;
    m->mask_room = NULL;
}
