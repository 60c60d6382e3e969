/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of rows, then the cuts between batches.
 *
 * Every corpus is shuffled by a stream of random numbers of its own, so that adding
 * one leaves the order inside the others. Even draws deal the corpora round by
 * round; a corpus with fewer rows than its share begins again in a new order.
 */
#include "data/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "data/corpus.h"

#define ROUND_STREAM 1000003u /* the order of corpora within a round */

static void in_order(uint32_t *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        items[i] = (uint32_t)i;
}

/* EPOCH and PASS of corpus WHICH as one stream number. */
static void order_init(struct rng *g, const struct batch_options *o, uint64_t epoch,
                       uint64_t which, uint64_t pass)
{
    rng_init(g, o->seed, (epoch << 32) ^ (which << 16) ^ pass);
}

static int plan_each(struct batch_plan *p, const struct corpus *const *corpora,
                     size_t n_corpora, const struct batch_options *o, uint64_t epoch,
                     struct artel_error *err)
{
    uint32_t *order = malloc((p->n_rows + 1) * sizeof(*order));
    const struct example **flat = malloc((p->n_rows + 1) * sizeof(struct example *));
    struct rng g;
    size_t n = 0;

    if (!order || !flat) {
        free(order);
        free(flat);
        return error_nomem(err, p->n_rows * sizeof(*flat));
    }
    for (size_t c = 0; c < n_corpora; c++)
        for (size_t i = 0; i < corpus_count(corpora[c]); i++)
            flat[n++] = corpus_at(corpora[c], i);
    in_order(order, n);
    order_init(&g, o, epoch, 0, 0);
    if (o->shuffle)
        rng_shuffle(&g, order, n);
    for (size_t i = 0; i < n; i++)
        p->rows[i] = flat[order[i]];
    free(order);
    free(flat);
    return 0;
}

/* Rows SHARE of one corpus into every STRIDE-th place from FIRST on. */
static int draw(struct batch_plan *p, const struct corpus *c, size_t which,
                size_t share, size_t stride, const struct batch_options *o,
                uint64_t epoch, struct artel_error *err)
{
    const size_t n = corpus_count(c);
    uint32_t *order = malloc(n * sizeof(*order));
    struct rng g;

    if (!order)
        return error_nomem(err, n * sizeof(*order));
    for (size_t i = 0; i < share; i++) {
        if (i % n == 0) {
            in_order(order, n);
            order_init(&g, o, epoch, which + 1, i / n);
            if (o->shuffle)
                rng_shuffle(&g, order, n);
        }
        p->rows[i * stride + which] = corpus_at(c, order[i % n]);
    }
    free(order);
    return 0;
}

static int plan_even(struct batch_plan *p, const struct corpus *const *corpora,
                     size_t n_corpora, const struct batch_options *o, uint64_t epoch,
                     struct artel_error *err)
{
    const size_t share = p->n_rows / n_corpora;
    struct rng g;
    int rc = 0;

    for (size_t c = 0; rc == 0 && c < n_corpora; c++)
        rc = draw(p, corpora[c], c, share, n_corpora, o, epoch, err);
    order_init(&g, o, epoch, ROUND_STREAM, 0);
    for (size_t i = 0; rc == 0 && o->shuffle && i < share; i++) {
        const struct example **round = p->rows + i * n_corpora;

        for (size_t k = n_corpora; k > 1; k--) {
            const size_t other = rng_below(&g, (uint32_t)k);
            const struct example *kept = round[k - 1];

            round[k - 1] = round[other];
            round[other] = kept;
        }
    }
    return rc;
}

static void cut(struct batch_plan *p, const struct batch_options *o)
{
    size_t tokens = 0, rows = 0;

    p->n_batches = 0;
    p->first[0] = 0;
    for (size_t i = 0; i < p->n_rows; i++) {
        const size_t n = p->rows[i]->n;

        if (rows &&
            (o->batch_rows ? rows == o->batch_rows : tokens + n > o->batch_tokens)) {
            p->first[++p->n_batches] = i;
            tokens = 0;
            rows = 0;
        }
        tokens += n;
        rows++;
    }
    if (p->n_rows)
        p->first[++p->n_batches] = p->n_rows;
}

int batch_plan_init(struct batch_plan *p, const struct corpus *const *corpora,
                    size_t n_corpora, const struct batch_options *o, uint64_t epoch,
                    struct artel_error *err)
{
    bool empty = !n_corpora;
    size_t total = 0;
    int rc;

    *p = (struct batch_plan){0};
    if (!o->batch_tokens && !o->batch_rows)
        return error_set(err, ARTEL_EUSAGE, "DATA12", "batch_tokens",
                         "a batch needs batch_tokens or batch_size above 0");
    for (size_t c = 0; c < n_corpora; c++) {
        total += corpus_count(corpora[c]);
        empty = empty || (o->mix == BATCH_EVEN && !corpus_count(corpora[c]));
    }
    if (empty || !total || total > UINT32_MAX)
        return error_set(err, ARTEL_EUSAGE, "DATA12", NULL,
                         "there are no rows to make batches of, or more than %u",
                         UINT32_MAX);
    if (o->mix == BATCH_EVEN) {
        total = total / n_corpora * n_corpora;
        total = total ? total : n_corpora;
    }
    p->n_rows = total;
    p->rows = malloc(total * sizeof(*p->rows));
    p->first = malloc((total + 1) * sizeof(*p->first));
    if (!p->rows || !p->first) {
        batch_plan_release(p);
        return error_nomem(err, total * (sizeof(*p->rows) + sizeof(*p->first)));
    }
    rc = o->mix == BATCH_EVEN ? plan_even(p, corpora, n_corpora, o, epoch, err)
                              : plan_each(p, corpora, n_corpora, o, epoch, err);
    if (rc < 0) {
        batch_plan_release(p);
        return rc;
    }
    cut(p, o);
    return 0;
}

size_t batch_plan_count(const struct batch_plan *p)
{
    return p->n_batches;
}

void batch_plan_at(const struct batch_plan *p, size_t i, struct batch *out)
{
    *out = (struct batch){.rows = p->rows + p->first[i],
                          .n_rows = p->first[i + 1] - p->first[i]};
    for (size_t k = 0; k < out->n_rows; k++) {
        out->n_tokens += out->rows[k]->n;
        out->n_loss += out->rows[k]->n_loss;
    }
}

void batch_plan_release(struct batch_plan *p)
{
    free(p->rows);
    free(p->first);
    *p = (struct batch_plan){0};
}
