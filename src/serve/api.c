/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of routes, the short ones among them, and how errors become replies.
 */
#include "serve/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "decoder/frozen.h"
#include "serve/api_counts.h"
#include "serve/api_parts.h"
#include "serve/api_request.h"
#include "serve/page.h"
#include "text/tokenizer.h"

#define STUCK_SECONDS 60.0 /* of one step of the engine: more than any should take */

int api_open(struct api *a, struct artel_error *err)
{
    a->counts = counts_open();
    a->loads = loads_open();
    if (a->counts && a->loads)
        return 0;
    api_close(a);
    return error_nomem(err, 0);
}

void api_close(struct api *a)
{
    loads_close(a->loads);
    counts_let_go(a->counts);
    a->loads = NULL;
    a->counts = NULL;
}

void api_limits(const struct api *a, struct request_limits *out)
{
    *out = (struct request_limits){
        .n_vocab = tokenizer_size(catalogue_model(a->catalogue)->tokenizer),
        .max_choices = a->max_choices ? a->max_choices : 1,
        .strict = a->strict,
        .threshold = a->threshold,
        .below = a->below};
}

/* ---- errors ---- */

static const struct {
    const char *cause; /* the error's own code */
    struct api_failure failure;
} failures[] = {
    {"SRV04", {404, "invalid_request_error", "model_not_found"}},
    {"SRV06", {400, "invalid_request_error", "invalid_value"}},
    {"SRV07", {400, "invalid_request_error", "not_supported"}},
    {"SRV08", {400, "invalid_request_error", "unknown_parameter"}},
    {"SRV09", {429, "rate_limit", "queue_full"}},
    {"SRV10", {503, "overloaded", "draining"}},
    {"SRV11", {503, "overloaded", "draining"}},
    {"SRV12", {503, "overloaded", "cancelled"}},
    {"SRV13", {504, "timeout", "deadline_exceeded"}},
    {"SRV15", {400, "invalid_request_error", "missing_required_parameter"}},
    {"SRV20", {422, "invalid_request_error", "below_threshold"}},
    {"SRV30", {403, "permission_error", "no_experts_folder"}},
    {"SRV31", {403, "permission_error", "outside_experts_folder"}},
    {"SRV33", {404, "invalid_request_error", "expert_not_found"}},
    {"CTX01", {400, "invalid_request_error", "context_length_exceeded"}},
    {"KV02", {400, "invalid_request_error", "context_length_exceeded"}},
};

struct api_failure failure_of(int rc, const struct artel_error *err)
{
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
        if (!strcmp(failures[i].cause, err->code))
            return failures[i].failure;
    switch (rc) {
    case ARTEL_EUSAGE:
    case ARTEL_EFORMAT:
        return (struct api_failure){400, "invalid_request_error", NULL};
    case ARTEL_ECONFLICT:
        return (struct api_failure){409, "invalid_request_error", "conflict"};
    case ARTEL_EIO:
    case ARTEL_ELIMIT:
        return (struct api_failure){503, "server_error", NULL};
    default:
        return (struct api_failure){500, "server_error", NULL};
    }
}

void failure_message(char *out, size_t size, const struct artel_error *err)
{
    const bool place = err->where[0] && strcmp(err->code, "SRV04") != 0;

    snprintf(out, size, "%s%s%s%s%s [%s]", !strcmp(err->file, "body") ? "body: " : "",
             place ? err->where : "", place ? ": " : "", err->reason, "", err->code);
}

/* The field that is at fault, where there is one. */
static const char *failure_param(int rc, const struct artel_error *err)
{
    return rc == ARTEL_EUSAGE && err->where[0] ? err->where : NULL;
}

json_t *failure_object(int rc, const struct artel_error *err)
{
    const struct api_failure f = failure_of(rc, err);
    char message[700];

    failure_message(message, sizeof(message), err);
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", message, "type",
                     f.type, "param", failure_param(rc, err), "code", f.code);
}

