/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /tokenize and /detokenize, as llama.cpp spells them ("content") and as vLLM does
 * ("prompt", "messages").
 */
#include <stdlib.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "serve/api_parts.h"
#include "serve/api_reply.h"
#include "serve/api_request.h"

/* Ids of what BODY names. */
static int tokenize(struct ids *ids, struct request *r, const struct artel_model *m,
                    struct artel_error *err)
{
    const json_t *const body = r->body, *text = json_object_get(body, "content");
    bool add = false, special = true;
    const char *where = "content";
    struct prompt p = {0};
    int rc = want_flag(body, "add_special", "add_special", &add, err);

    if (rc == 0)
        rc = want_flag(body, "add_special_tokens", "add_special_tokens", &add, err);
    if (rc == 0)
        rc = want_flag(body, "parse_special", "parse_special", &special, err);
    if (rc < 0)
        return rc;
    if (!text) {
        text = json_object_get(body, "prompt");
        where = "prompt";
    }
    if (!text && json_object_get(body, "messages")) {
        rc = request_messages(r, false, err);
        if (rc == 0 && !m->chat)
            rc = error_set(err, ARTEL_EUSAGE, "USE10", "messages",
                           "this model has no chat template");
        if (rc == 0)
            rc = prompt_encode(&p, m->tokenizer, m->chat, r->messages, NULL, NULL, err);
        *ids = p.ids;
        return rc;
    }
    if (!json_is_string(text))
        return request_refuse(err, text ? where : "content", "a string", text);
    if (add && tokenizer_adds_bos(m->tokenizer) && tokenizer_bos(m->tokenizer) >= 0)
        rc = ids_push(ids, tokenizer_bos(m->tokenizer), err);
    return rc < 0 ? rc
                  : tokenizer_encode(m->tokenizer, ids, json_string_value(text),
                                     json_string_length(text), special, err);
}

static json_t *tokens_json(const struct ids *ids, const struct tokenizer *tok,
                           bool pieces)
{
    json_t *const list = json_array();

    for (size_t i = 0; i < ids->n; i++) {
        json_t *one = json_integer(ids->at[i]);

        if (pieces) {
            size_t n;
            const char *const piece = tokenizer_piece(tok, ids->at[i], &n);

            one = json_pack("{s:o, s:o}", "id", one, "piece", text_json(piece, n));
        }
        json_array_append_new(list, one);
    }
    return list;
}

void api_tokenize(void *user, struct exchange *x)
{
    static const char *const known[] = {
        "content",       "prompt",      "messages", "add_special", "add_special_tokens",
        "parse_special", "with_pieces", "model",    NULL};
    struct api *const api = user;
    const struct artel_model *const m = catalogue_model(api->catalogue);
    struct loaded *const who = catalogue_current(api->catalogue);
    struct request r = {0};
    struct ids ids = {0};
    struct artel_error err;
    bool pieces = false;
    const char *body;
    size_t n;
    int rc;

    body = exchange_body(x, &n);
    rc = request_parse(&r.body, body, n, &err);
    if (rc == 0)
        rc = want_flag(r.body, "with_pieces", "with_pieces", &pieces, &err);
    if (rc == 0)
        rc = request_unknown(r.ignored, sizeof(r.ignored), r.body, known, "",
                             api->strict, &err);
    if (rc == 0)
        rc = tokenize(&ids, &r, m, &err);
    if (rc == 0 && r.ignored[0])
        exchange_set_header(x, "x-artel-ignored", r.ignored);
    if (rc < 0)
        api_refuse(x, rc, &err);
    else
        api_reply(x, 200,
                  json_pack("{s:o, s:I, s:I}", "tokens",
                            tokens_json(&ids, m->tokenizer, pieces), "count",
                            (json_int_t)ids.n, "max_model_len",
                            (json_int_t)engine_context(api->engine, who)));
    ids_release(&ids);
    request_release(&r);
    loaded_let_go(who);
}

void api_detokenize(void *user, struct exchange *x)
{
    static const char *const known[] = {"tokens", "model", NULL};
    struct api *const api = user;
    const struct artel_model *const m = catalogue_model(api->catalogue);
    struct request r = {0};
    struct artel_error err;
    int32_t *ids = NULL;
    const json_t *tokens;
    char *text = NULL;
    const char *body;
    size_t n, n_ids = 0;
    int rc;

    body = exchange_body(x, &n);
    rc = request_parse(&r.body, body, n, &err);
    tokens = json_object_get(r.body, "tokens");
    if (rc == 0)
        rc = request_unknown(r.ignored, sizeof(r.ignored), r.body, known, "",
                             api->strict, &err);
    if (rc == 0 && !json_is_array(tokens))
        rc = request_refuse(&err, "tokens", "a list of token ids", tokens);
    if (rc == 0)
        rc = request_ids(&ids, &n_ids, tokens, "tokens", tokenizer_size(m->tokenizer),
                         &err);
    if (rc == 0)
        rc = artel_detokenize(m, &text, &n, ids, n_ids, &err);
    if (rc < 0)
        api_refuse(x, rc, &err);
    else
        api_reply(x, 200,
                  json_pack("{s:o, s:o}", "content", text_json(text, n), "prompt",
                            text_json(text, n)));
    artel_free(text);
    free(ids);
    request_release(&r);
}
