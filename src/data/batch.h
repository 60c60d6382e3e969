/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which examples make up each optimizer step: a pure function of corpora,
 * options, epoch and seed, so that a resumed run sees the same steps.
 *
 * A batch holds whole rows. BATCH_EACH takes the corpora one after another in one
 * (shuffled) list; BATCH_EVEN gives every corpus total/E rows of the epoch,
 * repeating or sampling with the seed, and deals them out in turn, so that a
 * batch holds several domains.
 */
#ifndef ARTEL_DATA_BATCH_H
#define ARTEL_DATA_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/example.h"

struct artel_error;
struct corpus;

enum batch_mix {
    BATCH_EACH, /* every row of every corpus once */
    BATCH_EVEN  /* the same number of rows from each corpus */
};

struct batch_options {
    size_t
        batch_tokens;  /* real tokens of whole rows: the row that would exceed it opens
                          * the next batch; a longer row is a batch of its own */
    size_t batch_rows; /* rows a batch instead, when nonzero */
    bool shuffle;
    uint64_t seed;
    enum batch_mix mix;
};

struct batch {
    const struct example **rows; /* (n_rows) borrowed from the plan */
    size_t n_rows;
    size_t n_tokens; /* of all rows */
    size_t n_loss;   /* tokens that carry loss */
};

struct batch_plan {
    const struct example **rows; /* (n_rows) in order; examples borrowed from corpora */
    size_t n_rows;
    size_t *first; /* (n_batches + 1) batch i is rows first[i] .. first[i+1]-1 */
    size_t n_batches;
};

/* Corpora must outlive P. ARTEL_EUSAGE: neither size is given; no rows at all. */
int batch_plan_init(struct batch_plan *p, const struct corpus *const *corpora,
                    size_t n_corpora, const struct batch_options *o, uint64_t epoch,
                    struct artel_error *err);
size_t batch_plan_count(const struct batch_plan *p);
void batch_plan_at(const struct batch_plan *p, size_t i, struct batch *out);
void batch_plan_release(struct batch_plan *p);

#endif
