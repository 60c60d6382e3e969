/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of run and chat: what is asked, of whom, and how answers are drawn.
 */
#ifndef ARTEL_CLI_ASKING_H
#define ARTEL_CLI_ASKING_H

#include "cli/options.h"
#include "cli/report.h"

struct asking {
    const char *expert; /* "auto" */
    const char *merge;  /* "never" */
    const char *prompt, *prompt_file, *system;
    bool raw;
    uint64_t max_tokens, top_k, context;
    double temperature, top_p, min_p, repetition_penalty;
    struct words stop;
};

void asking_options(struct options *o, struct asking *a);
/* Contradictions; 0, or an exit code after the error was printed. */
int asking_check(const struct options *o, const struct asking *a);
/* The model's own way to be sampled, with what was given on the command line. */
int asking_generate(struct artel_generate_options *g, const struct options *o,
                    const struct asking *a, const struct common *c,
                    const struct artel_mixture *m);

/* {"probabilities", "layers", "layers_agreeing"} of an answer, or null. */
json_t *routing_json(const struct artel_answer *a, const struct artel_mixture *m);
/* Expert with the largest probability of router R. */
size_t routing_choice(const struct artel_answer *a, size_t r);

#endif
