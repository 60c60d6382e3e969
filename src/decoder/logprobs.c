/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sum runs in double and in the order of ids. The few likeliest are kept in order while
 * passing by: nearly all logits are below the last of them and cost one comparison.
 */
#include "decoder/logprobs.h"

#include <math.h>
#include <stdbool.h>

/* Differences of logits must stay finite. */
static bool clean(float *x)
{
    if (isnan(*x) || *x == -INFINITY)
        return false;
    if (*x > 3e38f)
        *x = 3e38f;
    return true;
}

static void keep(struct candidate *top, size_t *n, size_t n_top, float x, int32_t id)
{
    size_t at = *n;

    if (*n == n_top) {
        if (x <= top[n_top - 1].logit)
            return;
        at--;
    } else {
        ++*n;
    }
    for (; at && x > top[at - 1].logit; at--)
        top[at] = top[at - 1];
    top[at] = (struct candidate){x, id};
}

size_t logprobs_of(float *of_id, struct candidate *top, size_t n_top,
                   const float *logits, size_t n_vocab, int32_t id)
{
    double max = (double)-INFINITY, sum = 0, norm;
    float own = logits[id];
    size_t n = 0;

    for (size_t i = 0; i < n_vocab; i++) {
        float x = logits[i];

        if (!clean(&x))
            continue;
        if ((double)x > max)
            max = (double)x;
        if (n_top)
            keep(top, &n, n_top, x, (int32_t)i);
    }
    for (size_t i = 0; i < n_vocab; i++) {
        float x = logits[i];

        if (clean(&x))
            sum += exp((double)x - max);
    }
    norm = max + log(sum);
    *of_id = clean(&own) ? (float)((double)own - norm) : -INFINITY;
    for (size_t i = 0; i < n; i++)
        top[i].logit = (float)((double)top[i].logit - norm);
    return n;
}
