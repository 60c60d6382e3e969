/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions are kept and used again, at most as many as there are seats: a new one for one
 * mixture costs another mixture an idle one. Keys and values lie in one pool, laid out for
 * one base; where another base is asked for, its jobs wait until the former's have left.
 *
 * Most answers end long before they must, so a job is promised blocks for its prompt and a
 * little more, and again when it gets there. So that all can come to an end whatever they
 * grow to, blocks are free for whoever may need most, and only the oldest may use these:
 * once it has left they are free again, and more. A job that may not grow waits, and its
 * text is the same.
 */
#include "serve/engine_parts.h"

#include <stdlib.h>

#include "base/error.h"
#include "eval/opened.h"

static void pool_close(struct engine *e)
{
    kv_pool_close(e->pool);
    e->pool = NULL;
    e->pool_model = NULL;
}

static void served_close(struct engine *e, size_t index)
{
    struct served *const s = e->served[index];

    for (size_t i = 0; i < s->n_idle; i++)
        session_close(s->idle[i]);
    e->n_sessions -= s->n_idle;
    e->served[index] = e->served[--e->n_served];
    /* Its blocks must not be found by a mixture that comes to lie at its address. */
    if (e->n_served)
        kv_pool_forget(e->pool);
    else
        pool_close(e);
    loaded_let_go(s->who);
    free(s);
}

void seats_trim(struct engine *e, bool all)
{
    for (size_t i = e->n_served; i-- > 0;)
        if (!e->served[i]->n_jobs && (all || e->served[i]->trim))
            served_close(e, i);
}

static struct served *served_find(const struct engine *e, const struct loaded *who)
{
    for (size_t i = 0; i < e->n_served; i++)
        if (e->served[i]->who == who)
            return e->served[i];
    return NULL;
}

static int served_open(struct served **out, struct engine *e, struct loaded *who,
                       struct artel_error *err)
{
    struct served *s;

    *out = served_find(e, who);
    if (*out)
        return 0;
    if (e->n_served == ENGINE_SEATS) /* fewer than that many have a job */
        for (size_t i = 0; i < e->n_served; i++)
            if (!e->served[i]->n_jobs) {
                served_close(e, i);
                break;
            }
    s = calloc(1, sizeof(*s));
    if (!s)
        return error_nomem(err, sizeof(*s));
    s->who = loaded_hold(who);
    e->served[e->n_served++] = s;
    *out = s;
    return 0;
}

static int open_pool(struct engine *e, const struct artel_model *model, bool *wait,
                     struct artel_error *err)
{
    int rc;

    if (e->pool_model == model)
        return 0;
    for (size_t i = 0; i < e->n_served; i++)
        if (e->served[i]->n_jobs) {
            *wait = true;
            return error_set(err, ARTEL_ELIMIT, "KV01", NULL,
                             "answers over another base are under way");
        }
    seats_trim(e, true);
    rc = kv_pool_open(&e->pool, model, e->o.cache_bytes, err);
    if (rc == 0)
        e->pool_model = model;
    return rc;
}

/* Where no more sessions may be open, the idle one goes whose mixture was used longest ago. */
static void make_room(struct engine *e)
{
    size_t least = e->n_served;

    if (e->n_sessions < e->o.seats)
        return;
    for (size_t i = 0; i < e->n_served; i++)
        if (e->served[i]->n_idle &&
            (least == e->n_served || e->served[i]->used < e->served[least]->used))
            least = i;
    if (least == e->n_served)
        return;
    session_close(e->served[least]->idle[--e->served[least]->n_idle]);
    e->n_sessions--;
}

static int session_for(struct job *j, struct served *s, struct artel_error *err)
{
    struct engine *const e = j->engine;
    const struct artel_mixture *const m = j->who->mixture;
    int rc;

    if (s->n_idle) {
        j->session = s->idle[--s->n_idle];
        return 0;
    }
    make_room(e);
    rc = session_open_pooled(&j->session, m->model, m->mixture,
                             engine_context(e, j->who), e->pool, err);
    if (rc == 0)
        e->n_sessions++;
    return rc;
}

int seat_take(struct job *j, bool *wait, struct artel_error *err)
{
    struct engine *const e = j->engine;
    struct served *s = NULL;
    int rc = open_pool(e, j->who->mixture->model, wait, err);

    if (rc < 0)
        return rc;
    rc = served_open(&s, e, j->who, err);
    if (rc == 0)
        rc = session_for(j, s, err);
    if (rc < 0) {
        /* A pool outlives its mixtures no longer than this. */
        if (!e->n_served)
            pool_close(e);
        return rc;
    }
    s->n_jobs++;
    s->used = e->turn;
    j->served = s;
    return 0;
}

void seat_give(struct job *j)
{
    struct served *const s = j->served;

    if (!s)
        return;
    session_reset(j->session);
    s->idle[s->n_idle++] = j->session;
    s->n_jobs--;
    s->used = j->engine->turn;
    j->session = NULL;
    j->served = NULL;
}

static size_t blocks_for(size_t n_tokens)
{
    return (n_tokens + KV_BLOCK - 1) / KV_BLOCK;
}

static size_t blocks_missing(const struct job *j)
{
    return blocks_for(j->room) - blocks_for(j->promised);
}

static size_t blocks_free(const struct engine *e)
{
    struct kv_pool_stats kv;

    kv_pool_stats(e->pool, &kv);
    return kv.blocks - kv.used - kv.promised;
}

bool seat_safe(const struct job *j)
{
    const struct engine *const e = j->engine;
    size_t most = blocks_missing(j);

    for (size_t i = 0; i < e->n_running; i++)
        if (blocks_missing(e->running[i]) > most)
            most = blocks_missing(e->running[i]);
    return most <= blocks_free(e);
}

bool seat_grow(struct job *j)
{
    const size_t before = j->promised;
    struct artel_error err;

    if (session_length(j->session) < before || before == j->room)
        return true;
    j->promised = j->room - before > ENGINE_AHEAD ? before + ENGINE_AHEAD : j->room;
    if (session_promise(j->session, j->promised, &err) == 0) {
        if (j == j->engine->running[0] || seat_safe(j))
            return true;
        session_promise(j->session, before, &err); /* less can always be */
    }
    j->promised = before;
    return false;
}
