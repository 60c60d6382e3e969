/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A linear router in closed form. From the pooled hidden states z of the bare base to
 * one-hot domains, by regularised least squares:
 *
 *     W = (G + lambda tr(G) / D I)^-1 S     G = sum z z^T     S_e = sum of the z of domain e
 *
 * where z carries a 1 behind its last channel for the bias. The sums are all that training
 * leaves behind: one more domain adds its own to G, brings one more column S_e, and all
 * columns are solved again without a row of the others' data.
 *
 *   D width with the 1   E domains
 */
#ifndef ARTEL_EXPERTS_RIDGE_H
#define ARTEL_EXPERTS_RIDGE_H

#include <stddef.h>

struct artel_error;

struct ridge_sums {
    size_t dim, n_domains; /* D, E */
    double *g;             /* (D, D) */
    double *s;             /* (E, D) */
};

/* Zero sums for inputs of N channels. */
int ridge_init(struct ridge_sums *r, size_t n, size_t n_domains,
               struct artel_error *err);
void ridge_release(struct ridge_sums *r);
/* One more column of zeros; the others stay. */
int ridge_grow(struct ridge_sums *r, struct artel_error *err);
/* DOMAIN's column goes; its rows stay in G, as rows of no domain. */
void ridge_drop(struct ridge_sums *r, size_t domain);
/* Z (D - 1) is a row of DOMAIN. */
void ridge_add(struct ridge_sums *r, size_t domain, const float *z);
/* W (E, D - 1) and B (E), all domains at once. ARTEL_EFORMAT where the sums cannot be
 * solved: no rows, or numbers that are not finite. */
int ridge_solve(float *w, float *b, const struct ridge_sums *r, double lambda,
                struct artel_error *err);

#endif
