/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/grammar_machine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/*
 * Room that cannot be too little after forgetting: at most MACHINE_HELD sets are held,
 * each of at most MACHINE_PLACES places. Those of one set stand in at most
 * MACHINE_PLACES * NET_DEPTH calls, and a byte makes at most one new call a place.
 */
#define CALLS      (MACHINE_PLACES * (NET_DEPTH + MACHINE_HELD + 4))
#define PLACES     (4 * MACHINE_HELD * MACHINE_PLACES)
#define CALL_SLOTS (1u << 17)
#define SET_SLOTS  (1u << 13)
#define SEEN       (1u << 15) /* more than twice NET_FREE: the first place is whole */
#define SEEN_MOST  (SEEN / 2)

static uint32_t mixed(uint32_t a, uint32_t b, uint32_t c)
{
    uint64_t h = (a * 0x9e3779b97f4a7c15u) ^ (b + 0x7f4a7c15u) * 0xbf58476d1ce4e5b9u ^
                 (c + 0x1ce4e5b9u) * 0x94d049bb133111ebu;

    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 32);
}

void machine_release(struct machine *m)
{
    free(m->calls);
    free(m->places);
    free(m->sets);
    free(m->ways);
    free(m->call_slots);
    free(m->set_slots);
    free(m->seen);
    free(m->seen_at);
    free(m->work);
    free(m->kept);
    free(m->kept_calls);
    free(m->moved);
    *m = (struct machine){0};
}

int machine_init(struct machine *m, const struct net *net, struct artel_error *err)
{
    *m = (struct machine){.net = net};
    m->calls = malloc(CALLS * sizeof(*m->calls));
    m->places = malloc(PLACES * sizeof(*m->places));
    m->sets = malloc(MACHINE_SETS * sizeof(*m->sets));
    m->ways = malloc((size_t)MACHINE_SETS * net->n_classes * sizeof(*m->ways));
    m->call_slots = malloc(CALL_SLOTS * sizeof(*m->call_slots));
    m->set_slots = malloc(SET_SLOTS * sizeof(*m->set_slots));
    m->seen = calloc(SEEN, sizeof(*m->seen));
    m->seen_at = malloc(SEEN * sizeof(*m->seen_at));
    m->work = malloc(SEEN * sizeof(*m->work));
    m->kept = malloc((size_t)MACHINE_HELD * MACHINE_PLACES * sizeof(*m->kept));
    m->kept_calls = malloc(CALLS * sizeof(*m->kept_calls));
    m->moved = malloc(CALLS * sizeof(*m->moved));
    if (m->calls && m->places && m->sets && m->ways && m->call_slots && m->set_slots &&
        m->seen && m->seen_at && m->work && m->kept && m->kept_calls && m->moved)
        return 0;
    machine_release(m);
    return error_nomem(err, (size_t)MACHINE_SETS * net->n_classes * sizeof(*m->ways));
}

static void forget(struct machine *m)
{
    memset(m->call_slots, 0, CALL_SLOTS * sizeof(*m->call_slots));
    memset(m->set_slots, 0, SET_SLOTS * sizeof(*m->set_slots));
    m->n_calls = 1;
    m->calls[0] = (struct call){0};
    m->n_places = 0;
    m->n_sets = 1;
    m->sets[MACHINE_DEAD] = (struct place_set){0};
    for (unsigned c = 0; c < m->net->n_classes; c++)
        m->ways[c] = MACHINE_DEAD;
    m->forgotten++;
}

static uint32_t call_of(struct machine *m, uint32_t ret, uint32_t count,
                        uint32_t parent)
{
    const struct call c = {ret, count, parent, m->calls[parent].depth + 1};
    uint32_t slot = mixed(ret, count, parent) & (CALL_SLOTS - 1);

    for (; m->call_slots[slot]; slot = (slot + 1) & (CALL_SLOTS - 1))
        if (!memcmp(&m->calls[m->call_slots[slot]], &c, sizeof(c)))
            return m->call_slots[slot];
    assert(m->n_calls < CALLS);
    m->call_slots[slot] = m->n_calls;
    m->calls[m->n_calls] = c;
    return m->n_calls++;
}

