/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many answers at once over one copy of the base. One thread computes: at every step
 * whoever waits may join, everyone who is writing gets one token, one waiting prompt
 * goes on by a bounded piece, and who is done or gone leaves.
 *
 * A job is one answer. It tells what happens through JOB_FN calls on the engine's
 * thread, in order; the last is JOB_DONE or JOB_FAILED, exactly one of them.
 */
#ifndef ARTEL_SERVE_ENGINE_H
#define ARTEL_SERVE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artel.h"
#include "data/prompt.h"
#include "decoder/sampler.h"

struct engine;
struct grammar; /* serve/grammar.h */
struct job;
struct loaded; /* serve/catalogue.h: a mixture that answers */

enum job_below { BELOW_GOES_ON, BELOW_BASE, BELOW_REFUSED };

struct job_options {
    int expert; /* EXPERT_AUTO, EXPERT_BASE or an index of the mixture */
    /* Where the routers' probability of the expert that they chose (the mean over the
     * routers) is below THRESHOLD: the base answers, or the job fails with SRV20. Where
     * tokens decide, nothing is chosen, and nothing is below. */
    float threshold;
    enum job_below below;
    struct sampler_options sampling;
    uint64_t stream;   /* of the sampler: choices of one request have different ones */
    size_t max_tokens; /* of the answer; 0: the prompt is read and nothing written */
    const char *const *stop; /* (n_stop) copied; left out of the text */
    size_t n_stop;
    int top_logprobs;     /* -1: none are told; else how many beside the token's own */
    bool prompt_logprobs; /* JOB_PROMPT tells each prompt token's too */
    bool embed;           /* no answer: JOB_EMBEDDING and done */
    struct grammar
        *grammar;    /* the text must be of it; owned by the job then, or NULL */
    double deadline; /* seconds by the monotonic clock, then SRV13; 0: none */
};

enum job_event_kind {
    JOB_STARTED,   /* it has left the queue */
    JOB_PROMPT,    /* tokens: the prompt's, with log-probabilities, where asked for */
    JOB_ROUTED,    /* the prompt has been read; route is set */
    JOB_EMBEDDING, /* embedding is set */
    JOB_TEXT, /* text, and the tokens that made it; not those of a stop string or the end */
    JOB_DONE, /* finish_reason, route (of the whole answer where tokens decide), usage */
    JOB_FAILED /* error */
};

struct job_token {
    int32_t id;
    float logprob;  /* of the model, before anything is done to its logits; NAN for a
                  * prompt's first token, and where none are told */
    size_t text_at; /* bytes of all text before it */
    const struct candidate
        *top; /* (n_top) likeliest first, logit is the log-probability */
    size_t n_top;
};

struct job_route {
    int expert;     /* EXPERT_BASE: none */
    bool routed;    /* routers were asked */
    bool per_token; /* gates are averages over tokens, layers_agreeing says nothing */
    bool from_base; /* one router read the base: layers_agreeing says nothing */
    bool below;     /* the threshold sent it to the base */
    size_t n_routers, n_experts, layers_agreeing;
    const float *probabilities; /* (n_routers, n_experts), NULL where not routed */
};

struct job_usage {
    size_t prompt_tokens, cached_tokens, completion_tokens;
    double queued_seconds, prefill_seconds, decode_seconds;
};

struct job_event {
    enum job_event_kind kind;
    const char *text; /* (n_text) whole UTF-8 characters */
    size_t n_text;
    const struct job_token *tokens; /* (n_tokens) */
    size_t n_tokens;
    const float *embedding; /* (n_embedding) */
    size_t n_embedding;
    const char *finish_reason; /* "stop", "length" */
    struct job_route route;
    struct job_usage usage;
    const struct artel_error *error;
};

/* What EVENT points to is valid during the call. Not 0: nobody listens any more, leave.
 * Must not wait for anybody but those who call engine_submit() and engine_cancel(): no lock
 * of the engine is held meanwhile. */
typedef int job_fn(void *user, const struct job_event *event);

struct engine_options {
    size_t seats;   /* answers at a time, at most 32; 0: 16 */
    size_t queue;   /* jobs that wait; 0: 256 */
    size_t context; /* tokens of a sequence; 0: the model's, at most 4096 */
    size_t
        cache_bytes; /* of keys and values, of all sequences and kept prefixes; 0: 1 GiB */
    size_t prefill_rows; /* of a prompt between two steps; 0: 256 */
};

int engine_open(struct engine **out, const struct engine_options *o,
                struct artel_error *err);
/* Jobs that are left fail with SRV11. */
void engine_close(struct engine *e);
/* Take no more jobs (SRV10); returns at once. engine_idle(): none are left. */
void engine_drain(struct engine *e);
bool engine_idle(const struct engine *e);
/* Tokens of a sequence that WHO answers, and those whose keys and values have room. */
size_t engine_context(const struct engine *e, const struct loaded *who);
size_t engine_room(const struct engine *e, const struct loaded *who);
/* ARTEL_EUSAGE where that room is less than WHO's shortest sequences take. */
int engine_check_room(const struct engine *e, const struct loaded *who,
                      struct artel_error *err);
/* Let go of mixtures that no job uses, now or once the last one has left: for calls after
 * what is served has changed. */
void engine_trim(struct engine *e);

/*
 * PROMPT is moved, O->grammar taken over, unless the call fails. WHO is held until the
 * job's last event has returned, at least; a job keeps the mixture that it began with.
 * *OUT is there before the first event and valid until the last has returned.
 *
 *     ARTEL_ELIMIT SRV09   the queue is full; SRV10 the server ends
 *     ARTEL_EUSAGE CTX01   the prompt leaves no room for an answer; CTX04 it is empty
 *     ARTEL_EUSAGE CTX05   a token that the vocabulary does not have, in the prompt or
 *                          among the biases
 *
 * Later it may fail with SRV11 (the engine was closed), SRV12 (cancelled), SRV13 (too
 * late), SRV20, KV02 (prompt and max_tokens are more than all of the cache), or by what
 * kept it from computing, such as MEM01.
 */
int engine_submit(struct engine *e, struct job **out, struct loaded *who,
                  struct prompt *prompt, const struct job_options *o, job_fn *fn,
                  void *user, struct artel_error *err);
/* From any thread, for a job whose last event has not returned: it leaves at the next
 * step, by JOB_FAILED with SRV12. */
void engine_cancel(struct engine *e, struct job *j);

struct engine_stats {
    uint64_t jobs, jobs_done, jobs_failed, jobs_cancelled, jobs_expired;
    uint64_t prompt_tokens, cached_tokens, completion_tokens, steps;
    size_t running, waiting, seats;
    size_t cache_bytes_used, cache_bytes;
    double busy_seconds, idle_seconds;
    double
        step_started; /* monotonic; 0: idle. A step that is old tells that it is stuck */
};
void engine_stats(struct engine *e, struct engine_stats *out);

#endif
