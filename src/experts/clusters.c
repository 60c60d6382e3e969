/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clusters are found in double where sums run over all channels: which centre is the
 * nearest must not hang on the kernels of a CPU.
 */
#include "experts/clusters.h"

#include <math.h>
#include <string.h>

#define TINY 1e-6f /* added to a variance */

enum { CENTRES, SAMPLES, RUNNING, N_COUNTS };

size_t clusters_floats(size_t n, size_t dim)
{
    return 2 * n * dim + 2 * dim + N_COUNTS;
}

void clusters_view(struct clusters *c, float *state, size_t n, size_t dim)
{
    c->n = n;
    c->dim = dim;
    c->center = state;
    c->variance = c->center + n * dim;
    c->first = c->variance + n * dim;
    c->counts = c->first + 2 * dim;
}

static size_t n_centers(const struct clusters *c)
{
    return (size_t)c->counts[CENTRES];
}

bool clusters_valid(const struct clusters *c)
{
    const float n = c->counts[CENTRES], seen = c->counts[SAMPLES];

    if (!(n >= 0.0f && n <= (float)c->n && n == floorf(n)) ||
        !(seen >= 0.0f && seen <= CLUSTERS_FIRST) || (seen > 0.0f && n < 1.0f) ||
        !(c->counts[RUNNING] >= 0.0f))
        return false;
    for (size_t i = 0; i < c->n * c->dim; i++)
        if (!(c->variance[i] >= 0.0f))
            return false;
    return true;
}

bool clusters_ready(const struct clusters *c)
{
    return c->counts[SAMPLES] >= CLUSTERS_FIRST;
}

/* Index of the nearest centre; there is one at least. */
static size_t nearest(const struct clusters *c, const float *x)
{
    const size_t n = n_centers(c), D = c->dim;
    double sum[CLUSTERS_MOST] = {0.0};
    size_t best = 0;

    for (size_t j = 0; j < D; j++) {
        double v = 0.0;

        for (size_t i = 0; i < n; i++)
            v += (double)c->variance[i * D + j];
        v = v / (double)n + (double)TINY;
        for (size_t i = 0; i < n; i++) {
            const double apart = (double)x[j] - (double)c->center[i * D + j];

            sum[i] += apart * apart / v;
        }
    }
    for (size_t i = 1; i < n; i++)
        best = sum[i] < sum[best] ? i : best;
    return best;
}

float clusters_distance(const struct clusters *c, const float *x,
                        enum distance_kind kind)
{
    const float *center, *variance;
    double sum = 0.0, most = 0.0;
    size_t i;

    if (!clusters_ready(c))
        return 0.0f;
    i = nearest(c, x);
    center = c->center + i * c->dim;
    variance = c->variance + i * c->dim;
    for (size_t j = 0; j < c->dim; j++) {
        const double sigmas = fabs((double)x[j] - (double)center[j]) /
                              sqrt((double)variance[j] + (double)TINY);

        sum += sigmas > 1.0 ? sigmas - 1.0 : 0.0;
        most = sigmas > most ? sigmas : most;
    }
    if (kind == DISTANCE_MAX)
        return most > 1.0 ? (float)(most - 1.0) : 0.0f;
    return (float)(sum / (double)c->dim);
}

/* d_run with one more distance; the first stands for itself. */
static float running(const struct clusters *c, float distance, float momentum)
{
    const float before = c->counts[RUNNING];

    return before > 0.0f ? momentum * before + (1.0f - momentum) * distance : distance;
}

float clusters_yield(const struct clusters *c, float distance, float momentum,
                     bool training)
{
    const float mean = training ? running(c, distance, momentum) : c->counts[RUNNING];

    if (!clusters_ready(c) || !(mean > 0.0f) || !(distance > mean))
        return 0.0f;
    return distance / mean - 1.0f;
}

/* While there are fewer than C centres, a sample that is none of them becomes one. */
static void place_center(struct clusters *c, const float *x)
{
    const size_t n = n_centers(c), D = c->dim;

    for (size_t i = 0; i < n; i++)
        if (!memcmp(c->center + i * D, x, D * sizeof(*x)))
            return;
    memcpy(c->center + n * D, x, D * sizeof(*x));
    for (size_t j = 0; clusters_ready(c) && j < D; j++)
        c->variance[n * D + j] = c->first[D + j] / CLUSTERS_FIRST;
    c->counts[CENTRES] += 1.0f;
}

/* Mean and squares about it, sample by sample (Welford); the last one settles them. */
static void count_first(struct clusters *c, const float *x)
{
    const size_t D = c->dim;
    float *mean = c->first, *squares = c->first + D;

    c->counts[SAMPLES] += 1.0f;
    for (size_t j = 0; j < D; j++) {
        const float apart = x[j] - mean[j];

        mean[j] += apart / c->counts[SAMPLES];
        squares[j] += apart * (x[j] - mean[j]);
    }
    for (size_t i = 0; clusters_ready(c) && i < n_centers(c); i++)
        for (size_t j = 0; j < D; j++)
            c->variance[i * D + j] = squares[j] / CLUSTERS_FIRST;
}

void clusters_add(struct clusters *c, const float *x, const struct cluster_options *o)
{
    const float m = o->momentum;
    float *center, *variance;

    if (!clusters_ready(c)) {
        if (n_centers(c) < c->n)
            place_center(c, x);
        count_first(c, x);
        return;
    }
    c->counts[RUNNING] = running(c, clusters_distance(c, x, o->distance), m);
    if (n_centers(c) < c->n) {
        const size_t before = n_centers(c);

        place_center(c, x);
        if (n_centers(c) > before)
            return;
    }
    center = c->center + nearest(c, x) * c->dim;
    variance = c->variance + (center - c->center);
    for (size_t j = 0; j < c->dim; j++) {
        const float apart = x[j] - center[j];

        variance[j] = m * variance[j] + (1.0f - m) * apart * apart;
        center[j] = m * center[j] + (1.0f - m) * x[j];
    }
}
