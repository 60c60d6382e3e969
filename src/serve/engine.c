/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What callers on other threads see: jobs join a queue, which the engine's thread empties.
 */
#include "serve/engine_parts.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "eval/opened.h"
#include "serve/grammar.h"

#define CONTEXT 4096

/* Signals are for the thread that began all this. */
static int start_thread(struct engine *e)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&e->thread, NULL, engine_run, e);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int engine_open(struct engine **out, const struct engine_options *o,
                struct artel_error *err)
{
    struct engine *const e = calloc(1, sizeof(*e));
    int rc;

    *out = NULL;
    if (!e)
        return error_nomem(err, sizeof(*e));
    e->o = *o;
    if (!e->o.seats)
        e->o.seats = 16;
    if (e->o.seats > ENGINE_SEATS)
        e->o.seats = ENGINE_SEATS;
    if (!e->o.queue)
        e->o.queue = 256;
    if (!e->o.cache_bytes)
        e->o.cache_bytes = (size_t)1 << 30;
    if (!e->o.prefill_rows)
        e->o.prefill_rows = 256;
    e->count.seats = e->o.seats;
    e->count.cache_bytes = e->o.cache_bytes;
    e->stats = e->count;
    e->n_threads = cpu_threads();
    e->start = 1;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->wake, NULL);
    if (start_thread(e)) {
        rc = error_set(err, ARTEL_ELIMIT, "SRV14", NULL,
                       "no thread can be started (ulimit -u, -v)");
    } else {
        pthread_mutex_lock(&e->lock);
        while (e->start == 1)
            pthread_cond_wait(&e->wake, &e->lock);
        rc = e->start;
        pthread_mutex_unlock(&e->lock);
        if (rc < 0) {
            pthread_join(e->thread, NULL);
            if (err)
                *err = e->start_error;
        }
    }
    if (rc < 0) {
        pthread_cond_destroy(&e->wake);
        pthread_mutex_destroy(&e->lock);
        free(e);
        return rc;
    }
    *out = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->draining = true;
    e->closing = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

void engine_drain(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->draining = true;
    pthread_mutex_unlock(&e->lock);
}

bool engine_idle(const struct engine *e)
{
    struct engine *const own = (struct engine *)(size_t)e;
    bool idle;

    pthread_mutex_lock(&own->lock);
    idle = !e->n_alive;
    pthread_mutex_unlock(&own->lock);
    return idle;
}

void engine_trim(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->trim = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
}

size_t engine_context(const struct engine *e, const struct loaded *who)
{
    const struct artel_model *const model = who->mixture->model;
    size_t n = e->o.context ? e->o.context : CONTEXT;

    if (n > model->weights->config.context)
        n = model->weights->config.context;
    return n < model->n_positions ? n : model->n_positions;
}

size_t engine_room(const struct engine *e, const struct loaded *who)
{
    return kv_pool_tokens(who->mixture->model, e->o.cache_bytes);
}

int engine_check_room(const struct engine *e, const struct loaded *who,
                      struct artel_error *err)
{
    const size_t least = kv_pool_least(who->mixture->model);

    if (e->o.cache_bytes >= least)
        return 0;
    return error_set(err, ARTEL_EUSAGE, "SRV03", "cache",
                     "%zu bytes hold the keys and values of no conversation: the least "
                     "is %zuK, for %d tokens of this model",
                     e->o.cache_bytes, (least + 1023) / 1024, KV_LEAST * KV_BLOCK);
}

void engine_publish(struct engine *e, size_t n_ended)
{
    uint64_t jobs;

    pthread_mutex_lock(&e->lock);
    jobs = e->stats.jobs;
    e->stats = e->count;
    e->stats.jobs = jobs;
    e->n_alive -= n_ended;
    pthread_mutex_unlock(&e->lock);
}

void engine_stats(struct engine *e, struct engine_stats *out)
{
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    out->waiting = e->n_waiting;
    if (e->asleep > 0)
        out->idle_seconds += clock_seconds() - e->asleep;
    pthread_mutex_unlock(&e->lock);
}

/* ---- jobs ---- */

