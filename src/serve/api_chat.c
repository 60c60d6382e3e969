/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/chat/completions.
 *
 * Where an answer may be a call of a tool, what begins like one is held back until it is
 * whole; any other text flows as it comes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "serve/api_answer.h"
#include "serve/api_parts.h"
#include "serve/api_reply.h"

/* An array of log-probabilities in OpenAI's object, or null. LIST is taken over. */
static json_t *logprobs_object(const struct answer *a, json_t *list)
{
    if (a->r.top_logprobs < 0)
        return json_null();
    return json_pack("{s:o, s:n}", "content", list ? list : json_array(), "refusal");
}

static void keep(struct choice *c, const struct job_event *e)
{
    const struct answer *const a = c->answer;

    if (text_add(&c->text, e->text, e->n_text) < 0)
        c->answer->lost = true;
    if (a->r.top_logprobs < 0)
        return;
    if (!c->logprobs)
        c->logprobs = json_array();
    for (size_t i = 0; i < e->n_tokens; i++)
        json_array_append_new(
            c->logprobs, chat_logprob(&e->tokens[i], a->who->mixture->model->tokenizer,
                                      (size_t)a->r.top_logprobs));
}

static void send(struct choice *c, json_t *delta, json_t *logprobs, const char *finish,
                 json_t *artel)
{
    answer_send(c->answer,
                json_pack("{s:I, s:o, s:o, s:s?}", "index", (json_int_t)c->index,
                          "delta", delta, "logprobs", logprobs, "finish_reason",
                          finish),
                artel);
}

/* Text that has not left yet, and its tokens. */
static void send_text(struct choice *c)
{
    const size_t n = c->text.n - c->n_flowed;

    if (!n && !c->logprobs)
        return;
    send(c,
         json_pack("{s:o}", "content", text_json(n ? c->text.at + c->n_flowed : "", n)),
         logprobs_object(c->answer, c->logprobs), NULL, NULL);
    c->n_flowed = c->text.n;
    c->logprobs = NULL;
}

static void flow(struct choice *c)
{
    const struct request *const r = &c->answer->r;

    if (!c->began) {
        c->began = true;
        send(c, json_pack("{s:s, s:s}", "role", "assistant", "content", ""),
             json_null(), NULL, c->artel);
    }
    if (r->tool_choice == TOOLS_REQUIRED)
        return;
    if (r->tool_choice == TOOLS_AUTO && !c->n_flowed &&
        tool_call_begins(c->text.n ? c->text.at : "", c->text.n))
        return;
    send_text(c);
}

static json_t *indexed(json_t *calls)
{
    json_t *const list = json_array(), *call;
    size_t i;

    json_array_foreach(calls, i, call)
    {
        json_t *const one = json_pack("{s:I}", "index", (json_int_t)i);

        json_object_update(one, call);
        json_array_append_new(list, one);
    }
    return list;
}

static void finish(struct choice *c)
{
    const struct request *const r = &c->answer->r;

    if (r->tool_choice != TOOLS_NONE && !c->n_flowed)
        c->calls = tool_calls_of(c->text.n ? c->text.at : "", c->text.n, r->tools,
                                 exchange_id(c->answer->x), c->index);
    if (c->calls)
        c->finish = "tool_calls";
    if (!r->stream)
        return;
    flow(c);
    if (c->calls)
        send(c, json_pack("{s:o}", "tool_calls", indexed(c->calls)), json_null(), NULL,
             NULL);
    else
        send_text(c);
    send(c, json_object(), json_null(), c->finish, c->artel);
}

static json_t *message(struct choice *c)
{
    json_t *const m =
        json_pack("{s:s, s:n, s:n}", "role", "assistant", "content", "refusal");

    if (c->calls)
        json_object_set(m, "tool_calls", c->calls);
    else
        json_object_set_new(m, "content",
                            text_json(c->text.n ? c->text.at : "", c->text.n));
    return m;
}

