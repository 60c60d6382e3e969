/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One answer: it takes a seat, its prompt is read piece by piece, it is routed, it writes
 * token by token, it ends. Whatever fails ends this answer alone.
 */
#include "serve/engine_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "decoder/logprobs.h"
#include "eval/opened.h"
#include "serve/grammar.h"

static const struct model_config *config_of(const struct job *j)
{
    return &j->who->mixture->model->weights->config;
}

/* ---- events ---- */

static void fill_usage(const struct job *j, struct job_usage *u)
{
    const double now = clock_seconds();

    u->prompt_tokens = j->prompt.ids.n;
    u->cached_tokens = j->cached;
    u->completion_tokens = j->talk.ids.n;
    u->queued_seconds = (j->started > 0 ? j->started : now) - j->submitted;
    if (j->started > 0)
        u->prefill_seconds = (j->read > 0 ? j->read : now) - j->started;
    if (j->read > 0)
        u->decode_seconds = now - j->read;
}

static void fill_route(const struct job *j, struct job_route *out)
{
    const struct route *const r = &j->route;

    *out = (struct job_route){.expert = j->below ? EXPERT_BASE : r->expert,
                              .routed = r->routed,
                              .per_token = r->per_token,
                              .from_base = r->from_base,
                              .below = j->below,
                              .n_routers = r->n_routers,
                              .n_experts = r->n_experts,
                              .layers_agreeing = r->layers_agreeing,
                              .probabilities = r->probabilities};
}

static void tell(struct job *j, struct job_event *event)
{
    const bool last = event->kind == JOB_DONE || event->kind == JOB_FAILED;

    if (j->deaf && !last)
        return;
    fill_route(j, &event->route);
    fill_usage(j, &event->usage);
    if (j->fn(j->user, event))
        j->deaf = true;
}

/* ---- tokens that wait to be told ---- */

static int told_room(struct told *t, size_t n, struct artel_error *err)
{
    const size_t room = n + n / 2 + 16;
    struct job_token *at;
    struct candidate *top;

    if (n <= t->room)
        return 0;
    at = realloc(t->at, room * sizeof(*at));
    if (!at)
        return error_nomem(err, room * sizeof(*at));
    t->at = at;
    if (t->n_top) {
        top = realloc(t->top, room * t->n_top * sizeof(*top));
        if (!top)
            return error_nomem(err, room * t->n_top * sizeof(*top));
        t->top = top;
    }
    t->room = room;
    return 0;
}

static void told_release(struct told *t)
{
    free(t->at);
    free(t->top);
    *t = (struct told){0};
}

/* The next one, for which there is room. LOGITS NULL: nothing is told of it but its id. */
static void told_add(struct told *t, const struct job *j, int32_t id, size_t text_at,
                     const float *logits)
{
    struct job_token *const k = &t->at[t->n];

    *k = (struct job_token){.id = id, .logprob = NAN, .text_at = text_at};
    if (logits)
        k->n_top = logprobs_of(&k->logprob, t->n_top ? t->top + t->n * t->n_top : NULL,
                               t->n_top, logits, config_of(j)->n_vocab, id);
    t->n++;
}

/* The first N of them. */
static void tell_tokens(struct job *j, struct job_event *event, struct told *t,
                        size_t n)
{
    for (size_t i = 0; i < n; i++)
        t->at[i].top = t->at[i].n_top ? t->top + i * t->n_top : NULL;
    event->tokens = t->at;
    event->n_tokens = n;
    tell(j, event);
    t->n -= n;
    if (n && t->n) {
        memmove(t->at, t->at + n, t->n * sizeof(*t->at));
        if (t->n_top)
            memmove(t->top, t->top + n * t->n_top, t->n * t->n_top * sizeof(*t->top));
    }
}

/* What is sure to be text, with the tokens that it begins in. */
static void tell_text(struct job *j)
{
    struct job_event event = {.kind = JOB_TEXT};
    size_t n = 0;

    event.text = stream_take(&j->talk.stream, &event.n_text);
    if (!event.n_text)
        return;
    while (n < j->told.n && j->told.at[n].text_at < j->talk.stream.n_sent)
        n++;
    tell_tokens(j, &event, &j->told, n);
}

/* ---- the prompt ---- */

/* Token AT + 1 of the prompt, by the logits of the one before it. */
static void on_logits(void *user, size_t at, const float *logits)
{
    struct job *const j = user;
    const struct ids *const ids = &j->prompt.ids;
    size_t n;

    if (at == 0) {
        j->prompted.n = 0;
        told_add(&j->prompted, j, ids->at[0], 0, NULL);
        tokenizer_piece(j->talk.tok, ids->at[0], &j->prompt_bytes);
    }
    if (at + 1 >= ids->n)
        return;
    told_add(&j->prompted, j, ids->at[at + 1], j->prompt_bytes, logits);
    tokenizer_piece(j->talk.tok, ids->at[at + 1], &n);
    j->prompt_bytes += n;
}

