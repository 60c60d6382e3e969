/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/completions: text that the model continues as it is, without a template.
 *
 * With "echo" the prompt stands before the answer, and its tokens before the answer's;
 * with "max_tokens": 0 beside it nothing is written, which scores a text.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "serve/api_answer.h"
#include "serve/api_parts.h"
#include "serve/api_reply.h"

static const struct tokenizer *tokens_of(const struct choice *c)
{
    return c->answer->who->mixture->model->tokenizer;
}

/* Tokens of the prompt; of a text prompt control tokens are none of its characters. */
static void keep_prompt(struct choice *c, const struct job_event *e)
{
    const struct answer *const a = c->answer;
    const struct tokenizer *const tok = tokens_of(c);
    const bool from_text = a->r.prompts[c->prompt].text != NULL;
    size_t at = 0;

    for (size_t i = 0; i < e->n_tokens; i++) {
        size_t n;
        const char *const piece = tokenizer_piece(tok, e->tokens[i].id, &n);

        completion_logprob(c->logprobs, &e->tokens[i], tok, (size_t)a->r.top_logprobs,
                           at);
        if (!from_text || !tokenizer_is_control(tok, e->tokens[i].id))
            at += count_characters(piece, n);
    }
}

static void keep(struct choice *c, const struct job_event *e)
{
    const struct answer *const a = c->answer;

    if (a->r.top_logprobs >= 0 && !c->logprobs)
        c->logprobs = completion_logprobs();
    if (e->kind == JOB_PROMPT) {
        if (a->r.top_logprobs >= 0)
            keep_prompt(c, e);
        return;
    }
    if (text_add(&c->text, e->text, e->n_text) < 0)
        c->answer->lost = true;
    for (size_t i = 0; a->r.top_logprobs >= 0 && i < e->n_tokens; i++) {
        const size_t at = c->n_echo + e->tokens[i].text_at;

        if (at > c->n_counted && at <= c->text.n) {
            c->n_characters +=
                count_characters(c->text.at + c->n_counted, at - c->n_counted);
            c->n_counted = at;
        }
        completion_logprob(c->logprobs, &e->tokens[i], tokens_of(c),
                           (size_t)a->r.top_logprobs, c->n_characters);
    }
}

static json_t *take_logprobs(struct choice *c)
{
    json_t *const o = c->logprobs;

    c->logprobs = NULL;
    if (c->answer->r.top_logprobs < 0)
        return json_null();
    return o ? o : completion_logprobs();
}

static void send(struct choice *c, const char *finish)
{
    const size_t n = c->text.n - c->n_flowed;

    answer_send(c->answer,
                json_pack("{s:I, s:o, s:o, s:s?}", "index", (json_int_t)c->index,
                          "text", text_json(n ? c->text.at + c->n_flowed : "", n),
                          "logprobs", take_logprobs(c), "finish_reason", finish),
                finish || !c->began ? c->artel : NULL);
    c->n_flowed = c->text.n;
    c->began = true;
}

static void flow(struct choice *c)
{
    if (!c->artel)
        return;
    if (c->text.n > c->n_flowed || c->logprobs)
        send(c, NULL);
}

static void finish(struct choice *c)
{
    if (c->answer->r.stream)
        send(c, c->finish);
}

static json_t *reply(struct answer *a)
{
    json_t *const o = answer_object(a, "text_completion");

    for (size_t i = 0; i < a->n_choices; i++) {
        struct choice *const c = &a->choices[i];
        json_t *const one =
            json_pack("{s:I, s:o, s:o, s:s}", "index", (json_int_t)i, "text",
                      text_json(c->text.n ? c->text.at : "", c->text.n), "logprobs",
                      take_logprobs(c), "finish_reason", c->finish);

        if (a->r.n_prompts > 1 && c->artel)
            json_object_set(one, "artel", c->artel);
        json_array_append_new(json_object_get(o, "choices"), one);
    }
    answer_totals(a, o);
    return o;
}

int encode_prompt(struct answer *a, size_t idx, struct artel_error *err)
{
    const struct tokenizer *const tokenizer = a->who->mixture->model->tokenizer;
    const struct request_prompt *const p = &a->r.prompts[idx];
    struct prompt *const out = &a->prompts[idx];
    int rc = 0;

    if (p->text)
        rc = prompt_encode_raw(out, tokenizer, p->text, p->n, err);
    if (rc < 0 && !*err->where)
        snprintf(err->where, sizeof(err->where), a->r.n_prompts > 1 ? "%s[%zu]" : "%s",
                 a->kind->prompt_field, idx);
    if (p->text)
        return rc;
    for (size_t i = 0; rc == 0 && i < p->n; i++)
        rc = ids_push(&out->ids, p->ids[i], err);
    out->pool_n = out->ids.n;
    return rc;
}

/* The prompt's own text before each of its answers. */
static int echo(struct answer *a, size_t i, struct artel_error *err)
{
    const struct request_prompt *const p = &a->r.prompts[i];
    char *made = NULL;
    size_t n = p->n;
    int rc = p->text ? 0
                     : artel_detokenize(a->who->mixture->model, &made, &n, p->ids, p->n,
                                        err);

    for (size_t k = i * a->r.n; rc == 0 && k < (i + 1) * a->r.n; k++) {
        struct choice *const c = &a->choices[k];

        rc = text_add(&c->text, made ? made : p->text, n) < 0 ? error_nomem(err, n) : 0;
        c->n_echo = c->n_counted = n;
        c->n_characters = count_characters(c->text.n ? c->text.at : "", c->text.n);
    }
    artel_free(made);
    return rc;
}

static int encode_all(struct answer *a, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < a->r.n_prompts; i++) {
        rc = encode_prompt(a, i, err);
        if (rc == 0 && a->r.echo)
            rc = echo(a, i, err);
    }
    if (rc < 0 && !*err->where)
        snprintf(err->where, sizeof(err->where), "prompt");
    return rc;
}

static const struct answer_kind completions = {.id_prefix = "cmpl-",
                                               .stream_object = "text_completion",
                                               .prompt_field = "prompt",
                                               .read = request_completion,
                                               .encode = encode_all,
                                               .keep = keep,
                                               .flow = flow,
                                               .finish = finish,
                                               .reply = reply};

void api_completions(void *user, struct exchange *x)
{
    struct answer *const a = answer_read(user, x, &completions);
    struct job_options o;

    if (!a)
        return;
    answer_options(a, &o);
    o.prompt_logprobs = a->r.echo && a->r.top_logprobs >= 0;
    answer_submit(a, &o, NULL);
}
