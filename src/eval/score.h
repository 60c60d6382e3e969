/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Negative log-likelihood of examples, row by row; artel_score() for whole files
 * is in artel.h.
 */
#ifndef ARTEL_EVAL_SCORE_H
#define ARTEL_EVAL_SCORE_H

#include "artel.h"

struct example;
struct gate_sums;

/*
 * OUT (n) from ROWS (n), threads sharing the blocks. O->expert as in artel.h; only it,
 * stopped, on_rows and user are read. ARTEL_ENONFINITE names the first row without a number.
 */
int score_examples(struct artel_score_row *out, const struct artel_mixture *m,
                   const struct example *const *rows, size_t n,
                   const struct artel_score_options *o, struct artel_error *err);

/*
 * The same for rows that share their beginnings: AFTER (n), which may be NULL, has 0 for
 * a row of its own, and K + 1 for one whose tokens continue row K, which stands before it
 * with nothing but others that continue it between. Its pool counts from the beginning of
 * row K, and to the bit its number is that of one row with both texts. SUMS, which may be
 * NULL, gets what the routers did added where they decide.
 */
int score_rows(struct artel_score_row *out, const struct artel_mixture *m,
               const struct example *const *rows, size_t n, const size_t *after,
               struct gate_sums *sums, const struct artel_score_options *o,
               struct artel_error *err);

/* Tokens that a row may have where ASKED were allowed (0: all that the model reaches). */
size_t score_cutoff(const struct artel_mixture *m, size_t asked);

#endif
