/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the API share: small things, and the handlers of the routes.
 */
#ifndef ARTEL_SERVE_API_PARTS_H
#define ARTEL_SERVE_API_PARTS_H

#include <jansson.h>

#include "serve/api.h"

struct request_limits;

/* How replies are written: floats with as many digits as they have. */
#define API_JSON (JSON_COMPACT | JSON_REAL_PRECISION(9))

/* An error's HTTP status, type and code; CODE may be NULL. */
struct api_failure {
    int status;
    const char *type, *code;
};
struct api_failure failure_of(int rc, const struct artel_error *err);
/* What a client reads of it. */
void failure_message(char *out, size_t size, const struct artel_error *err);
json_t *failure_object(int rc, const struct artel_error *err); /* {"error": ...} */
void api_refuse(struct exchange *x, int rc, const struct artel_error *err);
/* A whole JSON reply; O is taken over, NULL: no memory. */
void api_reply(struct exchange *x, int status, json_t *o);
/* What requests may ask for now. */
void api_limits(const struct api *a, struct request_limits *out);

void api_chat(void *user, struct exchange *x);
void api_completions(void *user, struct exchange *x);
void api_embeddings(void *user, struct exchange *x);
void api_tokenize(void *user, struct exchange *x);
void api_detokenize(void *user, struct exchange *x);
void api_metrics(void *user, struct exchange *x);
void api_health(void *user, struct exchange *x);
void api_add_expert(void *user, struct exchange *x);
void api_remove_expert(void *user, struct exchange *x);
void api_reload(void *user, struct exchange *x);
void api_load_adapter(void *user, struct exchange *x);
void api_unload_adapter(void *user, struct exchange *x);

/* Calls that load, each on a thread of its own. */
struct api_loads *loads_open(void);
void loads_close(struct api_loads *l); /* waits for them */

#endif
