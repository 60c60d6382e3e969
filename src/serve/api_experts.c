/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that come and go while the server runs, in our spelling and in vLLM's.
 *
 * Reading an adapter takes its time, so each such call has a thread of its own, which
 * replies; the catalogue lets one at a time change it.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/api_parts.h"
#include "serve/api_request.h"

#define LOADS_MAX 8 /* under way or waiting for each other */

struct api_loads {
    pthread_mutex_t lock;
    pthread_cond_t fewer;
    size_t n;
};

struct load {
    struct api *api;
    struct exchange *x;
    void (*run)(struct api *api, struct exchange *x);
};

struct api_loads *loads_open(void)
{
    struct api_loads *const l = calloc(1, sizeof(*l));

    if (l) {
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->fewer, NULL);
    }
    return l;
}

void loads_close(struct api_loads *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    while (l->n)
        pthread_cond_wait(&l->fewer, &l->lock);
    pthread_mutex_unlock(&l->lock);
    pthread_cond_destroy(&l->fewer);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void *load_run(void *user)
{
    struct load *const l = user;
    struct api_loads *const all = l->api->loads;

    l->run(l->api, l->x);
    free(l);
    pthread_mutex_lock(&all->lock);
    all->n--;
    pthread_cond_broadcast(&all->fewer);
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

/* Run it on a thread, unless there are too many or none can be had. */
static void load_begin(struct api *api, struct exchange *x,
                       void (*run)(struct api *api, struct exchange *x))
{
    struct load *const l = malloc(sizeof(*l));
    struct api_loads *const all = api->loads;
    pthread_t thread;
    bool room;

    pthread_mutex_lock(&all->lock);
    room = l && all->n < LOADS_MAX;
    all->n += room;
    pthread_mutex_unlock(&all->lock);
    if (room) {
        *l = (struct load){api, x, run};
        if (pthread_create(&thread, NULL, load_run, l) == 0) {
            pthread_detach(thread);
            return;
        }
        pthread_mutex_lock(&all->lock);
        all->n--;
        pthread_cond_broadcast(&all->fewer);
        pthread_mutex_unlock(&all->lock);
    }
    free(l);
    exchange_error(x, 429, "rate_limit", NULL, "busy",
                   "too many experts are being loaded at this moment");
}

/* What a call names. */
struct wanted {
    json_t *body;
    const char *name, *path;
    bool replace;
};

static int read_wanted(struct wanted *w, const struct api *api, struct exchange *x,
                       const char *const keys[3], bool needs_path,
                       struct artel_error *err)
{
    const char *const known[] = {keys[0], keys[1], keys[2], "lora_int_id", NULL};
    char ignored[256] = "";
    const char *body;
    size_t n;
    int rc;

    *w = (struct wanted){0};
    body = exchange_body(x, &n);
    rc = request_parse(&w->body, body, n, err);
    if (rc == 0)
        rc = need_text(w->body, keys[0], keys[0], &w->name, err);
    if (rc == 0 && needs_path)
        rc = need_text(w->body, keys[1], keys[1], &w->path, err);
    if (rc == 0)
        rc = want_flag(w->body, keys[2], keys[2], &w->replace, err);
    if (rc == 0)
        rc = request_unknown(ignored, sizeof(ignored), w->body, known, "", api->strict,
                             err);
    return rc;
}

/* A path that is not there is the caller's mistake; a mixture that cannot be read any more
 * is the server's. */
static void refuse_path(struct exchange *x, int rc, const struct artel_error *err)
{
    if (rc == ARTEL_EIO)
        exchange_error(x, 404, "invalid_request_error", "path", "path_not_found",
                       "%s [%s]", err->reason, err->code);
    else
        api_refuse(x, rc, err);
}

static const char *const our_keys[3] = {"name", "path", "replace"};
static const char *const vllm_keys[3] = {"lora_name", "lora_path", "load_inplace"};

static void run_add(struct api *api, struct exchange *x)
{
    struct artel_error err;
    struct wanted w;
    int rc = read_wanted(&w, api, x, our_keys, true, &err);

    if (rc < 0) {
        api_refuse(x, rc, &err);
    } else {
        rc = catalogue_add(api->catalogue, w.name, w.path, w.replace, &err);
        engine_trim(api->engine);
        exchange_note(x, "added", w.name);
        if (rc < 0)
            refuse_path(x, rc, &err);
        else
            api_reply(x, 201,
                      json_pack("{s:s, s:s, s:b}", "id", w.name, "object", "model",
                                "added", 1));
    }
    json_decref(w.body);
}

static void run_reload(struct api *api, struct exchange *x)
{
    struct artel_error err;
    const int rc = catalogue_reload(api->catalogue, &err);

    engine_trim(api->engine);
    if (rc == ARTEL_EFORMAT || rc == ARTEL_EIO)
        exchange_error(x, 503, "server_error", NULL, "reload_failed",
                       "the mixture cannot be read, the one before goes on: %s [%s]",
                       err.reason, err.code);
    else if (rc < 0)
        api_refuse(x, rc, &err);
    else
        api_reply(x, 200, json_pack("{s:s}", "status", "reloaded"));
}

/* vLLM's clients look for its texts, and for its types of errors. */
static void vllm_refuse(struct exchange *x, int rc, const struct artel_error *err)
{
    const bool missing = rc == ARTEL_EIO || !strcmp(err->code, "SRV33");
    const bool permission = !strcmp(err->code, "SRV30") || !strcmp(err->code, "SRV31");
    const int status = missing              ? 404
                       : permission         ? 403
                       : rc == ARTEL_ELIMIT ? 503
                                            : 400;
    char message[700];

    failure_message(message, sizeof(message), err);
    api_reply(x, status,
              json_pack("{s:{s:s, s:s, s:n, s:i}}", "error", "message", message, "type",
                        missing ? "NotFoundError"
                        : rc == ARTEL_EUSAGE || rc == ARTEL_ECONFLICT
                            ? "InvalidUserInput"
                            : "BadRequestError",
                        "param", "code", status));
}

static void vllm_done(struct exchange *x, const char *name, const char *what)
{
    char text[200];
    const int n = snprintf(text, sizeof(text),
                           "Success: LoRA adapter '%s' %s successfully.", name, what);

    exchange_reply(x, 200, "text/plain; charset=utf-8", text, (size_t)n);
}

static void run_load_adapter(struct api *api, struct exchange *x)
{
    struct artel_error err;
    struct wanted w;
    int rc = read_wanted(&w, api, x, vllm_keys, true, &err);

    if (rc == 0) {
        rc = catalogue_add(api->catalogue, w.name, w.path, w.replace, &err);
        engine_trim(api->engine);
    }
    if (rc < 0)
        vllm_refuse(x, rc, &err);
    else
        vllm_done(x, w.name, "added");
    json_decref(w.body);
}

void api_add_expert(void *user, struct exchange *x)
{
    load_begin(user, x, run_add);
}

void api_reload(void *user, struct exchange *x)
{
    load_begin(user, x, run_reload);
}

void api_load_adapter(void *user, struct exchange *x)
{
    load_begin(user, x, run_load_adapter);
}

/* Removing waits for a change that is under way, so that it has a thread too. */
static void run_remove(struct api *api, struct exchange *x)
{
    const char *const name = exchange_path(x) + strlen("/v1/experts/");
    struct artel_error err;
    const int rc = catalogue_remove(api->catalogue, name, &err);

    engine_trim(api->engine);
    if (rc < 0)
        api_refuse(x, rc, &err);
    else
        api_reply(
            x, 200,
            json_pack("{s:s, s:s, s:b}", "id", name, "object", "model", "deleted", 1));
}

void api_remove_expert(void *user, struct exchange *x)
{
    load_begin(user, x, run_remove);
}

static void run_unload(struct api *api, struct exchange *x)
{
    struct artel_error err;
    struct wanted w;
    int rc = read_wanted(&w, api, x, vllm_keys, false, &err);

    if (rc == 0) {
        rc = catalogue_remove(api->catalogue, w.name, &err);
        engine_trim(api->engine);
    }
    if (rc < 0)
        vllm_refuse(x, rc, &err);
    else
        vllm_done(x, w.name, "removed");
    json_decref(w.body);
}

void api_unload_adapter(void *user, struct exchange *x)
{
    load_begin(user, x, run_unload);
}
