/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One set of rows put to one mixture: perplexity, routing, generated answers, and
 * multiple choice.
 */
#ifndef ARTEL_EVAL_MEASURE_H
#define ARTEL_EVAL_MEASURE_H

#include <signal.h>
#include <stdbool.h>

#include "eval/answer.h"
#include "eval/opened.h"

struct measured {
    size_t n_rows, n_dropped;
    size_t answer_tokens;
    double nll, perplexity; /* perplexity is NaN where there are choices instead */
    size_t n_routed,
        n_right;     /* rows that a router decided; those that went to EXPECTED */
    size_t *chosen;  /* (n_experts) rows each expert got; owned, or NULL */
    size_t n_judged; /* answers generated */
    double score, json_valid, json_name; /* shares of them, 0 to 1 */
    double generated_tokens, generate_seconds;
    bool choices;    /* multiple choice: score is by likelihood a character */
    double accuracy; /* by likelihood of the whole choice, 0 to 1 */
    double *value,
        *weight; /* (n_rows) right or wrong, or nll, and answer tokens; owned */
};
void measured_release(struct measured *r);

struct measure_options {
    int expert;   /* ARTEL_AUTO, ARTEL_BASE or an index */
    int expected; /* expert that rows of this set should go to; -1: none */
    enum answer_score score;
    bool generate;
    size_t max_rows, max_tokens, cutoff_len; /* 0: as artel_eval_options */
    const volatile sig_atomic_t *stopped;
};

int measure_set(struct measured *out, const struct artel_mixture *m, const char *path,
                const struct measure_options *o, struct artel_error *err);

struct corpus;
/* Each choice as an answer to the question; the likeliest counts. Fills OUT. */
int measure_choices(struct measured *out, const struct artel_mixture *m,
                    const struct corpus *c, const struct measure_options *o,
                    struct artel_error *err);

#endif
