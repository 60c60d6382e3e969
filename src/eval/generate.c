/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a prompt to an answer, and from many prompts to many answers.
 *
 * Many: rows are dealt to threads, a session a thread, and each row starts from an
 * empty cache and draws from a stream of its own, so that an answer depends on its
 * row alone. Where there are fewer rows than threads, rows go one after another
 * and all threads share the products of each.
 */
#include "eval/generate.h"

#include <math.h>
#include <omp.h>
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

/* Tokens until one of the reasons to finish, which is returned, or NULL on failure. */
static const char *write_tokens(struct writer *w, struct artel_session *s,
                                struct sampler *sampler,
                                const struct artel_model *model, size_t room,
                                struct artel_error *err)
{
    const struct artel_generate_options *const o = w->o;
    const struct tokenizer *const tok = model->tokenizer;

    for (;;) {
        const int32_t id = sampler_pick(sampler, session_logits(s));
        const char *piece;
        size_t n;

        if (id < 0) {
            error_set(err, ARTEL_ENONFINITE, "NUM01", NULL,
                      "no logit is a number after %zu tokens", session_length(s));
            return NULL;
        }
        if (ids_push(&w->ids, id, err) < 0)
            return NULL;
        if (tokenizer_is_end(tok, id))
            return "stop";
        sampler_see(sampler, id);
        if (!tokenizer_is_control(tok, id)) {
            piece = tokenizer_piece(tok, id, &n);
            if (stream_add(&w->stream, piece, n, err) < 0)
                return NULL;
            show(w);
        }
        if (w->stream.stopped)
            return "stop";
        if (w->cancelled || (o->stopped && *o->stopped))
            return "stopped";
        if (w->ids.n >= o->max_tokens || session_length(s) >= room)
            return "length";
        if (session_step(s, id, err) < 0)
            return NULL;
    }
}

/* PROMPT is encoded; ROOM is the session's. STREAM numbers the sampler's random stream. */
static int answer(struct artel_session *s, struct artel_answer *out,
                  const struct artel_mixture *m, const struct prompt *prompt,
                  size_t room, const struct artel_generate_options *o, uint64_t stream,
                  struct artel_error *err)
{
    const struct sampler_options so = {
        o->temperature, o->top_k, o->top_p, o->min_p, o->repetition_penalty, o->seed};
    const double start = now();
    struct writer w = {.o = o};
    struct sampler sampler = {0};
    int rc;

    *out = (struct artel_answer){.n_prompt_tokens = prompt->ids.n};
    stream_init(&w.stream, o->stop, o->n_stop);
    rc = session_prefill(s, prompt->ids.at, prompt->ids.n, o->expert,
                         prompt->pool_first, prompt->pool_n, err);
    if (rc == 0)
        rc = copy_routing(out, s, m->mixture, o->expert, err);
    if (rc == 0)
        rc =
            sampler_init(&sampler, &so, m->model->weights->config.n_vocab, stream, err);
    if (rc < 0)
        goto done;
    out->prefill_seconds = now() - start;
    for (size_t i = 0; i < prompt->ids.n; i++)
        sampler_see(&sampler, prompt->ids.at[i]);
    out->finish_reason = write_tokens(&w, s, &sampler, m->model, room, err);
    rc = out->finish_reason ? stream_finish(&w.stream, err) : ARTEL_EBUG;
    if (!out->finish_reason && err)
        rc = -err->exit;
    if (rc < 0)
        goto done;
    show(&w);
    out->decode_seconds = now() - start - out->prefill_seconds;
    out->text = w.stream.text;
    out->n_text = w.stream.n;
    w.stream.text = NULL;
    out->ids = w.ids.at;
    out->n_ids = w.ids.n;
    w.ids = (struct ids){0};

done:
    sampler_release(&sampler);
    stream_release(&w.stream);
    ids_release(&w.ids);
    if (rc < 0)
        artel_answer_release(out);
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
    if (rc == 0)
        rc = answer(s, out, m, &p, session_room(s), o, 0, err);
    prompt_release(&p);
    return rc;
}

/* What all threads of artel_generate_all share. */
struct crowd {
    struct artel_answer *answers;
    const struct artel_mixture *m;
    const struct prompt *prompts; /* encoded */
    const struct artel_generate_options *o;
    size_t n, n_done, room;
    int rc; /* of the first row that failed */
    size_t failed_row;
    struct artel_error err;
};

static void crowd_failed(struct crowd *c, size_t row, int rc,
                         const struct artel_error *err)
{
    if (c->rc == 0 || row < c->failed_row) {
        c->rc = rc;
        c->failed_row = row;
        c->err = *err;
    }
}

static void crowd_row(struct crowd *c, struct artel_session *s, size_t row)
{
    struct artel_generate_options o = *c->o;
    struct artel_error err = {0};
    int rc;

    o.on_text = NULL;
    session_reset(s);
    rc = answer(s, &c->answers[row], c->m, &c->prompts[row], c->room, &o, row, &err);
#pragma omp critical(artel_crowd)
    {
        c->n_done++;
        if (rc < 0)
            crowd_failed(c, row, rc, &err);
        else if (o.on_row)
            o.on_row(o.user, row, c->n_done);
    }
}

/* Run by each thread of a team, or by one alone. */
static void crowd_work(struct crowd *c)
{
    struct artel_session *s = NULL;
    struct artel_error err = {0};
    const int rc = session_open(&s, c->m->model, c->m->mixture, c->room, &err);

    if (rc < 0) {
#pragma omp critical(artel_crowd)
        crowd_failed(c, c->n, rc, &err);
    }
#pragma omp for schedule(dynamic, 1)
    for (size_t row = 0; row < c->n; row++) {
        int failed;

#pragma omp atomic read
        failed = c->rc;
        if (s && !failed)
            crowd_row(c, s, row);
    }
    session_close(s);
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
    struct crowd c = {.answers = answers, .m = m, .prompts = prompts, .o = o, .n = n};
    int rc = check_options(o, err);

    memset(answers, 0, n * sizeof(*answers));
    if (rc < 0 || !n)
        return rc;
    c.room = longest(prompts, n) + o->max_tokens;
    if (c.room > context)
        c.room = context;
    if (n >= (size_t)omp_get_max_threads() && n > 1) {
#pragma omp parallel
        crowd_work(&c);
    } else {
        crowd_work(&c);
    }
    if (c.rc < 0) {
        for (size_t i = 0; i < n; i++)
            artel_answer_release(&answers[i]);
        if (err)
            *err = c.err;
    }
    return c.rc;
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
