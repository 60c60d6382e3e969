/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all requests share: single fields, sampling, and the prompts of those that are no
 * conversation.
 */
#include "serve/api_request.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define STOP_MAX       16
#define STOP_BYTES_MAX 256
#define BIAS_MAX       1024
#define PROMPTS_MAX    256

/* What was found, in few words. */
static const char *found_text(char *out, size_t size, const json_t *v)
{
    char escaped[200];

    if (!v)
        snprintf(out, size, "nothing");
    else if (json_is_string(v))
        snprintf(out, size, "'%s'",
                 escape_text(escaped, sizeof(escaped), json_string_value(v),
                             json_string_length(v) < 40 ? json_string_length(v) : 40));
    else if (json_is_integer(v))
        snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        snprintf(out, size, "%.9g", json_real_value(v));
    else
        snprintf(out, size, "%s",
                 json_is_object(v)    ? "an object"
                 : json_is_array(v)   ? "an array"
                 : json_is_boolean(v) ? "a boolean"
                                      : "null");
    return out;
}

int request_refuse(struct artel_error *err, const char *where, const char *expected,
                   const json_t *found)
{
    char text[240];

    return error_set(err, ARTEL_EUSAGE, "SRV06", where, "expected %s, found %s",
                     expected, found_text(text, sizeof(text), found));
}

int request_unknown(char *ignored, size_t size, const json_t *o,
                    const char *const *known, const char *prefix, bool strict,
                    struct artel_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(size_t)o, key, value)
    {
        const char *const shown = *key ? key : "\"\"";
        const size_t used = strlen(ignored), length = strlen(shown);
        char name[96], where[160];
        size_t i = 0;

        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (known[i])
            continue;
        escape_text(name, sizeof(name), shown, length < 40 ? length : 40);
        if (strict) {
            snprintf(where, sizeof(where), "%s%s", prefix, name);
            return error_set(err, ARTEL_EUSAGE, "SRV08", where,
                             "the server knows no such field");
        }
        /* A header's value: what may not stand in one is left out. */
        for (char *c = name; *c; c++)
            if ((unsigned char)*c < 0x21 || (unsigned char)*c > 0x7e || *c == ',')
                *c = '_';
        snprintf(ignored + used, size - used, "%s%s%s", used ? ", " : "", prefix, name);
    }
    return 0;
}

int want_flag(const json_t *o, const char *key, const char *where, bool *out,
              struct artel_error *err)
{
    const json_t *const v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_boolean(v))
        return request_refuse(err, where, "true or false", v);
    *out = json_is_true(v);
    return 0;
}

int want_integer(const json_t *o, const char *key, const char *where, json_int_t min,
                 json_int_t max, json_int_t *out, struct artel_error *err)
{
    const json_t *const v = json_object_get(o, key);
    char expected[120];

    if (!v || json_is_null(v))
        return 0;
    if (json_is_integer(v) && json_integer_value(v) >= min &&
        json_integer_value(v) <= max) {
        *out = json_integer_value(v);
        return 0;
    }
    snprintf(expected, sizeof(expected),
             "an integer from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT, min,
             max);
    return request_refuse(err, where, expected, v);
}

int want_number(const json_t *o, const char *key, const char *where, double min,
                double max, float *out, struct artel_error *err)
{
    const json_t *const v = json_object_get(o, key);
    char expected[120];

    if (!v || json_is_null(v))
        return 0;
    if (json_is_number(v) && json_number_value(v) >= min &&
        json_number_value(v) <= max) {
        *out = (float)json_number_value(v);
        return 0;
    }
    snprintf(expected, sizeof(expected), "a number from %g to %g", min, max);
    return request_refuse(err, where, expected, v);
}

static bool is_text(const json_t *v)
{
    return json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v);
}

int want_text(const json_t *o, const char *key, const char *where, const char **out,
              struct artel_error *err)
{
    const json_t *const v = json_object_get(o, key);

    if (!v || json_is_null(v))
        return 0;
    if (!is_text(v))
        return request_refuse(err, where, "a string without NUL", v);
    *out = json_string_value(v);
    return 0;
}

int need_text(const json_t *o, const char *key, const char *where, const char **out,
              struct artel_error *err)
{
    int rc;

