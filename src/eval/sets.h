/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which sets of rows an evaluation is over: those that were asked for, else all that its
 * mixtures name.
 */
#ifndef ARTEL_EVAL_SETS_H
#define ARTEL_EVAL_SETS_H

#include "artel.h"

struct mixture_file;

struct eval_sets {
    struct artel_eval_set *sets, *general; /* owned; their strings are borrowed */
    size_t n_sets, n_general;
    size_t general_rows;        /* of each general set; 0: all */
    struct mixture_file *files; /* (n_files) descriptions of all mixtures; owned */
    size_t n_files;
};

/*
 * For the mixtures at PATHS (n) and what O asks. Of sets with one name the first
 * mixture's counts, with a warning where another names other rows. ARTEL_EUSAGE: two of
 * O's with one name (USE06), an unknown score (USE05), no set at all (USE12).
 */
int eval_sets_choose(struct eval_sets *s, const char *const *paths, size_t n,
                     const struct artel_eval_options *o, struct artel_error *err);
void eval_sets_release(struct eval_sets *s);

#endif
