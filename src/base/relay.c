/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits looks for some microseconds, then sleeps. The counters are ordered
 * sequentially: either the sleeper sees the count or the one who counts the sleeper.
 */
#include "base/relay.h"

#include <sched.h>

#define LOOKS  2000
#define YIELDS 20
#define ENDED  UINT32_MAX

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

int relay_init(struct relay *t)
{
    *t = (struct relay){.of = NULL};
    if (pthread_mutex_init(&t->lock, NULL))
        return -1;
    if (!pthread_cond_init(&t->woken, NULL))
        return 0;
    pthread_mutex_destroy(&t->lock);
    return -1;
}

void relay_destroy(struct relay *t)
{
    pthread_cond_destroy(&t->woken);
    pthread_mutex_destroy(&t->lock);
}

void relay_begin(struct relay *t, struct relay_item *of, size_t n)
{
    t->of = of;
    for (size_t i = 0; i < n; i++)
        atomic_store(&of[i].done, 0);
}

static void wait_for(struct relay *t, size_t item, uint32_t least)
{
    _Atomic uint32_t *done = &t->of[item].done;

    for (int i = 0; i < LOOKS + YIELDS; i++) {
        if (atomic_load_explicit(done, memory_order_acquire) >= least)
            return;
        if (i < LOOKS)
            relax();
        else
            sched_yield();
    }
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->asleep, 1);
    while (atomic_load(done) < least)
        pthread_cond_wait(&t->woken, &t->lock);
    atomic_fetch_sub(&t->asleep, 1);
    pthread_mutex_unlock(&t->lock);
}

static void count(struct relay *t, size_t item, uint32_t done)
{
    atomic_store(&t->of[item].done, done);
    if (!atomic_load(&t->asleep))
        return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&t->woken);
    pthread_mutex_unlock(&t->lock);
}

static uint32_t own(const struct relay *t, size_t item)
{
    return atomic_load_explicit(&t->of[item].done, memory_order_relaxed);
}

void relay_wait(struct relay *t, size_t item)
{
    if (item)
        wait_for(t, item - 1, own(t, item) + 1);
}

void relay_pass(struct relay *t, size_t item)
{
    count(t, item, own(t, item) + 1);
}

void relay_end(struct relay *t, size_t item)
{
    count(t, item, ENDED);
}

void relay_give_up(struct relay *t, size_t item)
{
    if (item)
        wait_for(t, item - 1, ENDED);
    relay_end(t, item);
}