static json_t *reply(struct answer *a)
{
    json_t *const o = answer_object(a, "chat.completion");

    for (size_t i = 0; i < a->n_choices; i++) {
        struct choice *const c = &a->choices[i];

        json_array_append_new(json_object_get(o, "choices"),
                              json_pack("{s:I, s:o, s:o, s:s}", "index", (json_int_t)i,
                                        "message", message(c), "logprobs",
                                        logprobs_object(a, c->logprobs),
                                        "finish_reason", c->finish));
        c->logprobs = NULL;
    }
    answer_totals(a, o);
    return o;
}

/* The answer's form; its own field is named where it asks for what cannot be kept. */
static int make(struct grammar **out, const struct answer *a, struct artel_error *err)
{
    const bool call = a->r.tool_choice == TOOLS_REQUIRED;
    json_t *const made = call ? tool_schema(a->r.tools, a->r.tool_name) : NULL;
    int rc;

    *out = NULL;
    if (!a->api->pieces)
        rc = error_set(err, ARTEL_EUSAGE, "SRV07", NULL,
                       "this model's vocabulary has no end of turn");
    else
        rc = grammar_open(out, a->api->pieces, call ? made : a->r.schema, err);
    json_decref(made);
    if (rc == ARTEL_EUSAGE && !strcmp(err->code, "SRV07")) {
        char reason[600];

        snprintf(reason, sizeof(reason), "%s%s%s", err->where, *err->where ? ": " : "",
                 err->reason);
        error_set(err, rc, "SRV07", call ? "tools" : "response_format", "%s", reason);
    }
    return rc;
}

/* Tools that the template leaves out are told as ignored, unless a call is required: its
 * form holds without them. */
static void note_tools(struct answer *a, const struct prompt *with)
{
    const struct artel_model *const m = a->who->mixture->model;
    struct prompt without = {0};
    const size_t used = strlen(a->r.ignored);

    if (prompt_encode(&without, m->tokenizer, m->chat, a->r.messages, NULL, NULL,
                      NULL) == 0 &&
        without.ids.n == with->ids.n &&
        !memcmp(without.ids.at, with->ids.at, with->ids.n * sizeof(*with->ids.at)))
        snprintf(a->r.ignored + used, sizeof(a->r.ignored) - used, "%stools",
                 used ? ", " : "");
    prompt_release(&without);
}

static int encode(struct answer *a, struct artel_error *err)
{
    const struct artel_model *const m = a->who->mixture->model;
    const json_t *const tools = a->r.tool_choice == TOOLS_NONE ? NULL : a->r.tools;
    int rc;

    if (!m->chat)
        return error_set(err, ARTEL_EUSAGE, "USE10", "messages",
                         "this model has no chat template; use /v1/completions");
    rc = prompt_encode(&a->prompts[0], m->tokenizer, m->chat, a->r.messages, tools,
                       NULL, err);
    if (rc == ARTEL_EFORMAT) /* a template that refuses these messages */
        return error_set(err, ARTEL_EUSAGE, "SRV06", "messages", "%.200s", err->reason);
    if (rc == 0 && tools && a->r.tool_choice == TOOLS_AUTO)
        note_tools(a, &a->prompts[0]);
    return rc;
}

static const struct answer_kind chat = {.id_prefix = "chatcmpl-",
                                        .stream_object = "chat.completion.chunk",
                                        .prompt_field = "messages",
                                        .read = request_chat,
                                        .encode = encode,
                                        .keep = keep,
                                        .flow = flow,
                                        .finish = finish,
                                        .reply = reply};

void api_chat(void *user, struct exchange *x)
{
    struct answer *const a = answer_read(user, x, &chat);
    struct job_options o;

    if (!a)
        return;
    answer_options(a, &o);
    answer_submit(
        a, &o,
        a->r.format != FORMAT_TEXT || a->r.tool_choice == TOOLS_REQUIRED ? make : NULL);
}