void api_refuse(struct exchange *x, int rc, const struct artel_error *err)
{
    const struct api_failure f = failure_of(rc, err);
    char message[700];

    failure_message(message, sizeof(message), err);
    exchange_error(x, f.status, f.type, failure_param(rc, err), f.code, "%s", message);
}

void api_reply(struct exchange *x, int status, json_t *o)
{
    char *const text = o ? json_dumps(o, API_JSON) : NULL;

    json_decref(o);
    if (text)
        exchange_reply(x, status, "application/json", text, strlen(text));
    else
        exchange_error(x, 503, "server_error", NULL, NULL, "no memory for this answer");
    free(text);
}

/* ---- short ones ---- */

static json_t *models(struct api *a)
{
    struct loaded *const who = catalogue_current(a->catalogue);
    json_t *const list = catalogue_list(a->catalogue, engine_context(a->engine, who));

    loaded_let_go(who);
    return list;
}

static void list_models(void *user, struct exchange *x)
{
    api_reply(x, 200, json_pack("{s:s, s:o}", "object", "list", "data", models(user)));
}

static void one_model(void *user, struct exchange *x)
{
    const char *const name = exchange_path(x) + strlen("/v1/models/");
    json_t *const list = models(user), *model, *found = NULL;
    char given[96];
    size_t i;

    json_array_foreach(list, i, model)
    {
        const char *const id = json_string_value(json_object_get(model, "id"));

        if (id && !strcmp(id, name))
            found = json_incref(model);
    }
    json_decref(list);
    if (found)
        api_reply(x, 200, found);
    else
        exchange_error(x, 404, "invalid_request_error", "model", "model_not_found",
                       "the model '%s' does not exist",
                       escape_text(given, sizeof(given), name, strlen(name)));
}

static void describe(void *user, struct exchange *x)
{
    api_reply(x, 200, catalogue_describe(((struct api *)user)->catalogue));
}

void api_health(void *user, struct exchange *x)
{
    const struct api *const a = user;
    struct engine_stats s;
    const char *status = "ok";
    double step;

    engine_stats(a->engine, &s);
    step = s.step_started > 0 ? clock_seconds() - s.step_started : 0;
    if (a->draining)
        status = "draining";
    else if (step > STUCK_SECONDS)
        status = "stuck";
    api_reply(x, strcmp(status, "ok") ? 503 : 200,
              json_pack("{s:s, s:I, s:I, s:I, s:f}", "status", status, "running",
                        (json_int_t)s.running, "waiting", (json_int_t)s.waiting,
                        "seats", (json_int_t)s.seats, "step_seconds", step));
}

const struct http_route api_routes[] = {
    {"POST", "/v1/chat/completions", HTTP_KEY, api_chat},
    {"POST", "/v1/completions", HTTP_KEY, api_completions},
    {"POST", "/v1/embeddings", HTTP_KEY, api_embeddings},
    {"GET", "/v1/models", HTTP_KEY, list_models},
    {"GET", "/v1/models/", HTTP_KEY, one_model},
    {"POST", "/tokenize", HTTP_KEY, api_tokenize},
    {"POST", "/detokenize", HTTP_KEY, api_detokenize},
    {"GET", "/health", HTTP_OPEN, api_health},
    {"GET", "/metrics", HTTP_KEY, api_metrics},
    {"GET", "/artel/mixture", HTTP_KEY, describe},
    {"POST", "/v1/experts", HTTP_ADMIN, api_add_expert},
    {"DELETE", "/v1/experts/", HTTP_ADMIN, api_remove_expert},
    {"POST", "/v1/reload", HTTP_ADMIN, api_reload},
    {"POST", "/v1/load_lora_adapter", HTTP_ADMIN, api_load_adapter},
    {"POST", "/v1/unload_lora_adapter", HTTP_ADMIN, api_unload_adapter},
    {"GET", "/", HTTP_OPEN, page_serve},
    {"GET", "/page/", HTTP_OPEN, page_serve},
};
const size_t n_api_routes = sizeof(api_routes) / sizeof(api_routes[0]);