/* Is P new to the set in making, and is an end left from there? */
static void consider(struct machine *m, size_t *n_work, struct place p)
{
    uint32_t slot;

    if (m->net->need[p.state] >= NET_DEPTH ||
        m->calls[p.call].depth + m->net->need[p.state] >= NET_DEPTH ||
        m->n_seen == SEEN_MOST)
        return;
    slot = mixed(p.state, p.count, p.call) & (SEEN - 1);
    for (; m->seen[slot] == m->mark; slot = (slot + 1) & (SEEN - 1))
        if (!memcmp(&m->seen_at[slot], &p, sizeof(p)))
            return;
    m->seen[slot] = m->mark;
    m->seen_at[slot] = p;
    m->n_seen++;
    m->work[(*n_work)++] = p;
}

/* The counter after EDGE; false: EDGE may not be taken. */
static bool may_take(const struct net *net, const struct net_edge *e, uint32_t *count)
{
    struct net_limits l;

    if (!e->flags)
        return true;
    l = net->limits[e->limits];
    if ((e->flags & NET_ENOUGH) && *count < l.min)
        return false;
    if ((e->flags & (NET_COUNTS | NET_MORE)) && l.max != NET_NO_LIMIT &&
        *count >= l.max)
        return false;
    /* Without a maximum only the way to the minimum tells places apart. */
    if ((e->flags & NET_COUNTS) && (l.max != NET_NO_LIMIT || *count < l.min))
        ++*count;
    return true;
}

/* All places that P stands for, by edges that take no byte. */
static void add_place(struct machine *m, struct place p)
{
    const struct net *net = m->net;
    size_t n_work = 0;

    consider(m, &n_work, p);
    while (n_work) {
        const struct call *c;
        bool takes = false;

        p = m->work[--n_work];
        c = &m->calls[p.call];
        if (net->accepts[p.state]) {
            if (p.call)
                consider(m, &n_work, (struct place){c->ret, c->count, c->parent});
            else
                m->complete = true;
        }
        /* From last to first, so that the first is gone on from first. */
        for (uint32_t i = net->first[p.state + 1]; i-- > net->first[p.state];) {
            const struct net_edge *e = &net->edges[i];
            uint32_t count = p.count;

            if (e->kind == NET_BYTES) {
                takes = true;
                continue;
            }
            if (!may_take(net, e, &count))
                continue;
            if (e->kind == NET_EMPTY) {
                consider(m, &n_work, (struct place){e->to, count, p.call});
            } else {
                const uint32_t depth = m->calls[p.call].depth;

                if (depth + 1 + net->need[e->callee] < NET_DEPTH &&
                    depth + net->need[e->to] < NET_DEPTH && m->n_seen < SEEN_MOST &&
                    m->n_calls < CALLS - 1)
                    consider(
                        m, &n_work,
                        (struct place){e->callee, 0, call_of(m, e->to, count, p.call)});
            }
        }
        if (takes && m->n_making < MACHINE_PLACES)
            m->making[m->n_making++] = p;
    }
}

static void begin_set(struct machine *m)
{
    m->n_making = 0;
    m->n_seen = 0;
    m->complete = false;
    if (++m->mark == 0) {
        memset(m->seen, 0, SEEN * sizeof(*m->seen));
        m->mark = 1;
    }
}

