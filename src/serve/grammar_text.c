/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/grammar_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Stands for a blank that may be left out; JSON text never holds this byte. */
#define BLANK 1

int schema_refused(struct net_build *b, const char *place, const char *keyword,
                   const char *why, ...)
{
    char at[200], where[160], reason[200];
    va_list args;

    if (b->rc)
        return b->rc;
    snprintf(at, sizeof(at), "%s%s%s", place, keyword ? "/" : "",
             keyword ? keyword : "");
    escape_text(where, sizeof(where), at, strlen(at));
    va_start(args, why);
    vsnprintf(reason, sizeof(reason), why, args);
    va_end(args);
    return b->rc = error_set(b->err, ARTEL_EUSAGE, "SRV07", where, "%s", reason);
}

void spellings_release(struct spellings *s)
{
    free(s->at);
    *s = (struct spellings){0};
}

void text_blank(struct net_build *b, uint32_t from, uint32_t to)
{
    net_bytes(b, from, ' ', ' ', to);
    net_empty(b, from, to);
}

/* Edges of one kind of string: what raises the counter and who may end it. */
struct body {
    struct net_build *b;
    uint32_t body; /* between two characters */
    uint32_t limits;
    bool limited;
};

static void character(const struct body *t, uint32_t from, unsigned lo, unsigned hi,
                      uint32_t to)
{
    const struct net_edge e = {.kind = NET_BYTES,
                               .lo = (uint8_t)lo,
                               .hi = (uint8_t)hi,
                               .flags = t->limited ? NET_COUNTS : 0,
                               .to = to,
                               .limits = t->limits};

    net_edge(t->b, from, &e);
}

/* The bytes of UTF-8 after the first, shortest forms alone, without surrogates. */
static void add_utf8(const struct body *t)
{
    struct net_build *b = t->b;
    const uint32_t one = net_state(b), two = net_state(b), three = net_state(b);
    const uint32_t e0 = net_state(b), ed = net_state(b), f0 = net_state(b),
                   f4 = net_state(b);

    net_bytes(b, one, 0x80, 0xbf, t->body);
    net_bytes(b, two, 0x80, 0xbf, one);
    net_bytes(b, three, 0x80, 0xbf, two);
    net_bytes(b, e0, 0xa0, 0xbf, one);
    net_bytes(b, ed, 0x80, 0x9f, one);
    net_bytes(b, f0, 0x90, 0xbf, two);
    net_bytes(b, f4, 0x80, 0x8f, two);
    character(t, t->body, 0xc2, 0xdf, one);
    character(t, t->body, 0xe0, 0xe0, e0);
    character(t, t->body, 0xe1, 0xec, two);
    character(t, t->body, 0xed, 0xed, ed);
    character(t, t->body, 0xee, 0xef, two);
    character(t, t->body, 0xf0, 0xf0, f0);
    character(t, t->body, 0xf1, 0xf3, three);
    character(t, t->body, 0xf4, 0xf4, f4);
}

static void hex(struct net_build *b, uint32_t from, unsigned lo, unsigned hi,
                uint32_t to)
{
    for (unsigned d = lo; d <= hi; d++) {
        const unsigned c = (unsigned char)"0123456789abcdef"[d];

        net_bytes(b, from, c, c, to);
        if (d > 9)
            net_bytes(b, from, c - 'a' + 'A', c - 'a' + 'A', to);
    }
}

/* Four hexadecimal digits after U, or eight for a pair of surrogates; not NUL. */
static void add_unicode(struct net_build *b, uint32_t u, uint32_t body)
{
    uint32_t left[4], zeros = u, high, low;

    left[0] = body;
    for (size_t i = 1; i < 4; i++) {
        left[i] = net_state(b);
        hex(b, left[i], 0, 15, left[i - 1]);
    }
    hex(b, u, 1, 12, left[3]);
    hex(b, u, 14, 15, left[3]);
    for (size_t i = 3; i > 0; i--) {
        const uint32_t more = net_state(b);

        net_bytes(b, zeros, '0', '0', more);
        hex(b, more, 1, 15, left[i - 1]);
        zeros = more;
    }
    high = net_state(b);
    hex(b, u, 13, 13, high);
    hex(b, high, 0, 7, left[2]);
    for (size_t i = 0; i < 3; i++) {
        const uint32_t next = net_state(b);

        hex(b, high, i ? 0 : 8, i ? 15 : 11, next);
        high = next;
    }
    high = net_text(b, high, "\\u", 2);
    low = net_state(b);
    hex(b, high, 13, 13, low);
    hex(b, low, 12, 15, left[2]);
}

