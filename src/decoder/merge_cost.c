/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The count of merge_cost.h. Its two constants are rough on purpose: what they weigh is
 * small beside the weights that are read.
 */
#include "decoder/merge_cost.h"

/* A core does so many flops of low-rank products in the time that a byte takes, and of
 * updates, which are not multiplied in blocks. */
#define FLOPS_A_BYTE   10.0
#define UPDATES_A_BYTE 4.0
/* Of a product's flops, what packing at each use costs. */
#define PACKING 0.1

double merge_saves(const struct merge_count *c, enum merge_extent extent,
                   size_t n_prompt, size_t n_steps)
{
    const double form =
        c->stored_bytes + 12 * c->weights + 2 * c->updates / UPDATES_A_BYTE;
    const double step = c->stored_bytes + 4 * c->low_rank +
                        2 * c->low_rank / FLOPS_A_BYTE - 4 * c->weights;
    const double packing = c->lean ? 0 : PACKING * 2 * c->weights;
    const double row = (2 * c->low_rank - packing) / FLOPS_A_BYTE;

    if (extent == MERGE_NOTHING)
        return 0;
    return (extent == MERGE_ALL ? row * (double)n_prompt : 0) + step * (double)n_steps -
           (c->formed ? 0 : form);
}

enum merge_extent merge_choose(const struct merge_count *c, size_t n_prompt,
                               size_t n_steps)
{
    enum merge_extent best = MERGE_NOTHING;
    double most = 0;

    for (int e = MERGE_STEPS; e <= (c->prompts ? MERGE_ALL : MERGE_STEPS); e++) {
        const double saves = merge_saves(c, (enum merge_extent)e, n_prompt, n_steps);

        if (saves > most) {
            most = saves;
            best = (enum merge_extent)e;
        }
    }
    return best;
}
