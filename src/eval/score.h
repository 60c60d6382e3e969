/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Negative log-likelihood of examples, row by row; artel_score() for whole files
 * is in artel.h.
 */
#ifndef ARTEL_EVAL_SCORE_H
#define ARTEL_EVAL_SCORE_H

#include "artel.h"

struct example;

/*
 * OUT (n) from ROWS (n), threads sharing the blocks. O->expert as in artel.h; only it,
 * stopped, on_rows and user are read. ARTEL_ENONFINITE names the first row without a number.
 */
int score_examples(struct artel_score_row *out, const struct artel_mixture *m,
                   const struct example *const *rows, size_t n,
                   const struct artel_score_options *o, struct artel_error *err);

#endif