static int begin_prompt(struct job *j, int expert, struct artel_error *err)
{
    const bool watched = j->watch.on_logits || j->watch.hidden_mean;
    int rc;

    rc = session_prefill_begin(j->session, j->prompt.ids.at, j->prompt.ids.n,
                               j->promised, expert, j->prompt.pool_first,
                               j->prompt.pool_n, watched ? &j->watch : NULL, err);
    if (rc == 0 && !seat_safe(j)) {
        session_reset(j->session);
        rc = error_set(err, ARTEL_ELIMIT, "KV01", NULL,
                       "what others may still need is not free");
    }
    return rc;
}

/* All that an answer needs, before its first piece. */
static int prepare(struct job *j, struct artel_error *err)
{
    const struct artel_mixture *const m = j->who->mixture;
    const size_t cells = m->mixture ? m->mixture->n_routers * m->mixture->n_experts : 0;
    const size_t n_top = j->o.top_logprobs > 0 ? (size_t)j->o.top_logprobs : 0;
    const struct talk_options how = {.sampling = j->o.sampling,
                                     .stream = j->o.stream,
                                     .stop = j->o.stop,
                                     .n_stop = j->o.n_stop,
                                     .max_tokens = j->o.max_tokens,
                                     .room = j->room};
    int rc = talk_init(&j->talk, m->model->tokenizer, config_of(j)->n_vocab, &how,
                       &j->prompt.ids, err);

    if (rc < 0)
        return rc;
    j->told.n_top = n_top;
    j->prompted.n_top = n_top;
    if (cells) {
        j->probabilities = calloc(cells, sizeof(*j->probabilities));
        if (!j->probabilities)
            return error_nomem(err, cells * sizeof(*j->probabilities));
    }
    if (j->o.embed) {
        j->embedding = calloc(config_of(j)->dim, sizeof(*j->embedding));
        if (!j->embedding)
            return error_nomem(err, config_of(j)->dim * sizeof(*j->embedding));
    }
    j->watch =
        (struct prefill_watch){.hidden_mean = j->embedding,
                               .on_logits = j->o.prompt_logprobs ? on_logits : NULL,
                               .user = j};
    return j->o.prompt_logprobs ? told_room(&j->prompted, j->prompt.ids.n, err) : 0;
}

/* What the pool could not hold were it empty need not wait for that. */
static int check_pool(const struct job *j, struct artel_error *err)
{
    const size_t blocks = (j->room + KV_BLOCK - 1) / KV_BLOCK;
    struct kv_pool_stats kv;

    kv_pool_stats(j->engine->pool, &kv);
    if (blocks <= kv.blocks)
        return 0;
    return error_set(err, ARTEL_ELIMIT, "KV02", NULL,
                     "%zu tokens asked for, the keys and values of %zu have room",
                     j->room, kv.blocks * KV_BLOCK);
}

int job_seat(struct job *j, bool *wait, struct artel_error *err)
{
    const size_t context = engine_context(j->engine, j->who);
    size_t left = context - j->prompt.ids.n;
    int rc;

    *wait = false;
    rc = seat_take(j, wait, err);
    if (rc < 0)
        return rc;
    if (!j->room) { /* else it has been here before, and had to wait */
        j->room = j->prompt.ids.n + (j->o.embed               ? 0
                                     : j->o.max_tokens < left ? j->o.max_tokens
                                                              : left);
        rc = check_pool(j, err);
        if (rc == 0)
            rc = prepare(j, err);
    }
    left = j->room - j->prompt.ids.n;
    j->promised = j->prompt.ids.n + (left < ENGINE_AHEAD ? left : ENGINE_AHEAD);
    if (rc == 0)
        rc = begin_prompt(j, j->o.expert, err);
    if (rc < 0) {
        *wait = !strcmp(err->code, "KV01");
        seat_give(j);
        return rc;
    }
    j->phase = JOB_READING;
    j->started = clock_seconds();
    tell(j, &(struct job_event){.kind = JOB_STARTED});
    return 0;
}

/* Mean over the routers of what they gave the expert that they chose. */
static float sureness(const struct job *j)
{
    const struct route *const r = &j->route;
    double sum = 0;
    size_t n = 0;

    for (size_t i = 0; i < r->n_routers; i++)
        if (mixture_router_used(j->who->mixture->mixture, i)) {
            sum += (double)r->probabilities[i * r->n_experts + (size_t)r->expert];
            n++;
        }
    return n ? (float)(sum / (double)n) : 1;
}

/* *AGAIN: the prompt is to be read once more, by the base. */
static int route(struct job *j, bool *again, struct artel_error *err)
{
    float sure;

    *again = false;
    if (j->below)
        return 0;
    route_read(&j->route, j->probabilities, j->session, j->who->mixture->mixture);
    if (!(j->o.threshold > 0) || j->o.below == BELOW_GOES_ON || !j->route.routed ||
        j->route.per_token || j->route.expert < 0)
        return 0;
    sure = sureness(j);
    if (sure >= j->o.threshold)
        return 0;
    if (j->o.below == BELOW_REFUSED)
        return error_set(err, ARTEL_EUSAGE, "SRV20", NULL,
                         "no expert is meant: the likeliest has probability %.3f, "
                         "%.3f was asked for",
                         (double)sure, (double)j->o.threshold);
    j->below = true;
    *again = true;
    session_reset(j->session);
    return begin_prompt(j, EXPERT_BASE, err);
}

