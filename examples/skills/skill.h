/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small data for five everyday skills of form: each row is a question and the
 * one right answer in a fixed format. Held-out rows use other sentences and
 * other values than training rows.
 */
#ifndef SKILLS_SKILL_H
#define SKILLS_SKILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A seeded source of choices (xorshift64*). */
struct draw {
    uint64_t state;
    bool held_out; /* take sentences and values that training never sees */
};

uint32_t draw_below(struct draw *d, uint32_t n);

/* The words of one kind: those for training, those held out. */
struct words {
    const char *const *train;
    size_t n_train;
    const char *const *held_out;
    size_t n_held_out;
};

const char *draw_word(struct draw *d, const struct words *w);

#define WORDS(train, held_out)                                                         \
    {                                                                                  \
        train, sizeof(train) / sizeof(train[0]), held_out,                             \
            sizeof(held_out) / sizeof(held_out[0])                                     \
    }

#define TEXT_MAX 512

/* Fills the question and its answer, both below TEXT_MAX bytes. */
typedef void skill_row(char *question, char *answer, struct draw *d);

skill_row sql_row, tools_row, logs_row, dates_row, forms_row;

#endif