static void add_plain(const struct body *t)
{
    character(t, t->body, 0x20, '"' - 1, t->body);
    character(t, t->body, '"' + 1, '\\' - 1, t->body);
    character(t, t->body, '\\' + 1, 0x7f, t->body);
    add_utf8(t);
}

static void add_escapes(const struct body *t, const char *letters, bool unicode)
{
    const uint32_t escape = net_state(t->b);

    character(t, t->body, '\\', '\\', escape);
    for (; *letters; letters++)
        net_bytes(t->b, escape, (unsigned char)*letters, (unsigned char)*letters,
                  t->body);
    if (unicode) {
        const uint32_t u = net_state(t->b);

        net_bytes(t->b, escape, 'u', 'u', u);
        add_unicode(t->b, u, t->body);
    }
}

void text_string(struct net_build *b, uint32_t from, uint32_t to, uint32_t min,
                 uint32_t max)
{
    struct body t = {.b = b, .limited = min > 0 || max != NET_NO_LIMIT};
    struct net_edge quote = {.kind = NET_BYTES, .lo = '"', .hi = '"', .to = to};

    t.body = net_state(b);
    if (t.limited) {
        t.limits = quote.limits = net_limits(b, min, max);
        quote.flags = NET_ENOUGH;
    }
    net_bytes(b, from, '"', '"', t.body);
    net_edge(b, t.body, &quote);
    add_plain(&t);
    add_escapes(&t, "\"\\/bfnrt", true);
}

/* Given values. */

static void spell_byte(struct net_build *b, struct spellings *s, uint32_t *at,
                       unsigned char byte)
{
    uint32_t child;

    if (b->rc)
        return;
    for (child = s->at[*at].child; child; child = s->at[child].next)
        if (s->at[child].byte == byte) {
            *at = child;
            return;
        }
    if (s->n == s->room) {
        struct spelling *grown = realloc(s->at, 2 * s->room * sizeof(*grown));

        if (!grown) {
            b->rc = error_nomem(b->err, 2 * s->room * sizeof(*grown));
            return;
        }
        s->at = grown;
        s->room *= 2;
    }
    child = (uint32_t)s->n++;
    s->at[child] = (struct spelling){.next = s->at[*at].child, .byte = byte};
    s->at[*at].child = child;
    *at = child;
}

static void spell_text(struct net_build *b, struct spellings *s, uint32_t *at,
                       const char *text)
{
    for (; *text; text++)
        spell_byte(b, s, at, (unsigned char)*text);
}

static void spell_scalar(struct net_build *b, struct spellings *s, uint32_t *at,
                         const json_t *value)
{
    char *text;

    if (json_is_real(value)) {
        const double x = json_real_value(value);
        char shortest[40];

        for (int digits = 15; digits <= 17; digits++) {
            snprintf(shortest, sizeof(shortest), "%.*g", digits, x);
            if (strtod(shortest, NULL) == x)
                break;
        }
        spell_text(b, s, at, shortest);
        return;
    }
    text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (text)
        spell_text(b, s, at, text);
    else if (!b->rc)
        b->rc = error_nomem(b->err, 1);
    free(text);
}

/* Nested at most as deep as the schema, which is bounded. */
static void spell_value(struct net_build *b, struct spellings *s, uint32_t *at,
                        const json_t *value)
{
    const bool object = json_is_object(value);
    const char *key;
    json_t *item;
    size_t i;

    if (!object && !json_is_array(value)) {
        spell_scalar(b, s, at, value);
        return;
    }
    spell_byte(b, s, at, object ? '{' : '[');
    if (object) {
        size_t n = 0;

        json_object_foreach((json_t *)value, key, item)
        {
            json_t *name = json_string(key);

            if (n++) {
                spell_byte(b, s, at, ',');
                spell_byte(b, s, at, BLANK);
            }
            spell_scalar(b, s, at, name);
            json_decref(name);
            spell_byte(b, s, at, ':');
            spell_byte(b, s, at, BLANK);
            spell_value(b, s, at, item);
        }
    } else {
        json_array_foreach(value, i, item)
        {
            if (i) {
                spell_byte(b, s, at, ',');
                spell_byte(b, s, at, BLANK);
            }
            spell_value(b, s, at, item);
        }
    }
    spell_byte(b, s, at, object ? '}' : ']');
}