    *out = NULL;
    rc = want_text(o, key, where, out, err);
    if (rc == 0 && !*out)
        return error_set(err, ARTEL_EUSAGE, "SRV15", where, "this field is required");
    return rc;
}

static int read_stop(struct request *r, struct artel_error *err)
{
    static const char expected[] = "a string of 1 to 256 bytes, or up to 16 of them";
    const json_t *const v = json_object_get(r->body, "stop");
    const size_t n = json_is_array(v) ? json_array_size(v) : 1;

    if (!v || json_is_null(v))
        return 0;
    if (n > STOP_MAX)
        return request_refuse(err, "stop", expected, v);
    r->stop = calloc(n + 1, sizeof(*r->stop));
    if (!r->stop)
        return error_nomem(err, n * sizeof(*r->stop));
    for (size_t i = 0; i < n; i++) {
        const json_t *const one = json_is_array(v) ? json_array_get(v, i) : v;
        char where[32] = "stop";

        if (json_is_array(v))
            snprintf(where, sizeof(where), "stop[%zu]", i);
        if (!is_text(one) || !json_string_length(one) ||
            json_string_length(one) > STOP_BYTES_MAX)
            return request_refuse(err, where, expected, one);
        r->stop[r->n_stop++] = json_string_value(one);
    }
    return 0;
}

/* "123", below N_VOCAB. */
static bool read_id(int32_t *out, const char *text, size_t n_vocab)
{
    const size_t n = strlen(text);

    if (!n || n > 9 || strspn(text, "0123456789") != n)
        return false;
    *out = (int32_t)strtol(text, NULL, 10);
    return (size_t)*out < n_vocab;
}

static int read_bias(struct request *r, size_t n_vocab, struct artel_error *err)
{
    json_t *const given = json_object_get(r->body, "logit_bias");
    const char *key;
    json_t *v;

    if (!given || json_is_null(given))
        return 0;
    if (!json_is_object(given) || json_object_size(given) > BIAS_MAX)
        return request_refuse(err, "logit_bias",
                              "an object of at most 1024 token ids with their biases",
                              given);
    r->bias = calloc(json_object_size(given) + 1, sizeof(*r->bias));
    if (!r->bias)
        return error_nomem(err, json_object_size(given) * sizeof(*r->bias));
    json_object_foreach(given, key, v)
    {
        struct token_bias *const b = &r->bias[r->n_bias++];
        char where[96], name[64];

        escape_text(name, sizeof(name), key, strlen(key) < 24 ? strlen(key) : 24);
        snprintf(where, sizeof(where), "logit_bias.%s", name);
        if (!read_id(&b->id, key, n_vocab))
            return error_set(err, ARTEL_EUSAGE, "SRV06", where,
                             "no token id: the vocabulary has %zu tokens", n_vocab);
        if (!json_is_number(v) || !(json_number_value(v) >= -100) ||
            !(json_number_value(v) <= 100))
            return request_refuse(err, where, "a number from -100 to 100", v);
        b->bias = (float)json_number_value(v);
    }
    return 0;
}

static int read_sampling(struct request *r, struct artel_error *err)
{
    json_int_t top_k = -2, seed = 0;
    const json_t *const body = r->body;
    int rc =
        want_number(body, "temperature", "temperature", 0, 2, &r->temperature, err);

    r->has_seed = json_is_integer(json_object_get(body, "seed"));
    if (rc == 0)
        rc = want_number(body, "top_p", "top_p", 1e-6, 1, &r->top_p, err);
    if (rc == 0)
        rc = want_number(body, "min_p", "min_p", 0, 1, &r->min_p, err);
    if (rc == 0)
        rc = want_number(body, "repetition_penalty", "repetition_penalty", 0.01, 100,
                         &r->repetition_penalty, err);
    if (rc == 0)
        rc = want_number(body, "frequency_penalty", "frequency_penalty", -2, 2,
                         &r->frequency_penalty, err);
    if (rc == 0)
        rc = want_number(body, "presence_penalty", "presence_penalty", -2, 2,
                         &r->presence_penalty, err);
    if (rc == 0)
        rc = want_integer(body, "top_k", "top_k", -1, INT_MAX, &top_k, err);
    if (rc == 0)
        rc = want_integer(body, "seed", "seed", LLONG_MIN, LLONG_MAX, &seed, err);
    r->seed = (uint64_t)seed;
    if (top_k >= -1)
        r->top_k = top_k > 0 ? (size_t)top_k : 0;
    return rc;
}

