/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/grammar_net.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void net_release(struct net *n)
{
    free(n->edges);
    free(n->first);
    free(n->need);
    free(n->accepts);
    free(n->limits);
    *n = (struct net){0};
}

void net_build_release(struct net_build *b)
{
    free(b->edges);
    free(b->next);
    free(b->last);
    free(b->head);
    free(b->accepts);
    free(b->limits);
    *b = (struct net_build){0};
}

static void too_large(struct net_build *b)
{
    if (!b->rc)
        b->rc = error_set(b->err, ARTEL_EUSAGE, "SRV07", "#",
                          "the schema is too large to be kept");
}

/* Room for twice as many elements of SIZE bytes at *AT; false: no memory. */
static bool grow(struct net_build *b, void *at, size_t room, size_t size)
{
    void **p = at;
    void *grown = b->rc ? NULL : realloc(*p, room * size);

    if (!grown) {
        if (!b->rc)
            b->rc = error_nomem(b->err, room * size);
        return false;
    }
    *p = grown;
    return true;
}

int net_build_init(struct net_build *b, struct artel_error *err)
{
    *b = (struct net_build){.err = err, .room_edges = 1024, .room_states = 256};
    if (!grow(b, &b->edges, b->room_edges, sizeof(*b->edges)) ||
        !grow(b, &b->next, b->room_edges, sizeof(*b->next)) ||
        !grow(b, &b->last, b->room_states, sizeof(*b->last)) ||
        !grow(b, &b->head, b->room_states, sizeof(*b->head)) ||
        !grow(b, &b->accepts, b->room_states, sizeof(*b->accepts)))
        return b->rc;
    b->n_edges = 1; /* 0 ends lists */
    memset(b->edges, 0, sizeof(*b->edges));
    b->next[0] = 0;
    net_state(b); /* 0: where a growth that failed leads */
    return 0;
}

uint32_t net_state(struct net_build *b)
{
    if (b->n_states == NET_STATES)
        too_large(b);
    if (b->rc)
        return 0;
    if (b->n_states == b->room_states) {
        const size_t room = 2 * b->room_states;

        if (!grow(b, &b->last, room, sizeof(*b->last)) ||
            !grow(b, &b->head, room, sizeof(*b->head)) ||
            !grow(b, &b->accepts, room, sizeof(*b->accepts)))
            return 0;
        b->room_states = room;
    }
    b->head[b->n_states] = b->last[b->n_states] = 0;
    b->accepts[b->n_states] = false;
    return (uint32_t)b->n_states++;
}

uint32_t net_limits(struct net_build *b, uint32_t min, uint32_t max)
{
    for (size_t i = 0; i < b->n_limits; i++)
        if (b->limits[i].min == min && b->limits[i].max == max)
            return (uint32_t)i;
    if (b->n_limits == b->room_limits) {
        const size_t room = b->room_limits ? 2 * b->room_limits : 8;

        if (!grow(b, &b->limits, room, sizeof(*b->limits)))
            return 0;
        b->room_limits = room;
    }
    b->limits[b->n_limits] = (struct net_limits){min, max};
    return (uint32_t)b->n_limits++;
}

void net_accept(struct net_build *b, uint32_t state)
{
    if (!b->rc)
        b->accepts[state] = true;
}

void net_edge(struct net_build *b, uint32_t from, const struct net_edge *e)
{
    if (b->n_edges == NET_EDGES || b->n_empty == NET_FREE)
        too_large(b);
    if (b->rc)
        return;
    if (b->n_edges == b->room_edges) {
        const size_t room = 2 * b->room_edges;

        if (!grow(b, &b->edges, room, sizeof(*b->edges)) ||
            !grow(b, &b->next, room, sizeof(*b->next)))
            return;
        b->room_edges = room;
    }
    if (b->head[from])
        b->next[b->last[from]] = (uint32_t)b->n_edges;
    else
        b->head[from] = (uint32_t)b->n_edges;
    b->last[from] = (uint32_t)b->n_edges;
    b->next[b->n_edges] = 0;
    b->edges[b->n_edges++] = *e;
    b->n_empty += e->kind == NET_EMPTY;
}