static int spellings_start(struct net_build *b, struct spellings *s)
{
    if (s->at || b->rc)
        return b->rc;
    s->room = 64;
    s->at = calloc(s->room, sizeof(*s->at));
    if (!s->at)
        return b->rc = error_nomem(b->err, s->room * sizeof(*s->at));
    s->n = 1;
    return 0;
}

int text_spell(struct net_build *b, struct spellings *s, const json_t *value)
{
    uint32_t at = 0;

    if (spellings_start(b, s) < 0)
        return b->rc;
    spell_value(b, s, &at, value);
    s->at[at].end = true;
    return b->rc;
}

void text_spellings(struct net_build *b, uint32_t from, const struct spellings *s)
{
    uint32_t *state = b->rc || !s->n ? NULL : malloc(s->n * sizeof(*state));

    if (!state) {
        if (!b->rc && s->n)
            b->rc = error_nomem(b->err, s->n * sizeof(*state));
        return;
    }
    state[0] = from;
    for (size_t i = 1; i < s->n; i++)
        state[i] = net_state(b);
    for (size_t i = 0; i < s->n; i++) {
        if (s->at[i].end)
            net_accept(b, state[i]);
        for (uint32_t c = s->at[i].child; c; c = s->at[c].next) {
            if (s->at[c].byte == BLANK)
                text_blank(b, state[i], state[c]);
            else
                net_bytes(b, state[i], s->at[c].byte, s->at[c].byte, state[c]);
        }
    }
    free(state);
}

/* Keys. A free key is spelled in one way only, so that its bytes tell it from others. */

void text_name(struct net_build *b, uint32_t from, uint32_t to, const char *name)
{
    json_t *value = json_string(name);
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

    if (text) {
        const size_t n = strlen(text);

        from = net_text(b, from, text, n - 1);
        net_bytes(b, from, '"', '"', to);
    } else if (!b->rc) {
        b->rc = error_nomem(b->err, 1);
    }
    free(text);
    json_decref(value);
}

/* State AT follows the beginning of some names (node AT of S) and stands where FREE
 * would in any key: its edges, but for bytes that go on in S. */
struct carve {
    uint32_t at, node, free;
};

static void carve_edges(struct net_build *b, const struct spellings *s,
                        struct carve *work, size_t *n_work, struct carve c)
{
    for (uint32_t i = b->head[c.free]; i; i = b->next[i]) {
        const struct net_edge e = b->edges[i];
        unsigned lo = e.lo;

        for (unsigned byte = e.lo; byte <= e.hi; byte++) {
            uint32_t child = s->at[c.node].child;

            while (child && s->at[child].byte != byte)
                child = s->at[child].next;
            if (!child)
                continue;
            if (lo < byte)
                net_bytes(b, c.at, lo, byte - 1, e.to);
            lo = byte + 1;
            if (!s->at[child].end) {
                const struct carve next = {net_state(b), child, e.to};

                net_bytes(b, c.at, byte, byte, next.at);
                work[(*n_work)++] = next;
            }
        }
        if (lo <= e.hi)
            net_bytes(b, c.at, lo, e.hi, e.to);
    }
}

void text_key(struct net_build *b, uint32_t from, uint32_t to, const json_t *names)
{
    struct body t = {.b = b, .body = net_state(b)};
    struct spellings s = {0};
    struct carve *work = NULL;
    size_t n_work = 1;
    const char *name;
    json_t *value;

    if (!json_object_size(names)) {
        text_string(b, from, to, 0, NET_NO_LIMIT);
        return;
    }
    net_bytes(b, t.body, '"', '"', to);
    add_plain(&t);
    add_escapes(&t, "\"\\bfnrt", false);
    if (spellings_start(b, &s) < 0)
        return;
    json_object_foreach((json_t *)names, name, value)
    {
        json_t *string = json_string(name);
        uint32_t at = 0;

        spell_scalar(b, &s, &at, string);
        s.at[at].end = true;
        json_decref(string);
    }
    work = malloc((s.n + 1) * sizeof(*work));
    if (b->rc || !work) {
        if (!b->rc)
            b->rc = error_nomem(b->err, s.n * sizeof(*work));
    } else {
        work[0] = (struct carve){net_state(b), s.at[0].child, t.body};
        net_bytes(b, from, '"', '"', work[0].at);
        while (n_work && !b->rc) {
            n_work--;
            carve_edges(b, &s, work, &n_work, work[n_work]);
        }
    }
    free(work);
    spellings_release(&s);
}

