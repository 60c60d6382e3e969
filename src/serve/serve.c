/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel_serve(): the parts of this folder put together, and their orderly end: handlers
 * are hushed before what they use is closed, and who writes is told before his reader is.
 */
#include "artel.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"

#ifdef ARTEL_HAS_MICROHTTPD
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "serve/api.h"
#include "serve/serve_keys.h"

#define LOOK_NS      50000000L /* between two looks at what may have stopped */
#define LAST_SECONDS 2.0       /* for readers to take what is written */
#define OTHER_FILES  128       /* descriptors beside those of connections */
#endif

void artel_serve_options_default(struct artel_serve_options *o)
{
    *o = (struct artel_serve_options){.host = "127.0.0.1",
                                      .port = 8080,
                                      .seats = 16,
                                      .queue = 256,
                                      .cache_bytes = (size_t)1 << 30,
                                      .max_body = (size_t)1 << 20,
                                      .max_connections = 512,
                                      .max_choices = 16,
                                      .request_seconds = 600,
                                      .grace_seconds = 30,
                                      .below = "base",
                                      .page = 1};
    artel_open_options_default(&o->open);
}

#ifdef ARTEL_HAS_MICROHTTPD

struct server {
    struct serve_keys keys, admin_keys;
    struct catalogue *catalogue;
    struct engine *engine;
    struct grammar_pieces *pieces;
    struct api api;
    bool api_is_open;
    struct http *http;
};

static void look_later(void)
{
    const struct timespec t = {.tv_nsec = LOOK_NS};

    nanosleep(&t, NULL);
}

static int check(const struct artel_serve_options *o, struct artel_error *err)
{
    if (strcmp(o->below, "base") != 0 && strcmp(o->below, "refused") != 0)
        return error_set(err, ARTEL_EUSAGE, "SRV03", "below",
                         "must be base or refused");
    if (o->port > 65535)
        return error_set(err, ARTEL_EUSAGE, "SRV03", "port", "must be at most 65535");
    if (o->seats > 32)
        return error_set(err, ARTEL_EUSAGE, "SRV03", "seats", "must be at most 32");
    if (!(o->threshold >= 0 && o->threshold <= 1))
        return error_set(err, ARTEL_EUSAGE, "SRV03", "threshold",
                         "must be from 0 to 1");
    return 0;
}

/* A descriptor for every connection, as far as the system lets us. */
static size_t make_room(size_t n_connections)
{
    const rlim_t wanted = (rlim_t)n_connections + OTHER_FILES;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
        return n_connections;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted)
        return n_connections;
    n_connections =
        limit.rlim_cur > 2 * OTHER_FILES ? (size_t)limit.rlim_cur - OTHER_FILES : 16;
    log_warn("the limit of open files leaves room for %zu connections", n_connections);
    return n_connections;
}

static int open_engine(struct server *s, const char *path,
                       const struct artel_serve_options *o, struct artel_error *err)
{
    const struct engine_options eo = {.seats = o->seats,
                                      .queue = o->queue,
                                      .context = o->context,
                                      .cache_bytes = o->cache_bytes};
    struct loaded *first;
    int rc = catalogue_open(&s->catalogue, path, o->experts, &o->open, err);

    if (!rc)
        rc = engine_open(&s->engine, &eo, err);
    if (rc < 0)
        return rc;
    first = catalogue_current(s->catalogue);
    rc = engine_check_room(s->engine, first, err);
    if (rc < 0) {
        loaded_let_go(first);
        return rc;
    }
    rc = grammar_pieces_open(&s->pieces, first->mixture->model->tokenizer, err);
    loaded_let_go(first);
    /* Without an end of turn no answer can be held to a form; all else works. */
    return rc == ARTEL_EUSAGE ? 0 : rc;
}

static int open_http(struct server *s, const struct artel_serve_options *o,
                     struct artel_error *err)
{
    struct http_options ho;

    http_options_default(&ho);
    ho.host = o->host;
    ho.port = (uint16_t)o->port;
    ho.routes = api_routes;
    ho.n_routes = n_api_routes;
    ho.user = &s->api;
    ho.keys = (const char *const *)s->keys.at;
    ho.n_keys = s->keys.n;
    ho.admin_keys = (const char *const *)s->admin_keys.at;
    ho.n_admin_keys = s->admin_keys.n;
    ho.hosts = o->hosts;
    ho.n_hosts = o->n_hosts;
    ho.origins = o->origins;
    ho.n_origins = o->n_origins;
    ho.access_log = o->access_log;
    ho.max_body = o->max_body;
    ho.max_connections = make_room(o->max_connections);
    cpu_unpin(); /* its threads inherit this one's CPU, on which the engine computes */
    return http_open(&s->http, &ho, err);
}

