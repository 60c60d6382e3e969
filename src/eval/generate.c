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
#include <time.h>

#include "base/error.h"
#include "data/prompt.h"
#include "decoder/sampler.h"
#include "decoder/session.h"
#include "eval/opened.h"
#include "eval/stream.h"
#include "files/json.h"
#include "text/chat.h"

#define SESSION_CONTEXT 4096
#define STOP_MAX        16
#define STOP_BYTES_MAX  256
#define SEATS           16                /* most rows side by side */
#define SEATS_BYTES     ((size_t)1 << 30) /* of their sessions together */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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

/* What the routers said of this prompt. */
static int copy_routing(struct artel_answer *out, const struct artel_session *s,
                        const struct mixture *m, int asked, struct artel_error *err)
{
    out->expert = session_expert(s);
    if (!m || !m->n_routers || asked != ARTEL_AUTO || !session_probs(s, 0))
        return 0;
    out->n_routers = m->n_routers;
    out->n_experts = m->n_experts;
    out->layers_agreeing = session_layers_agreeing(s);
    out->from_base = m->rule.place == ROUTER_BASE;
    out->probabilities = calloc(m->n_routers * m->n_experts, sizeof(float));
    if (!out->probabilities)
        return error_nomem(err, m->n_routers * m->n_experts * sizeof(float));
    for (size_t r = 0; r < m->n_routers; r++)
        memcpy(out->probabilities + r * m->n_experts, session_probs(s, r),
               m->n_experts * sizeof(float));
    return 0;
}

struct writer {
    const struct artel_generate_options *o;
    struct stream stream;
    struct ids ids;
    bool cancelled; /* on_text asked for the end */
};

static void show(struct writer *w)
{
    size_t n;
    const char *const text = stream_take(&w->stream, &n);

    if (n && w->o->on_text && !w->cancelled)
        w->cancelled = w->o->on_text(w->o->user, text, n) != 0;
}

/* The same where every token was routed on its own; routers of linears without an expert
 * are left out. */
static int copy_gates(struct artel_answer *out, const struct artel_session *s,
                      const struct mixture *m, struct artel_error *err)
{
    const size_t E = m->n_experts;
    float *mean = calloc(m->n_routers * E, sizeof(*mean));

    if (!mean)
        return error_nomem(err, m->n_routers * E * sizeof(*mean));
    session_gates(s, mean);
    out->expert = session_expert(s);
    out->per_token = 1;
    out->n_experts = E;
    for (size_t r = 0; r < m->n_routers; r++)
        if (mixture_router_used(m, r))
            memmove(mean + out->n_routers++ * E, mean + r * E, E * sizeof(*mean));
    out->probabilities = mean;
    return 0;
}

/* An answer while it is written. */
struct talk {
    struct artel_session *s;
    struct artel_answer *out;
    const struct artel_model *model;
    const struct mixture *mixture;
    bool by_token; /* every token is routed on its own */
    size_t room;   /* of the session */
    struct writer w;
    struct sampler sampler;
    double start;
};

static void talk_release(struct talk *t)
{
    sampler_release(&t->sampler);
    stream_release(&t->w.stream);
    ids_release(&t->w.ids);
}

/* PROMPT is encoded; STREAM numbers the sampler's random stream. */
static int talk_begin(struct talk *t, const struct artel_mixture *m,
                      const struct prompt *prompt,
                      const struct artel_generate_options *o, uint64_t stream,
                      struct artel_error *err)
{
    const struct sampler_options so = {
        o->temperature, o->top_k, o->top_p, o->min_p, o->repetition_penalty, o->seed};
    int rc;

    t->model = m->model;
    t->mixture = m->mixture;
    t->by_token = o->expert == ARTEL_AUTO && m->mixture && m->mixture->n_routers &&
                  m->mixture->rule.decides == DECIDE_TOKEN;
    t->start = now();
    t->w = (struct writer){.o = o};
    t->sampler = (struct sampler){0};
    *t->out = (struct artel_answer){.n_prompt_tokens = prompt->ids.n};
    stream_init(&t->w.stream, o->stop, o->n_stop);
    rc = session_prefill(t->s, prompt->ids.at, prompt->ids.n, o->expert,
                         prompt->pool_first, prompt->pool_n, err);
    if (rc == 0)
        rc = copy_routing(t->out, t->s, m->mixture, o->expert, err);
    if (rc == 0)
        rc = sampler_init(&t->sampler, &so, m->model->weights->config.n_vocab, stream,
                          err);
    for (size_t i = 0; rc == 0 && i < prompt->ids.n; i++)
        sampler_see(&t->sampler, prompt->ids.at[i]);
    t->out->prefill_seconds = now() - t->start;
    return rc;
}

