/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/api_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "decoder/session.h"
#include "serve/api_counts.h"
#include "serve/api_parts.h"
#include "serve/api_reply.h"

/* NULL: no memory; X has been answered then. */
static struct answer *answer_new(struct api *api, struct exchange *x,
                                 const struct answer_kind *kind)
{
    struct answer *const a = calloc(1, sizeof(*a));

    if (!a) {
        exchange_error(x, 503, "server_error", NULL, NULL, "no memory for this answer");
        return NULL;
    }
    a->api = api;
    a->counts = counts_hold(api->counts);
    a->x = x;
    a->kind = kind;
    a->started = clock_seconds();
    a->created = time(NULL);
    a->left = 1;
    snprintf(a->id, sizeof(a->id), "%s%s", kind->id_prefix, exchange_id(x));
    pthread_mutex_init(&a->lock, NULL);
    return a;
}

static void answer_free(struct answer *a)
{
    for (size_t i = 0; i < a->n_choices; i++) {
        struct choice *const c = &a->choices[i];

        free(c->text.at);
        json_decref(c->logprobs);
        json_decref(c->embedding);
        json_decref(c->calls);
        json_decref(c->artel);
    }
    for (size_t i = 0; a->prompts && i < a->r.n_prompts; i++)
        prompt_release(&a->prompts[i]);
    free(a->prompts);
    free(a->choices);
    loaded_let_go(a->who);
    counts_let_go(a->counts);
    request_release(&a->r);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void answer_refuse(struct answer *a, int rc, const struct artel_error *err)
{
    api_refuse(a->x, rc, err);
    answer_free(a);
}

/* A seed of its own for a request that names none. */
static uint64_t any_seed(void)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)(clock_seconds() * 1e9);
    return seed;
}

/* R has been read: WHO and EXPERT of its model, N_PROMPTS empty prompts and their choices. */
static int answer_prepare(struct answer *a, size_t n_prompts, struct artel_error *err)
{
    int rc;

    if (a->api->draining)
        return error_set(err, ARTEL_ELIMIT, "SRV10", NULL,
                         "the server is about to end and takes no more requests");
    rc = catalogue_find(a->api->catalogue, &a->who, &a->expert, a->r.model, err);
    if (rc < 0)
        return rc;
    if (a->expert == 0 && strcmp(a->r.model, artel_expert_name(a->who->mixture, 0)) &&
        !a->who->mixture->file.folder && strcmp(a->r.model, "auto") &&
        strcmp(a->r.model, catalogue_name(a->api->catalogue)))
        a->own_name = a->r.model;
    if (!a->r.has_seed)
        a->r.seed = any_seed();
    a->r.n_prompts = n_prompts;
    a->n_choices = n_prompts * a->r.n;
    a->prompts = calloc(n_prompts, sizeof(*a->prompts));
    a->choices = calloc(a->n_choices, sizeof(*a->choices));
    if (!a->prompts || !a->choices) {
        a->n_choices = 0;
        return error_nomem(err, a->n_choices * sizeof(*a->choices));
    }
    for (size_t i = 0; i < a->n_choices; i++)
        a->choices[i] = (struct choice){.answer = a, .index = i, .prompt = i / a->r.n};
    exchange_note(a->x, "model", a->r.model);
    return 0;
}

void answer_options(const struct answer *a, struct job_options *o)
{
    const struct request *const r = &a->r;
    const struct sampler_options *const own = &a->who->sampling;

    *o = (struct job_options){
        .expert = a->expert,
        .threshold = r->threshold,
        .below = r->below,
        .sampling = {.temperature =
                         r->temperature < 0 ? own->temperature : r->temperature,
                     .top_k = r->top_k == SIZE_MAX ? own->top_k : r->top_k,
                     .top_p = r->top_p < 0 ? own->top_p : r->top_p,
                     .min_p = r->min_p < 0 ? own->min_p : r->min_p,
                     .repetition_penalty = r->repetition_penalty < 0
                                               ? own->repetition_penalty
                                               : r->repetition_penalty,
                     .seed = r->seed,
                     .frequency_penalty = r->frequency_penalty,
                     .presence_penalty = r->presence_penalty,
                     .bias = r->bias,
                     .n_bias = r->n_bias},
        .max_tokens = r->max_tokens,
        .stop = r->stop,
        .n_stop = r->n_stop,
        .top_logprobs = r->top_logprobs,
        .deadline =
            a->api->request_seconds > 0 ? a->started + a->api->request_seconds : 0};
}