static int read_artel(struct request *r, bool strict, struct artel_error *err)
{
    static const char *const known[] = {"threshold", "below", "layers", NULL};
    const json_t *const o = json_object_get(r->body, "artel");
    const char *below = NULL;
    int rc;

    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return request_refuse(err, "artel", "an object", o);
    rc = want_number(o, "threshold", "artel.threshold", 0, 1, &r->threshold, err);
    if (rc == 0)
        rc = want_flag(o, "layers", "artel.layers", &r->layers, err);
    if (rc == 0)
        rc = want_text(o, "below", "artel.below", &below, err);
    if (rc < 0)
        return rc;
    if (below && !strcmp(below, "refused"))
        r->below = BELOW_REFUSED;
    else if (below && !strcmp(below, "base"))
        r->below = BELOW_BASE;
    else if (below)
        return request_refuse(err, "artel.below", "\"base\" or \"refused\"",
                              json_object_get(o, "below"));
    else if (r->below == BELOW_GOES_ON)
        r->below = BELOW_BASE;
    return request_unknown(r->ignored, sizeof(r->ignored), o, known, "artel.", strict,
                           err);
}

static int read_stream(struct request *r, bool strict, struct artel_error *err)
{
    static const char *const known[] = {"include_usage", "include_obfuscation", NULL};
    const json_t *const o = json_object_get(r->body, "stream_options");
    int rc = want_flag(r->body, "stream", "stream", &r->stream, err);

    if (rc < 0 || !o || json_is_null(o))
        return rc;
    if (!json_is_object(o))
        return request_refuse(err, "stream_options", "an object", o);
    if (!r->stream)
        return error_set(err, ARTEL_EUSAGE, "SRV06", "stream_options",
                         "is for requests with \"stream\": true alone");
    rc = want_flag(o, "include_usage", "stream_options.include_usage",
                   &r->include_usage, err);
    if (rc < 0)
        return rc;
    return request_unknown(r->ignored, sizeof(r->ignored), o, known, "stream_options.",
                           strict, err);
}

/* "max_tokens" and its other name; MIN is 0 where a prompt may be read alone. */
static int read_length(struct request *r, json_int_t min, struct artel_error *err)
{
    json_int_t old = -1, now = -1;
    int rc = want_integer(r->body, "max_tokens", "max_tokens", min, INT_MAX, &old, err);

    if (rc == 0)
        rc = want_integer(r->body, "max_completion_tokens", "max_completion_tokens",
                          min, INT_MAX, &now, err);
    if (now < 0)
        now = old;
    if (now >= 0)
        r->max_tokens = (size_t)now;
    return rc;
}

/* What chat and completions have in common. */
static int read_generation(struct request *r, const struct request_limits *l,
                           json_int_t min_tokens, struct artel_error *err)
{
    json_int_t n = 1;
    int rc = need_text(r->body, "model", "model", &r->model, err);

    if (rc == 0)
        rc = read_stream(r, l->strict, err);
    if (rc == 0)
        rc = want_integer(r->body, "n", "n", 1, (json_int_t)l->max_choices, &n, err);
    if (rc == 0)
        rc = read_length(r, min_tokens, err);
    if (rc == 0)
        rc = read_sampling(r, err);
    if (rc == 0)
        rc = read_stop(r, err);
    if (rc == 0)
        rc = read_bias(r, l->n_vocab, err);
    if (rc == 0)
        rc = read_artel(r, l->strict, err);
    r->n = (size_t)n;
    return rc;
}

static int begin(struct request *r, const struct request_limits *l, const char *body,
                 size_t n, struct artel_error *err)
{
    *r = (struct request){.n = 1,
                          .max_tokens = SIZE_MAX,
                          .temperature = -1,
                          .top_p = -1,
                          .min_p = -1,
                          .repetition_penalty = -1,
                          .top_k = SIZE_MAX,
                          .top_logprobs = -1,
                          .threshold = l->threshold,
                          .below = l->below};
    return request_parse(&r->body, body, n, err);
}

