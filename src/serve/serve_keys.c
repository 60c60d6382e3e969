/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key must be able to stand in a header: 8 to 256 visible ASCII characters.
 */
#include "serve/serve_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/lines.h"

#define KEY_MIN  8
#define KEY_MAX  256
#define KEYS_MAX 10000

static int add_key(struct serve_keys *k, const char *text, size_t n,
                   struct artel_error *err)
{
    char **const larger = realloc(k->at, (k->n + 1) * sizeof(*k->at));

    if (!larger)
        return error_nomem(err, (k->n + 1) * sizeof(*k->at));
    k->at = larger;
    k->at[k->n] = strndup(text, n);
    if (!k->at[k->n])
        return error_nomem(err, n);
    k->n++;
    return 0;
}

/* NULL, or why N bytes of TEXT are no key. */
static const char *no_key(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f)
            return "a key has visible ASCII characters alone, and stands on a line of "
                   "its own";
    return n < KEY_MIN || n > KEY_MAX ? "a key has 8 to 256 characters" : NULL;
}

static int take_line(struct serve_keys *k, const char *text, size_t n, size_t number,
                     struct artel_error *err)
{
    const char *why;
    char where[32];

    while (n && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        n--;
    }
    while (n && (text[n - 1] == ' ' || text[n - 1] == '\t'))
        n--;
    if (!n || text[0] == '#')
        return 0;
    why = k->n < KEYS_MAX ? no_key(text, n) : "more keys than the 10000 that may be";
    if (!why)
        return add_key(k, text, n, err);
    snprintf(where, sizeof(where), "line %zu", number);
    return error_set(err, ARTEL_EFORMAT, "SRV02", where, "%s", why);
}

int serve_keys_init(struct serve_keys *k, const char *path, struct artel_error *err)
{
    struct lines l;
    const char *text;
    size_t n;
    int rc;

    *k = (struct serve_keys){0};
    if (!path)
        return 0;
    rc = lines_open(&l, path, err);
    if (rc < 0)
        return rc;
    while ((rc = lines_next(&l, &text, &n, err)) > 0)
        if ((rc = take_line(k, text, n, l.number, err)) < 0)
            break;
    lines_release(&l);
    if (!rc && !k->n)
        rc = error_set(err, ARTEL_EFORMAT, "SRV02", NULL, "there is no key in it");
    if (rc < 0)
        serve_keys_release(k);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

void serve_keys_release(struct serve_keys *k)
{
    for (size_t i = 0; i < k->n; i++) {
        /* Keys do not stay in freed memory. */
        explicit_bzero(k->at[i], strlen(k->at[i]));
        free(k->at[i]);
    }
    free(k->at);
    *k = (struct serve_keys){0};
}
