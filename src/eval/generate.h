/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What evaluation and the public calls share of generating: artel.h has the rest.
 */
#ifndef ARTEL_EVAL_GENERATE_H
#define ARTEL_EVAL_GENERATE_H

#include "artel.h"
#include "data/prompt.h"

struct artel_model;

/* Template and tokens of a prompt; ARTEL_EUSAGE where it is empty or no template is there. */
int generate_encode(struct prompt *p, const struct artel_model *model,
                    const struct artel_prompt *from, struct artel_error *err);

/* artel_generate_all() from prompts that are encoded already. */
int generate_encoded(struct artel_answer *answers, const struct artel_mixture *m,
                     const struct prompt *prompts, size_t n,
                     const struct artel_generate_options *o, struct artel_error *err);

#endif
