/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage leaves for others: experts as PEFT folders, mixtures beside them.
 */
#ifndef ARTEL_PLAN_RESULTS_H
#define ARTEL_PLAN_RESULTS_H

#include <jansson.h>

#include "plan/stages.h"

/* The experts and mixture of stage S, trained in M. SUMMARY is the stage's own. */
int results_write(struct job *job, const struct stage *s, struct mixture *m,
                  const json_t *summary, struct artel_error *err);

/* Expert E to FOLDER with its notes. AS_ASKED and DIGEST may be NULL. */
int results_expert(const char *folder, const struct expert *e, const struct job *job,
                   const struct lora_options *as_asked, const char *data_digest,
                   const json_t *summary, struct artel_error *err);

/*
 * At most N_ROWS rows of C, evenly over the file at PATH it was read from, as JSONL at OUT.
 * 1: written; 0: the file cannot be sampled row by row (nothing is written).
 */
int sample_write(const char *out, const struct corpus *c, const char *path,
                 size_t n_rows, struct artel_error *err);

#endif
