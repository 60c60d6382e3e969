/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All threads at one piece of work with many short phases: one fork for the whole,
 * and cheap meetings between the phases.
 *
 * A meeting has two halves, so that work which needs nobody else's may lie between
 * them. Waiting spins for some microseconds; where a thread has lost its CPU, the
 * others then give theirs away and at last sleep. Outside of team_run() nothing
 * spins: the threads are OpenMP's and wait as it lets them.
 */
#ifndef ARTEL_BASE_TEAM_H
#define ARTEL_BASE_TEAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct team;

struct member {
    struct team *team;
    size_t index, n;  /* this thread, and how many there are */
    uint32_t awaited; /* arrivals that complete the meeting it is in */
};

typedef void team_work(struct member *m, void *data);

/* WORK by up to MOST threads, by this one alone inside a parallel region. */
void team_run(size_t most, team_work *work, void *data);

/* Own writes are done and may be read by all after the wait. Each arrival is followed by a
 * wait before the next one. */
void team_arrive(struct member *m);
void team_wait(struct member *m);

static inline void team_meet(struct member *m)
{
    team_arrive(m);
    team_wait(m);
}

/* This thread's share of N items, in whole multiples of GRAIN: FIRST to END. */
static inline void team_share(const struct member *m, size_t n, size_t grain,
                              size_t *first, size_t *end)
{
    const size_t grains = (n + grain - 1) / grain;
    const size_t from = grains * m->index / m->n * grain;
    const size_t to = grains * (m->index + 1) / m->n * grain;

    *first = from < n ? from : n;
    *end = to < n ? to : n;
}

#endif
