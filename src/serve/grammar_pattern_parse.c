/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_pattern.h"

#define LAST_CHARACTER 0x10ffff

struct reader {
    struct net_build *b;
    struct pattern *p;
    const char *text, *at;
    const char *place, *keyword;
    unsigned nesting;
    struct pattern_range *set; /* (n_set) of the class that is read */
    size_t n_set, room_set;
};

void pattern_release(struct pattern *p)
{
    free(p->nodes);
    free(p->classes);
    free(p->ranges);
    *p = (struct pattern){0};
}

static uint32_t refuse(struct reader *r, const char *what)
{
    schema_refused(r->b, r->place, r->keyword, "byte %zu of the pattern: %s",
                   (size_t)(r->at - r->text), what);
    return 0;
}

/* Room for one more after N at *AT, of SIZE bytes each. */
static bool one_more(struct net_build *b, void *at, size_t n, size_t *room, size_t size)
{
    void **p = at;
    void *grown;

    if (b->rc)
        return false;
    if (n < *room)
        return true;
    grown = realloc(*p, (*room ? 2 * *room : 16) * size);
    if (!grown) {
        b->rc = error_nomem(b->err, 2 * *room * size);
        return false;
    }
    *p = grown;
    *room = *room ? 2 * *room : 16;
    return true;
}

static uint32_t node(struct reader *r, enum pattern_kind kind, uint32_t a, uint32_t b)
{
    struct pattern *p = r->p;

    if (!one_more(r->b, &p->nodes, p->n_nodes, &p->room_nodes, sizeof(*p->nodes)))
        return 0;
    p->nodes[p->n_nodes] = (struct pattern_node){.kind = kind, .a = a, .b = b};
    return (uint32_t)p->n_nodes++;
}

static void add_range(struct reader *r, uint32_t lo, uint32_t hi)
{
    if (one_more(r->b, &r->set, r->n_set, &r->room_set, sizeof(*r->set)))
        r->set[r->n_set++] = (struct pattern_range){lo, hi};
}

