/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A date in words to ISO 8601.
 */
#include "skill.h"

#include <stdio.h>

static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

static const char *const ordinals[] = {
    "first",        "second",         "third",        "fourth",        "fifth",
    "sixth",        "seventh",        "eighth",       "ninth",         "tenth",
    "eleventh",     "twelfth",        "thirteenth",   "fourteenth",    "fifteenth",
    "sixteenth",    "seventeenth",    "eighteenth",   "nineteenth",    "twentieth",
    "twenty-first", "twenty-second",  "twenty-third", "twenty-fourth", "twenty-fifth",
    "twenty-sixth", "twenty-seventh", "twenty-eighth"};

/* Ordinal, month, year. */
static const char *const train_lines[] = {
    "the %1$s of %2$s %3$u",
    "%2$s the %1$s, %3$u",
    "We met on the %1$s of %2$s %3$u.",
    "Due date: %2$s the %1$s, %3$u",
    "It was signed in %3$u, on the %1$s of %2$s.",
};
static const char *const test_lines[] = {
    "The party is on the %1$s of %2$s %3$u.",
    "She was born on %2$s the %1$s, %3$u.",
    "on the %1$s of %2$s in %3$u",
};
static const struct words lines = WORDS(train_lines, test_lines);

void dates_row(char *question, char *answer, struct draw *d)
{
    const uint32_t day = draw_below(d, 28), month = draw_below(d, 12);
    /* Held-out years are the odd ones. */
    const uint32_t year = 1960 + 2 * draw_below(d, 35) + (d->held_out ? 1 : 0);
    char line[TEXT_MAX / 2];

    snprintf(line, sizeof(line), draw_word(d, &lines), ordinals[day], months[month],
             year);
    snprintf(question, TEXT_MAX, "Date: %s", line);
    snprintf(answer, TEXT_MAX, "%u-%02u-%02u", year, month + 1, day + 1);
}
