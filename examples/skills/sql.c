/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A question about a small table to one SQL statement.
 */
#include "skill.h"

#include <stdio.h>

struct table {
    const char *name, *columns[4];
};

static const struct table train_tables[] = {
    {"orders", {"id", "customer", "total", "city"}},
    {"books", {"id", "title", "author", "year"}},
    {"employees", {"id", "name", "salary", "team"}},
    {"flights", {"id", "origin", "target", "price"}},
    {"songs", {"id", "title", "artist", "length"}},
    {"rooms", {"id", "floor", "beds", "price"}},
    {"plants", {"id", "name", "height", "color"}},
    {"courses", {"id", "title", "teacher", "credits"}},
};

static const struct table test_tables[] = {
    {"movies", {"id", "title", "director", "year"}},
    {"patients", {"id", "name", "age", "ward"}},
    {"cars", {"id", "brand", "price", "color"}},
    {"teams", {"id", "name", "coach", "points"}},
};

static const char *const train_values[] = {"Paris", "Miller", "red",  "Oslo",
                                           "Brown", "blue",   "Rome", "Silva"};
static const char *const test_values[] = {"Lisbon", "Keller", "green", "Tanaka",
                                          "Prague"};
static const struct words values = WORDS(train_values, test_values);

/* Table, columns, then the wish: which column, condition column, value. */
static const char *const train_asks[] = {
    "Show the %s where %s is %s.",
    "Give me every %s with %s equal to %s.",
    "List the %s whose %s is %s.",
    "I need the %s for which %s is %s.",
};
static const char *const test_asks[] = {
    "Which %s have %s set to %s?",
    "Find all %s having %s %s.",
};
static const struct words asks = WORDS(train_asks, test_asks);

void sql_row(char *question, char *answer, struct draw *d)
{
    const struct table *t =
        d->held_out ? &test_tables[draw_below(d, 4)] : &train_tables[draw_below(d, 8)];
    const uint32_t wanted = draw_below(d, 4);
    const uint32_t by = (wanted + 1 + draw_below(d, 3)) % 4;
    const uint32_t kind = draw_below(d, 4);
    char ask[TEXT_MAX / 2], value[32];

    if (kind == 0)
        snprintf(value, sizeof(value), "%u", 1 + draw_below(d, 900));
    else
        snprintf(value, sizeof(value), "%s", draw_word(d, &values));
    snprintf(ask, sizeof(ask), draw_word(d, &asks), t->columns[wanted], t->columns[by],
             value);
    snprintf(question, TEXT_MAX, "Table %s (%s, %s, %s, %s). %s", t->name,
             t->columns[0], t->columns[1], t->columns[2], t->columns[3], ask);
    snprintf(answer, TEXT_MAX,
             kind ? "SELECT %s FROM %s WHERE %s = '%s';"
                  : "SELECT %s FROM %s WHERE %s = %s;",
             t->columns[wanted], t->name, t->columns[by], value);
}
