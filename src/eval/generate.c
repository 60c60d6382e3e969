/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a prompt to an answer, and from many prompts to many answers.
 *
 * Many: some sit side by side, and each step reads the weights once for all of them;
 * who is done leaves its session to the next row. Each row starts from an empty cache
 * and draws from a stream of its own, so that an answer depends on its row alone.
 */
#include "eval/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "data/prompt.h"
#include "decoder/session.h"
#include "eval/opened.h"
#include "eval/talk.h"
#include "files/json.h"
#include "text/chat.h"

#define SESSION_CONTEXT 4096
#define STOP_MAX        16
#define STOP_BYTES_MAX  256
#define SEATS           16                /* most rows side by side */
#define SEATS_BYTES     ((size_t)1 << 30) /* of their sessions together */

void artel_answer_release(struct artel_answer *a)
{
    free(a->text);
    free(a->ids);
    free(a->probabilities);
    *a = (struct artel_answer){0};
}

int artel_session_open(struct artel_session **out, const struct artel_mixture *m,
                       size_t n_context, struct artel_error *err)
{
    const size_t most = m->model->weights->config.context;

    if (!n_context)
        n_context = most < SESSION_CONTEXT ? most : SESSION_CONTEXT;
    if (n_context > most)
        return error_set(err, ARTEL_EUSAGE, "USE05", "context",
                         "%zu tokens asked for, the model was made for %zu", n_context,
                         most);
    return session_open(out, m->model, m->mixture, n_context, err);
}

void artel_session_close(struct artel_session *s)
{
    session_close(s);
}

void artel_session_reset(struct artel_session *s)
{
    session_reset(s);
}

/* Values outside of their range would spoil answers silently. */
static int check_options(const struct artel_generate_options *o,
                         struct artel_error *err)
{
    const char *bad = NULL;

    if (!(o->temperature >= 0 && o->temperature <= 100))
        bad = "temperature must be 0 to 100";
    else if (!(o->top_p > 0 && o->top_p <= 1))
        bad = "top_p must be above 0 and at most 1";
    else if (!(o->min_p >= 0 && o->min_p <= 1))
        bad = "min_p must be 0 to 1";
    else if (!(o->repetition_penalty >= 0.01f && o->repetition_penalty <= 100))
        bad = "repetition_penalty must be 0.01 to 100";
    else if (o->max_tokens < 1)
        bad = "max_tokens must be at least 1";
    else if (o->merge < ARTEL_MERGE_NEVER || o->merge > ARTEL_MERGE_ALWAYS)
        bad = "merge must be one of ARTEL_MERGE_NEVER, _AUTO, _ALWAYS";
    else if (o->n_stop > STOP_MAX)
        bad = "at most 16 stop strings";
    for (size_t i = 0; !bad && i < o->n_stop; i++)
        if (!o->stop[i][0] || strlen(o->stop[i]) > STOP_BYTES_MAX)
            bad = "a stop string must have 1 to 256 bytes";
    return bad ? error_set(err, ARTEL_EUSAGE, "USE05", NULL, "%s", bad) : 0;
}

/* An array of messages, or an object that holds "messages" and "tools". */
static int encode_json(struct prompt *p, const struct artel_model *model,
                       const json_t *asked, struct artel_error *err)
{
    const json_t *messages = asked, *tools = NULL;

    if (json_is_object(asked)) {
        messages = json_object_get(asked, "messages");
        tools = json_object_get(asked, "tools");
    }
    if (!json_is_array(messages) || !json_array_size(messages))
        return error_set(err, ARTEL_EFORMAT, "PRM02", NULL,
                         "a prompt needs a list of messages");
    return prompt_encode(p, model->tokenizer, model->chat, messages, tools, NULL, err);
}

int generate_encode(struct prompt *p, const struct artel_model *model,
                    const struct artel_prompt *from, struct artel_error *err)
{
    json_t *messages = NULL;
    int rc;

    if (from->raw) {
        rc = prompt_encode_raw(p, model->tokenizer, from->text, from->n, err);
    } else if (!model->chat) {
        rc = error_set(err, ARTEL_EUSAGE, "USE10", NULL,
                       "this model has no chat template; give raw text");
        error_in(err, rc, model->weights->path);
    } else {
        rc = json_parse(&messages, from->text, from->n, "messages", 0, err);
        if (rc == 0)
            rc = encode_json(p, model, messages, err);
        json_decref(messages);
    }
    if (rc == 0 && !p->ids.n)
        rc = error_set(err, ARTEL_EUSAGE, "USE11", NULL, "the prompt is empty");
    return rc;
}

