/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BLEU with the words of mteval-v13a:
 *
 *     entities for quote, ampersand, less and greater become the characters, "-" at
 *     the end of a line joins it to the next; then, one after another, blanks come
 *       around each of  { | } ~ [ \ ] ^ _ ` ! " # $ % & ( ) * + : ; < = > ? @ /
 *       around . and , where no digit precedes, then where none follows
 *       after a dash that follows a digit
 *
 * The steps run on bytes: all that they look at is ASCII, and other characters are
 * only copied. Each text grows to at most three times its length in one step.
 */
#include "eval/text_metrics.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/words.h"

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool stands_alone(char c)
{
    return c && strchr("{|}~[\\]^_`!\"#$%&()*+:;<=>?@/ ", c) != NULL;
}

static bool period(char c)
{
    return c == '.' || c == ',';
}

/* Text while it is cut: one step reads FROM and appends to TO. */
struct cutter {
    char *from, *to; /* owned */
    size_t n;        /* of TO */
};

static void put(struct cutter *c, const char *text, size_t n)
{
    memcpy(c->to + c->n, text, n);
    c->n += n;
}

static void next_step(struct cutter *c)
{
    char *const from = c->from;

    c->to[c->n] = '\0';
    c->from = c->to;
    c->to = from;
    c->n = 0;
}

static void entities(struct cutter *c)
{
    static const char *const names[] = {"&quot;", "&amp;", "&lt;", "&gt;"};

    for (size_t k = 0; k < 4; k++) {
        for (const char *p = c->from; *p;) {
            const size_t n = strlen(names[k]);

            if (!strncmp(p, names[k], n)) {
                put(c, &"\"&<>"[k], 1);
                p += n;
            } else {
                put(c, p++, 1);
            }
        }
        next_step(c);
    }
}

/* Every TEXT in FROM becomes one WITH, or nothing where WITH is 0. */
static void replace(struct cutter *c, const char *text, char with)
{
    const size_t n = strlen(text);

    for (const char *p = c->from; *p;) {
        if (strncmp(p, text, n) != 0) {
            put(c, p++, 1);
            continue;
        }
        if (with)
            put(c, &with, 1);
        p += n;
    }
    next_step(c);
}

static void cut(struct cutter *c)
{
    replace(c, "<skipped>", '\0');
    replace(c, "-\n", '\0');
    replace(c, "\n", ' ');
    entities(c);
    put(c, " ", 1);
    put(c, c->from, strlen(c->from));
    put(c, " ", 1);
    next_step(c);
    for (const char *p = c->from; *p; p++) {
        const char around[] = {' ', *p, ' '};

        put(c, stands_alone(*p) ? around : p, stands_alone(*p) ? 3 : 1);
    }
    next_step(c);
    for (const char *p = c->from; *p;) {
        const bool here = !digit(p[0]) && period(p[1]);
        const char apart[] = {p[0], ' ', p[1], ' '};

        put(c, here ? apart : p, here ? 4 : 1);
        p += here ? 2 : 1;
    }
    next_step(c);
    for (const char *p = c->from; *p;) {
        const bool here = period(p[0]) && p[1] && !digit(p[1]);
        const char apart[] = {' ', p[0], ' ', p[1]};

        put(c, here ? apart : p, here ? 4 : 1);
        p += here ? 2 : 1;
    }
    next_step(c);
    for (const char *p = c->from; *p;) {
        const bool here = digit(p[0]) && p[1] == '-';
        const char apart[] = {p[0], ' ', '-', ' '};

        put(c, here ? apart : p, here ? 4 : 1);
        p += here ? 2 : 1;
    }
    next_step(c);
}

/* Words of TEXT, pointing into *KEPT (owned by the caller). */
static int words_13a(struct words *w, char **kept, const char *text,
                     struct artel_error *err)
{
    size_t n = strlen(text), end = 0;
    const size_t room = 54 * (n + 3); /* 3 * 2 * 2 * 2, and some */
    struct cutter c = {.from = malloc(room), .to = malloc(room)};
    int rc = 0;