/* One more token into ID; finish_reason is set where it was the last. */
static int talk_pick(struct talk *t, int32_t *id, struct artel_error *err)
{
    const struct artel_generate_options *const o = t->w.o;
    const struct tokenizer *const tok = t->model->tokenizer;
    const char *piece;
    size_t n;
    int rc;

    *id = sampler_pick(&t->sampler, session_logits(t->s));
    if (*id < 0)
        return error_set(err, ARTEL_ENONFINITE, "NUM01", NULL,
                         "no logit is a number after %zu tokens", session_length(t->s));
    rc = ids_push(&t->w.ids, *id, err);
    if (rc < 0)
        return rc;
    if (tokenizer_is_end(tok, *id)) {
        t->out->finish_reason = "stop";
        return 0;
    }
    sampler_see(&t->sampler, *id);
    if (!tokenizer_is_control(tok, *id)) {
        piece = tokenizer_piece(tok, *id, &n);
        rc = stream_add(&t->w.stream, piece, n, err);
        if (rc < 0)
            return rc;
        show(&t->w);
    }
    if (t->w.stream.stopped)
        t->out->finish_reason = "stop";
    else if (t->w.cancelled || (o->stopped && *o->stopped))
        t->out->finish_reason = "stopped";
    else if (t->w.ids.n >= o->max_tokens || session_length(t->s) >= t->room)
        t->out->finish_reason = "length";
    return 0;
}

/* After the last token: text and ids are the answer's. */
static int talk_finish(struct talk *t, struct artel_error *err)
{
    int rc = stream_finish(&t->w.stream, err);

    if (rc == 0 && t->by_token)
        rc = copy_gates(t->out, t->s, t->mixture, err);
    if (rc < 0)
        return rc;
    show(&t->w);
    t->out->decode_seconds = now() - t->start - t->out->prefill_seconds;
    t->out->text = t->w.stream.text;
    t->out->n_text = t->w.stream.n;
    t->w.stream.text = NULL;
    t->out->ids = t->w.ids.at;
    t->out->n_ids = t->w.ids.n;
    t->w.ids = (struct ids){0};
    return 0;
}

static int answer(struct talk *t, const struct artel_mixture *m,
                  const struct prompt *prompt, const struct artel_generate_options *o,
                  struct artel_error *err)
{
    int rc = talk_begin(t, m, prompt, o, 0, err);
    int32_t id;

    while (rc == 0) {
        rc = talk_pick(t, &id, err);
        if (rc < 0 || t->out->finish_reason)
            break;
        rc = session_step(t->s, id, err);
    }
    if (rc == 0)
        rc = talk_finish(t, err);
    talk_release(t);
    if (rc < 0)
        artel_answer_release(t->out);
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
        struct talk t = {.s = s, .out = out, .room = session_room(s)};

        rc = answer(&t, m, &p, o, err);
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
    struct talk talk[SEATS]; /* (n_seats) the first n_busy are at it */
    size_t row[SEATS];
};

/* As many sessions as help and as fit. */
static int open_seats(struct crowd *c, struct artel_error *err)
{
    const size_t bytes = session_bytes(c->m->model, c->m->mixture, c->room);
    const size_t fit = SEATS_BYTES / bytes ? SEATS_BYTES / bytes : 1;
    size_t n = c->n < SEATS ? c->n : SEATS;

    n = n < fit ? n : fit;
    for (; c->n_seats < n; c->n_seats++) {
        const int rc = session_open(&c->talk[c->n_seats].s, c->m->model, c->m->mixture,
                                    c->room, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The next row takes a free seat. */
static int seat_begin(struct crowd *c, struct artel_error *err)
{
    struct talk *t = &c->talk[c->n_busy];
    const size_t row = c->n_begun++;

    c->row[c->n_busy++] = row;
    session_reset(t->s);
    t->out = &c->answers[row];
    t->room = c->room;
    return talk_begin(t, c->m, &c->prompts[row], &c->o, row, err);
}

/* The last one at it moves here, so that the busy seats stay together. */
static void seat_free(struct crowd *c, size_t i)
{
    const struct talk done = c->talk[i];

    talk_release(&c->talk[i]);
    c->n_busy--;
    c->talk[i] = c->talk[c->n_busy];
    c->row[i] = c->row[c->n_busy];
    c->talk[c->n_busy] = (struct talk){.s = done.s};
}

/* A token for everyone; who is done leaves. */
static int crowd_pick(struct crowd *c, int32_t *ids, struct artel_error *err)
{
    for (size_t i = 0; i < c->n_busy;) {
        struct talk *t = &c->talk[i];
        int rc = talk_pick(t, &ids[i], err);

        if (rc == 0 && !t->out->finish_reason) {
            i++;
            continue;
        }
        if (rc == 0)
            rc = talk_finish(t, err);
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
            s[i] = c->talk[i].s;
        if (rc == 0 && c->n_busy)
            rc = sessions_step(s, ids, c->n_busy, err);
    }
    while (c->n_busy)
        seat_free(c, 0);
    for (size_t i = 0; i < c->n_seats; i++)
        session_close(c->talk[i].s);
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