static int by_start(const void *a, const void *b)
{
    const struct pattern_range *x = a, *y = b;

    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* From place FIRST on the set's ranges in order and apart, all others where INVERT. */
static void tidy(struct reader *r, size_t first, bool invert)
{
    size_t n = first;
    uint32_t next = 0;

    if (r->b->rc || (r->n_set == first && !invert))
        return;
    if (r->n_set > first)
        qsort(r->set + first, r->n_set - first, sizeof(*r->set), by_start);
    for (size_t i = first; i < r->n_set; i++) {
        struct pattern_range *kept = &r->set[n > first ? n - 1 : first];

        if (n > first && r->set[i].lo <= kept->hi + 1)
            kept->hi = kept->hi > r->set[i].hi ? kept->hi : r->set[i].hi;
        else
            r->set[n++] = r->set[i];
    }
    r->n_set = n;
    if (!invert)
        return;
    n = first;
    for (size_t i = first; i < r->n_set; i++) {
        const struct pattern_range at = r->set[i];

        if (next < at.lo)
            r->set[n++] = (struct pattern_range){next, at.lo - 1};
        next = at.hi + 1;
    }
    r->n_set = n; /* never above I: a gap lies before each range */
    if (next <= LAST_CHARACTER)
        add_range(r, next, LAST_CHARACTER);
}

/* The set as a class of its own. */
static uint32_t class_node(struct reader *r, bool invert)
{
    struct pattern *p = r->p;
    const size_t first = p->n_ranges;

    tidy(r, 0, invert);
    for (size_t i = 0; i < r->n_set; i++) {
        if (!one_more(r->b, &p->ranges, p->n_ranges, &p->room_ranges,
                      sizeof(*p->ranges)))
            return 0;
        p->ranges[p->n_ranges++] = r->set[i];
    }
    if (!one_more(r->b, &p->classes, p->n_classes, &p->room_classes,
                  sizeof(*p->classes)))
        return 0;
    p->classes[p->n_classes] = (struct pattern_class){first, r->n_set};
    r->n_set = 0;
    return node(r, PATTERN_CLASS, (uint32_t)p->n_classes++, 0);
}

/* The text is valid UTF-8: jansson has seen to it. */
static uint32_t next_character(struct reader *r)
{
    const unsigned char *c = (const unsigned char *)r->at;
    const size_t n = c[0] < 0x80 ? 1 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    uint32_t value = n == 1 ? c[0] : c[0] & (0x7fu >> n);

    for (size_t i = 1; i < n; i++)
        value = value << 6 | (c[i] & 63);
    r->at += n;
    return value;
}

static uint32_t hex_digits(struct reader *r, size_t n)
{
    uint32_t value = 0;

    for (size_t i = 0; i < n; i++) {
        static const char digits[] = "0123456789abcdef0123456789ABCDEF";
        const char *d = *r->at ? strchr(digits, *r->at) : NULL;

        if (!d)
            return refuse(r, "hexadecimal digits are missing");
        value = value * 16 + (uint32_t)((d - digits) % 16);
        r->at++;
    }
    return value;
}

/* \d, \w, \s and their opposites into the set; false: not one of them. */
static bool read_shorthand(struct reader *r)
{
    const size_t first = r->n_set;
    const char c = *r->at;

    switch (c) {
    case 'd':
    case 'D':
        add_range(r, '0', '9');
        break;
    case 'w':
    case 'W':
        add_range(r, '0', '9');
        add_range(r, 'A', 'Z');
        add_range(r, '_', '_');
        add_range(r, 'a', 'z');
        break;
    case 's':
    case 'S':
        add_range(r, '\t', '\r');
        add_range(r, ' ', ' ');
        if (c == 's')
            break; /* readers differ on others: they are neither \s nor \S */
        add_range(r, 0x1c, 0x1f);
        add_range(r, 0x85, 0x85);
        add_range(r, 0xa0, 0xa0);
        add_range(r, 0x1680, 0x1680);
        add_range(r, 0x2000, 0x200a);
        add_range(r, 0x2028, 0x2029);
        add_range(r, 0x202f, 0x202f);
        add_range(r, 0x205f, 0x205f);
        add_range(r, 0x3000, 0x3000);
        add_range(r, 0xfeff, 0xfeff);
        break;
    default:
        return false;
    }
    r->at++;
    tidy(r, first, c < 'a');
    return true;
}

/* One character after a backslash, which has been read. */
static uint32_t read_escape(struct reader *r)
{
    static const char letters[] = "t\tn\nr\rf\fv\v";
    const char c = *r->at;
    const char *known = c ? strchr(letters, c) : NULL;

    if (c >= 'a' && known && (known - letters) % 2 == 0) {
        r->at++;
        return (unsigned char)known[1];
    }
    if (c == 'x' || c == 'u') {
        uint32_t value;

        r->at++;
        value = hex_digits(r, c == 'x' ? 2 : 4);
        return value >= 0xd800 && value < 0xe000
                   ? refuse(r, "surrogates are not supported")
                   : value;
    }
    if (c > 0 && strchr("^$\\.*+?()[]{}|/-\"'#&,:;<=>@_`~!% ", c))
        return next_character(r);
    return refuse(r, c ? "this escape is not supported" : "ends in a backslash");
}

/* [...], whose bracket has been read. */
static uint32_t read_class(struct reader *r)
{
    const bool invert = *r->at == '^';

    if (invert)
        r->at++;
    r->n_set = 0;
    while (*r->at != ']' && !r->b->rc) {
        uint32_t lo, hi;

        if (!*r->at)
            return refuse(r, "a class without its ]");
        lo = next_character(r);
        if (lo == '\\') {
            if (read_shorthand(r))
                continue;
            lo = *r->at == 'b' ? (r->at++, '\b') : read_escape(r);
        }
        hi = lo;
        if (*r->at == '-' && r->at[1] && r->at[1] != ']') {
            r->at++;
            hi = next_character(r);
            if (hi == '\\')
                hi = strchr("dDwWsS", *r->at) ? refuse(r, "a range ends in a class")
                                              : read_escape(r);
            if (hi < lo)
                return refuse(r, "a range whose end is before its beginning");
        }
        add_range(r, lo, hi);
    }
    if (r->b->rc)
        return 0;
    r->at++;
    return class_node(r, invert);
}

static uint32_t read_or(struct reader *r, bool top);

static uint32_t read_atom(struct reader *r)
{
    uint32_t c = next_character(r), inner;

    r->n_set = 0;
    switch (c) {
    case '(':
        if (*r->at == '?') {
            if (r->at[1] != ':')
                return refuse(r, "groups of this kind are not supported");
            r->at += 2;
        }
        if (++r->nesting > PATTERN_NESTING)
            return refuse(r, "too many groups within each other");
        inner = read_or(r, false);
        r->nesting--;
        if (*r->at != ')')
            return refuse(r, "a group without its )");
        r->at++;
        return inner;
    case '[':
        return read_class(r);
    case '.':
        add_range(r, '\n', '\n');
        add_range(r, '\r', '\r');
        add_range(r, 0x2028, 0x2029);
        return class_node(r, true);
    case '\\':
        if (read_shorthand(r))
            return class_node(r, false);
        c = read_escape(r);
        break;
    case '^':
    case '$':
        return refuse(r, "an anchor elsewhere than at the beginning or the end of a "
                         "whole alternative");
    case '*':
    case '+':
    case '?':
    case '{':
    case '}':
    case ']':
        return refuse(r, "this character must stand behind a backslash here");
    default:
        break;
    }
    add_range(r, c, c);
    return class_node(r, false);
}

static uint32_t read_times(struct reader *r)
{
    uint32_t value = 0;

    if (*r->at < '0' || *r->at > '9')
        return refuse(r, "a number is missing in {}");
    for (; *r->at >= '0' && *r->at <= '9'; r->at++) {
        value = value * 10 + (uint32_t)(*r->at - '0');
        if (value > PATTERN_TIMES)
            return refuse(r, "more than 1000 repetitions");
    }
    return value;
}

/* ATOM with the * + ? {} behind it. */
static uint32_t read_repeat(struct reader *r, uint32_t atom)
{
    uint32_t min = 0, max = PATTERN_ENDLESS, repeat;

    if (!*r->at || !strchr("*+?{", *r->at))
        return atom;
    switch (*r->at++) {
    case '+':
        min = 1;
        break;
    case '?':
        max = 1;
        break;
    case '{':
        min = max = read_times(r);
        if (*r->at == ',') {
            r->at++;
            max = *r->at == '}' ? PATTERN_ENDLESS : read_times(r);
        }
        if (*r->at != '}')
            return refuse(r, "{ without its }");
        r->at++;
        if (max < min)
            return refuse(r, "{} whose end is before its beginning");
        break;
    default:
        break;
    }
    if (*r->at == '?')
        r->at++; /* lazy: the same texts */
    if (*r->at && strchr("*+?{", *r->at))
        return refuse(r, "a repetition of a repetition");
    repeat = node(r, PATTERN_REPEAT, atom, 0);
    if (!r->b->rc) {
        r->p->nodes[repeat].min = min;
        r->p->nodes[repeat].max = max;
    }
    return repeat;
}

/* LIST (0: empty yet) and ITEM behind it; *LAST is the node whose b may go on. */
static uint32_t append(struct reader *r, enum pattern_kind kind, uint32_t list,
                       uint32_t *last, uint32_t item)
{
    uint32_t more;

    if (!list)
        return item;
    if (!*last) {
        *last = node(r, kind, list, item);
        return *last;
    }
    /* a, b -> a, (b, c): the node that was last gets one in its place */
    more = node(r, kind, r->b->rc ? 0 : r->p->nodes[*last].b, item);
    if (!r->b->rc) {
        r->p->nodes[more].listed = true;
        r->p->nodes[*last].b = more;
        *last = more;
    }
    return list;
}

static uint32_t anything(struct reader *r)
{
    uint32_t repeat;

    r->n_set = 0;
    repeat = node(r, PATTERN_REPEAT, class_node(r, true), 0);
    if (!r->b->rc)
        r->p->nodes[repeat].max = PATTERN_ENDLESS;
    return repeat;
}

static uint32_t read_sequence(struct reader *r, bool top)
{
    uint32_t list = 0, last = 0;
    bool ends = false;

    if (top && *r->at == '^')
        r->at++;
    else if (top)
        list = anything(r);
    while (*r->at && *r->at != '|' && *r->at != ')' && !r->b->rc) {
        if (top && *r->at == '$' && (r->at[1] == 0 || r->at[1] == '|')) {
            ends = true;
            r->at++;
            break;
        }
        list = append(r, PATTERN_THEN, list, &last, read_repeat(r, read_atom(r)));
    }
    if (top && !ends)
        list = append(r, PATTERN_THEN, list, &last, anything(r));
    return list ? list : node(r, PATTERN_EMPTY, 0, 0);
}

static uint32_t read_or(struct reader *r, bool top)
{
    uint32_t last = 0, list = read_sequence(r, top);

    while (*r->at == '|' && !r->b->rc) {
        r->at++;
        list = append(r, PATTERN_OR, list, &last, read_sequence(r, top));
    }
    return list;
}

int pattern_parse(struct net_build *b, struct pattern *out, const char *text,
                  const char *place, const char *keyword)
{
    struct reader r = {
        .b = b, .p = out, .text = text, .at = text, .place = place, .keyword = keyword};

    *out = (struct pattern){0};
    node(&r, PATTERN_EMPTY, 0, 0);
    out->root = read_or(&r, true);
    if (!b->rc && *r.at)
        refuse(&r, "a ) without its group");
    free(r.set);
    return b->rc;
}
