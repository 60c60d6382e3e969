/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stop string can start in one token and end in another, so each addition is
 * searched from where the longest stop string could have begun before it.
 */
#include "eval/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void stream_init(struct stream *s, const char *const *stop, size_t n_stop)
{
    *s = (struct stream){.stop = stop, .n_stop = n_stop};
}

void stream_release(struct stream *s)
{
    free(s->text);
    *s = (struct stream){0};
}

static int append(struct stream *s, const void *bytes, size_t n,
                  struct artel_error *err)
{
    if (s->n + n + 1 > s->room) {
        const size_t room = 2 * s->room + n + 64;
        char *const text = realloc(s->text, room);

        if (!text)
            return error_nomem(err, room);
        s->text = text;
        s->room = room;
    }
    memcpy(s->text + s->n, bytes, n);
    s->n += n;
    s->text[s->n] = '\0';
    return 0;
}

/* Does B continue a character whose N first bytes are T? *WHOLE its full length. */
static bool continues(const unsigned char *t, size_t n, unsigned char b, size_t *whole)
{
    const unsigned char lead = n ? t[0] : b;

    *whole = lead < 0x80                    ? 1
             : lead >= 0xc2 && lead <= 0xdf ? 2
             : (lead & 0xf0) == 0xe0        ? 3
             : lead >= 0xf0 && lead <= 0xf4 ? 4
                                            : 0;
    if (!n)
        return *whole > 0;
    if ((b & 0xc0) != 0x80)
        return false;
    if (n > 1)
        return true;
    /* Overlong forms, surrogates, and what lies past U+10FFFF. */
    return !((lead == 0xe0 && b < 0xa0) || (lead == 0xed && b > 0x9f) ||
             (lead == 0xf0 && b < 0x90) || (lead == 0xf4 && b > 0x8f));
}

static int add_byte(struct stream *s, unsigned char b, struct artel_error *err)
{
    size_t whole;
    int rc = 0;

    if (!continues(s->tail, s->n_tail, b, &whole)) {
        const bool had_tail = s->n_tail > 0;

        s->n_tail = 0;
        rc = append(s, "\xef\xbf\xbd", 3, err);
        if (rc < 0 || !had_tail || !continues(s->tail, 0, b, &whole)) {
            if (rc == 0 && had_tail)
                rc = append(s, "\xef\xbf\xbd", 3, err);
            return rc;
        }
    }
    s->tail[s->n_tail++] = b;
    if (s->n_tail == whole) {
        s->n_tail = 0;
        rc = append(s, s->tail, whole, err);
    }
    return rc;
}

/* The first stop string in the text from byte FROM on ends the text. */
static void find_stop(struct stream *s, size_t from)
{
    size_t first = s->n;

    for (size_t i = 0; i < s->n_stop; i++) {
        const size_t length = strlen(s->stop[i]);
        size_t at = from >= length ? from - length + 1 : 0;

        if (at < s->n_sent)
            at = s->n_sent;
        for (; length && at + length <= s->n && at < first; at++)
            if (!memcmp(s->text + at, s->stop[i], length)) {
                first = at;
                s->stopped = true;
            }
    }
    if (s->stopped) {
        s->n = first;
        s->text[first] = '\0';
        s->n_tail = 0;
    }
}

int stream_add(struct stream *s, const char *bytes, size_t n, struct artel_error *err)
{
    const size_t before = s->n;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0 && !s->stopped; i++)
        rc = add_byte(s, (unsigned char)bytes[i], err);
    if (rc == 0 && s->n > before)
        find_stop(s, before);
    return rc;
}

int stream_finish(struct stream *s, struct artel_error *err)
{
    const size_t before = s->n;
    int rc;

    if (!s->stopped && s->n_tail) {
        s->n_tail = 0;
        rc = append(s, "\xef\xbf\xbd", 3, err);
        if (rc < 0)
            return rc;
        find_stop(s, before);
    }
    s->stop = NULL; /* nothing is held back any more */
    s->n_stop = 0;
    return s->text ? 0 : append(s, "", 0, err);
}

const char *stream_take(struct stream *s, size_t *n)
{
    const char *const out = s->text ? s->text + s->n_sent : "";
    size_t held = 0;

    for (size_t i = 0; i < s->n_stop && !s->stopped; i++) {
        const size_t length = strlen(s->stop[i]);
        size_t k = length ? length - 1 : 0;

        if (k > s->n - s->n_sent)
            k = s->n - s->n_sent;
        while (k > held && memcmp(s->text + s->n - k, s->stop[i], k))
            k--;
        if (k > held)
            held = k;
    }
    *n = s->n - s->n_sent - held;
    /* A held back stop string may begin inside a character only if it is no UTF-8. */
    s->n_sent += *n;
    return out;
}
