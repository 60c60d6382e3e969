/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Likelihoods of the choices of a file of questions.
 */
#ifndef ARTEL_EVAL_CHOICES_H
#define ARTEL_EVAL_CHOICES_H

#include "artel.h"
#include "eval/measure.h"

struct corpus;
struct gate_sums;

/* One number a choice, the choices of a row behind those of the row before. */
struct choice_scores {
    double *nll; /* owned */
    int *expert; /* owned */
};
void choice_scores_release(struct choice_scores *s);

/* What is wrong with rows of C, before anything is measured on them. */
int choices_check(const struct artel_mixture *m, const struct corpus *c,
                  struct artel_error *err);

/* SUMS as in score_rows(). Every row of C has choices. */
int choices_score(struct choice_scores *out, const struct artel_mixture *m,
                  const struct corpus *c, struct gate_sums *sums,
                  const struct artel_score_options *o, struct artel_error *err);

#endif
