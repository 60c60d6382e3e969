/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrivals are counted and never set back: meeting k of n threads is complete when
 * k n have arrived (the count may wrap, its difference does not mind). Whoever
 * completes a meeting wakes those who sleep; the two counters are ordered
 * sequentially, so that either the sleeper sees the count or the waker the sleeper.
 */
#define _GNU_SOURCE
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <stdalign.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOKS  100  /* without a pause between them: the usual wait */
#define PAUSES 1000 /* some 15 to 50 microseconds */
#define YIELDS 20

/* ThreadSanitizer does not see the order that OpenMP's fork and join make, but sees meetings:
 * what it then still reports at the top of team_run() alone is the fork itself. */
#if defined(__SANITIZE_THREAD__)
#define BEFORE_AND_AFTER(m) team_meet(m)
#else
#define BEFORE_AND_AFTER(m) ((void)(m))
#endif

struct team {
    alignas(128) _Atomic uint32_t arrived;
    alignas(128) _Atomic uint32_t asleep;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void sleep_while(_Atomic uint32_t *at, uint32_t value)
{
    (void)syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *at)
{
    (void)syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void team_arrive(struct member *m)
{
    m->awaited += (uint32_t)m->n;
    if (m->n == 1)
        return;
    if (atomic_fetch_add(&m->team->arrived, 1) + 1 == m->awaited &&
        atomic_load(&m->team->asleep))
        wake_all(&m->team->arrived);
}

static int complete(const struct member *m, uint32_t arrived)
{
    return (int32_t)(arrived - m->awaited) >= 0;
}

void team_wait(struct member *m)
{
    struct team *t = m->team;

    if (m->n == 1)
        return;
    for (int i = 0; i < LOOKS + PAUSES + YIELDS; i++) {
        if (complete(m, atomic_load_explicit(&t->arrived, memory_order_acquire)))
            return;
        if (i >= LOOKS + PAUSES)
            sched_yield();
        else if (i >= LOOKS)
            relax();
    }
    atomic_fetch_add(&t->asleep, 1);
    for (;;) {
        const uint32_t now = atomic_load(&t->arrived);

        if (complete(m, now))
            break;
        sleep_while(&t->arrived, now);
    }
    atomic_fetch_sub(&t->asleep, 1);
}

void team_run(size_t most, team_work *work, void *data)
{
    const size_t here = omp_in_parallel() ? 1 : (size_t)omp_get_max_threads();
    struct team team = {0};

    if (here <= 1 || most <= 1) {
        struct member alone = {.team = &team, .n = 1};

        work(&alone, data);
        return;
    }
#pragma omp parallel num_threads((int)(here < most ? here : most))
    {
        struct member m = {.team = &team,
                           .index = (size_t)omp_get_thread_num(),
                           .n = (size_t)omp_get_num_threads()};

        BEFORE_AND_AFTER(&m);
        work(&m, data);
        BEFORE_AND_AFTER(&m);
    }
}
