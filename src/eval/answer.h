/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a generated answer right? Each way looks at one part of the text, for it is
 * the content that counts, not the words around it.
 *
 *     exact         the whole text, blanks at both ends aside
 *     last_number   the number after the last "####", else the last number
 *     answer_line   what follows "Answer:" in the last line that starts so
 *     first_word    the first run of letters and digits, capitals alike
 *     last_word     the last such run
 *     first_letter  a first word of one letter: "B. gravity"
 *     json          one JSON object, equal but for order and blanks
 *     last_line     the last line that is not blank, blanks at its ends aside
 *     sql           the words and signs of a query: blanks, capitals outside of quotes
 *                   and a semicolon at the end do not count
 *     rouge_l, bleu the whole text, by how near it comes (text_metrics.h)
 *
 * Sets of several kinds of question are scored on one kind alone, which the expected
 * answer tells; the other rows are not asked:
 *
 *     one_line      exact, where one line is expected: values among programs
 *     short         exact, where one to three words are expected: names among texts
 *     yes_no        first_word, where that is yes, no or maybe
 */
#ifndef ARTEL_EVAL_ANSWER_H
#define ARTEL_EVAL_ANSWER_H

#include <stdbool.h>

enum answer_score {
    ANSWER_LOSS, /* no generation: perplexity alone */
    ANSWER_EXACT,
    ANSWER_LAST_NUMBER,
    ANSWER_LINE,
    ANSWER_FIRST_WORD,
    ANSWER_JSON,
    ANSWER_FIRST_LETTER,
    ANSWER_LAST_WORD,
    ANSWER_LAST_LINE,
    ANSWER_SQL,
    ANSWER_ONE_LINE,
    ANSWER_SHORT,
    ANSWER_YES_NO,
    ANSWER_ROUGE_L,
    ANSWER_BLEU,
    N_ANSWER_SCORES
};

const char *answer_score_name(enum answer_score s);
int answer_score_from_name(const char *name); /* -1 where unknown */

/* Is a row that expects WANT asked at all? */
bool answer_counts(enum answer_score s, const char *want);
/* Is an answer right or wrong? Else its score is a number of its own, or there is none. */
bool answer_is_judged(enum answer_score s);

struct answer_verdict {
    bool right;
    bool json_valid; /* ANSWER_JSON: it is one JSON object */
    bool json_name;  /* ANSWER_JSON: its "name" is right */
};
struct answer_verdict answer_judge(enum answer_score s, const char *got,
                                   const char *want);

#endif