/* Characters of a pattern, as UTF-8 or in their one escaped spelling. */

/* Bytes of one length, LO to HI, each N bytes; beyond the first all are free. */
static void utf8_range(struct net_build *b, uint32_t from, uint32_t to,
                       const unsigned char *lo, const unsigned char *hi, size_t n)
{
    static const unsigned char least[3] = {0x80, 0x80, 0x80},
                               most[3] = {0xbf, 0xbf, 0xbf};
    unsigned first = lo[0], last = hi[0];
    uint32_t next;

    if (n == 1) {
        net_bytes(b, from, first, last, to);
        return;
    }
    if (first == last) {
        next = net_state(b);
        net_bytes(b, from, first, first, next);
        utf8_range(b, next, to, lo + 1, hi + 1, n - 1);
        return;
    }
    if (memcmp(lo + 1, least, n - 1)) {
        next = net_state(b);
        net_bytes(b, from, first, first, next);
        utf8_range(b, next, to, lo + 1, most, n - 1);
        first++;
    }
    if (memcmp(hi + 1, most, n - 1)) {
        next = net_state(b);
        net_bytes(b, from, last, last, next);
        utf8_range(b, next, to, least, hi + 1, n - 1);
        last--;
    }
    if (first > last)
        return;
    next = net_state(b);
    net_bytes(b, from, first, last, next);
    utf8_range(b, next, to, least, most, n - 1);
}

static size_t utf8_bytes(uint32_t c, unsigned char *out)
{
    if (c < 0x800) {
        out[0] = (unsigned char)(0xc0 | c >> 6);
        out[1] = (unsigned char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (unsigned char)(0xe0 | c >> 12);
        out[1] = (unsigned char)(0x80 | (c >> 6 & 63));
        out[2] = (unsigned char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (unsigned char)(0xf0 | c >> 18);
    out[1] = (unsigned char)(0x80 | (c >> 12 & 63));
    out[2] = (unsigned char)(0x80 | (c >> 6 & 63));
    out[3] = (unsigned char)(0x80 | (c & 63));
    return 4;
}

static void ascii_characters(struct net_build *b, uint32_t from, uint32_t to,
                             uint32_t first, uint32_t last)
{
    static const char shorts[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    uint32_t begun = first, escape = 0;

    for (uint32_t c = first; c <= last; c++) {
        char text[8];
        const char *known = c ? strchr(shorts, (int)c) : NULL;
        uint32_t at;

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        if (begun < c)
            net_bytes(b, from, begun, c - 1, to);
        begun = c + 1;
        if (c == 0)
            continue; /* no text holds it */
        if (!escape) {
            escape = net_state(b);
            net_bytes(b, from, '\\', '\\', escape);
        }
        /* Letters of the table are below no control byte: the even places. */
        if (known && (known - shorts) % 2 == 0) {
            net_bytes(b, escape, (unsigned char)known[1], (unsigned char)known[1], to);
            continue;
        }
        snprintf(text, sizeof(text), "u%04x", (unsigned)c);
        at = net_text(b, escape, text, 4);
        net_bytes(b, at, (unsigned char)text[4], (unsigned char)text[4], to);
    }
    if (begun <= last)
        net_bytes(b, from, begun, last, to);
}

void text_characters(struct net_build *b, uint32_t from, uint32_t to, uint32_t first,
                     uint32_t last)
{
    /* One length of UTF-8 each, without surrogates. */
    static const uint32_t parts[][2] = {
        {0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, 0x10ffff}};

    if (first < 0x80)
        ascii_characters(b, from, to, first, last < 0x7f ? last : 0x7f);
    for (size_t i = 0; i < 4; i++) {
        const uint32_t lo = first > parts[i][0] ? first : parts[i][0];
        const uint32_t hi = last < parts[i][1] ? last : parts[i][1];
        unsigned char from_bytes[4], to_bytes[4];

        if (lo <= hi) {
            const size_t n = utf8_bytes(lo, from_bytes);

            utf8_bytes(hi, to_bytes);
            utf8_range(b, from, to, from_bytes, to_bytes, n);
        }
    }
}
