/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sliding clusters of what a router has seen in training, and how much of its weight a
 * router gives up for an input far from all of them (SLIM, arXiv 2410.07739).
 *
 *     sample x    the mean of a prompt's rows at one router
 *     nearest     the centre of least sum_j (x_j - c_j)^2 / (mean v_j + 1e-6)
 *     after it    v = m v + (1 - m) (x - c)^2, then c = m c + (1 - m) x     m = 0.99
 *     distance    d = mean_j max(|x_j - c_j| / sqrt(v_j + 1e-6) - 1, 0)
 *     yield       max(d / d_run - 1, 0)     d_run the running mean of d
 *
 * The first distinct samples become the centres; the variance of the first 64 samples
 * becomes that of every cluster. Until there are 64, every distance is 0. What the paper
 * leaves open is ours: m, C, the distance and the yield (docs/METHODS.md).
 *
 *   C clusters   D width of what the router reads
 */
#ifndef ARTEL_EXPERTS_CLUSTERS_H
#define ARTEL_EXPERTS_CLUSTERS_H

#include <stdbool.h>
#include <stddef.h>

#define CLUSTERS_FIRST 64 /* samples before anything yields */
#define CLUSTERS_MOST  64 /* C at most */

enum distance_kind {
    DISTANCE_MEAN, /* over the channels, of what lies beyond one sigma */
    DISTANCE_MAX   /* of |x - c| / sigma over the channels, minus 1 */
};

struct cluster_options {
    enum distance_kind distance;
    float momentum; /* m */
    float beta;     /* how strongly logits yield */
};

/* All numbers of one router's clusters lie in one block of floats, so that a checkpoint
 * or a file keeps them as one tensor. These are views of it. */
struct clusters {
    size_t n, dim;   /* C, D */
    float *center;   /* (C, D) */
    float *variance; /* (C, D) */
    float *first;    /* (2, D) mean and summed squares about it of the first samples */
    float *counts;   /* centres there are, samples seen (no more than 64 are counted),
                        d_run */
};

/* Floats of a block. */
size_t clusters_floats(size_t n, size_t dim);
/* STATE: a block, borrowed. All zero: nothing has been seen. */
void clusters_view(struct clusters *c, float *state, size_t n, size_t dim);
/* Could these numbers, which are finite, come from training? */
bool clusters_valid(const struct clusters *c);
/* Have 64 samples been seen? */
bool clusters_ready(const struct clusters *c);
/* How far X (D) is from the nearest cluster, in its sigmas; 0 until ready. */
float clusters_distance(const struct clusters *c, const float *x,
                        enum distance_kind kind);
/* By how much an input at DISTANCE yields. TRAINING: d_run counts this distance first. */
float clusters_yield(const struct clusters *c, float distance, float momentum,
                     bool training);
/* One more training sample X (D). Never called outside of training. */
void clusters_add(struct clusters *c, const float *x, const struct cluster_options *o);

#endif