void net_bytes(struct net_build *b, uint32_t from, unsigned lo, unsigned hi,
               uint32_t to)
{
    const struct net_edge e = {
        .kind = NET_BYTES, .lo = (uint8_t)lo, .hi = (uint8_t)hi, .to = to};

    net_edge(b, from, &e);
}

void net_empty(struct net_build *b, uint32_t from, uint32_t to)
{
    const struct net_edge e = {.kind = NET_EMPTY, .to = to};

    net_edge(b, from, &e);
}

uint32_t net_text(struct net_build *b, uint32_t from, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t to = net_state(b);

        net_bytes(b, from, (unsigned char)text[i], (unsigned char)text[i], to);
        from = to;
    }
    return from;
}

/* Edges by where they lead (calls also by what they call), while needs are found. */
struct back {
    const struct net *net;
    const bool *has;
    uint32_t *first; /* (n_states + 1) */
    uint32_t *from;  /* (2 edges) a state */
    uint32_t *edge;  /* (2 edges) its edge */
    uint32_t *now, *then;
    size_t n_now, n_then;
};

static bool can_take(const struct back *k, const struct net_edge *e)
{
    for (unsigned c = e->lo; c <= e->hi; c++)
        if (k->has[c])
            return true;
    return false;
}

static void fill_back(struct back *k, bool count)
{
    for (uint32_t s = 0; s < k->net->n_states; s++)
        for (uint32_t i = k->net->first[s]; i < k->net->first[s + 1]; i++) {
            const struct net_edge *e = &k->net->edges[i];
            const uint32_t targets[2] = {e->to, e->callee};

            if (e->kind == NET_BYTES && !can_take(k, e))
                continue;
            for (size_t t = 0; t < (e->kind == NET_CALL ? 2 : 1); t++) {
                uint32_t *at = &k->first[targets[t] + (count ? 1 : 0)];

                if (!count) {
                    k->from[*at] = s;
                    k->edge[*at] = i;
                }
                ++*at;
            }
        }
}

/* State S has an end with at most LEVEL nested calls: who does by that? */
static void reached(struct back *k, uint32_t s, unsigned level)
{
    const struct net *n = k->net;

    for (uint32_t i = k->first[s]; i < k->first[s + 1]; i++) {
        const struct net_edge *e = &n->edges[k->edge[i]];
        const uint32_t from = k->from[i];

        if (n->need[from] <= level)
            continue;
        if (e->kind != NET_CALL || n->need[e->callee] < level) {
            if (e->kind == NET_CALL && n->need[e->to] > level)
                continue;
            n->need[from] = (uint8_t)level;
            k->now[k->n_now++] = from;
        } else if (n->need[e->to] <= level && n->need[e->callee] <= level &&
                   n->need[from] > level + 1) {
            n->need[from] = (uint8_t)(level + 1);
            k->then[k->n_then++] = from;
        }
    }
}

static void find_needs(struct back *k)
{
    const struct net *n = k->net;

    for (uint32_t s = 0; s < n->n_states; s++) {
        n->need[s] = n->accepts[s] ? 0 : NET_NEVER;
        if (n->accepts[s])
            k->now[k->n_now++] = s;
    }
    for (unsigned level = 0; k->n_now && level < NET_DEPTH; level++) {
        uint32_t *swap = k->now;

        while (k->n_now) {
            const uint32_t s = k->now[--k->n_now];

            if (n->need[s] == level) /* else found at a lower one since */
                reached(k, s, level);
        }
        k->now = k->then;
        k->n_now = k->n_then;
        k->then = swap;
        k->n_then = 0;
    }
    for (uint32_t s = 0; s < n->n_states; s++)
        if (n->need[s] >= NET_DEPTH)
            n->need[s] = NET_NEVER;
}