    *kept = c.from;
    if (!c.from || !c.to) {
        free(c.to);
        return error_nomem(err, 2 * room);
    }
    for (size_t i = 0; i < n; i++) /* without the blanks at the end */
        if (!blank_at(text + i))
            end = i + 1;
        else
            i += blank_at(text + i) - 1;
    memcpy(c.from, text, end);
    c.from[end] = '\0';
    cut(&c);
    *kept = c.from;
    free(c.to);
    for (const char *p = c.from; rc == 0 && *p;) {
        const char *start = p;

        if (blank_at(p)) {
            p += blank_at(p);
            continue;
        }
        while (*p && !blank_at(p))
            p++;
        rc = words_push(w, start, (size_t)(p - start), err);
    }
    return rc;
}

struct gram {
    int32_t id[BLEU_ORDERS]; /* unused orders 0 */
};

static int by_ids(const void *x, const void *y)
{
    const struct gram *const g = x, *const h = y;

    for (size_t i = 0; i < BLEU_ORDERS; i++)
        if (g->id[i] != h->id[i])
            return g->id[i] < h->id[i] ? -1 : 1;
    return 0;
}

/* The N-grams of W, sorted, into OUT; their number. */
static size_t grams(struct gram *out, const struct words *w, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i + n <= w->n; i++) {
        struct gram *const g = &out[count++];

        *g = (struct gram){{0}};
        for (size_t k = 0; k < n; k++)
            g->id[k] = w->at[i + k].id;
    }
    if (count)
        qsort(out, count, sizeof(*out), by_ids);
    return count;
}

/* How many of sorted X (N) find a partner of their own in sorted Y (M). */
static size_t partners(const struct gram *x, size_t n, const struct gram *y, size_t m)
{
    size_t found = 0;

    for (size_t i = 0, k = 0; i < n && k < m;) {
        const int d = by_ids(&x[i], &y[k]);

        found += d == 0;
        i += d <= 0;
        k += d >= 0;
    }
    return found;
}

int bleu_add(struct bleu *b, const char *got, const char *want, struct artel_error *err)
{
    struct words x = {0}, y = {0};
    char *kept_x = NULL, *kept_y = NULL;
    struct gram *g = NULL;
    int rc = words_13a(&x, &kept_x, got, err);

    if (rc == 0)
        rc = words_13a(&y, &kept_y, want, err);
    if (rc == 0)
        rc = words_number(&x, &y, err);
    if (rc == 0 && !(g = malloc((x.n + y.n + 1) * sizeof(*g))))
        rc = error_nomem(err, (x.n + y.n) * sizeof(*g));
    for (size_t n = 1; rc == 0 && n <= BLEU_ORDERS; n++) {
        const size_t n_got = grams(g, &x, n), n_want = grams(g + x.n, &y, n);

        b->total[n - 1] += n_got;
        b->right[n - 1] += partners(g, n_got, g + x.n, n_want);
    }
    if (rc == 0) {
        b->got_words += x.n;
        b->want_words += y.n;
    }
    free(g);
    free(kept_x);
    free(kept_y);
    words_release(&x);
    words_release(&y);
    return rc;
}

double bleu_score(const struct bleu *b)
{
    double logs = 0, halved = 1, brevity = 1;

    if (!b->right[0] && !b->right[1] && !b->right[2] && !b->right[3])
        return 0;
    if (b->got_words < b->want_words)
        brevity = exp(1 - (double)b->want_words / (double)b->got_words);
    for (size_t n = 0; n < BLEU_ORDERS; n++) {
        if (!b->total[n])
            return 0; /* answers too short for this order */
        if (!b->right[n])
            halved *= 2;
        logs += log(b->right[n] ? 100 * (double)b->right[n] / (double)b->total[n]
                                : 100 / (halved * (double)b->total[n]));
    }
    return brevity * exp(logs / BLEU_ORDERS);
}
