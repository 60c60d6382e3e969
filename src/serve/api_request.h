/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of a request as structures whose every value has been checked.
 *
 * A value that will not do is ARTEL_EUSAGE SRV06: WHERE is the field as OpenAI's "param"
 * names it, "messages[3].role", the reason tells expected and found. A body that is no
 * JSON object is ARTEL_EFORMAT, WHERE line:column. Fields that nobody knows are listed in
 * IGNORED, or ARTEL_EUSAGE SRV08 where the limits say strict.
 */
#ifndef ARTEL_SERVE_API_REQUEST_H
#define ARTEL_SERVE_API_REQUEST_H

#include <jansson.h>

#include "decoder/sampler.h"
#include "serve/engine.h"

#define REQUEST_TOOLS_MAX 128

struct request_limits {
    size_t n_vocab;
    size_t max_choices; /* prompts times n */
    bool strict;
    float threshold; /* where the request names none */
    enum job_below below;
};

enum tool_choice { TOOLS_NONE, TOOLS_AUTO, TOOLS_REQUIRED };
enum answer_format { FORMAT_TEXT, FORMAT_OBJECT, FORMAT_SCHEMA };

/* One prompt: text, or ids where TEXT is NULL. */
struct request_prompt {
    const char *text; /* (n) borrowed of the body */
    int32_t *ids;     /* (n) owned */
    size_t n;
};

struct request {
    json_t *body; /* owned; strings below are borrowed of it */
    const char *model;
    bool stream, include_usage;
    size_t n;          /* choices of each prompt */
    size_t max_tokens; /* of an answer; SIZE_MAX: none named */
    /* What it names; -1, and SIZE_MAX for TOP_K, where it does not. */
    float temperature, top_p, min_p, repetition_penalty;
    size_t top_k;
    float frequency_penalty, presence_penalty;
    bool has_seed;
    uint64_t seed;
    const char **stop; /* (n_stop) owned list */
    size_t n_stop;
    struct token_bias *bias; /* (n_bias) owned */
    size_t n_bias;
    int top_logprobs; /* -1: no log-probabilities */
    float threshold;
    enum job_below below;
    bool layers;       /* the answer tells each router's probabilities */
    char ignored[512]; /* "a, b" */

    /* chat */
    json_t *messages; /* role, content and tool_calls as templates take them; owned */
    const json_t *tools;
    enum tool_choice tool_choice;
    const char *tool_name; /* that must be called, or NULL */
    enum answer_format format;
    const json_t *schema; /* FORMAT_SCHEMA */

    /* completions, embeddings, tokenize */
    struct request_prompt *prompts; /* (n_prompts) owned */
    size_t n_prompts;
    bool echo, base64;
};

int request_chat(struct request *r, const struct request_limits *l, const char *body,
                 size_t n, struct artel_error *err);
int request_completion(struct request *r, const struct request_limits *l,
                       const char *body, size_t n, struct artel_error *err);
int request_embedding(struct request *r, const struct request_limits *l,
                      const char *body, size_t n, struct artel_error *err);
void request_release(struct request *r); /* zeroed is fine */

/* ---- parts, for requests of other kinds ---- */

/* A JSON object of at least these rules in *OUT. */
int request_parse(json_t **out, const char *body, size_t n, struct artel_error *err);
/* Keys of O that are not in KNOWN (ended by NULL) into IGNORED, or refused. PREFIX comes
 * before each name, "messages[0].". */
int request_unknown(char *ignored, size_t size, const json_t *o,
                    const char *const *known, const char *prefix, bool strict,
                    struct artel_error *err);
/* SRV06 about WHERE, made of FORMAT and INDEX where it has a %zu. */
int request_refuse(struct artel_error *err, const char *where, const char *expected,
                   const json_t *found);
/* Fields of O; null counts as absent, which leaves *OUT alone. WHERE names it in errors. */
int want_flag(const json_t *o, const char *key, const char *where, bool *out,
              struct artel_error *err);
int want_integer(const json_t *o, const char *key, const char *where, json_int_t min,
                 json_int_t max, json_int_t *out, struct artel_error *err);
int want_number(const json_t *o, const char *key, const char *where, double min,
                double max, float *out, struct artel_error *err);
/* Without NUL in it. */
int want_text(const json_t *o, const char *key, const char *where, const char **out,
              struct artel_error *err);
int need_text(const json_t *o, const char *key, const char *where, const char **out,
              struct artel_error *err);
/* A list of token ids below N_VOCAB, allocated. */
int request_ids(int32_t **ids, size_t *n, const json_t *list, const char *where,
                size_t n_vocab, struct artel_error *err);
/* A string, strings, ids, or lists of ids. */
int request_prompts(struct request *r, const json_t *given, const char *where,
                    size_t n_vocab, struct artel_error *err);

/* Of chat: into R->messages, R->tools and what stands beside them. */
int request_messages(struct request *r, bool strict, struct artel_error *err);
int request_tools(struct request *r, struct artel_error *err);

#endif