/* Who answers, and what the routers said. */
static int copy_route(struct artel_answer *out, const struct artel_session *s,
                      const struct mixture *m, struct artel_error *err)
{
    const size_t cells = m ? m->n_routers * m->n_experts : 0;
    float *room = NULL;
    struct route route;

    if (cells && !(room = calloc(cells, sizeof(*room))))
        return error_nomem(err, cells * sizeof(*room));
    route_read(&route, room, s, m);
    out->expert = route.expert;
    out->n_routers = route.n_routers;
    out->n_experts = route.n_experts;
    out->layers_agreeing = route.layers_agreeing;
    out->per_token = route.per_token;
    out->from_base = route.from_base;
    out->probabilities = route.probabilities;
    if (!route.routed)
        free(room);
    return 0;
}

/* An answer while it is written. */
struct writing {
    struct artel_session *s;
    struct artel_answer *out;
    const struct artel_model *model;
    const struct mixture *mixture;
    const struct artel_generate_options *o;
    bool by_token; /* every token is routed on its own */
    size_t room;   /* of the session */
    struct talk talk;
    bool cancelled; /* on_text asked for the end */
    double start;
};

static void show(struct writing *w)
{
    size_t n;
    const char *const text = stream_take(&w->talk.stream, &n);

    if (n && w->o->on_text && !w->cancelled)
        w->cancelled = w->o->on_text(w->o->user, text, n) != 0;
}

static void writing_release(struct writing *w)
{
    talk_release(&w->talk);
}

/* Merged weights lie beside what the mixture and the session take already. */
static int set_merge(struct artel_session *s, const struct artel_mixture *m,
                     const struct artel_generate_options *o, struct artel_error *err)
{
    static const enum merge_mode modes[] = {MERGE_NEVER, MERGE_AUTO, MERGE_ALWAYS};
    const size_t taken =
        m->model->arena.size + session_bytes(m->model, m->mixture, session_room(s));
    size_t most = 0;

    if (m->memory_bytes)
        most = m->memory_bytes > taken ? m->memory_bytes - taken : 1;
    return session_set_merge(s, modes[o->merge], o->max_tokens - 1, most, err);
}

/* PROMPT is encoded; STREAM numbers the sampler's random stream. */
static int writing_begin(struct writing *w, const struct artel_mixture *m,
                         const struct prompt *prompt,
                         const struct artel_generate_options *o, uint64_t stream,
                         struct artel_error *err)
{
    const struct talk_options how = {
        .sampling = {.temperature = o->temperature,
                     .top_k = o->top_k,
                     .top_p = o->top_p,
                     .min_p = o->min_p,
                     .repetition_penalty = o->repetition_penalty,
                     .seed = o->seed},
        .stream = stream,
        .stop = o->stop,
        .n_stop = o->n_stop,
        .max_tokens = o->max_tokens,
        .room = w->room,
    };
    int rc;

    w->model = m->model;
    w->mixture = m->mixture;
    w->o = o;
    w->by_token = o->expert == ARTEL_AUTO && m->mixture && m->mixture->n_routers &&
                  m->mixture->rule.decides == DECIDE_TOKEN;
    w->start = clock_seconds();
    w->cancelled = false;
    w->talk = (struct talk){0};
    *w->out = (struct artel_answer){.n_prompt_tokens = prompt->ids.n};
    rc = set_merge(w->s, m, o, err);
    if (rc == 0)
        rc = session_prefill(w->s, prompt->ids.at, prompt->ids.n, o->expert,
                             prompt->pool_first, prompt->pool_n, err);
    if (rc == 0 && !w->by_token)
        rc = copy_route(w->out, w->s, m->mixture, err);
    if (rc == 0)
        rc = talk_init(&w->talk, m->model->tokenizer, m->model->weights->config.n_vocab,
                       &how, &prompt->ids, err);
    w->out->merged = session_merged(w->s) != MERGE_NOTHING;
    w->out->prefill_seconds = clock_seconds() - w->start;
    return rc;
}

