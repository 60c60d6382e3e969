/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of a few tokens to train on, whose domains can be told by their tokens.
 */
#ifndef ARTEL_TESTS_LAID_ROWS_H
#define ARTEL_TESTS_LAID_ROWS_H

#include "base/rng.h"
#include "data/batch.h"
#include "data/corpus.h"

#define MOST_ROWS  12
#define ROW_TOKENS 12

struct laid_rows {
    int32_t ids[MOST_ROWS][ROW_TOKENS];
    unsigned char loss[ROW_TOKENS];
    struct example row[MOST_ROWS];
    const struct example *rows[MOST_ROWS];
    struct batch batch;
};

/* N rows of 12, 11 and 10 tokens into L, all zero; row i belongs to domain i % N_DOMAINS, whose
 * tokens lie in a range of their own. Loss from the seventh token on, routers read the second
 * to the sixth. */
static inline void lay_rows(struct laid_rows *l, size_t n, size_t n_domains)
{
    struct rng r;

    rng_init(&r, 11, 0);
    for (size_t t = 0; t < ROW_TOKENS; t++)
        l->loss[t] = t >= 6;
    for (size_t i = 0; i < n; i++) {
        const uint32_t domain = (uint32_t)(i % n_domains);

        for (size_t t = 0; t < ROW_TOKENS; t++)
            l->ids[i][t] = (int32_t)(domain * 16 + rng_below(&r, 16));
        l->row[i] = (struct example){.ids = l->ids[i],
                                     .n = ROW_TOKENS - i % 3,
                                     .n_prompt = 6,
                                     .loss = l->loss,
                                     .pool_first = 1,
                                     .pool_n = 5,
                                     .n_loss = 6 - i % 3,
                                     .domain = domain,
                                     .row = i + 1};
        l->rows[i] = &l->row[i];
        l->batch.n_tokens += l->row[i].n;
        l->batch.n_loss += l->row[i].n_loss;
    }
    l->batch.rows = l->rows;
    l->batch.n_rows = n;
}

#endif
