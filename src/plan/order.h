/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which batches make up step g of a whole stage: epochs one after another, each
 * planned anew from the seed, ACCUMULATION batches a step. A pure function of
 * its inputs, so a resumed run sees the same steps.
 */
#ifndef ARTEL_PLAN_ORDER_H
#define ARTEL_PLAN_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "data/batch.h"

struct artel_error;
struct corpus;

struct order_options {
    struct batch_options batch;
    size_t accumulation;
    double epochs;
    uint64_t max_steps;                /* 0: as EPOCHS says */
    const struct example *const *held; /* sorted; rows kept out (for validation) */
    size_t n_held;
};

struct order {
    struct order_options o;
    const struct corpus *const *corpora; /* borrowed */
    size_t n_corpora;
    uint64_t *before; /* (n_epochs + 1) steps before each epoch; owned */
    size_t n_epochs;
    uint64_t n_steps;
    struct batch_plan plan; /* of epoch AT */
    size_t at;              /* SIZE_MAX: none */
    struct batch *micro;    /* (accumulation) owned */
};

int order_init(struct order *d, const struct corpus *const *corpora, size_t n_corpora,
               const struct order_options *o, struct artel_error *err);
/* Batches of step G (from 0): *OUT is borrowed until the next call. */
int order_step(struct order *d, uint64_t g, const struct batch **out, size_t *n,
               struct artel_error *err);
/* Epochs done after G steps, such as 1.25. */
double order_epoch(const struct order *d, uint64_t g);
void order_release(struct order *d);

#endif
