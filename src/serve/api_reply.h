/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of replies: routes, log-probabilities in both forms, usage. All return new
 * objects.
 */
#ifndef ARTEL_SERVE_API_REPLY_H
#define ARTEL_SERVE_API_REPLY_H

#include <jansson.h>

#include "serve/catalogue.h"
#include "serve/engine.h"

struct tokenizer;

/* N bytes as a JSON string; what is no UTF-8 is U+FFFD. */
json_t *text_json(const char *bytes, size_t n);
size_t count_characters(const char *text, size_t n); /* of UTF-8 */

/* "artel" of an answer. LAYERS: with "experts" and "layers". */
json_t *route_json(const struct job_route *r, const struct artel_mixture *m,
                   const char *asked, bool layers);
/* The name of the expert that answers; ASKED is what the request names. An expert that
 * was added is alone in its mixture, and has the name it was added by. */
const char *route_expert(const struct job_route *r, const struct artel_mixture *m,
                         const char *asked);
/* {"token", "logprob", "bytes", "top_logprobs"} */
json_t *chat_logprob(const struct job_token *t, const struct tokenizer *tok,
                     size_t n_top);
/* One token more in {"tokens", "token_logprobs", "top_logprobs", "text_offset"}. */
void completion_logprob(json_t *lists, const struct job_token *t,
                        const struct tokenizer *tok, size_t n_top, size_t offset);
json_t *completion_logprobs(void);
json_t *usage_json(size_t prompt, size_t cached, size_t completion);
json_t *embedding_json(const float *x, size_t n, bool base64);

/*
 * Calls of tools that TEXT is made of and nothing else: {"name", "arguments"} objects of
 * known tools, one or a list, between <tool_call> tags or not. NULL: it is no call. IDs are
 * made of ID and INDEX.
 */
json_t *tool_calls_of(const char *text, size_t n, const json_t *tools, const char *id,
                      size_t index);
/* Could what begins like TEXT become a call? */
bool tool_call_begins(const char *text, size_t n);
/* The schema that a call of NAME (NULL: of any of TOOLS) must follow. */
json_t *tool_schema(const json_t *tools, const char *name);

#endif