/* One more token into ID; finish_reason is set where it was the last. */
static int writing_pick(struct writing *w, int32_t *id, struct artel_error *err)
{
    const struct artel_generate_options *const o = w->o;
    const int rc =
        talk_pick(&w->talk, id, session_logits(w->s), session_length(w->s), err);
    const char *const reason = w->talk.finish_reason;

    if (rc < 0)
        return rc;
    show(w);
    if (reason && !strcmp(reason, "stop"))
        w->out->finish_reason = reason;
    else if (w->cancelled || (o->stopped && *o->stopped))
        w->out->finish_reason = "stopped";
    else
        w->out->finish_reason = reason;
    return 0;
}

/* After the last token: text and ids are the answer's. */
static int writing_finish(struct writing *w, struct artel_error *err)
{
    struct talk *const t = &w->talk;
    int rc = stream_finish(&t->stream, err);

    if (rc == 0 && w->by_token)
        rc = copy_route(w->out, w->s, w->mixture, err);
    if (rc < 0)
        return rc;
    show(w);
    w->out->decode_seconds = clock_seconds() - w->start - w->out->prefill_seconds;
    w->out->text = t->stream.text;
    w->out->n_text = t->stream.n;
    t->stream.text = NULL;
    w->out->ids = t->ids.at;
    w->out->n_ids = t->ids.n;
    t->ids = (struct ids){0};
    return 0;
}

static int answer(struct writing *w, const struct artel_mixture *m,
                  const struct prompt *prompt, const struct artel_generate_options *o,
                  struct artel_error *err)
{
    int rc = writing_begin(w, m, prompt, o, 0, err);
    int32_t id;

    while (rc == 0) {
        rc = writing_pick(w, &id, err);
        if (rc < 0 || w->out->finish_reason)
            break;
        rc = session_step(w->s, id, err);
    }
    if (rc == 0)
        rc = writing_finish(w, err);
    writing_release(w);
    if (rc < 0)
        artel_answer_release(w->out);
    return rc;
}

static int check_room(const struct prompt *p, size_t room, size_t line,
                      struct artel_error *err)
{
    char where[32] = "";

    if (p->ids.n < room)
        return 0;
    if (line)
        snprintf(where, sizeof(where), "%zu:1", line);
    return error_set(err, ARTEL_ELIMIT, "CTX01", where,
                     "the prompt has %zu tokens; there is room for %zu and an answer",
                     p->ids.n, room - 1);
}

int artel_generate(struct artel_session *s, struct artel_answer *out,
                   const struct artel_mixture *m, const struct artel_prompt *prompt,
                   const struct artel_generate_options *o, struct artel_error *err)
{
    struct artel_error own;
    struct prompt p = {0};
    int rc;

    *out = (struct artel_answer){0};
    if (!err)
        err = &own;
    rc = check_options(o, err);
    if (rc == 0)
        rc = generate_encode(&p, m->model, prompt, err);
    if (rc == 0)
        rc = check_room(&p, session_room(s), prompt->line, err);
    if (rc == 0) {
        struct writing w = {.s = s, .out = out, .room = session_room(s)};

        rc = answer(&w, m, &p, o, err);
    }
    prompt_release(&p);
    return rc;
}

/* Rows that are answered side by side. */
struct crowd {
    struct artel_answer *answers;
    const struct artel_mixture *m;
    const struct prompt *prompts; /* encoded */
    struct artel_generate_options o;
    size_t n, n_begun, n_done, room;
    size_t n_seats, n_busy;
    struct writing writing[SEATS]; /* (n_seats) the first n_busy are at it */
    size_t row[SEATS];
};

