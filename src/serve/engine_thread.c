/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's turns. In each: who is gone leaves, who waits may sit down, one prompt is
 * read on by one piece, everyone who writes gets a token. Prompts take turns, so that a
 * short one need not wait for all of a long one; those who write never wait for more than
 * one piece. Without jobs the thread sleeps, and so does its OpenMP team.
 *
 * The queue is first come, first served: where the first finds no room for its keys and
 * values, nobody passes it, or a long prompt might wait for ever.
 */
#include "serve/engine_parts.h"

#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"

/* ---- who is gone ---- */

/* Takes J, whose predecessor is BEFORE or NULL, out of the queue. LOCK is held. */
static void leave_queue(struct engine *e, struct job *before, struct job *j)
{
    if (before)
        before->next = j->next;
    else
        e->first = j->next;
    if (e->last == j)
        e->last = before;
    e->n_waiting--;
    j->next = NULL;
}

/* The first that waits in vain, out of the queue; NULL: none does. */
static struct job *take_gone(struct engine *e, double now, struct artel_error *err)
{
    struct job *before = NULL, *j;

    pthread_mutex_lock(&e->lock);
    for (j = e->first; j && job_check(j, now, err) == 0; j = j->next)
        before = j;
    if (j)
        leave_queue(e, before, j);
    pthread_mutex_unlock(&e->lock);
    return j;
}

/* The one at INDEX among those that run ends. */
static void end_running(struct engine *e, size_t index, const struct artel_error *err)
{
    struct job *const j = e->running[index];

    e->n_running--;
    memmove(e->running + index, e->running + index + 1,
            (e->n_running - index) * sizeof(*e->running));
    e->count.running = e->n_running;
    job_end(j, err);
}

static void sweep_queue(struct engine *e)
{
    const double now = clock_seconds();
    struct artel_error err;
    struct job *j;

    while ((j = take_gone(e, now, &err)))
        job_end(j, &err);
}

static void sweep_running(struct engine *e)
{
    const double now = clock_seconds();
    struct artel_error err;

    for (size_t i = e->n_running; i-- > 0;)
        if (job_check(e->running[i], now, &err) < 0)
            end_running(e, i, &err);
}

/* ---- who sits down ---- */

/* Only this thread takes jobs out of the queue, so that the first stays where it is. */
static struct job *first_in_queue(struct engine *e)
{
    struct job *j;

    pthread_mutex_lock(&e->lock);
    j = e->first;
    pthread_mutex_unlock(&e->lock);
    return j;
}

static void admit(struct engine *e)
{
    struct artel_error err;
    struct job *j;

    while (e->n_running < e->o.seats && (j = first_in_queue(e))) {
        bool wait;
        const int rc = job_seat(j, &wait, &err);

        if (rc < 0 && wait && e->n_running)
            return;
        pthread_mutex_lock(&e->lock);
        leave_queue(e, NULL, j);
        pthread_mutex_unlock(&e->lock);
        if (rc < 0) {
            job_end(j, &err);
            continue;
        }
        e->running[e->n_running++] = j;
        e->count.running = e->n_running;
    }
}

/* ---- one piece of one prompt ---- */

static void read_some(struct engine *e)
{
    struct artel_error err;
    size_t next = e->n_running;
    bool finished;

    for (size_t i = 0; i < e->n_running; i++)
        if (e->running[i]->phase == JOB_READING &&
            (next == e->n_running || e->running[i]->turn < e->running[next]->turn))
            next = i;
    if (next == e->n_running)
        return;
    e->running[next]->turn = e->turn;
    if (job_read(e->running[next], &finished, &err) < 0)
        end_running(e, next, &err);
    else if (finished)
        end_running(e, next, NULL);
}

/* ---- a token for everyone who writes ---- */

struct step {
    struct artel_session *s[ENGINE_SEATS];
    int32_t ids[ENGINE_SEATS];
    struct job *who[ENGINE_SEATS];
    size_t n;
};

static void end_job(struct engine *e, const struct job *j,
                    const struct artel_error *err)
{
    for (size_t i = 0; i < e->n_running; i++)
        if (e->running[i] == j) {
            end_running(e, i, err);
            return;
        }
}

