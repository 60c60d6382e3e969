/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How near a generated text comes to the expected one, in words:
 *
 *     BLEU     over a whole set: geometric mean of the shares of 1- to 4-grams of the
 *              answers that stand in the expected texts, times exp(1 - r/h) where the
 *              answers' h words are fewer than the r expected
 *     ROUGE-L  of one answer: harmonic mean of the longest common subsequence's shares
 *              in both texts
 *
 * BLEU as sacreBLEU computes it by default (13a words, an order without a match
 * smoothed by halving), ROUGE-L as the package rouge-score with its stemmer;
 * tests/golden holds their numbers.
 */
#ifndef ARTEL_EVAL_TEXT_METRICS_H
#define ARTEL_EVAL_TEXT_METRICS_H

#include <stddef.h>

struct artel_error;

#define BLEU_ORDERS 4

/* Counts of a set so far; zeroed before the first pair. */
struct bleu {
    size_t got_words, want_words;
    size_t right[BLEU_ORDERS], total[BLEU_ORDERS]; /* n-grams of the answers */
};
int bleu_add(struct bleu *b, const char *got, const char *want,
             struct artel_error *err);
double bleu_score(const struct bleu *b); /* 0 to 100 */

/* *F from 0 to 1. */
int rouge_l(double *f, const char *got, const char *want, struct artel_error *err);

/* The stem of WORD (N bytes, a-z and 0-9) in its place; the stem's length. */
size_t stem_word(char *word, size_t n);

#endif
