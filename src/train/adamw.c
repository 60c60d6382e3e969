/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads share a group in pieces of fixed size, so that every sum has the same
 * order for any number of threads.
 */
#include "train/adamw.h"

#include <math.h>
#include <string.h>

#include "math/kernels.h"

#define PIECE ((size_t)1 << 16)
#define HOT   ((size_t)1 << 12) /* what the caches still hold after its update */

static double group_squares(const struct adamw_group *group)
{
    const size_t n_pieces = (group->n + PIECE - 1) / PIECE;
    double sum = 0.0;

    /* Pieces are added in their order: the wait is short beside the reading. */
#pragma omp parallel for ordered schedule(static, 1)
    for (size_t i = 0; i < n_pieces; i++) {
        const size_t from = i * PIECE, n = group->n - from;
        const float part =
            kernels()->sum_squares(group->g + from, n < PIECE ? n : PIECE);

#pragma omp ordered
        sum += (double)part;
    }
    return sum;
}

double adamw_norm(const struct adamw_group *groups, size_t n_groups)
{
    double sum = 0.0;

    for (size_t i = 0; i < n_groups; i++)
        if (groups[i].touched)
            sum += group_squares(&groups[i]);
    return sqrt(sum);
}

static void group_step(const struct adamw *o, struct adamw_group *group, float factor,
                       float clip)
{
    const float rate = group->rate * factor;
    const double t = (double)*group->steps + 1.0;
    const float correct1 = (float)(1.0 / (1.0 - pow((double)o->beta1, t)));
    const float correct2 = (float)(1.0 / (1.0 - pow((double)o->beta2, t)));

    *group->steps += 1.0f;
#pragma omp parallel for schedule(static)
    for (size_t from = 0; from < group->n; from += HOT) {
        const size_t n = group->n - from < HOT ? group->n - from : HOT;

        kernels()->adamw(group->p + from, group->m + from, group->v + from,
                         group->g + from, n, rate, o->beta1, o->beta2, o->eps, o->decay,
                         correct1, correct2, clip);
        memset(group->g + from, 0, n * sizeof(*group->g));
    }
}

void adamw_step(const struct adamw *o, struct adamw_group *groups, size_t n_groups,
                float factor, double norm)
{
    const double bound = (double)o->max_norm;
    const float clip =
        bound > 0.0 && norm > bound ? (float)(bound / (norm + 1e-6)) : 1.0f;

    for (size_t i = 0; i < n_groups; i++)
        if (groups[i].touched)
            group_step(o, &groups[i], factor, clip);
}
