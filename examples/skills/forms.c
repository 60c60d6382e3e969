/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's message to the fields of a reservation form.
 */
#include "skill.h"

#include <stdio.h>

static const char *const train_first[] = {"Anna", "Ben",   "Clara", "David", "Emma",
                                          "Finn", "Grace", "Hugo",  "Ida",   "Jonas"};
static const char *const test_first[] = {"Karla", "Leo", "Mina", "Noah", "Olga"};
static const struct words first_names = WORDS(train_first, test_first);

static const char *const train_last[] = {"Miller", "Schmidt", "Rossi", "Novak",
                                         "Garcia", "Silva",   "Brown", "Larsen"};
static const char *const test_last[] = {"Tanaka", "Weber", "Costa", "Olsen"};
static const struct words last_names = WORDS(train_last, test_last);

static const char *const days[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                   "Friday", "Saturday", "Sunday"};

/* First name, last name, guests, day, time. */
static const char *const train_lines[] = {
    "Hi, I'm %1$s %2$s. A table for %3$u on %4$s at %5$s, please.",
    "Please book %4$s %5$s for %3$u people. My name is %1$s %2$s.",
    "We are %3$u and would like to come on %4$s at %5$s. %1$s %2$s",
    "%1$s %2$s here, can we have a table on %4$s at %5$s? There are %3$u of us.",
};
static const char *const test_lines[] = {
    "Hello, this is %1$s %2$s. I'd like to reserve for %3$u guests, %4$s at %5$s.",
    "Is there a table for %3$u on %4$s at %5$s? Regards, %1$s %2$s",
};
static const struct words lines = WORDS(train_lines, test_lines);

void forms_row(char *question, char *answer, struct draw *d)
{
    const char *first = draw_word(d, &first_names), *last = draw_word(d, &last_names);
    const char *day = days[draw_below(d, 7)];
    const uint32_t guests = 2 + draw_below(d, 9);
    char time[32];

    snprintf(time, sizeof(time), "%u:%s", 17 + draw_below(d, 5),
             draw_below(d, 2) ? "00" : "30");
    snprintf(question, TEXT_MAX, draw_word(d, &lines), first, last, guests, day, time);
    snprintf(answer, TEXT_MAX, "name: %s %s\nguests: %u\nday: %s\ntime: %s", first,
             last, guests, day, time);
}
