/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrow (arXiv 2405.11157): a router made of the experts themselves. The prototype of an
 * expert at one linear is the direction of input that its B A answers most, the first
 * right singular vector; an input is scored |v . x|. Nothing is trained, no data is seen.
 */
#ifndef ARTEL_EXPERTS_ARROW_H
#define ARTEL_EXPERTS_ARROW_H

#include "experts/mixture.h"

struct artel_error;

/*
 * V (N) of length 1: the first right singular vector of B A, its largest component
 * positive; all zero where B A is zero. B A is never formed: the work is of order
 * R^2 (N + M + R). ARTEL_EFORMAT where LAPACK finds none.
 */
int arrow_prototype(float *v, const struct lora *l, struct artel_error *err);

/* Prototypes of the experts from FIRST on as their rows of M's routers, one a linear; zero
 * where an expert does not adapt the linear. The other rows stay. */
int arrow_rows(struct mixture *m, size_t first, struct artel_error *err);

#endif
