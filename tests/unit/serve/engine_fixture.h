/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine over the toy model with three experts and a router, and a listener that keeps
 * what a job tells. A listener can hold the engine's thread inside of an event, so that a
 * test decides what happens between two turns.
 *
 * The names of a catalogue are not needed here: what stands behind them is counted by the
 * program itself (loaded_hold, loaded_let_go).
 */
#ifndef ARTEL_TESTS_ENGINE_FIXTURE_H
#define ARTEL_TESTS_ENGINE_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "support/toy_decoder.h"

#include "base/cpu.h"
#include "decoder/session.h"
#include "eval/opened.h"
#include "serve/catalogue.h"
#include "serve/engine.h"

#define TEXT_MAX  8192
#define IDS_MAX   600
#define PATIENCE  60 /* seconds until a test gives up */
#define N_EXPERTS 3

static atomic_int held;   /* mixtures, by anybody */
static atomic_int n_read; /* prompts so far */

struct loaded *loaded_hold(struct loaded *l)
{
    atomic_fetch_add(&held, 1);
    return l;
}

void loaded_let_go(struct loaded *l)
{
    (void)l;
    atomic_fetch_sub(&held, 1);
}

struct base {
    struct artel_model *model;
    struct mixture mixture;
    struct artel_mixture opened, bare;
    struct loaded loaded;
};

static const struct gate_rule by_layer = {.place = ROUTER_LAYER, .fix_expert = true};

static void open_base(struct base *b, const struct gate_rule *rule, uint64_t seed)
{
    struct artel_error err;

    memset(b, 0, sizeof(*b));
    assert_int_equal(
        model_open(&b->model, ARTEL_SOURCE "/tests/golden/toy-tied.gguf", &err), 0);
    assert_int_equal(model_prepare(b->model, PRECISION_FP32,
                                   MATRIX_FORWARD | MATRIX_DECODE, 512, &err),
                     0);
    assert_int_equal(
        mixture_init(&b->mixture, "test", &b->model->weights->config, rule, &err), 0);
    toy_expert(&b->mixture, b->model, "one", 3, NULL, seed);
    toy_expert(&b->mixture, b->model, "two", 2, NULL, seed + 1);
    toy_expert(&b->mixture, b->model, "three", 4, "456", seed + 2);
    mixture_draw_routers(&b->mixture, 1.0f, seed + 3);
    b->opened = (struct artel_mixture){.model = b->model, .mixture = &b->mixture};
    b->bare = (struct artel_mixture){.model = b->model};
    b->loaded = (struct loaded){.mixture = &b->opened};
}

static void close_base(struct base *b)
{
    mixture_release(&b->mixture);
    model_close(b->model);
}

static struct engine *new_engine(struct engine_options o)
{
    struct engine *e;
    struct artel_error err;

    if (!o.cache_bytes)
        o.cache_bytes = 8 << 20;
    if (engine_open(&e, &o, &err) < 0)
        fail_msg("%s: %s", err.code, err.reason);
    return e;
}

/* ---- a job and its listener ---- */

struct heard {
    pthread_mutex_t lock;
    pthread_cond_t change;
    char events[64]; /* S P R E D F, and T once for any number of JOB_TEXT in a row */
    size_t n_events;
    char text[TEXT_MAX];
    size_t n_text, n_texts;
    int32_t ids[IDS_MAX];
    float logprob[IDS_MAX];
    size_t text_at[IDS_MAX];
    struct candidate top[IDS_MAX][4];
    size_t n_top[IDS_MAX], n_ids;
    float prompt_logprob[IDS_MAX];
    size_t n_prompt;
    float embedding[256];
    size_t n_embedding;
    char reason[16], code[8];
    struct job_route routed, route; /* at JOB_ROUTED, at the end */
    float probabilities[256];
    struct job_usage usage;
    const struct heard *beside; /* another job, */
    size_t beside_texts[2];     /* and how many texts it had at S and at R */
    int order;                  /* of all R, from 1 */
    bool over;
    /* What it does. */
    char hold_at; /* the letter of the event that does not return before release() */
    bool holding, released;
    size_t leave_after; /* texts, then nobody listens; 0: never */
    struct job *job;
};

static void keep_tokens(struct heard *h, const struct job_event *e)
{
    for (size_t i = 0; i < e->n_tokens; i++) {
        const struct job_token *const t = &e->tokens[i];

        if (e->kind == JOB_PROMPT) {
            h->prompt_logprob[h->n_prompt++] = t->logprob;
            continue;
        }
        h->ids[h->n_ids] = t->id;
        h->logprob[h->n_ids] = t->logprob;
        h->text_at[h->n_ids] = t->text_at;
        h->n_top[h->n_ids] = t->n_top;
        for (size_t k = 0; k < t->n_top && k < 4; k++)
            h->top[h->n_ids][k] = t->top[k];
        h->n_ids++;
    }
}

static void keep_route(struct heard *h, const struct job_event *e)
{
    *(e->kind == JOB_ROUTED ? &h->routed : &h->route) = e->route;
    if (e->route.probabilities)
        memcpy(h->probabilities, e->route.probabilities,
               e->route.n_routers * e->route.n_experts * sizeof(float));
}