/* At most what the context leaves after the prompt, and what the server allows. Who asks
 * for no length gets what there is room for, and is not refused for want of more. */
static size_t clip_length(const struct answer *a, size_t asked, size_t n_prompt)
{
    const size_t held = engine_room(a->api->engine, a->who);
    size_t context = engine_context(a->api->engine, a->who), room, n;

    if (asked == SIZE_MAX && held < context)
        context = held;
    room = n_prompt < context ? context - n_prompt : 1;
    n = asked < room ? asked : room;
    if (a->api->max_tokens && n > a->api->max_tokens)
        n = a->api->max_tokens;
    return n;
}

static void cancel_all(struct answer *a)
{
    pthread_mutex_lock(&a->lock);
    for (size_t i = 0; i < a->n_choices; i++)
        if (a->choices[i].job)
            engine_cancel(a->api->engine, a->choices[i].job);
    pthread_mutex_unlock(&a->lock);
}

static void on_gone(void *user)
{
    struct answer *const a = user;

    atomic_store(&a->gone, true);
    cancel_all(a);
}

int text_add(struct text *t, const char *bytes, size_t n)
{
    if (t->n + n + 1 > t->room) {
        const size_t room = 2 * (t->n + n) + 64;
        char *const larger = realloc(t->at, room);

        if (!larger)
            return -1;
        t->at = larger;
        t->room = room;
    }
    if (n)
        memcpy(t->at + t->n, bytes, n);
    t->n += n;
    t->at[t->n] = '\0';
    return 0;
}

/* ---- towards the client ---- */

json_t *answer_object(const struct answer *a, const char *object)
{
    char print[24];

    snprintf(print, sizeof(print), "fp_%.12s", a->who->mixture->model->base_digest);
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:[]}", "id", a->id, "object", object,
                     "created", (json_int_t)a->created, "model", a->r.model,
                     "system_fingerprint", print, "choices");
}

/* One event of the stream. */
static void send_event(struct answer *a, json_t *o)
{
    char *const text = o ? json_dumps(o, API_JSON) : NULL;
    const size_t n = text ? strlen(text) : 0;
    char *const event = malloc(n + 9);

    json_decref(o);
    if (!text || !event) {
        a->lost = true;
    } else if (!a->lost) {
        memcpy(event, "data: ", 6);
        memcpy(event + 6, text, n);
        memcpy(event + 6 + n, "\n\n", 3);
        a->lost = exchange_write(a->x, event, n + 8) != 0;
    }
    free(event);
    free(text);
}

void answer_send(struct answer *a, json_t *choice, json_t *artel)
{
    json_t *const o = answer_object(a, a->kind->stream_object);

    json_array_append_new(json_object_get(o, "choices"), choice);
    if (a->r.include_usage)
        json_object_set_new(o, "usage", json_null());
    if (artel)
        json_object_set(o, "artel", artel);
    send_event(a, o);
}

/* Tokens of each prompt once, and of every answer. */
static json_t *total_usage(const struct answer *a)
{
    size_t prompt = 0, cached = 0, completion = 0;

    for (size_t i = 0; i < a->n_choices; i++) {
        const struct job_usage *const u = &a->choices[i].usage;

        if (i % a->r.n == 0) {
            prompt += u->prompt_tokens;
            cached += u->cached_tokens;
        }
        completion += u->completion_tokens;
    }
    return usage_json(prompt, cached, completion);
}

