/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/api_reply.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "eval/stream.h"
#include "text/tokenizer.h"

#define IMPOSSIBLE (-9999.0) /* OpenAI's number for what JSON cannot say */

json_t *text_json(const char *bytes, size_t n)
{
    json_t *whole = json_stringn(bytes, n);
    struct stream s;

    if (whole)
        return whole;
    stream_init(&s, NULL, 0);
    if (stream_add(&s, bytes, n, NULL) == 0 && stream_finish(&s, NULL) == 0)
        whole = json_stringn(s.text ? s.text : "", s.n);
    stream_release(&s);
    return whole;
}

size_t count_characters(const char *text, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

const char *route_expert(const struct job_route *r, const struct artel_mixture *m,
                         const char *asked)
{
    const char *const name = artel_expert_name(m, r->expert);

    if (r->expert >= 0 && asked && strcmp(m->mixture->method, "single") == 0 &&
        !m->file.folder)
        return asked;
    return name ? name : "base";
}

static json_t *layers_json(const struct job_route *r)
{
    json_t *const layers = json_array();

    for (size_t k = 0; k < r->n_routers; k++) {
        json_t *const one = json_array();

        for (size_t e = 0; e < r->n_experts; e++)
            json_array_append_new(
                one, json_real((double)r->probabilities[k * r->n_experts + e]));
        json_array_append_new(layers, one);
    }
    return layers;
}

static json_t *means_json(const struct job_route *r, const struct artel_mixture *m)
{
    json_t *const means = json_object();

    for (size_t e = 0; e < r->n_experts; e++) {
        const char *const name = artel_expert_name(m, (int)e);
        double sum = 0;

        for (size_t k = 0; k < r->n_routers; k++)
            sum += (double)r->probabilities[k * r->n_experts + e];
        if (name)
            json_object_set_new(means, name, json_real(sum / (double)r->n_routers));
    }
    return means;
}

json_t *route_json(const struct job_route *r, const struct artel_mixture *m,
                   const char *asked, bool layers)
{
    const bool known = r->routed && r->probabilities && r->n_routers;
    json_t *const o = json_object();
    const char *const selector = known ? selector_name(m) : NULL;

    json_object_set_new(o, "expert", json_string(route_expert(r, m, asked)));
    json_object_set_new(o, "probabilities", known ? means_json(r, m) : json_null());
    json_object_set_new(o, "selector", selector ? json_string(selector) : json_null());
    json_object_set_new(o, "routers",
                        json_integer(known ? (json_int_t)r->n_routers : 0));
    json_object_set_new(o, "layers_agreeing",
                        known && !r->per_token && !r->from_base
                            ? json_integer((json_int_t)r->layers_agreeing)
                            : json_null());
    json_object_set_new(o, "per_token", json_boolean(r->per_token));
    json_object_set_new(o, "below", json_boolean(r->below));
    if (layers) {
        json_t *const names = json_array();

        for (size_t e = 0; known && e < r->n_experts; e++)
            json_array_append_new(names, json_string(artel_expert_name(m, (int)e)));
        json_object_set_new(o, "experts", known ? names : json_null());
        json_object_set_new(o, "layers", known ? layers_json(r) : json_null());
        if (!known)
            json_decref(names);
    }
    return o;
}

static json_t *logprob_json(float x)
{
    if (isnan(x))
        return json_null();
    return json_real(x > (float)IMPOSSIBLE ? (double)x : IMPOSSIBLE);
}

static json_t *bytes_json(const char *piece, size_t n)
{
    json_t *const list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer((unsigned char)piece[i]));
    return list;
}

static json_t *chat_token(const struct tokenizer *tok, int32_t id, float logprob)
{
    size_t n;
    const char *const piece = tokenizer_piece(tok, id, &n);

    return json_pack("{s:o, s:o, s:o}", "token", text_json(piece, n), "logprob",
                     logprob_json(logprob), "bytes", bytes_json(piece, n));
}

json_t *chat_logprob(const struct job_token *t, const struct tokenizer *tok,
                     size_t n_top)
{
    json_t *const o = chat_token(tok, t->id, t->logprob);
    json_t *const top = json_array();

    for (size_t i = 0; i < t->n_top && i < n_top; i++)
        json_array_append_new(top, chat_token(tok, t->top[i].id, t->top[i].logit));
    json_object_set_new(o, "top_logprobs", top);
    return o;
}

/* A token's text in a form that no other has: bytes that are no text as OpenAI's
 * completions spell them, "bytes:\xe2\x96". */
static char *token_name(char *out, size_t size, const struct tokenizer *tok, int32_t id)
{
    size_t n, used;
    const char *const piece = tokenizer_piece(tok, id, &n);
    json_t *const text = json_stringn(piece, n);

    if (text && n < size && !memchr(piece, '\0', n)) {
        memcpy(out, piece, n);
        out[n] = '\0';
    } else {
        used = (size_t)snprintf(out, size, "bytes:");
        for (size_t i = 0; i < n && used + 5 < size; i++)
            used += (size_t)snprintf(out + used, size - used, "\\x%02x",
                                     (unsigned)(unsigned char)piece[i]);
    }
    json_decref(text);
    return out;
}

json_t *completion_logprobs(void)
{
    return json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs",
                     "top_logprobs", "text_offset");
}

void completion_logprob(json_t *lists, const struct job_token *t,
                        const struct tokenizer *tok, size_t n_top, size_t offset)
{
    char name[600];
    json_t *top = json_null();

    json_array_append_new(json_object_get(lists, "tokens"),
                          json_string(token_name(name, sizeof(name), tok, t->id)));
    json_array_append_new(json_object_get(lists, "token_logprobs"),
                          logprob_json(t->logprob));
    if (!isnan(t->logprob) && n_top) {
        char other[600];

        top = json_object();
        for (size_t i = 0; i < t->n_top && i < n_top; i++)
            json_object_set_new(top,
                                token_name(other, sizeof(other), tok, t->top[i].id),
                                logprob_json(t->top[i].logit));
        json_object_set_new(top, name, logprob_json(t->logprob));
    }
    json_array_append_new(json_object_get(lists, "top_logprobs"), top);
    json_array_append_new(json_object_get(lists, "text_offset"),
                          json_integer((json_int_t)offset));
}

json_t *usage_json(size_t prompt, size_t cached, size_t completion)
{
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)prompt,
                     "completion_tokens", (json_int_t)completion, "total_tokens",
                     (json_int_t)(prompt + completion), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)cached);
}

json_t *embedding_json(const float *x, size_t n, bool base64)
{
    double sum = 0, scale;
    json_t *out;
    float *unit;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    scale = sum > 0 ? 1 / sqrt(sum) : 0;
    unit = malloc((n + 1) * sizeof(*unit));
    if (!unit)
        return NULL;
    for (size_t i = 0; i < n; i++)
        unit[i] = (float)((double)x[i] * scale);
    if (base64) {
        const size_t bytes = n * sizeof(*unit);
        unsigned char *const text = malloc(4 * ((bytes + 2) / 3) + 1);

        out = NULL;
        if (text) {
            EVP_EncodeBlock(text, (const unsigned char *)unit, (int)bytes);
            out = json_string((const char *)text);
        }
        free(text);
    } else {
        out = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(out, json_real((double)unit[i]));
    }
    free(unit);
    return out;
}
