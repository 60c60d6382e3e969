/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Percentiles are interpolated linearly between the two nearest resamples, as
 * numpy.percentile does by default.
 */
#include "eval/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/rng.h"

/* Apart from whatever else the seed is used for. */
#define STREAM 0x626f6f74

struct sums {
    double after, before, weight;
};

static double difference(const struct sums *s, bool perplexity)
{
    if (!(s->weight > 0))
        return 0;
    return perplexity ? exp(s->after / s->weight) - exp(s->before / s->weight)
                      : (s->after - s->before) / s->weight;
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

int bootstrap_change(struct change *out, const double *after, const double *before,
                     const double *weight, size_t n, bool perplexity, uint64_t seed,
                     struct artel_error *err)
{
    double *const drawn = malloc(BOOTSTRAP_RESAMPLES * sizeof(*drawn));
    struct sums all = {0};
    struct rng rng;

    if (!drawn)
        return error_nomem(err, BOOTSTRAP_RESAMPLES * sizeof(*drawn));
    rng_init(&rng, seed, STREAM);
    for (size_t i = 0; i < n; i++) {
        all.after += after[i];
        all.before += before[i];
        all.weight += weight[i];
    }
    for (size_t k = 0; k < BOOTSTRAP_RESAMPLES; k++) {
        struct sums s = {0};

        for (size_t i = 0; i < n; i++) {
            const size_t row = rng_below(&rng, (uint32_t)n);

            s.after += after[row];
            s.before += before[row];
            s.weight += weight[row];
        }
        drawn[k] = difference(&s, perplexity);
    }
    qsort(drawn, BOOTSTRAP_RESAMPLES, sizeof(*drawn), by_value);
    *out = (struct change){difference(&all, perplexity),
                           percentile(drawn, BOOTSTRAP_RESAMPLES, 0.025),
                           percentile(drawn, BOOTSTRAP_RESAMPLES, 0.975)};
    free(drawn);
    return 0;
}
