/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a trainer would save, and the slopes of its last step among it.
 */
#ifndef ARTEL_TESTS_TRAINER_STATE_H
#define ARTEL_TESTS_TRAINER_STATE_H

#include "check.h"
#include "train/trainer.h"

#include <stdio.h>

#define MOST_TENSORS 32

static inline size_t state_of(const struct artel_trainer *t,
                              struct tensor out[MOST_TENSORS])
{
    assert_true(trainer_state(t, NULL) <= MOST_TENSORS);
    return trainer_state(t, out);
}

/* Steps tell their slopes: AdamW's first moment is the step's gradient to the bit. */
static inline void tell_slopes(struct train_options *o)
{
    o->beta1 = 0.0f;
    o->max_grad_norm = 0.0f;
}

static inline const float *slopes_named(const struct artel_trainer *t, const char *name)
{
    struct tensor state[MOST_TENSORS];
    const size_t n = state_of(t, state);

    for (size_t i = 0; i < n; i++)
        if (!strcmp(state[i].name, name))
            return state[i].data;
    fail_msg("no %s", name);
    return NULL;
}

/* As X's numbers lie; NULL of an identity. */
static inline const float *expert_slopes(const struct artel_trainer *t,
                                         const struct expert *x)
{
    char name[EXPERT_NAME_MAX + 16];

    snprintf(name, sizeof(name), "expert.%s.m", x->name);
    return x->kind == EXPERT_IDENTITY ? NULL : slopes_named(t, name);
}

/* As router_params lie. */
static inline const float *router_slopes(const struct artel_trainer *t)
{
    return slopes_named(t, "router.m");
}

#endif