static int hear(void *user, const struct job_event *e)
{
    static const char letters[] = "SPRETDF";
    const char letter = letters[e->kind];
    struct heard *const h = user;
    int rc = 0;

    pthread_mutex_lock(&h->lock);
    if (letter != 'T' || !h->n_events || h->events[h->n_events - 1] != 'T')
        h->events[h->n_events++] = letter;
    memcpy(h->text + h->n_text, e->n_text ? e->text : "", e->n_text);
    h->n_text += e->n_text;
    keep_tokens(h, e);
    keep_route(h, e);
    h->usage = e->usage;
    if (letter == 'R')
        h->order = atomic_fetch_add(&n_read, 1) + 1;
    if (h->beside && (letter == 'S' || letter == 'R')) /* told on this thread too */
        h->beside_texts[letter == 'R'] = h->beside->n_texts;
    if (e->n_embedding)
        memcpy(h->embedding, e->embedding, e->n_embedding * sizeof(float));
    h->n_embedding += e->n_embedding;
    if (letter == 'T' && ++h->n_texts == h->leave_after)
        rc = 1;
    if (letter == 'D')
        snprintf(h->reason, sizeof(h->reason), "%s", e->finish_reason);
    if (letter == 'F')
        snprintf(h->code, sizeof(h->code), "%s", e->error->code);
    if (letter == h->hold_at && !h->released) {
        h->holding = true;
        pthread_cond_broadcast(&h->change);
        while (!h->released)
            pthread_cond_wait(&h->change, &h->lock);
    }
    h->over = letter == 'D' || letter == 'F';
    pthread_cond_broadcast(&h->change);
    pthread_mutex_unlock(&h->lock);
    return rc;
}

static struct heard *new_heard(void)
{
    struct heard *const h = calloc(1, sizeof(*h));

    assert_non_null(h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->change, NULL);
    return h;
}

static void free_heard(struct heard *h)
{
    pthread_cond_destroy(&h->change);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static void await(struct heard *h, const bool *what)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    pthread_mutex_lock(&h->lock);
    while (!*what)
        if (pthread_cond_timedwait(&h->change, &h->lock, &until))
            fail_msg("nothing came for %d seconds", PATIENCE);
    pthread_mutex_unlock(&h->lock);
}

static inline void release(struct heard *h)
{
    pthread_mutex_lock(&h->lock);
    h->released = true;
    pthread_cond_broadcast(&h->change);
    pthread_mutex_unlock(&h->lock);
}

static struct job_options options(int expert, size_t max_tokens)
{
    return (struct job_options){.expert = expert,
                                .sampling = {.top_p = 1, .repetition_penalty = 1},
                                .max_tokens = max_tokens,
                                .top_logprobs = -1};
}

static int submit_text(struct engine *e, struct heard *h, struct loaded *who,
                       const char *text, const struct job_options *o,
                       struct artel_error *err)
{
    struct prompt p = {0};
    struct job *job;
    int rc;

    assert_int_equal(
        prompt_encode_raw(&p, who->mixture->model->tokenizer, text, strlen(text), err),
        0);
    rc = engine_submit(e, &job, who, &p, o, hear, h, err);
    h->job = job;
    if (rc < 0)
        prompt_release(&p);
    else
        assert_null(p.ids.at);
    return rc;
}

static void submit(struct engine *e, struct heard *h, struct base *b, const char *text,
                   const struct job_options *o)
{
    struct artel_error err;

    if (submit_text(e, h, &b->loaded, text, o, &err) < 0)
        fail_msg("%s: %s", err.code, err.reason);
}

static inline struct heard *ask(struct engine *e, struct base *b, const char *text,
                                const struct job_options *o)
{
    struct heard *const h = new_heard();

    submit(e, h, b, text, o);
    await(h, &h->over);
    return h;
}

/* What artel run answers. */
static inline void run_alone(struct artel_answer *out, const struct artel_mixture *m,
                             const char *text, const struct job_options *o)
{
    const struct artel_prompt prompt = {
        .text = (char *)(size_t)text, .n = strlen(text), .raw = 1};
    const struct artel_generate_options how = {.expert = o->expert,
                                               .max_tokens = o->max_tokens,
                                               .temperature = o->sampling.temperature,
                                               .top_k = o->sampling.top_k,
                                               .top_p = o->sampling.top_p,
                                               .min_p = o->sampling.min_p,
                                               .repetition_penalty =
                                                   o->sampling.repetition_penalty,
                                               .seed = o->sampling.seed,
                                               .stop = o->stop,
                                               .n_stop = o->n_stop};
    struct artel_session *s;
    struct artel_error err;

    assert_int_equal(artel_session_open(&s, m, 0, &err), 0);
    if (artel_generate(s, out, m, &prompt, &how, &err) < 0)
        fail_msg("%s: %s", err.code, err.reason);
    artel_session_close(s);
}

static inline void assert_answers(const struct heard *h, const struct artel_answer *a)
{
    assert_string_equal(h->code, "");
    assert_int_equal(h->n_text, a->n_text);
    assert_memory_equal(h->text, a->text, a->n_text);
    assert_string_equal(h->reason, a->finish_reason);
    assert_int_equal(h->usage.completion_tokens, a->n_ids);
    assert_int_equal(h->route.expert, a->expert);
}

#endif
