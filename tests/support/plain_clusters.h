/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far an input lies from clusters, as docs/METHODS.md says it: plain loops in double.
 *
 *   C clusters   D width   CENTER, VARIANCE (C, D)
 */
#ifndef ARTEL_TESTS_PLAIN_CLUSTERS_H
#define ARTEL_TESTS_PLAIN_CLUSTERS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* Euclid's nearest centre to X (D), each channel scaled by the deviation that belongs to
 * the mean variance of all clusters. */
static inline size_t plain_nearest(const float *center, const float *variance, size_t C,
                                   size_t D, const double *x)
{
    double least = HUGE_VAL;
    size_t best = C;

    for (size_t c = 0; c < C; c++) {
        double squares = 0.0;

        for (size_t j = 0; j < D; j++) {
            double mean = 0.0, apart;

            for (size_t k = 0; k < C; k++)
                mean += (double)variance[k * D + j];
            apart = (x[j] - (double)center[c * D + j]) / sqrt(mean / (double)C + 1e-6);
            squares += apart * apart;
        }
        if (squares < least) {
            least = squares;
            best = c;
        }
    }
    return best;
}

/* mean_j max(|x - c| / sigma - 1, 0), or MOST: max_j |x - c| / sigma, minus 1. */
static inline double plain_distance(const float *center, const float *variance,
                                    size_t C, size_t D, const double *x, bool most)
{
    const size_t at = plain_nearest(center, variance, C, D, x) * D;
    double sum = 0.0, largest = 0.0;

    for (size_t j = 0; j < D; j++) {
        const double sigma = sqrt((double)variance[at + j] + 1e-6);
        const double beyond = fabs(x[j] - (double)center[at + j]) / sigma - 1.0;

        sum += fmax(beyond, 0.0);
        largest = fmax(beyond, largest);
    }
    return most ? largest : sum / (double)D;
}

#endif