int job_read(struct job *j, bool *finished, struct artel_error *err)
{
    int rc = session_prefill_some(j->session, j->engine->o.prefill_rows, err);
    bool again;

    *finished = false;
    if (rc <= 0)
        return rc;
    j->cached = session_cached(j->session);
    rc = route(j, &again, err);
    if (rc < 0 || again)
        return rc;
    j->read = clock_seconds();
    j->phase = JOB_WRITING;
    j->engine->count.prompt_tokens += j->prompt.ids.n;
    j->engine->count.cached_tokens += j->cached;
    if (j->o.prompt_logprobs)
        tell_tokens(j, &(struct job_event){.kind = JOB_PROMPT}, &j->prompted,
                    j->prompted.n);
    tell(j, &(struct job_event){.kind = JOB_ROUTED});
    if (j->embedding)
        tell(j, &(struct job_event){.kind = JOB_EMBEDDING,
                                    .embedding = j->embedding,
                                    .n_embedding = config_of(j)->dim});
    if (j->embedding || !j->o.max_tokens) {
        j->talk.finish_reason = j->embedding ? "stop" : "length";
        *finished = true;
    }
    return 0;
}

/* What was held back comes, without the tokens of a stop string. */
static int tell_rest(struct job *j, struct artel_error *err)
{
    struct talk *const t = &j->talk;
    struct job_event event = {.kind = JOB_TEXT};
    const int rc = stream_finish(&t->stream, err);

    if (rc < 0)
        return rc;
    while (t->stream.stopped && j->told.n &&
           j->told.at[j->told.n - 1].text_at >= t->stream.n)
        j->told.n--;
    event.text = stream_take(&t->stream, &event.n_text);
    if (event.n_text || j->told.n)
        tell_tokens(j, &event, &j->told, j->told.n);
    if (j->route.per_token)
        route_read(&j->route, j->probabilities, j->session, j->who->mixture->mixture);
    return 0;
}

int job_write(struct job *j, int32_t *id, bool *finished, struct artel_error *err)
{
    struct talk *const t = &j->talk;
    const float *const logits = session_logits(j->session);
    const size_t text_at = t->stream.n;
    int rc = told_room(&j->told, j->told.n + 1, err);

    if (rc < 0)
        return rc;
    if (j->o.grammar)
        t->sampler.allowed = grammar_allowed(j->o.grammar);
    rc = talk_pick(t, id, logits, session_length(j->session), err);
    if (rc < 0)
        return rc;
    j->engine->count.completion_tokens++;
    if (!tokenizer_is_end(t->tok, *id)) {
        told_add(&j->told, j, *id, text_at, j->o.top_logprobs < 0 ? NULL : logits);
        if (j->o.grammar)
            grammar_accept(j->o.grammar, *id);
    }
    *finished = t->finish_reason != NULL;
    if (*finished)
        return tell_rest(j, err);
    tell_text(j);
    return 0;
}

/* ---- its end ---- */

int job_check(struct job *j, double now, struct artel_error *err)
{
    if (j->deaf || atomic_load(&j->cancelled))
        return error_set(err, ARTEL_ESTOPPED, "SRV12", NULL, "nobody waits for it");
    if (j->o.deadline > 0 && now >= j->o.deadline)
        return error_set(err, ARTEL_ELIMIT, "SRV13", NULL, "its time is up");
    return 0;
}

void job_free(struct job *j)
{
    for (size_t i = 0; j->stop && i < j->o.n_stop; i++)
        free(j->stop[i]);
    free(j->stop);
    free(j->bias);
    talk_release(&j->talk);
    told_release(&j->told);
    told_release(&j->prompted);
    free(j->probabilities);
    free(j->embedding);
    prompt_release(&j->prompt);
    if (j->o.grammar)
        grammar_close(j->o.grammar);
    if (j->who)
        loaded_let_go(j->who);
    free(j);
}

void job_end(struct job *j, const struct artel_error *err)
{
    struct engine *const e = j->engine;
    struct job_event event = {.kind = err ? JOB_FAILED : JOB_DONE,
                              .error = err,
                              .finish_reason = err ? NULL : j->talk.finish_reason};

    e->count.jobs_done += !err;
    e->count.jobs_failed += err != NULL;
    e->count.jobs_cancelled += err && !strcmp(err->code, "SRV12");
    e->count.jobs_expired += err && !strcmp(err->code, "SRV13");
    tell(j, &event);
    seat_give(j);
    job_free(j);
    engine_publish(e, 1);
}
