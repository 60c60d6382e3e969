/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbering by sorting: no table to size, and no hash that an input could collide.
 */
#include "eval/words.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int words_push(struct words *w, const char *at, size_t n, struct artel_error *err)
{
    if (w->n == w->room) {
        const size_t room = 2 * w->room + 32;
        struct word *const more = realloc(w->at, room * sizeof(*more));

        if (!more)
            return error_nomem(err, room * sizeof(*more));
        w->at = more;
        w->room = room;
    }
    w->at[w->n++] = (struct word){.at = at, .n = n};
    return 0;
}

void words_release(struct words *w)
{
    free(w->at);
    *w = (struct words){0};
}

static int compare(const struct word *x, const struct word *y)
{
    const int d = memcmp(x->at, y->at, x->n < y->n ? x->n : y->n);

    return d ? d : (x->n > y->n) - (x->n < y->n);
}

static int by_text(const void *x, const void *y)
{
    return compare(*(struct word *const *)x, *(struct word *const *)y);
}

int words_number(struct words *x, struct words *y, struct artel_error *err)
{
    const size_t n = x->n + y->n;
    struct word **const all = malloc((n + 1) * sizeof(*all));

    if (!all)
        return error_nomem(err, n * sizeof(*all));
    for (size_t i = 0; i < n; i++)
        all[i] = i < x->n ? &x->at[i] : &y->at[i - x->n];
    qsort(all, n, sizeof(struct word *), by_text);
    for (size_t i = 0; i < n; i++)
        all[i]->id = i == 0 ? 0 : all[i - 1]->id + (compare(all[i - 1], all[i]) != 0);
    free(all);
    return 0;
}

size_t blank_at(const char *p)
{
    const unsigned char *const u = (const unsigned char *)p;

    if ((*u >= 0x09 && *u <= 0x0d) || (*u >= 0x1c && *u <= 0x20))
        return 1;
    if (*u == 0xc2)
        return u[1] == 0x85 || u[1] == 0xa0 ? 2 : 0;
    if (*u == 0xe1)
        return u[1] == 0x9a && u[2] == 0x80 ? 3 : 0; /* Ogham space */
    if (*u == 0xe2 && u[1] == 0x80)                  /* widths, line and paragraph */
        return (u[2] >= 0x80 && u[2] <= 0x8a) || u[2] == 0xa8 || u[2] == 0xa9 ||
                       u[2] == 0xaf
                   ? 3
                   : 0;
    if (*u == 0xe2)
        return u[1] == 0x81 && u[2] == 0x9f ? 3 : 0;
    if (*u == 0xe3)
        return u[1] == 0x80 && u[2] == 0x80 ? 3 : 0; /* ideographic space */
    return 0;
}