static int open_all(struct server *s, const char *path,
                    const struct artel_serve_options *o, struct artel_error *err)
{
    int rc = check(o, err);

    if (!rc)
        rc = serve_keys_init(&s->keys, o->keys, err);
    if (!rc)
        rc = serve_keys_init(&s->admin_keys, o->admin_keys, err);
    if (!rc)
        rc = open_engine(s, path, o, err);
    if (rc < 0)
        return rc;
    s->api =
        (struct api){.engine = s->engine,
                     .catalogue = s->catalogue,
                     .pieces = s->pieces,
                     .max_choices = o->max_choices,
                     .max_tokens = o->max_tokens,
                     .request_seconds = o->request_seconds,
                     .threshold = (float)o->threshold,
                     .below = strcmp(o->below, "base") ? BELOW_REFUSED : BELOW_BASE,
                     .strict = o->strict,
                     .page = o->page,
                     .started = clock_seconds()};
    rc = api_open(&s->api, err);
    s->api_is_open = rc == 0;
    return rc ? rc : open_http(s, o, err);
}

static void tell_ready(const struct server *s, const struct artel_serve_options *o)
{
    const bool bare6 = strchr(o->host, ':') && o->host[0] != '[';
    char url[320];

    snprintf(url, sizeof(url), "http://%s%s%s:%u", bare6 ? "[" : "", o->host,
             bare6 ? "]" : "", http_port(s->http));
    if (o->on_ready)
        o->on_ready(o->user, url);
}

static size_t n_exchanges(struct server *s)
{
    struct http_stats stats;

    http_stats(s->http, &stats);
    return stats.exchanges;
}

static int asked_to_stop(const struct artel_serve_options *o)
{
    return o->stopped ? *o->stopped : 0;
}

static int asked_to_reopen(const struct artel_serve_options *o)
{
    return o->reopened ? *o->reopened : 0;
}

/* Time passes; what was asked for meanwhile, *REOPENED being what had been, is done. */
static void pass_time(struct server *s, const struct artel_serve_options *o,
                      int *reopened)
{
    const int asked = asked_to_reopen(o);
    struct artel_error err;

    if (asked != *reopened && http_reopen_log(s->http, o->access_log, &err) < 0)
        log_warn("%s: %s; lines go on to where they went", err.file, err.reason);
    *reopened = asked;
    look_later();
}

/* Until it is asked to stop, and then until everyone has his answer or the time is up. */
static void serve(struct server *s, const struct artel_serve_options *o)
{
    int reopened = asked_to_reopen(o);
    double end;

    while (!asked_to_stop(o))
        pass_time(s, o, &reopened);
    s->api.draining = true;
    http_drain(s->http);
    engine_drain(s->engine);
    end = clock_seconds() + o->grace_seconds;
    while (asked_to_stop(o) < 2 && clock_seconds() < end &&
           (n_exchanges(s) || !engine_idle(s->engine)))
        pass_time(s, o, &reopened);
}

static void close_all(struct server *s)
{
    const double end = clock_seconds() + LAST_SECONDS;

    if (s->http)
        http_hush(s->http);
    engine_close(s->engine); /* what is under way ends with an error, told by the API */
    if (s->api_is_open)
        api_close(&s->api);
    while (s->http && n_exchanges(s) && clock_seconds() < end)
        look_later();
    http_close(s->http);
    grammar_pieces_close(s->pieces);
    catalogue_close(s->catalogue);
    serve_keys_release(&s->keys);
    serve_keys_release(&s->admin_keys);
}

int artel_serve(const char *path, const struct artel_serve_options *o,
                struct artel_error *err)
{
    struct server s = {0};
    int rc = open_all(&s, path, o, err);

    if (!rc) {
        s.api.http = s.http;
        tell_ready(&s, o);
        serve(&s, o);
    }
    close_all(&s);
    return rc;
}

#else

int artel_serve(const char *path, const struct artel_serve_options *o,
                struct artel_error *err)
{
    (void)path;
    (void)o;
    return error_set(err, ARTEL_ELIMIT, "SRV00", NULL,
                     "this library was built without a server");
}

#endif