/* The set in making as one of those that are kept. */
static uint32_t end_set(struct machine *m)
{
    const size_t bytes = m->n_making * sizeof(*m->making);
    uint32_t hash = m->complete, slot, id;

    if (!m->n_making && !m->complete)
        return MACHINE_DEAD;
    for (uint32_t i = 0; i < m->n_making; i++)
        hash = mixed(hash, m->making[i].state,
                     mixed(m->making[i].count, m->making[i].call, i));
    slot = hash & (SET_SLOTS - 1);
    for (; (id = m->set_slots[slot]) != 0; slot = (slot + 1) & (SET_SLOTS - 1)) {
        const struct place_set *s = &m->sets[id];

        if (s->hash == hash && s->n == m->n_making && s->complete == m->complete &&
            !memcmp(&m->places[s->first], m->making, bytes))
            return id;
    }
    id = m->n_sets++;
    m->set_slots[slot] = id;
    m->sets[id] = (struct place_set){m->n_places, m->n_making, hash, m->complete};
    memcpy(&m->places[m->n_places], m->making, bytes);
    m->n_places += m->n_making;
    for (unsigned c = 0; c < m->net->n_classes; c++)
        m->ways[(size_t)id * m->net->n_classes + c] =
            c ? MACHINE_UNKNOWN : MACHINE_DEAD;
    return id;
}

uint32_t machine_start(struct machine *m, uint32_t state)
{
    forget(m);
    begin_set(m);
    add_place(m, (struct place){state, 0, 0});
    return end_set(m);
}

/* A call of before, and those around it, in the room that is empty now. Parents have
 * lower indices than what they hold: marks go down, calls are made upwards. */
static void move_calls(struct machine *m, uint32_t n_before)
{
    for (uint32_t i = n_before; i-- > 1;)
        if (m->moved[i])
            m->moved[m->kept_calls[i].parent] = 1;
    m->moved[0] = 0;
    for (uint32_t i = 1; i < n_before; i++)
        if (m->moved[i]) {
            const struct call *c = &m->kept_calls[i];

            m->moved[i] = call_of(m, c->ret, c->count, m->moved[c->parent]);
        }
}

/* Forget all but HELD. */
static void make_room(struct machine *m, uint32_t *held, size_t n)
{
    const uint32_t n_before = m->n_calls;
    struct place_set sets[MACHINE_HELD];
    uint32_t used = 0;

    assert(n <= MACHINE_HELD);
    memset(m->moved, 0, n_before * sizeof(*m->moved));
    memcpy(m->kept_calls, m->calls, n_before * sizeof(*m->calls));
    for (size_t i = 0; i < n; i++) {
        sets[i] = m->sets[held[i]];
        memcpy(m->kept + used, &m->places[sets[i].first], sets[i].n * sizeof(*m->kept));
        for (uint32_t k = 0; k < sets[i].n; k++)
            m->moved[m->kept[used + k].call] = 1;
        sets[i].first = used;
        used += sets[i].n;
    }
    forget(m);
    move_calls(m, n_before);
    for (size_t i = 0; i < n; i++) {
        m->n_making = sets[i].n;
        m->complete = sets[i].complete;
        for (uint32_t k = 0; k < sets[i].n; k++) {
            m->making[k] = m->kept[sets[i].first + k];
            m->making[k].call = m->moved[m->making[k].call];
        }
        held[i] = end_set(m);
    }
}

uint32_t machine_step(struct machine *m, uint32_t *held, size_t n, size_t at,
                      unsigned class)
{
    const struct net *net = m->net;
    const unsigned byte = net->byte_of[class];
    uint32_t set = held[at], to;
    const struct place_set *s;

    if (m->ways[(size_t)set * net->n_classes + class] != MACHINE_UNKNOWN)
        return m->ways[(size_t)set * net->n_classes + class];
    if (m->n_sets + 1 >= MACHINE_SETS || m->n_places + MACHINE_PLACES > PLACES ||
        m->n_calls + 2 * MACHINE_PLACES > CALLS)
        make_room(m, held, n);
    set = held[at];
    s = &m->sets[set];
    begin_set(m);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct place p = m->places[s->first + i];

        for (uint32_t k = net->first[p.state]; k < net->first[p.state + 1]; k++) {
            const struct net_edge *e = &net->edges[k];
            uint32_t count = p.count;

            if (e->kind == NET_BYTES && e->lo <= byte && byte <= e->hi &&
                may_take(net, e, &count))
                add_place(m, (struct place){e->to, count, p.call});
        }
    }
    to = end_set(m);
    m->ways[(size_t)set * net->n_classes + class] = to;
    return to;
}
