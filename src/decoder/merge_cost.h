/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does adding experts into the weights of a sequence pay? Counted, never measured: bytes
 * that come from memory or go there, and flops as the bytes that could have come meanwhile.
 *
 *     forming:  stored + 12 W           read as they lie, written as floats; fresh memory
 *                                       is cleared first, and a line is fetched before it
 *               + 2 sum of R M N flops  is written over
 *     a step:   stored + 4 P + 2 P flops, or 4 W
 *     a row of a prompt: 2 P flops, or a part of 2 W, since these weights are packed at
 *               each use; none where the base's own are, too
 *
 * Not counted: mapped files are read from small pages, merged weights from huge ones.
 *
 *   W numbers of the linears that change   P of the A and B that serve there
 *   R rank   M, N outputs and inputs of a linear
 */
#ifndef ARTEL_DECODER_MERGE_COST_H
#define ARTEL_DECODER_MERGE_COST_H

#include <stdbool.h>
#include <stddef.h>

/* What is computed with merged weights. */
enum merge_extent {
    MERGE_NOTHING,
    MERGE_STEPS, /* steps, and the few rows of a prompt that are read like them */
    MERGE_ALL    /* prompts, too */
};

struct merge_count {
    double weights;      /* W */
    double stored_bytes; /* of them, as they lie on disk */
    double low_rank;     /* P: sum of R (M + N) */
    double updates;      /* sum of R M N */
    bool formed;         /* it has been done */
    bool prompts;        /* may be merged: they are multiplied in float */
    bool lean;           /* the base's floats are packed at each use, too */
};

/* Bytes that merging saves over N_PROMPT rows and N_STEPS steps; negative: it costs so
 * many. */
double merge_saves(const struct merge_count *c, enum merge_extent extent,
                   size_t n_prompt, size_t n_steps);
/* The extent that saves most; MERGE_NOTHING where none saves anything. */
enum merge_extent merge_choose(const struct merge_count *c, size_t n_prompt,
                               size_t n_steps);

#endif
