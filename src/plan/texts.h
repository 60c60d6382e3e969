/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of a recipe's domains, tokenised once for all stages: what is
 * trained on, what is held out, and a note on every row that fell away.
 */
#ifndef ARTEL_PLAN_TEXTS_H
#define ARTEL_PLAN_TEXTS_H

#include <jansson.h>

#include "data/corpus.h"
#include "plan/recipe.h"
#include "plan/run.h"

struct artel_model;

struct text {
    const char *name, *train_path, *valid_path; /* borrowed; paths may be NULL */
    size_t max_rows;
    struct corpus *train, *valid; /* NULL: not opened */
};

struct texts {
    size_t n;
    struct text *of;              /* (n) */
    const struct corpus **trains; /* (n) as of[i].train */
    const struct example *
        *held; /* (n_held) sorted: rows of trains that val_size takes */
    size_t n_held;
    const struct example **valid; /* validation rows, domain by domain */
    size_t *valid_first; /* (n + 1) domain i: valid_first[i] .. valid_first[i+1]-1 */
    size_t longest;      /* tokens of the longest row */
};

struct texts_options {
    const struct recipe_train *train;
    const struct run_options *run; /* hears the notes */
};

/* OF is copied: names, paths and limits. Domain i of the examples is i. */
int texts_open(struct texts *t, const struct text *of, size_t n,
               const struct artel_model *model, const struct texts_options *o,
               struct artel_error *err);
void texts_close(struct texts *t);
/* ROW is one that val_size takes. */
bool texts_holds_out(const struct texts *t, const struct example *row);
/* Rows, tokens, rows dropped and cut of domain I. */
json_t *texts_summary(const struct texts *t, size_t i);

#endif
