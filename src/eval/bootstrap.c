/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Percentiles are interpolated linearly between the two nearest resamples, as
 * numpy.percentile does by default.
 */
#include "eval/bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"

/* Apart from whatever else the seed is used for. */
#define STREAM 0x626f6f74

/* The rows of both sides, and what is taken of them. */
struct sides {
    const double *after, *before, *weight; /* (n_after, n), (n), (n) */
    size_t n_after, n;
    bool perplexity;
};

struct sums {
    double *after; /* (n_after) */
    double before, weight;
};

static void clear(struct sums *s, const struct sides *of)
{
    memset(s->after, 0, of->n_after * sizeof(*s->after));
    s->before = s->weight = 0;
}

static void add(struct sums *s, const struct sides *of, size_t row)
{
    for (size_t k = 0; k < of->n_after; k++)
        s->after[k] += of->after[k * of->n + row];
    s->before += of->before[row];
    s->weight += of->weight[row];
}

static double difference(const struct sums *s, const struct sides *of)
{
    double after = 0;

    if (!(s->weight > 0))
        return 0;
    for (size_t k = 0; k < of->n_after; k++)
        after += of->perplexity ? exp(s->after[k] / s->weight) : s->after[k];
    after /= (double)of->n_after;
    return of->perplexity ? after - exp(s->before / s->weight)
                          : (after - s->before) / s->weight;
}

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static double percentile(const double *sorted, size_t n, double share)
{
    const double at = share * (double)(n - 1);
    const size_t i = (size_t)at;

    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i])
                     : sorted[n - 1];
}

int bootstrap_change(struct change *out, const double *after, size_t n_after,
                     const double *before, const double *weight, size_t n,
                     bool perplexity, uint64_t seed, struct artel_error *err)
{
    size_t *const row = calloc(n + 1, sizeof(*row)); /* those that have weight */
    const struct sides of = {after, before, weight, n_after, n, perplexity};
    double *const drawn = calloc(BOOTSTRAP_RESAMPLES + n_after, sizeof(*drawn));
    struct sums s = {.after = drawn + BOOTSTRAP_RESAMPLES};
    struct rng rng;
    size_t n_row = 0;

    if (!drawn || !row) {
        free(drawn);
        free(row);
        return error_nomem(err, (BOOTSTRAP_RESAMPLES + n_after + n) * sizeof(*drawn));
    }
    for (size_t i = 0; i < n; i++)
        if (weight[i] > 0)
            row[n_row++] = i;
    rng_init(&rng, seed, STREAM);
    for (size_t k = 0; k < BOOTSTRAP_RESAMPLES; k++) {
        clear(&s, &of);
        for (size_t i = 0; i < n_row; i++)
            add(&s, &of, row[rng_below(&rng, (uint32_t)n_row)]);
        drawn[k] = difference(&s, &of);
    }
    qsort(drawn, BOOTSTRAP_RESAMPLES, sizeof(*drawn), by_value);
    clear(&s, &of);
    for (size_t i = 0; i < n_row; i++)
        add(&s, &of, row[i]);
    *out = (struct change){difference(&s, &of),
                           percentile(drawn, BOOTSTRAP_RESAMPLES, 0.025),
                           percentile(drawn, BOOTSTRAP_RESAMPLES, 0.975)};
    free(drawn);
    free(row);
    return 0;
}
