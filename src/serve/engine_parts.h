/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine's sources share: engine.c the queue and its callers, engine_thread.c the
 * turns of the one thread that computes, engine_job.c an answer from its seat to its last
 * event, engine_seats.c mixtures and their sessions.
 *
 * LOCK guards what callers touch: queue, counters, switches. Everything else belongs to the
 * thread. No event is told while it is held.
 */
#ifndef ARTEL_SERVE_ENGINE_PARTS_H
#define ARTEL_SERVE_ENGINE_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "decoder/kv_pool.h"
#include "decoder/session.h"
#include "eval/talk.h"
#include "serve/catalogue.h"
#include "serve/engine.h"

#define ENGINE_SEATS 32
#define ENGINE_AHEAD 256 /* tokens that a job is promised beyond those it has */

/* A mixture that answers, with its sessions that nobody sits in. */
struct served {
    struct loaded *who; /* held */
    struct artel_session *idle[ENGINE_SEATS];
    size_t n_idle, n_jobs;
    uint64_t used; /* turn in which a job last came or went */
    bool trim;     /* let go once it has no job */
};

/* Tokens that wait to be told, each with N_TOP candidates beside it. */
struct told {
    struct job_token *at;  /* (n) of (room) */
    struct candidate *top; /* (room, n_top) */
    size_t n, room, n_top;
};

enum job_phase { JOB_QUEUED, JOB_READING, JOB_WRITING };

struct job {
    struct engine *engine;
    struct job *next;   /* in the queue */
    struct loaded *who; /* held */
    struct prompt prompt;
    struct job_options o; /* with stop strings and biases that are: */
    char **stop;          /* (o.n_stop) */
    struct token_bias *bias;
    job_fn *fn;
    void *user;
    atomic_bool cancelled;
    double submitted;

    /* Of the thread alone, from here on. */
    enum job_phase phase;
    bool deaf; /* its listener wants no more */
    struct served *served;
    struct artel_session *session;
    size_t room;          /* tokens that it may come to; 0: it was never near a seat */
    size_t promised;      /* tokens whose blocks the pool keeps for it */
    uint64_t turn;        /* of its last piece */
    double started, read; /* it took its seat, it began to write */
    struct talk talk;
    struct prefill_watch watch;
    struct told told;     /* of the answer */
    struct told prompted; /* of the prompt, all at once */
    size_t prompt_bytes;  /* of the tokens in PROMPTED */
    float *embedding;     /* (D), or NULL */
    struct route route;
    float *probabilities; /* (n_routers, n_experts) behind the route */
    bool below;           /* the threshold sent it to the base */
    size_t cached;
};

struct engine {
    struct engine_options o;
    size_t n_threads; /* of OpenMP's team, which the thread sets up for itself */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first, *last; /* the queue */
    bool draining, closing, trim;
    int start; /* 1: the thread is about to tell; else how its start went */
    struct artel_error start_error;
    size_t n_waiting; /* in the queue */
    size_t n_alive;   /* jobs whose last event has not returned */
    struct engine_stats stats;
    double asleep; /* since then; 0: it is awake */

    /* Of the thread alone. */
    struct job *running[ENGINE_SEATS]; /* (n_running) in the order they came */
    size_t n_running;
    struct served *served[ENGINE_SEATS]; /* (n_served) */
    size_t n_served, n_sessions;
    struct kv_pool *pool; /* for sequences of */
    const struct artel_model *pool_model;
    uint64_t turn;
    struct engine_stats count; /* what STATS is made of */
};

/* What the thread has counted may be asked for; N_ENDED more jobs are no more. */
void engine_publish(struct engine *e, size_t n_ended);

/* ---- engine_thread.c ---- */
void *engine_run(void *engine);

/* ---- engine_job.c ---- */
/* Takes a seat. Not 0 with *WAIT: not now, but once others have left. */
int job_seat(struct job *j, bool *wait, struct artel_error *err);
/* The next piece of its prompt. Where it has been read, the job writes, or FINISHED. */
int job_read(struct job *j, bool *finished, struct artel_error *err);
/* The token *ID that comes next is told; FINISHED: there was no other. */
int job_write(struct job *j, int32_t *id, bool *finished, struct artel_error *err);
/* Why it should not go on: cancelled, nobody listens, too late. 0: it may. */
int job_check(struct job *j, double now, struct artel_error *err);
/* Its last event: JOB_FAILED with ERR, or JOB_DONE where ERR is NULL. J is gone. */
void job_end(struct job *j, const struct artel_error *err);
void job_free(struct job *j);

/* ---- engine_seats.c ---- */
/* A session for J. *WAIT as above: another base's jobs must end first. */
int seat_take(struct job *j, bool *wait, struct artel_error *err);
void seat_give(struct job *j);
/* Could all who have a seat, and J, come to their ends one after the other with what the
 * pool has free? */
bool seat_safe(const struct job *j);
/* May J be read by one token more? Else it waits until others have left. */
bool seat_grow(struct job *j);
/* Mixtures without a job: those to be trimmed, or ALL. */
void seats_trim(struct engine *e, bool all);

#endif
