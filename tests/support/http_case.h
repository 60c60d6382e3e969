/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server with small handlers, for tests of what stands before handlers.
 *
 *     GET  /health   open       POST /echo     the body        GET  /tree/    what is below
 *     POST /later    the body after 50 ms, from another thread
 *     POST /stream   "word " for ever, each 10 ms        POST /flood    as fast as it goes
 *     POST /hold     nothing, until the client leaves    POST /admin
 */
#ifndef ARTEL_TESTS_HTTP_CASE_H
#define ARTEL_TESTS_HTTP_CASE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "artel.h"
#include "check.h"
#include "serve/http.h"
#include "support/raw_client.h"

struct http_case {
    struct http *http;
    struct http_options o;
    unsigned port;
    pthread_mutex_t lock;
    unsigned n_threads;        /* answering */
    unsigned n_handled;        /* handlers called */
    unsigned n_left, n_broken; /* ON_GONE calls; writes that were refused */
    double left_at;
    size_t flooded; /* bytes that were taken of the last flood */
};

/* One answer under way. */
struct http_job {
    struct http_case *c;
    struct exchange *x;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool gone;
    char body[256];
    size_t n;
};

static inline void job_gone(void *user)
{
    struct http_job *const j = user;

    pthread_mutex_lock(&j->c->lock);
    j->c->n_left++;
    j->c->left_at = raw_now();
    pthread_mutex_unlock(&j->c->lock);
    pthread_mutex_lock(&j->lock);
    j->gone = true;
    pthread_cond_signal(&j->moved);
    pthread_mutex_unlock(&j->lock);
}

static inline void job_over(struct http_job *j)
{
    struct http_case *const c = j->c;

    pthread_cond_destroy(&j->moved);
    pthread_mutex_destroy(&j->lock);
    free(j);
    pthread_mutex_lock(&c->lock);
    c->n_threads--;
    pthread_mutex_unlock(&c->lock);
}

static inline void *job_later(void *user)
{
    struct http_job *const j = user;

    usleep(50000);
    exchange_reply(j->x, 200, "text/plain", j->body, j->n);
    job_over(j);
    return NULL;
}

static inline void *job_stream(void *user)
{
    struct http_job *const j = user;
    bool broken = false;

    exchange_stream(j->x, 200, "text/event-stream");
    for (int i = 0; i < 3000 && !broken; i++) {
        broken = exchange_write(j->x, "word ", 5) != 0;
        usleep(10000);
        if (j->n && i + 1 == atoi(j->body))
            break;
    }
    pthread_mutex_lock(&j->c->lock);
    j->c->n_broken += broken;
    pthread_mutex_unlock(&j->c->lock);
    exchange_end(j->x);
    job_over(j);
    return NULL;
}

static inline void *job_flood(void *user)
{
    static const char piece[4096];
    struct http_job *const j = user;
    size_t n = 0;

    exchange_stream(j->x, 200, "text/plain");
    while (n < (size_t)64 << 20 && !exchange_write(j->x, piece, sizeof(piece)))
        n += sizeof(piece);
    pthread_mutex_lock(&j->c->lock);
    j->c->flooded = n;
    j->c->n_broken++;
    pthread_mutex_unlock(&j->c->lock);
    exchange_end(j->x);
    job_over(j);
    return NULL;
}

static inline void *job_hold(void *user)
{
    struct http_job *const j = user;

    pthread_mutex_lock(&j->lock);
    while (!j->gone)
        pthread_cond_wait(&j->moved, &j->lock);
    pthread_mutex_unlock(&j->lock);
    exchange_error(j->x, 500, "server_error", NULL, NULL, "nobody listens");
    job_over(j);
    return NULL;
}

static inline void start_job(struct http_case *c, struct exchange *x,
                             void *(*fn)(void *))
{
    struct http_job *const j = calloc(1, sizeof(*j));
    const char *body;
    pthread_attr_t attr;
    pthread_t thread;

    assert_non_null(j);
    j->c = c;
    j->x = x;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->moved, NULL);
    body = exchange_body(x, &j->n);
    j->n = j->n < sizeof(j->body) - 1 ? j->n : sizeof(j->body) - 1;
    memcpy(j->body, body, j->n);
    exchange_on_gone(x, job_gone, j);
    pthread_mutex_lock(&c->lock);
    c->n_threads++;
    c->n_handled++;
    pthread_mutex_unlock(&c->lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    assert_int_equal(pthread_create(&thread, &attr, fn, j), 0);
    pthread_attr_destroy(&attr);
}