void answer_totals(const struct answer *a, json_t *reply)
{
    json_object_set_new(reply, "usage", total_usage(a));
    if (a->choices[0].artel)
        json_object_set(reply, "artel", a->choices[0].artel);
}

static void set_expert(struct answer *a, const struct choice *c)
{
    const char *const name = json_string_value(json_object_get(c->artel, "expert"));

    if (name) {
        exchange_set_header(a->x, "x-artel-expert", name);
        exchange_note(a->x, "expert", name);
    }
}

/* The head of a stream waits until it is known who answers. */
static void begin_stream(struct answer *a, const struct choice *c)
{
    if (a->head)
        return;
    /* Where tokens decide, the stream's last chunk tells who has. */
    if (a->r.n_prompts == 1 && !json_is_true(json_object_get(c->artel, "per_token")))
        set_expert(a, c);
    a->head = true;
    exchange_stream(a->x, 200, "text/event-stream");
}

static void end_stream(struct answer *a)
{
    static const char done[] = "data: [DONE]\n\n";

    if (a->failed) {
        send_event(a, failure_object(a->failed, &a->why));
    } else {
        if (a->r.include_usage) {
            json_t *const o = answer_object(a, a->kind->stream_object);

            answer_totals(a, o);
            send_event(a, o);
        }
        if (!a->lost)
            exchange_write(a->x, done, sizeof(done) - 1);
    }
    exchange_end(a->x);
}

/* All jobs have ended. */
static void answer_finish(struct answer *a)
{
    for (size_t i = 0; !a->failed && i < a->n_choices; i++)
        counts_answer(a->counts, json_string_value(
                                     json_object_get(a->choices[i].artel, "expert")));
    if (!a->failed)
        counts_observe(a->counts, SECONDS_REQUEST, clock_seconds() - a->started, 1);
    if (a->head) {
        end_stream(a);
    } else if (a->failed) {
        api_refuse(a->x, a->failed, &a->why);
    } else {
        set_expert(a, &a->choices[0]);
        api_reply(a->x, 200, a->kind->reply(a));
    }
    answer_free(a);
}

/* ---- from the engine ---- */

/* Who was one of those that A waits for is done. */
static void leave(struct answer *a, struct choice *c)
{
    bool last;

    pthread_mutex_lock(&a->lock);
    if (c)
        c->job = NULL;
    last = --a->left == 0;
    pthread_mutex_unlock(&a->lock);
    if (last)
        answer_finish(a);
}

static void fail(struct answer *a, int rc, const struct artel_error *err)
{
    pthread_mutex_lock(&a->lock);
    if (!a->failed) {
        a->failed = rc;
        a->why = *err;
        if (!strcmp(err->where, "prompt"))
            snprintf(a->why.where, sizeof(a->why.where), "%s", a->kind->prompt_field);
    }
    pthread_mutex_unlock(&a->lock);
    cancel_all(a);
}

static void set_route(struct choice *c, const struct job_event *e)
{
    const struct answer *const a = c->answer;

    json_decref(c->artel);
    c->artel = route_json(&e->route, a->who->mixture, a->own_name, a->r.layers);
    if (e->kind == JOB_DONE)
        json_object_set_new(
            c->artel, "seconds",
            json_pack("{s:f, s:f, s:f}", "queued", e->usage.queued_seconds, "prefill",
                      e->usage.prefill_seconds, "decode", e->usage.decode_seconds));
}

static void time_tokens(struct answer *a, struct choice *c, size_t n)
{
    const double now = clock_seconds();

    if (!n)
        return;
    if (c->last_token == 0)
        counts_observe(a->counts, SECONDS_FIRST_TOKEN, now - a->started, 1);
    else
        counts_observe(a->counts, SECONDS_BETWEEN_TOKENS,
                       (now - c->last_token) / (double)n, n);
    c->last_token = now;
}

