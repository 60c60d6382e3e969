/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request that is being answered by one job of the engine or several: from its handler,
 * which submits them, to the last event of the last job, which ends the reply.
 *
 * Events of all jobs come on the engine's one thread. What they write (CHOICES, the stream)
 * needs no lock; LEFT, GONE and which jobs there are do, for the handler and a client that
 * leaves look at them too.
 */
#ifndef ARTEL_SERVE_API_ANSWER_H
#define ARTEL_SERVE_API_ANSWER_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve/api.h"
#include "serve/api_request.h"

struct answer;

/* A text that grows. Zeroed is empty. */
struct text {
    char *at; /* (n) ended; owned */
    size_t n, room;
};
int text_add(struct text *t, const char *bytes, size_t n); /* -1: no memory */

/* One answer of the request. */
struct choice {
    struct answer *answer;
    size_t index, prompt;
    struct job *job; /* NULL: not begun, or ended; under the lock */
    struct text text;
    size_t n_flowed;  /* bytes of TEXT that have left in a stream */
    bool began;       /* its first chunk has left */
    json_t *logprobs; /* list of what the kind keeps of tokens; owned */
    /* Completions: bytes of the echo before the answer's; and characters before byte
     * N_COUNTED. */
    size_t n_echo, n_counted, n_characters;
    json_t *embedding;  /* owned */
    json_t *calls;      /* chat: the text was calls of tools; owned */
    const char *finish; /* NULL: not ended */
    json_t *artel;      /* the route; owned */
    struct job_usage usage;
    double last_token; /* monotonic; 0: none yet */
};

/* What kinds of answers do differently. */
struct answer_kind {
    const char *id_prefix;     /* "chatcmpl-" */
    const char *stream_object; /* of chunks */
    const char *prompt_field;  /* at fault where a prompt does not fit */
    int (*read)(struct request *r, const struct request_limits *l, const char *body,
                size_t n, struct artel_error *err);
    /* PROMPTS, empty so far: one for each that was read, or one for the conversation. */
    int (*encode)(struct answer *a, struct artel_error *err);
    /* Tokens (and text) have come; they are kept. NULL: nothing is. */
    void (*keep)(struct choice *c, const struct job_event *e);
    /* What a stream begins with, and all of what was kept that may leave by now. */
    void (*flow)(struct choice *c);
    /* C is done: what is left leaves, and its end. */
    void (*finish)(struct choice *c);
    json_t *(*reply)(struct answer *a); /* whole, a new object */
};

struct answer {
    struct api *api;
    struct api_counts *counts; /* held: the API may close before the last answer */
    struct exchange *x;
    const struct answer_kind *kind;
    struct request r;
    struct loaded *who;
    int expert;
    const char *
        own_name; /* that an expert was added by: it is alone in its mixture; or NULL */
    char id[40];
    time_t created;
    double started;
    struct prompt *prompts; /* (r.n_prompts or 1) moved into jobs; owned */
    struct choice *choices; /* (n_choices) owned */
    size_t n_choices;
    bool head;  /* of a stream: has left */
    bool lost;  /* nobody takes the stream any more */
    int failed; /* what kept it from an answer, or 0 */
    struct artel_error why;

    pthread_mutex_t lock;
    size_t left; /* jobs, and the handler until it has submitted them */
    atomic_bool gone;
};

/* The request of X, read and its prompts encoded. NULL: X has been refused. */
struct answer *answer_read(struct api *api, struct exchange *x,
                           const struct answer_kind *kind);
/* Options of sampling and length as the request and the model have them. */
void answer_options(const struct answer *a, struct job_options *o);
/* Submit a job for each choice; O is what they have in common, GRAMMAR (may be NULL) makes
 * one for each. A is taken over. */
typedef int make_grammar(struct grammar **out, const struct answer *a,
                         struct artel_error *err);
void answer_submit(struct answer *a, const struct job_options *o,
                   make_grammar *grammar);
/* Reply with the error; A is taken over. */
void answer_refuse(struct answer *a, int rc, const struct artel_error *err);

/* {"id", "object", "created", "model", "system_fingerprint", "choices": []} */
json_t *answer_object(const struct answer *a, const char *object);
/* A chunk of the stream with CHOICE (taken over) alone, ARTEL (borrowed) beside it where
 * not NULL. */
void answer_send(struct answer *a, json_t *choice, json_t *artel);
/* The prompt IDX, which is no conversation. */
int encode_prompt(struct answer *a, size_t idx, struct artel_error *err);
/* "usage" and "artel" of a whole reply. */
void answer_totals(const struct answer *a, json_t *reply);

#endif