static inline void on_later(void *user, struct exchange *x)
{
    start_job(user, x, job_later);
}

static inline void on_stream(void *user, struct exchange *x)
{
    start_job(user, x, job_stream);
}

static inline void on_flood(void *user, struct exchange *x)
{
    start_job(user, x, job_flood);
}

static inline void on_hold(void *user, struct exchange *x)
{
    start_job(user, x, job_hold);
}

static inline void on_health(void *user, struct exchange *x)
{
    (void)user;
    exchange_reply(x, 200, "application/json", "{\"status\":\"ok\"}", 15);
}

static inline void on_echo(void *user, struct exchange *x)
{
    struct http_case *const c = user;
    size_t n;
    const char *const body = exchange_body(x, &n);

    pthread_mutex_lock(&c->lock);
    c->n_handled++;
    pthread_mutex_unlock(&c->lock);
    exchange_note(x, "expert", "a\nb\x1b[31m\xff");
    exchange_reply(x, 200, "application/json", body, n);
}

static inline void on_tree(void *user, struct exchange *x)
{
    (void)user;
    exchange_reply(x, 200, "text/plain", exchange_path(x), strlen(exchange_path(x)));
}

static const struct http_route case_routes[] = {
    {"GET", "/health", HTTP_OPEN, on_health},  {"POST", "/echo", HTTP_KEY, on_echo},
    {"POST", "/later", HTTP_KEY, on_later},    {"POST", "/stream", HTTP_KEY, on_stream},
    {"POST", "/flood", HTTP_KEY, on_flood},    {"POST", "/hold", HTTP_KEY, on_hold},
    {"POST", "/admin", HTTP_ADMIN, on_echo},   {"GET", "/tree/", HTTP_KEY, on_tree},
    {"DELETE", "/tree/", HTTP_ADMIN, on_tree}, {"GET", "/", HTTP_OPEN, on_health}};

static inline void case_prepare(struct http_case *c)
{
    memset(c, 0, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    http_options_default(&c->o);
    c->o.routes = case_routes;
    c->o.n_routes = sizeof(case_routes) / sizeof(case_routes[0]);
    c->o.user = c;
}

static inline void case_open(struct http_case *c)
{
    struct artel_error err = {0};

    if (http_open(&c->http, &c->o, &err) != 0)
        fail_msg("%s", err.reason);
    c->port = http_port(c->http);
}

static inline unsigned case_get(struct http_case *c, const unsigned *what)
{
    unsigned v;

    pthread_mutex_lock(&c->lock);
    v = *what;
    pthread_mutex_unlock(&c->lock);
    return v;
}

/* Wait until *WHAT is N; false: not within SECONDS. */
static inline bool case_wait(struct http_case *c, const unsigned *what, unsigned n,
                             double seconds)
{
    const double end = raw_now() + seconds;

    while (case_get(c, what) != n && raw_now() < end)
        usleep(1000);
    return case_get(c, what) == n;
}

static inline void case_close(struct http_case *c)
{
    http_close(c->http);
    assert_true(case_wait(c, &c->n_threads, 0, 5));
    pthread_mutex_destroy(&c->lock);
}

/* Once clients have closed, no connection may stay behind. */
static inline void case_empties(struct http_case *c)
{
    const double end = raw_now() + 6;
    struct http_stats stats;

    do {
        usleep(2000);
        http_stats(c->http, &stats);
    } while ((stats.connections || stats.exchanges) && raw_now() < end);
    if (stats.connections || stats.exchanges)
        fail_msg("%zu connections and %zu exchanges are left", stats.connections,
                 stats.exchanges);
}

/* The status of the reply to exactly these bytes. */
static inline int case_ask(struct http_case *c, struct raw *r, const char *text)
{
    return raw_ask(r, c->port, text, strlen(text));
}

#endif