/* As many sessions as help and as fit. */
static int open_seats(struct crowd *c, struct artel_error *err)
{
    const size_t bytes = session_bytes(c->m->model, c->m->mixture, c->room);
    const size_t fit = SEATS_BYTES / bytes ? SEATS_BYTES / bytes : 1;
    size_t n = c->n < SEATS ? c->n : SEATS;

    n = n < fit ? n : fit;
    if (c->o.merge == ARTEL_MERGE_ALWAYS)
        n = 1; /* merged weights are one session's */
    else if (n > 1)
        c->o.merge = ARTEL_MERGE_NEVER; /* side by side they share a reading */
    for (; c->n_seats < n; c->n_seats++) {
        const int rc = session_open(&c->writing[c->n_seats].s, c->m->model,
                                    c->m->mixture, c->room, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The next row takes a free seat. */
static int seat_begin(struct crowd *c, struct artel_error *err)
{
    struct writing *w = &c->writing[c->n_busy];
    const size_t row = c->n_begun++;

    c->row[c->n_busy++] = row;
    session_reset(w->s);
    w->out = &c->answers[row];
    w->room = c->room;
    return writing_begin(w, c->m, &c->prompts[row], &c->o, row, err);
}

/* The last one at it moves here, so that the busy seats stay together. */
static void seat_free(struct crowd *c, size_t i)
{
    const struct writing done = c->writing[i];

    writing_release(&c->writing[i]);
    c->n_busy--;
    c->writing[i] = c->writing[c->n_busy];
    c->row[i] = c->row[c->n_busy];
    c->writing[c->n_busy] = (struct writing){.s = done.s};
}

/* A token for everyone; who is done leaves. */
static int crowd_pick(struct crowd *c, int32_t *ids, struct artel_error *err)
{
    for (size_t i = 0; i < c->n_busy;) {
        struct writing *w = &c->writing[i];
        int rc = writing_pick(w, &ids[i], err);

        if (rc == 0 && !w->out->finish_reason) {
            i++;
            continue;
        }
        if (rc == 0)
            rc = writing_finish(w, err);
        if (rc < 0)
            return rc;
        c->n_done++;
        if (c->o.on_row)
            c->o.on_row(c->o.user, c->row[i], c->n_done);
        seat_free(c, i);
    }
    return 0;
}

/* Rows join as others leave; every step reads the weights once for all that are there. */
static int crowd_work(struct crowd *c, struct artel_error *err)
{
    int rc = open_seats(c, err);

    while (rc == 0 && (c->n_busy || c->n_begun < c->n)) {
        struct artel_session *s[SEATS];
        int32_t ids[SEATS];

        while (rc == 0 && c->n_busy < c->n_seats && c->n_begun < c->n)
            rc = seat_begin(c, err);
        if (rc == 0)
            rc = crowd_pick(c, ids, err);
        for (size_t i = 0; i < c->n_busy; i++)
            s[i] = c->writing[i].s;
        if (rc == 0 && c->n_busy)
            rc = sessions_step(s, ids, c->n_busy, err);
    }
    while (c->n_busy)
        seat_free(c, 0);
    for (size_t i = 0; i < c->n_seats; i++)
        session_close(c->writing[i].s);
    return rc;
}

static size_t longest(const struct prompt *p, size_t n)
{
    size_t most = 0;

    for (size_t i = 0; i < n; i++)
        if (p[i].ids.n > most)
            most = p[i].ids.n;
    return most;
}

int generate_encoded(struct artel_answer *answers, const struct artel_mixture *m,
                     const struct prompt *prompts, size_t n,
                     const struct artel_generate_options *o, struct artel_error *err)
{
    const size_t context = m->model->weights->config.context;
    struct crowd c = {.answers = answers, .m = m, .prompts = prompts, .o = *o, .n = n};
    int rc = check_options(o, err);

    memset(answers, 0, n * sizeof(*answers));
    if (rc < 0 || !n)
        return rc;
    c.o.on_text = NULL;
    c.room = longest(prompts, n) + o->max_tokens;
    if (c.room > context)
        c.room = context;
    rc = crowd_work(&c, err);
    for (size_t i = 0; rc < 0 && i < n; i++)
        artel_answer_release(&answers[i]);
    return rc;
}

int artel_generate_all(struct artel_answer *answers, const struct artel_mixture *m,
                       const struct artel_prompt *prompts, size_t n,
                       const struct artel_generate_options *o, struct artel_error *err)
{
    const size_t context = m->model->weights->config.context;
    struct prompt *const encoded = calloc(n ? n : 1, sizeof(*encoded));
    int rc = 0;

    memset(answers, 0, n * sizeof(*answers));
    if (!encoded)
        return error_nomem(err, n * sizeof(*encoded));
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = generate_encode(&encoded[i], m->model, &prompts[i], err);
        if (rc == 0)
            rc = check_room(&encoded[i], context, prompts[i].line, err);
    }
    if (rc == 0)
        rc = generate_encoded(answers, m, encoded, n, o, err);
    for (size_t i = 0; i < n; i++)
        prompt_release(&encoded[i]);
    free(encoded);
    return rc;
}
