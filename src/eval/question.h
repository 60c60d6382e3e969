/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of multiple choice as the texts that lm-evaluation-harness makes of them
 * without examples, so that numbers compare. Which text, the row's domain tells:
 *
 *     mmlu/SUBJECT  "The following are multiple choice questions (with answers) about
 *                   SUBJECT.", an empty line, the question, a line "A. ..." a choice,
 *                   "Answer:"; the letter continues it
 *     piqa          "Question: ...", "Answer:"; the choice continues it
 *     winogrande    the question up to the choice in the place of its "_"; what follows
 *                   the "_" continues it
 *     truthfulqa    "Q: ...", "A:"; the choice continues it
 *     any other     the question as a user turn of the chat template; the choice is
 *                   the answer
 */
#ifndef ARTEL_EVAL_QUESTION_H
#define ARTEL_EVAL_QUESTION_H

#include <stdbool.h>
#include <stddef.h>

struct artel_error;
struct choice_row;

enum question_style {
    QUESTION_CHAT,
    QUESTION_MMLU,
    QUESTION_PIQA,
    QUESTION_WINOGRANDE,
    QUESTION_TRUTHFULQA
};
enum question_style question_style(const char *domain);

/* Is a set of this kind commonly told by acc_norm rather than by acc? */
bool question_by_length(enum question_style s);
/* Characters that acc_norm divides by for choice K. */
double question_length(enum question_style s, const struct choice_row *row, size_t k);

/* Not for QUESTION_CHAT: what is given, and what choice K continues it with; both owned
 * by the caller. */
int question_texts(char **given, char **rest, enum question_style s,
                   const struct choice_row *row, size_t k, struct artel_error *err);

#endif