static int needs(struct net *n, const bool *has, struct artel_error *err)
{
    const size_t n_edges = n->first[n->n_states], room = 2 * n_edges + 1;
    struct back k = {.net = n, .has = has};
    int rc = 0;

    k.first = calloc(n->n_states + 2, sizeof(*k.first));
    k.from = malloc(room * sizeof(*k.from));
    k.edge = malloc(room * sizeof(*k.edge));
    k.now = malloc((2 * (size_t)n->n_states + 1) * sizeof(*k.now));
    k.then = malloc((2 * (size_t)n->n_states + 1) * sizeof(*k.then));
    if (k.first && k.from && k.edge && k.now && k.then) {
        fill_back(&k, true);
        for (uint32_t s = 0; s < n->n_states; s++)
            k.first[s + 1] += k.first[s];
        fill_back(&k, false);
        for (uint32_t s = n->n_states; s > 0; s--)
            k.first[s] = k.first[s - 1];
        k.first[0] = 0;
        find_needs(&k);
    } else {
        rc = error_nomem(err, room * sizeof(*k.from));
    }
    free(k.first);
    free(k.from);
    free(k.edge);
    free(k.now);
    free(k.then);
    return rc;
}

/* Edges of a state together; those that lead nowhere are left out. */
static void settle(struct net *n, const struct net_build *b, bool all)
{
    uint32_t used = 0;

    for (uint32_t s = 0; s < n->n_states; s++) {
        n->first[s] = used;
        for (uint32_t i = b->head[s]; i; i = b->next[i]) {
            const struct net_edge *e = &b->edges[i];

            if (all || (n->need[e->to] != NET_NEVER &&
                        (e->kind != NET_CALL || n->need[e->callee] != NET_NEVER)))
                n->edges[used++] = *e;
        }
    }
    n->first[n->n_states] = used;
}

/* Bytes into classes: two bytes are of one where every range holds both or neither. */
static void find_classes(struct net *n, const bool *has)
{
    unsigned char members[256] = {0};
    uint32_t seen[8] = {0}; /* 1 bit a byte: some range begins there */

    for (uint32_t i = 0; i < n->first[n->n_states]; i++) {
        const struct net_edge *e = &n->edges[i];

        if (e->kind != NET_BYTES)
            continue;
        seen[e->lo / 32] |= 1u << e->lo % 32;
        if (e->hi < 255)
            seen[(e->hi + 1) / 32] |= 1u << (e->hi + 1) % 32;
    }
    n->n_classes = 1;
    for (unsigned c = 0, open = 0; c < 256; c++) {
        if (seen[c / 32] >> c % 32 & 1)
            open = 0;
        if (has[c] && !open) {
            open = n->n_classes++;
            n->byte_of[open] = (unsigned char)c;
        }
        members[c] = has[c] ? (unsigned char)open : 0;
    }
    memcpy(n->class_of, members, sizeof(members));
}

int net_finish(struct net *out, const struct net_build *b, const bool *has,
               const uint32_t *starts, size_t n, size_t *endless,
               struct artel_error *err)
{
    struct net net = {.n_states = (uint32_t)b->n_states,
                      .n_limits = (uint32_t)b->n_limits};
    int rc = b->rc;

    *out = (struct net){0};
    *endless = n;
    if (rc < 0)
        return rc;
    net.edges = malloc(b->n_edges * sizeof(*net.edges));
    net.first = calloc(b->n_states + 1, sizeof(*net.first));
    net.need = malloc(b->n_states);
    net.accepts = malloc(b->n_states * sizeof(*net.accepts));
    net.limits = calloc(b->n_limits + 1, sizeof(*net.limits));
    if (!net.edges || !net.first || !net.need || !net.accepts || !net.limits) {
        rc = error_nomem(err, b->n_edges * sizeof(*net.edges));
        goto fail;
    }
    memcpy(net.accepts, b->accepts, b->n_states * sizeof(*net.accepts));
    if (b->n_limits)
        memcpy(net.limits, b->limits, b->n_limits * sizeof(*net.limits));
    settle(&net, b, true);
    rc = needs(&net, has, err);
    if (rc < 0)
        goto fail;
    settle(&net, b, false);
    find_classes(&net, has);
    for (size_t i = 0; i < n; i++)
        if (net.need[starts[i]] == NET_NEVER)
            *endless = i;
    *out = net;
    return 0;

fail:
    net_release(&net);
    return rc;
}