static int on_event(void *user, const struct job_event *e)
{
    struct choice *const c = user;
    struct answer *const a = c->answer;

    switch (e->kind) {
    case JOB_STARTED:
        break;
    case JOB_PROMPT:
    case JOB_TEXT:
        if (e->kind == JOB_TEXT)
            time_tokens(a, c, e->n_tokens);
        if (a->kind->keep)
            a->kind->keep(c, e);
        if (a->head)
            a->kind->flow(c);
        break;
    case JOB_ROUTED:
        set_route(c, e);
        if (a->r.stream) {
            begin_stream(a, c);
            a->kind->flow(c);
        }
        break;
    case JOB_EMBEDDING:
        c->embedding = embedding_json(e->embedding, e->n_embedding, a->r.base64);
        break;
    case JOB_DONE:
        set_route(c, e);
        c->finish = e->finish_reason;
        c->usage = e->usage;
        if (a->r.stream)
            begin_stream(a, c);
        if (a->kind->finish)
            a->kind->finish(c);
        leave(a, c);
        return 0;
    case JOB_FAILED:
        fail(a, -e->error->exit, e->error);
        leave(a, c);
        return 0;
    }
    return a->lost || atomic_load(&a->gone);
}

/* The prompt of choice I: moved to its last choice, copied for those before. */
static int take_prompt(struct prompt *out, struct answer *a, size_t i,
                       struct artel_error *err)
{
    struct prompt *const p = &a->prompts[a->choices[i].prompt];
    int rc = 0;

    *out = *p;
    if ((i + 1) % a->r.n == 0) {
        *p = (struct prompt){0};
        return 0;
    }
    out->ids = (struct ids){0};
    for (size_t k = 0; rc == 0 && k < p->ids.n; k++)
        rc = ids_push(&out->ids, p->ids.at[k], err);
    return rc;
}

static int submit_one(struct answer *a, size_t i, const struct job_options *common,
                      make_grammar *grammar, struct artel_error *err)
{
    struct choice *const c = &a->choices[i];
    struct job_options o = *common;
    struct prompt prompt = {0};
    int rc = take_prompt(&prompt, a, i, err);

    o.stream = c->index % a->r.n;
    o.max_tokens = clip_length(a, o.max_tokens, prompt.ids.n);
    if (rc == 0 && grammar)
        rc = grammar(&o.grammar, a, err);
    if (rc == 0) {
        pthread_mutex_lock(&a->lock);
        a->left++;
        rc = atomic_load(&a->gone)
                 ? error_set(err, ARTEL_ESTOPPED, "SRV12", NULL, "the client has left")
                 : engine_submit(a->api->engine, &c->job, a->who, &prompt, &o, on_event,
                                 c, err);
        if (rc < 0) {
            c->job = NULL;
            a->left--;
        }
        pthread_mutex_unlock(&a->lock);
    }
    if (rc < 0) {
        prompt_release(&prompt);
        grammar_close(o.grammar);
    }
    return rc;
}

void answer_submit(struct answer *a, const struct job_options *o, make_grammar *grammar)
{
    const size_t n = a->n_choices;
    struct artel_error err;
    int rc = 0;

    if (a->r.ignored[0])
        exchange_set_header(a->x, "x-artel-ignored", a->r.ignored);
    exchange_on_gone(a->x, on_gone, a);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = submit_one(a, i, o, grammar, &err);
    if (rc < 0)
        fail(a, rc, &err);
    leave(a, NULL);
}

struct answer *answer_read(struct api *api, struct exchange *x,
                           const struct answer_kind *kind)
{
    struct answer *const a = answer_new(api, x, kind);
    struct request_limits limits;
    struct artel_error err;
    const char *body;
    size_t n;
    int rc;

    if (!a)
        return NULL;
    api_limits(api, &limits);
    body = exchange_body(x, &n);
    rc = kind->read(&a->r, &limits, body, n, &err);
    if (rc == 0)
        rc = answer_prepare(a, a->r.n_prompts ? a->r.n_prompts : 1, &err);
    if (rc == 0)
        rc = kind->encode(a, &err);
    if (rc == 0)
        return a;
    answer_refuse(a, rc, &err);
    return NULL;
}