static int end(struct request *r, int rc)
{
    if (rc < 0)
        request_release(r);
    return rc;
}

/* Taken as well, and of no effect here. */
#define IGNORED_BY_DESIGN                                                              \
    "user", "metadata", "store", "service_tier", "safety_identifier",                  \
        "prompt_cache_key", "prompt_cache_retention"
#define SAMPLING_FIELDS                                                                \
    "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens",   \
        "temperature", "top_p", "min_p", "top_k", "repetition_penalty",                \
        "frequency_penalty", "presence_penalty", "seed", "stop", "logit_bias",         \
        "logprobs", "artel"

int request_chat(struct request *r, const struct request_limits *l, const char *body,
                 size_t n, struct artel_error *err)
{
    static const char *const known[] = {
        SAMPLING_FIELDS,    IGNORED_BY_DESIGN, "messages",    "top_logprobs",
        "response_format",  "tools",           "tool_choice", "parallel_tool_calls",
        "reasoning_effort", "verbosity",       NULL};
    bool logprobs = false;
    json_int_t top = -1;
    int rc = begin(r, l, body, n, err);

    if (rc == 0)
        rc = read_generation(r, l, 1, err);
    if (rc == 0)
        rc = want_flag(r->body, "logprobs", "logprobs", &logprobs, err);
    if (rc == 0)
        rc = want_integer(r->body, "top_logprobs", "top_logprobs", 0, 20, &top, err);
    if (rc == 0 && top >= 0 && !logprobs)
        rc = error_set(err, ARTEL_EUSAGE, "SRV06", "top_logprobs",
                       "needs \"logprobs\": true");
    if (logprobs)
        r->top_logprobs = top > 0 ? (int)top : 0;
    if (rc == 0)
        rc = request_tools(r, err);
    if (rc == 0)
        rc = request_messages(r, l->strict, err);
    if (rc == 0)
        rc = request_unknown(r->ignored, sizeof(r->ignored), r->body, known, "",
                             l->strict, err);
    return end(r, rc);
}

int request_ids(int32_t **ids, size_t *n, const json_t *list, const char *where,
                size_t n_vocab, struct artel_error *err)
{
    *n = json_array_size(list);
    *ids = calloc(*n + 1, sizeof(**ids));
    if (!*ids)
        return error_nomem(err, *n * sizeof(**ids));
    for (size_t i = 0; i < *n; i++) {
        const json_t *const v = json_array_get(list, i);
        char place[120], expected[80];

        if (json_is_integer(v) && json_integer_value(v) >= 0 &&
            (uint64_t)json_integer_value(v) < n_vocab) {
            (*ids)[i] = (int32_t)json_integer_value(v);
            continue;
        }
        snprintf(place, sizeof(place), "%s[%zu]", where, i);
        snprintf(expected, sizeof(expected), "a token id from 0 to %zu", n_vocab - 1);
        return request_refuse(err, place, expected, v);
    }
    return 0;
}

static int read_prompt(struct request_prompt *p, const json_t *v, const char *where,
                       size_t n_vocab, struct artel_error *err)
{
    if (json_is_string(v)) {
        p->text = json_string_value(v);
        p->n = json_string_length(v);
        return 0;
    }
    if (json_is_array(v) && json_array_size(v))
        return request_ids(&p->ids, &p->n, v, where, n_vocab, err);
    return request_refuse(err, where, "a string or a list of token ids", v);
}

