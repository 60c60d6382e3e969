/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multinomial logistic regression with an L2 penalty, the separate classifier that
 * mixtures are compared with:
 *
 *     mean over rows of -log softmax(W z + b)[label]  +  lambda / 2 |r W|^2
 *
 * r is the root mean square of all numbers of z, so lambda means the same for any scale,
 * over the zeros of sparse rows too; b is free. Convex, solved by L-BFGS in double: the same rows give the same bits.
 *
 *   D width of z   E labels
 */
#ifndef ARTEL_EXPERTS_LOGISTIC_H
#define ARTEL_EXPERTS_LOGISTIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;

/* Rows and their labels, one behind another; or, where they are sparse, of each row what
 * is not 0. */
struct labelled_rows {
    size_t dim, n, room; /* D */
    float *z;            /* (n, D), or all values of all rows */
    uint32_t *label;     /* (n) */
    /* Sparse: */
    bool sparse;
    size_t *end;  /* (n) where the values of each row end */
    uint32_t *at; /* and where they stand in it */
    size_t values_room;
};

int labelled_rows_add(struct labelled_rows *r, uint32_t label, const float *z,
                      struct artel_error *err);
/* A sparse row: Z (N) stand at AT, each place once. */
int labelled_rows_add_sparse(struct labelled_rows *r, uint32_t label,
                             const uint32_t *at, const float *z, size_t n,
                             struct artel_error *err);
void labelled_rows_release(struct labelled_rows *r);

/* W (E, D) and B (E). ARTEL_EFORMAT: there are no rows, or numbers that are not finite. */
int logistic_solve(float *w, float *b, const struct labelled_rows *rows,
                   size_t n_labels, double lambda, struct artel_error *err);

#endif