static int check_ids(const struct job_options *o, const struct ids *ids, size_t n_vocab,
                     struct artel_error *err)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->at[i] < 0 || (size_t)ids->at[i] >= n_vocab)
            return error_set(err, ARTEL_EUSAGE, "CTX05", "prompt",
                             "token %d is none of the %zu that there are", ids->at[i],
                             n_vocab);
    for (size_t i = 0; i < o->sampling.n_bias; i++)
        if (o->sampling.bias[i].id < 0 || (size_t)o->sampling.bias[i].id >= n_vocab)
            return error_set(err, ARTEL_EUSAGE, "CTX05", "bias",
                             "token %d is none of the %zu that there are",
                             o->sampling.bias[i].id, n_vocab);
    return 0;
}

static int check(const struct engine *e, const struct loaded *who,
                 const struct prompt *prompt, const struct job_options *o,
                 struct artel_error *err)
{
    const struct artel_model *const model = who->mixture->model;
    const size_t context = engine_context(e, who);
    const size_t answer = o->embed || !o->max_tokens ? 0 : 1;
    size_t n_vocab = tokenizer_size(model->tokenizer);

    if (n_vocab > model->weights->config.n_vocab)
        n_vocab = model->weights->config.n_vocab;
    if (!prompt->ids.n)
        return error_set(err, ARTEL_EUSAGE, "CTX04", "prompt", "it has no tokens");
    if (prompt->ids.n + answer > context)
        return error_set(err, ARTEL_EUSAGE, "CTX01", "prompt",
                         "the prompt has %zu tokens; there is room for %zu%s",
                         prompt->ids.n, context - answer,
                         answer ? " and an answer" : "");
    return check_ids(o, &prompt->ids, n_vocab, err);
}

/* Stop strings and biases of J's own. */
static int copy_options(struct job *j, const struct job_options *o,
                        struct artel_error *err)
{
    const size_t n_bias = o->sampling.n_bias;

    j->o = *o;
    j->o.grammar = NULL;
    j->o.stop = NULL;
    j->stop = calloc(o->n_stop + 1, sizeof(*j->stop));
    j->bias = malloc((n_bias + 1) * sizeof(*j->bias));
    if (!j->stop || !j->bias)
        return error_nomem(err, n_bias * sizeof(*j->bias));
    for (size_t i = 0; i < o->n_stop; i++) {
        j->stop[i] = strdup(o->stop[i]);
        if (!j->stop[i])
            return error_nomem(err, strlen(o->stop[i]));
    }
    memmove(j->bias, o->sampling.bias ? o->sampling.bias : j->bias,
            n_bias * sizeof(*j->bias));
    j->o.stop = (const char *const *)j->stop;
    j->o.sampling.bias = j->bias;
    return 0;
}

/* From here on the job is the thread's. */
static int join_queue(struct engine *e, struct job **out, struct job *j,
                      struct prompt *prompt, struct grammar *grammar,
                      struct artel_error *err)
{
    int rc = 0;

    pthread_mutex_lock(&e->lock);
    if (e->draining) {
        rc = error_set(err, ARTEL_ELIMIT, "SRV10", NULL, "the server ends");
    } else if (e->n_waiting >= e->o.queue) {
        rc = error_set(err, ARTEL_ELIMIT, "SRV09", NULL, "%zu requests wait already",
                       e->n_waiting);
    } else {
        j->prompt = *prompt;
        *prompt = (struct prompt){0};
        j->o.grammar = grammar;
        if (e->last)
            e->last->next = j;
        else
            e->first = j;
        e->last = j;
        e->n_waiting++;
        e->n_alive++;
        e->stats.jobs++;
        *out = j;
        pthread_cond_signal(&e->wake);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

int engine_submit(struct engine *e, struct job **out, struct loaded *who,
                  struct prompt *prompt, const struct job_options *o, job_fn *fn,
                  void *user, struct artel_error *err)
{
    struct job *j;
    int rc = check(e, who, prompt, o, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    j = calloc(1, sizeof(*j));
    if (!j)
        return error_nomem(err, sizeof(*j));
    j->engine = e;
    j->fn = fn;
    j->user = user;
    j->submitted = clock_seconds();
    j->route.expert = EXPERT_BASE;
    atomic_init(&j->cancelled, false);
    rc = copy_options(j, o, err);
    if (rc == 0) {
        j->who = loaded_hold(who);
        rc = join_queue(e, out, j, prompt, o->grammar, err);
    }
    if (rc < 0)
        job_free(j);
    return rc;
}

void engine_cancel(struct engine *e, struct job *j)
{
    (void)e; /* its thread is awake as long as there are jobs */
    atomic_store(&j->cancelled, true);
}
