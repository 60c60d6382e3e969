/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions by positions (Glushkov): each character of the expression, as
 * often as repetitions want it, is one position, and FOLLOW tells which may come after
 * which. A state of the net is a position, and how many characters have come where
 * their number is bounded, too.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_pattern.h"

/* What a part of the expression can begin and end with. */
struct part {
    uint64_t first[PATTERN_WORDS], last[PATTERN_WORDS];
    bool empty; /* it may be nothing */
};

struct positions {
    struct net_build *b;
    const struct pattern *p;
    uint64_t (*follow)[PATTERN_WORDS]; /* (PATTERN_POSITIONS) */
    uint16_t *class;                   /* (PATTERN_POSITIONS) */
    size_t n;
    bool too_many;
};

static void unite(uint64_t *to, const uint64_t *from)
{
    for (size_t i = 0; i < PATTERN_WORDS; i++)
        to[i] |= from[i];
}

static void follows(struct positions *g, const uint64_t *last, const uint64_t *first)
{
    for (size_t i = 0; i < g->n; i++)
        if (last[i / 64] >> i % 64 & 1)
            unite(g->follow[i], first);
}

/* A becomes A and then B. */
static void then(struct positions *g, struct part *a, const struct part *b)
{
    follows(g, a->last, b->first);
    if (a->empty)
        unite(a->first, b->first);
    if (b->empty)
        unite(a->last, b->last);
    else
        memcpy(a->last, b->last, sizeof(a->last));
    a->empty = a->empty && b->empty;
}

static void place_node(struct positions *g, struct part *out, uint32_t node);

/*
 * X{2,4} as X X (X (X)?)?: each copy leads to the next alone, and texts may end behind the
 * last ones. So edges are as many as characters, and a text of one character a copy
 * stands in one place, where X X X? X? would have a place for each copy left out.
 * What a part that may be nothing says K times it says in up to K that are not.
 */
static void place_repeat(struct positions *g, struct part *out,
                         const struct pattern_node *n)
{
    const bool endless = n->max == PATTERN_ENDLESS;
    uint32_t min = n->min, times = endless ? (min ? min : 1) : n->max;
    struct part part, before;

    *out = (struct part){.empty = min == 0};
    for (uint32_t i = 0; i < times && !g->too_many; i++) {
        const size_t n_before = g->n;

        place_node(g, &part, n->a);
        if (part.empty) {
            out->empty = true;
            min = 0;
            times = endless ? 1 : times;
        }
        if (g->n == n_before)
            return; /* nothing, however often */
        if (i)
            follows(g, before.last, part.first);
        else
            memcpy(out->first, part.first, sizeof(out->first));
        if (endless && i + 1 == times)
            follows(g, part.last, part.first);
        if (i + 1 >= min)
            unite(out->last, part.last);
        before = part;
    }
}

/* Recursion is as deep as the parser let it be. */
static void place_node(struct positions *g, struct part *out, uint32_t node)
{
    const struct pattern_node *n = &g->p->nodes[node];
    struct part other;

    *out = (struct part){.empty = true};
    switch (n->kind) {
    case PATTERN_EMPTY:
        return;
    case PATTERN_CLASS:
        if (g->n == PATTERN_POSITIONS) {
            g->too_many = true;
            return;
        }
        out->empty = false;
        out->first[g->n / 64] |= UINT64_C(1) << g->n % 64;
        memcpy(out->last, out->first, sizeof(out->last));
        memset(g->follow[g->n], 0, sizeof(g->follow[g->n]));
        g->class[g->n++] = (uint16_t)n->a;
        return;
    case PATTERN_THEN:
    case PATTERN_OR:
        /* Lists lean to the right, and may be long: no recursion along them. */
        place_node(g, out, n->a);
        for (uint32_t rest = n->b; rest && !g->too_many;) {
            const struct pattern_node *r = &g->p->nodes[rest];
            const bool list = r->kind == n->kind && r->listed;

            place_node(g, &other, list ? r->a : rest);
            if (n->kind == PATTERN_THEN) {
                then(g, out, &other);
            } else {
                unite(out->first, other.first);
                unite(out->last, other.last);
                out->empty = out->empty || other.empty;
            }
            rest = list ? r->b : 0;
        }
        return;
    case PATTERN_REPEAT:
        place_repeat(g, out, n);
        return;
    }
}

