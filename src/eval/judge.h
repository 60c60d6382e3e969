/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another model rates answers: 0 to 2 for each of five qualities, several times an
 * answer, through any endpoint that speaks OpenAI's chat completions.
 *
 * Every rating is kept in a JSONL file as soon as it is there, under the digest of
 * what was asked, and is not asked for again.
 */
#ifndef ARTEL_EVAL_JUDGE_H
#define ARTEL_EVAL_JUDGE_H

#include <signal.h>

#include "eval/measure.h"

struct artel_judge_options;

/* "helpfulness" and so on, JUDGE_QUALITIES of them. */
extern const char *const judge_qualities[JUDGE_QUALITIES];

/* O and its strings are borrowed. ARTEL_EUSAGE: no libcurl in this build, no key. */
int judge_open(struct judge **out, const struct artel_judge_options *o,
               const volatile sig_atomic_t *stopped, struct artel_error *err);
void judge_close(struct judge *j);        /* NULL is fine */
size_t judge_rows(const struct judge *j); /* of a set that it rates; 0: all */

struct digest;
/* Add what ratings follow from but the answers: model, number, rows. */
void judge_digest(struct digest *d, const struct judge *j);

struct judge_case {
    const char *asker, *set; /* for the file alone */
    const char *question, *want, *got;
};
/* Add the ratings of one answer to SUM, whose qualities are means over SUM->n. One that
 * the endpoint gave no usable answer for is missing. */
int judge_rate(struct judged *sum, struct judge *j, const struct judge_case *c,
               struct artel_error *err);

/* The five numbers in TEXT, a JSON object with anything around it; false: not there. */
bool judge_parse(int *quality, const char *text);

#endif