int request_prompts(struct request *r, const json_t *given, const char *where,
                    size_t n_vocab, struct artel_error *err)
{
    const bool many =
        json_is_array(given) && !json_is_integer(json_array_get(given, 0));
    const size_t n = many ? json_array_size(given) : 1;

    if (!given)
        return error_set(err, ARTEL_EUSAGE, "SRV15", where, "this field is required");
    if (!n || n > PROMPTS_MAX)
        return request_refuse(
            err, where, "a string, token ids, or a list of 1 to 256 of either", given);
    r->prompts = calloc(n, sizeof(*r->prompts));
    if (!r->prompts)
        return error_nomem(err, n * sizeof(*r->prompts));
    r->n_prompts = n;
    for (size_t i = 0; i < n; i++) {
        char place[96];
        int rc;

        snprintf(place, sizeof(place), many ? "%s[%zu]" : "%s", where, i);
        rc = read_prompt(&r->prompts[i], many ? json_array_get(given, i) : given, place,
                         n_vocab, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Fields of OpenAI's that would change the answer, and do not here. */
static int refuse_unsupported(const struct request *r, struct artel_error *err)
{
    const json_t *const best = json_object_get(r->body, "best_of");
    const json_t *const suffix = json_object_get(r->body, "suffix");

    if (best && !json_is_null(best) &&
        !(json_is_integer(best) && json_integer_value(best) == (json_int_t)r->n))
        return error_set(err, ARTEL_EUSAGE, "SRV06", "best_of",
                         "is not supported, unless it equals n");
    if (suffix && !json_is_null(suffix) &&
        !(json_is_string(suffix) && !json_string_length(suffix)))
        return error_set(err, ARTEL_EUSAGE, "SRV06", "suffix", "is not supported");
    return 0;
}

int request_completion(struct request *r, const struct request_limits *l,
                       const char *body, size_t n, struct artel_error *err)
{
    static const char *const known[] = {
        SAMPLING_FIELDS, IGNORED_BY_DESIGN, "prompt", "echo",
        "best_of",       "suffix",          NULL};
    json_int_t logprobs = -1;
    int rc = begin(r, l, body, n, err);

    if (rc == 0)
        rc = want_flag(r->body, "echo", "echo", &r->echo, err);
    if (rc == 0)
        rc = read_generation(r, l, r->echo ? 0 : 1, err);
    if (rc == 0)
        rc = want_integer(r->body, "logprobs", "logprobs", 0, 5, &logprobs, err);
    r->top_logprobs = (int)logprobs;
    if (r->max_tokens == SIZE_MAX)
        r->max_tokens = 16;
    if (rc == 0)
        rc = request_prompts(r, json_object_get(r->body, "prompt"), "prompt",
                             l->n_vocab, err);
    if (rc == 0 && r->n_prompts * r->n > l->max_choices && r->n_prompts > 1 && r->n > 1)
        rc = error_set(err, ARTEL_EUSAGE, "SRV06", "n",
                       "%zu prompts with %zu choices each are more than %zu answers",
                       r->n_prompts, r->n, l->max_choices);
    if (rc == 0)
        rc = refuse_unsupported(r, err);
    if (rc == 0)
        rc = request_unknown(r->ignored, sizeof(r->ignored), r->body, known, "",
                             l->strict, err);
    return end(r, rc);
}

int request_embedding(struct request *r, const struct request_limits *l,
                      const char *body, size_t n, struct artel_error *err)
{
    static const char *const known[] = {"model",      "input", "encoding_format",
                                        "dimensions", "artel", IGNORED_BY_DESIGN,
                                        NULL};
    const char *format = NULL;
    int rc = begin(r, l, body, n, err);

    if (rc == 0)
        rc = need_text(r->body, "model", "model", &r->model, err);
    if (rc == 0)
        rc = want_text(r->body, "encoding_format", "encoding_format", &format, err);
    if (rc == 0 && format && strcmp(format, "float") && strcmp(format, "base64"))
        rc = request_refuse(err, "encoding_format", "\"float\" or \"base64\"",
                            json_object_get(r->body, "encoding_format"));
    r->base64 = format && !strcmp(format, "base64");
    if (rc == 0 && !json_is_null(json_object_get(r->body, "dimensions")) &&
        json_object_get(r->body, "dimensions"))
        rc = error_set(err, ARTEL_EUSAGE, "SRV06", "dimensions", "is not supported");
    if (rc == 0)
        rc = read_artel(r, l->strict, err);
    if (rc == 0)
        rc = request_prompts(r, json_object_get(r->body, "input"), "input", l->n_vocab,
                             err);
    if (rc == 0)
        rc = request_unknown(r->ignored, sizeof(r->ignored), r->body, known, "",
                             l->strict, err);
    return end(r, rc);
}

void request_release(struct request *r)
{
    for (size_t i = 0; r->prompts && i < r->n_prompts; i++)
        free(r->prompts[i].ids);
    free(r->prompts);
    free(r->stop);
    free(r->bias);
    json_decref(r->messages);
    json_decref(r->body);
    *r = (struct request){0};
}
