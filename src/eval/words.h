/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words of two texts as numbers: equal words get equal ones, so that what comes
 * after compares integers.
 */
#ifndef ARTEL_EVAL_WORDS_H
#define ARTEL_EVAL_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;

struct word {
    const char *at; /* (n) borrowed */
    size_t n;
    int32_t id; /* after words_number() */
};
struct words {
    struct word *at; /* (n) owned */
    size_t n, room;
};
int words_push(struct words *w, const char *at, size_t n, struct artel_error *err);
void words_release(struct words *w);

/* Number the words of X and Y. */
int words_number(struct words *x, struct words *y, struct artel_error *err);

/* Bytes of the blank at P, in Unicode's sense, or 0. */
size_t blank_at(const char *p);

#endif
