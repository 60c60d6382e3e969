/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All epochs are planned once to count their steps (batches by tokens differ in
 * number with the shuffle), then one at a time to be used.
 */
#include "plan/order.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static int by_address(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t) * (const struct example *const *)a;
    const uintptr_t y = (uintptr_t) * (const struct example *const *)b;

    return (x > y) - (x < y);
}

static bool is_held(const struct order *d, const struct example *row)
{
    return d->o.n_held && bsearch(&row, d->o.held, d->o.n_held, sizeof(*d->o.held),
                                  by_address) != NULL;
}

/* Take the held rows out and cut the rest into batches by the same rule as data/batch.h. */
static int leave_out(struct order *d, struct artel_error *err)
{
    struct batch_plan *p = &d->plan;
    size_t n_rows = 0, n_batches = 0, tokens = 0, rows = 0;
    size_t *first;

    if (!d->o.n_held)
        return 0;
    first = malloc((p->n_rows + 1) * sizeof(*first));
    if (!first)
        return error_nomem(err, (p->n_rows + 1) * sizeof(*first));
    for (size_t i = 0; i < p->n_rows; i++) {
        const struct example *row = p->rows[i];

        if (is_held(d, row))
            continue;
        if (!n_rows ||
            (d->o.batch.batch_rows ? rows == d->o.batch.batch_rows
                                   : tokens + row->n > d->o.batch.batch_tokens)) {
            first[n_batches++] = n_rows;
            tokens = rows = 0;
        }
        tokens += row->n;
        rows++;
        p->rows[n_rows++] = row;
    }
    first[n_batches] = n_rows;
    free(p->first);
    p->first = first;
    p->n_rows = n_rows;
    p->n_batches = n_batches;
    if (!n_rows)
        return error_set(err, ARTEL_EUSAGE, "RCP03", "val_size",
                         "validation would take every row");
    return 0;
}

static int load_epoch(struct order *d, size_t epoch, struct artel_error *err)
{
    int rc;

    if (d->at == epoch)
        return 0;
    batch_plan_release(&d->plan);
    d->plan = (struct batch_plan){0};
    d->at = SIZE_MAX;
    rc = batch_plan_init(&d->plan, d->corpora, d->n_corpora, &d->o.batch, epoch, err);
    if (rc == 0)
        rc = leave_out(d, err);
    if (rc == 0)
        d->at = epoch;
    return rc;
}

static int count_epochs(struct order *d, struct artel_error *err)
{
    size_t room = 0;

    for (size_t e = 0; d->o.max_steps || (double)e < d->o.epochs; e++) {
        const double share = d->o.max_steps ? 1.0 : fmin(1.0, d->o.epochs - (double)e);
        uint64_t steps;
        int rc;

        if (e + 2 > room) {
            const size_t more = room ? 2 * room : 16;
            uint64_t *before = realloc(d->before, more * sizeof(*before));

            if (!before)
                return error_nomem(err, more * sizeof(*before));
            d->before = before;
            room = more;
            before[0] = 0;
        }
        rc = load_epoch(d, e, err);
        if (rc < 0)
            return rc;
        steps =
            (batch_plan_count(&d->plan) + d->o.accumulation - 1) / d->o.accumulation;
        d->n_steps += (uint64_t)ceil(share * (double)steps);
        d->before[e + 1] = d->n_steps;
        d->n_epochs = e + 1;
        if (d->o.max_steps && d->n_steps >= d->o.max_steps) {
            d->n_steps = d->o.max_steps;
            break;
        }
    }
    return 0;
}

int order_init(struct order *d, const struct corpus *const *corpora, size_t n_corpora,
               const struct order_options *o, struct artel_error *err)
{
    int rc;

    *d = (struct order){
        .o = *o, .corpora = corpora, .n_corpora = n_corpora, .at = SIZE_MAX};
    d->micro = calloc(o->accumulation, sizeof(*d->micro));
    if (!d->micro)
        return error_nomem(err, o->accumulation * sizeof(*d->micro));
    rc = count_epochs(d, err);
    if (rc < 0)
        order_release(d);
    return rc;
}

static size_t epoch_of(const struct order *d, uint64_t g)
{
    size_t e = 0;

    while (e + 1 < d->n_epochs && g >= d->before[e + 1])
        e++;
    return e;
}

int order_step(struct order *d, uint64_t g, const struct batch **out, size_t *n,
               struct artel_error *err)
{
    const size_t e = epoch_of(d, g);
    size_t from, to;
    int rc;

    assert(g < d->n_steps);
    rc = load_epoch(d, e, err);
    if (rc < 0)
        return rc;
    from = (size_t)(g - d->before[e]) * d->o.accumulation;
    to = from + d->o.accumulation;
    if (to > batch_plan_count(&d->plan))
        to = batch_plan_count(&d->plan);
    for (size_t i = from; i < to; i++)
        batch_plan_at(&d->plan, i, &d->micro[i - from]);
    *out = d->micro;
    *n = to - from;
    return 0;
}

double order_epoch(const struct order *d, uint64_t g)
{
    const size_t e = g ? epoch_of(d, g - 1) : 0;
    const double steps = (double)(d->before[e + 1] - d->before[e]);
    double share = 1.0;

    if (!d->o.max_steps && d->o.epochs < (double)(e + 1))
        share = d->o.epochs - (double)e;
    return g ? (double)e + share * (double)(g - d->before[e]) / steps : 0.0;
}

void order_release(struct order *d)
{
    batch_plan_release(&d->plan);
    free(d->before);
    free(d->micro);
    *d = (struct order){.at = SIZE_MAX};
}