/* (position, characters so far) as states of the net. */
struct product {
    struct positions *g;
    const struct part *whole;
    uint32_t min, max; /* characters */
    size_t counts;     /* different numbers of them that matter */
    uint32_t *state;   /* (n + 1, counts) 0: not made; row n is the beginning */
    uint32_t *work;    /* (n + 1, counts) */
    size_t n_work;
    uint32_t to;
};

static void go_on(struct product *x, size_t at, size_t count)
{
    struct positions *g = x->g;
    const uint32_t from = x->state[at * x->counts + count];
    const uint64_t *next = at == g->n ? x->whole->first : g->follow[at];
    const bool may_end =
        at == g->n ? x->whole->empty : x->whole->last[at / 64] >> at % 64 & 1;

    if (may_end && count >= x->min)
        net_bytes(g->b, from, '"', '"', x->to);
    if (x->max != NET_NO_LIMIT && count == x->max)
        return;
    if (x->max != NET_NO_LIMIT || count < x->min)
        count++;
    for (size_t i = 0; i < g->n && !g->b->rc; i++) {
        const struct pattern_class *c;
        uint32_t *to = &x->state[i * x->counts + count];

        if (!(next[i / 64] >> i % 64 & 1))
            continue;
        if (!*to) {
            *to = net_state(g->b);
            x->work[x->n_work++] = (uint32_t)(i * x->counts + count);
        }
        c = &g->p->classes[g->class[i]];
        for (size_t r = 0; r < c->n; r++)
            text_characters(g->b, from, *to, g->p->ranges[c->first + r].lo,
                            g->p->ranges[c->first + r].hi);
    }
}

static int spread(struct product *x, uint32_t from)
{
    struct net_build *b = x->g->b;
    const size_t n = (x->g->n + 1) * x->counts;

    x->state = calloc(n, sizeof(*x->state));
    x->work = malloc(n * sizeof(*x->work));
    if (x->state && x->work) {
        const size_t start = x->g->n * x->counts;

        x->state[start] = net_state(b);
        net_bytes(b, from, '"', '"', x->state[start]);
        x->work[x->n_work++] = (uint32_t)start;
        while (x->n_work && !b->rc) {
            const uint32_t at = x->work[--x->n_work];

            go_on(x, at / x->counts, at % x->counts);
        }
    } else if (!b->rc) {
        b->rc = error_nomem(b->err, n * sizeof(*x->state));
    }
    free(x->state);
    free(x->work);
    return b->rc;
}

static int make_states(struct net_build *b, uint32_t from, uint32_t to,
                       const struct pattern *p, uint32_t min, uint32_t max,
                       const char *place, const char *keyword)
{
    struct positions g = {.b = b, .p = p};
    struct product x = {.g = &g, .min = min, .max = max, .to = to};
    struct part whole;

    g.follow = malloc(PATTERN_POSITIONS * sizeof(*g.follow));
    g.class = malloc(PATTERN_POSITIONS * sizeof(*g.class));
    if (!g.follow || !g.class) {
        b->rc = error_nomem(b->err, PATTERN_POSITIONS * sizeof(*g.follow));
        goto done;
    }
    place_node(&g, &whole, p->root);
    x.whole = &whole;
    x.counts = (size_t)(max != NET_NO_LIMIT ? max : min) + 1;
    if (g.too_many || x.counts * (g.n + 1) > NET_STATES)
        schema_refused(
            b, place, keyword,
            "the pattern is too large, at most %d "
            "characters with their repetitions, fewer where lengths are bounded",
            PATTERN_POSITIONS);
    else
        spread(&x, from);

done:
    free(g.follow);
    free(g.class);
    return b->rc;
}

int text_pattern(struct net_build *b, uint32_t from, uint32_t to, const char *pattern,
                 uint32_t min, uint32_t max, const char *place, const char *keyword)
{
    struct pattern p;

    if (b->rc)
        return b->rc;
    if (pattern_parse(b, &p, pattern, place, keyword) == 0)
        make_states(b, from, to, &p, min, max, place, keyword);
    pattern_release(&p);
    return b->rc;
}