static void pick(struct engine *e, struct step *all)
{
    struct artel_error err;

    all->n = 0;
    for (size_t i = 0; i < e->n_running;) {
        struct job *const j = e->running[i];
        bool finished = false;
        int rc;

        if (j->phase != JOB_WRITING || !seat_grow(j)) {
            i++;
            continue;
        }
        rc = job_write(j, &all->ids[all->n], &finished, &err);
        if (rc < 0 || finished) {
            end_running(e, i, rc < 0 ? &err : NULL);
            continue;
        }
        all->s[all->n] = j->session;
        all->who[all->n++] = j;
        i++;
    }
}

/* Those of ALL that MIXTURE answers; they are taken out of it. */
static void take_group(struct step *group, struct step *all,
                       const struct served *served)
{
    size_t kept = 0;

    group->n = 0;
    for (size_t i = 0; i < all->n; i++) {
        struct step *const to = all->who[i]->served == served ? group : all;
        size_t *const n = to == group ? &group->n : &kept;

        to->s[*n] = all->s[i];
        to->ids[*n] = all->ids[i];
        to->who[(*n)++] = all->who[i];
    }
    all->n = kept;
}

static void write_all(struct engine *e)
{
    struct artel_error err;
    struct step all, group;

    pick(e, &all);
    while (all.n) {
        take_group(&group, &all, all.who[0]->served);
        e->count.steps++;
        if (sessions_step(group.s, group.ids, group.n, &err) == 0)
            continue;
        /* None has moved: whoever is to blame ends, the others go on alone. */
        for (size_t i = 0; i < group.n; i++)
            if (session_step(group.s[i], group.ids[i], &err) < 0)
                end_job(e, group.who[i], &err);
    }
}

/* ---- the thread ---- */

static void turn(struct engine *e)
{
    struct kv_pool_stats kv = {0};
    const double start = clock_seconds();

    if (!e->n_running && !first_in_queue(e))
        return;
    e->turn++;
    e->count.step_started = start;
    engine_publish(e, 0);
    sweep_queue(e);
    sweep_running(e);
    admit(e);
    engine_publish(e, 0);
    read_some(e);
    sweep_running(e); /* a piece takes its time */
    write_all(e);
    if (e->pool)
        kv_pool_stats(e->pool, &kv);
    e->count.cache_bytes_used = kv.used * kv.block_bytes;
    e->count.busy_seconds += clock_seconds() - start;
    engine_publish(e, 0);
}

static void mark_for_trim(struct engine *e)
{
    for (size_t i = 0; i < e->n_served; i++)
        e->served[i]->trim = true;
}

/* Sleeps while there is nothing to do; false: it is the end. */
static bool await_work(struct engine *e)
{
    bool trim, closing;

    seats_trim(e, false);
    pthread_mutex_lock(&e->lock);
    while (!e->closing && !e->trim && !e->first && !e->n_running) {
        e->stats.step_started = 0;
        if (!(e->asleep > 0))
            e->asleep = clock_seconds();
        pthread_cond_wait(&e->wake, &e->lock);
    }
    if (e->asleep > 0)
        e->count.idle_seconds += clock_seconds() - e->asleep;
    e->stats.idle_seconds = e->count.idle_seconds;
    e->asleep = 0;
    trim = e->trim;
    e->trim = false;
    closing = e->closing;
    pthread_mutex_unlock(&e->lock);
    if (trim)
        mark_for_trim(e);
    return !closing;
}

static void end_all(struct engine *e)
{
    struct artel_error err;
    struct job *j;

    error_set(&err, ARTEL_ESTOPPED, "SRV11", NULL, "the server has ended");
    while (e->n_running)
        end_running(e, 0, &err);
    while ((j = first_in_queue(e))) {
        pthread_mutex_lock(&e->lock);
        leave_queue(e, NULL, j);
        pthread_mutex_unlock(&e->lock);
        job_end(j, &err);
    }
    seats_trim(e, true);
}

void *engine_run(void *engine)
{
    struct engine *const e = engine;
    struct artel_error err;
    /* OpenMP's settings and a thread's CPU are its own: those of the caller do not come
     * along. */
    const int rc = cpu_set_threads(e->n_threads, &err);

    pthread_mutex_lock(&e->lock);
    e->start = rc;
    if (rc < 0)
        e->start_error = err;
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    if (rc < 0)
        return NULL;
    while (await_work(e))
        turn(e);
    end_all(e);
    return NULL;
}
