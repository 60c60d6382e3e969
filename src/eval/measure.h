/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One set of rows put to one mixture: perplexity, routing, generated answers, and
 * multiple choice; or a plain text in windows.
 */
#ifndef ARTEL_EVAL_MEASURE_H
#define ARTEL_EVAL_MEASURE_H

#include <signal.h>
#include <stdbool.h>

#include "eval/answer.h"
#include "eval/opened.h"

struct artel_score_row;
struct corpus;
struct gate_sums;
struct judge;

/* What a judge said of a set's answers: means over all ratings. */
#define JUDGE_QUALITIES 5
struct judged {
    double quality[JUDGE_QUALITIES]; /* 0 to 2 each */
    size_t n, missing;               /* ratings; those that were never had */
};

struct measured {
    size_t n_rows, n_dropped;
    size_t answer_tokens;
    double nll, perplexity; /* perplexity is NaN where there are choices instead */
    size_t n_routed,
        n_right;    /* rows that a router decided; those that went to EXPECTED */
    size_t *chosen; /* (n_experts) rows each expert got; owned, or NULL */
    size_t n_experts, n_routers;
    struct gate_sums *sums; /* what the routers did; owned, NULL where none decides */
    size_t n_judged;        /* answers generated, or choices made */
    double score, json_valid, json_name; /* shares of them, 0 to 1 */
    double bleu, rouge_l;                /* 0 to 100, 0 to 1 */
    double generated_tokens, generate_seconds;
    bool choices;   /* multiple choice */
    bool by_length; /* SCORE is acc_norm, else acc */
    double acc, acc_norm;
    bool windows; /* a plain text; N_ROWS are windows */
    double n_words, n_bytes;
    struct judged judged;
    size_t n_each; /* experts measured one after the other, all the above being the mean
                       of theirs; 0: one measurement */
    bool shares;   /* VALUE is how right each row is, 0 to 1; else its nll */
    double *value; /* (n_each or 1, n_rows) owned */
    double *weight; /* (n_rows) answer tokens; of shares 1, or 0: not asked; owned */
};
void measured_release(struct measured *r);
/* Count a row that a router sent to EXPERT. */
void measured_route(struct measured *r, int expert, int expected);

struct measure_options {
    int expert;   /* ARTEL_AUTO, ARTEL_BASE or an index */
    int expected; /* expert that rows of this set should go to; -1: none */
    enum answer_score score;
    bool generate;
    size_t max_rows, max_tokens, cutoff_len; /* 0: as artel_eval_options */
    bool in_windows;         /* a plain text is measured in windows, else in chunks */
    struct judge *judge;     /* or NULL */
    const char *asker, *set; /* names for the judge's notes */
    const volatile sig_atomic_t *stopped;
    void (*on_rows)(void *user, size_t n_done, size_t n); /* may be NULL */
    void *user;
};
/* Count the N scored ROWS of a set, each with its nll as its value. */
void measured_rows(struct measured *out, const struct artel_score_row *rows, size_t n,
                   const struct measure_options *o);
struct artel_score_options measure_score_options(const struct measure_options *o);

/* No router decides and no expert was chosen: is the set put to each? */
bool measures_each(const struct artel_mixture *m, const struct measure_options *o);

/* The set under each expert alone. Fills OUT with the mean. */
int measure_each(struct measured *out, const struct artel_mixture *m, const char *path,
                 const struct measure_options *o, struct artel_error *err);

/* What is wrong with the rows at PATH, before anything is measured on them. */
int measure_check(const struct artel_mixture *m, const char *path,
                  const struct measure_options *o, struct artel_error *err);

int measure_set(struct measured *out, const struct artel_mixture *m, const char *path,
                const struct measure_options *o, struct artel_error *err);

/* The same of rows that are there already, opened with keep_text. */
int measure_corpus(struct measured *out, const struct artel_mixture *m,
                   const struct corpus *c, const struct measure_options *o,
                   struct artel_error *err);

/* Each choice as what follows the question; the likeliest counts. Fills OUT. */
int measure_choices(struct measured *out, const struct artel_mixture *m,
                    const struct corpus *c, const struct measure_options *o,
                    struct artel_error *err);

/* The plain text at PATH, window by window. Fills OUT, VALUE and WEIGHT too. */
int measure_windows(struct measured *out, const struct artel_mixture *m,
                    const char *path, const struct measure_options *o,
                    struct artel_error *err);

/* Answers of the model's own to the rows of C that the score asks. Fills OUT. */
int measure_answers(struct measured *out, const struct artel_mixture *m,
                    const struct corpus *c, const struct measure_options *o,
                    struct artel_error *err);

#endif
