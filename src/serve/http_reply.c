/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reply on its way out. It may be written by any thread: what is written waits here
 * until libmicrohttpd's thread takes it, which is resumed for that.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "serve/http_parts.h"

#define COLLECTED 16 /* times max_buffered, where a reply cannot go out in pieces */

static const char no_memory[] =
    "{\"error\":{\"message\":\"no memory for this answer\",\"type\":\"server_error\","
    "\"param\":null,\"code\":null}}";

static void pairs_free(struct pair *p)
{
    while (p) {
        struct pair *const next = p->next;

        free(p);
        p = next;
    }
}

/* In front of LIST, with its texts behind it in one block; nothing without memory. */
static void pairs_add(struct pair **list, const char *name, const char *value)
{
    const size_t n_name = strlen(name) + 1, n_value = strlen(value) + 1;
    struct pair *const p = malloc(sizeof(*p) + n_name + n_value);

    if (!p)
        return;
    p->name = memcpy((char *)(p + 1), name, n_name);
    p->value = memcpy(p->name + n_name, value, n_value);
    p->next = *list;
    *list = p;
}

static const char *pairs_find(const struct pair *p, const char *name)
{
    while (p && strcasecmp(p->name, name) != 0)
        p = p->next;
    return p ? p->value : NULL;
}

/* 16 letters, each server's own sequence (splitmix64). */
static void new_id(struct http *h, char out[HTTP_ID_LENGTH + 1])
{
    uint64_t v = h->id_state += 0x9e3779b97f4a7c15u;

    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9u;
    v = (v ^ v >> 27) * 0x94d049bb133111ebu;
    v ^= v >> 31;
    for (size_t i = 0; i < HTTP_ID_LENGTH; i++, v >>= 4)
        out[i] = "abcdefghkmnpqrst"[v & 15];
    out[HTTP_ID_LENGTH] = '\0';
}

struct exchange *exchange_new(struct http *h, struct wire *w, struct MHD_Connection *c,
                              const char *url)
{
    struct exchange *const x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    x->http = h;
    x->wire = w;
    x->connection = c;
    x->holders = 2;
    x->started = clock_seconds();
    x->url = strdup(url);
    x->path = calloc(1, strlen(url) + 1);
    snprintf(x->client, sizeof(x->client), "%s", w->client);
    if (!x->url || !x->path) {
        free(x->url);
        free(x->path);
        free(x);
        return NULL;
    }
    x->has_path = guard_decode(x->path, url);
    pthread_mutex_lock(&h->lock);
    h->holders++;
    h->stats.exchanges++;
    new_id(h, x->id);
    pthread_mutex_unlock(&h->lock);
    return x;
}

static void count(struct http *h, const struct exchange *x)
{
    h->stats.exchanges--;
    if (!x->status && !x->gone) /* its connection was turned away before */
        return;
    h->stats.requests++;
    h->stats.status[x->status >= 100 && x->status < 600 ? x->status / 100 : 0]++;
    h->stats.refused += x->status == 429 || x->status == 503;
}

void exchange_drop(struct exchange *x)
{
    struct http *const h = x->http;
    bool last;

    pthread_mutex_lock(&h->lock);
    last = --x->holders == 0;
    if (last)
        count(h, x);
    pthread_mutex_unlock(&h->lock);
    if (!last)
        return;
    if (x->status || x->gone)
        log_exchange(x);
    pairs_free(x->headers);
    pairs_free(x->notes);
    free(x->url);
    free(x->path);
    free(x->body);
    free(x->out);
    free(x);
    http_drop(h);
}

const char *exchange_method(const struct exchange *x)
{
    return x->method;
}

const char *exchange_path(const struct exchange *x)
{
    return x->path;
}

const char *exchange_header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

const char *exchange_body(const struct exchange *x, size_t *n)
{
    *n = x->n_body;
    return x->body ? x->body : "";
}

const char *exchange_id(const struct exchange *x)
{
    return x->id;
}

void exchange_set_header(struct exchange *x, const char *name, const char *value)
{
    pairs_add(&x->headers, name, value);
}

void exchange_note(struct exchange *x, const char *name, const char *value)
{
    pairs_add(&x->notes, name, value);
}

void exchange_on_gone(struct exchange *x, void (*fn)(void *user), void *user)
{
    x->on_gone = fn;
    x->gone_user = user;
}

/* ---- towards libmicrohttpd, in its thread ---- */

static ssize_t read_stream(void *cls, uint64_t at, char *buf, size_t max)
{
    struct exchange *const x = cls;
    struct http *const h = x->http;
    ssize_t n;

    (void)at;
    pthread_mutex_lock(&h->lock);
    if (x->gone) {
        /* Its socket is shut down, so that the end is not seen there. Told of an error,
         * libmicrohttpd 0.9 would forget a connection that it has just resumed. */
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (x->out_at < x->n_out) {
        n = (ssize_t)(x->n_out - x->out_at < max ? x->n_out - x->out_at : max);
        memcpy(buf, x->out + x->out_at, (size_t)n);
        x->out_at += (size_t)n;
        x->sent += (uint64_t)n;
        h->stats.bytes_out += (uint64_t)n;
    } else if (x->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        MHD_suspend_connection(x->connection);
        x->suspended = true;
        n = 0;
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}

static void add_headers(struct MHD_Response *r, const struct exchange *x)
{
    if (x->type[0])
        MHD_add_response_header(r, "Content-Type", x->type);
    for (const struct pair *p = x->headers; p; p = p->next)
        MHD_add_response_header(r, p->name, p->value);
    MHD_add_response_header(r, "X-Request-Id", x->id);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (!pairs_find(x->headers, "Cache-Control"))
        MHD_add_response_header(r, "Cache-Control", "no-store");
    if (x->streams) /* a proxy must not collect it */
        MHD_add_response_header(r, "X-Accel-Buffering", "no");
    if ((x->status == 429 || x->status == 503) &&
        !pairs_find(x->headers, "Retry-After"))
        MHD_add_response_header(r, "Retry-After", "1");
    if (x->close_after || x->http->draining)
        MHD_add_response_header(r, "Connection", "close");
}

enum MHD_Result exchange_queue(struct exchange *x)
{
    struct MHD_Response *r;
    enum MHD_Result rc;

    if (x->queued)
        return MHD_YES;
    if (x->streams && !x->collects)
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_CHUNK_BYTES,
                                              read_stream, x, NULL);
    else if (x->out)
        r = MHD_create_response_from_buffer(x->n_out, x->out, MHD_RESPMEM_MUST_FREE);
    else
        r = MHD_create_response_from_buffer(x->n_out, (void *)(uintptr_t)no_memory,
                                            MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    if (!x->streams || x->collects) {
        x->out = NULL;
        if (strcmp(x->method, "HEAD") != 0)
            x->sent = x->n_out;
        pthread_mutex_lock(&x->http->lock);
        x->http->stats.bytes_out += x->sent;
        pthread_mutex_unlock(&x->http->lock);
    }
    add_headers(r, x);
    x->queued = true;
    rc = MHD_queue_response(x->connection, (unsigned)x->status, r);
    MHD_destroy_response(r);
    return rc;
}

/* ---- from who answers, in any thread ---- */

/* Under the lock: there is something new for libmicrohttpd's thread. */
static void wake(struct exchange *x)
{
    if (x->suspended && x->connection) {
        x->suspended = false;
        MHD_resume_connection(x->connection);
    }
}

/* Under the lock: the reply is complete; ON_GONE is not called any more. */
static void end(struct exchange *x)
{
    while (x->telling && !pthread_equal(x->teller, pthread_self()))
        pthread_cond_wait(&x->http->told, &x->http->lock);
    x->ended = true;
    if (x->wire && x->wire->phase == WIRE_WAITING)
        wire_enter(x->wire, WIRE_SENDING);
    wake(x);
}

static void set_type(struct exchange *x, const char *type)
{
    snprintf(x->type, sizeof(x->type), "%s", type ? type : "");
}

void exchange_reply(struct exchange *x, int status, const char *type, const char *body,
                    size_t n)
{
    struct http *const h = x->http;
    char *const copy = malloc(n + 1);

    if (copy)
        memcpy(copy, body, n);
    pthread_mutex_lock(&h->lock);
    x->status = copy ? status : 503;
    set_type(x, copy ? type : "application/json");
    x->out = copy;
    x->n_out = copy ? n : sizeof(no_memory) - 1;
    end(x);
    pthread_mutex_unlock(&h->lock);
    exchange_drop(x);
}

size_t http_error_text(char *out, size_t size, const char *message, const char *type,
                       const char *param, const char *code)
{
    char quoted[4][1100];

    json_quote(quoted[0], sizeof(quoted[0]), message);
    json_quote(quoted[1], sizeof(quoted[1]), type);
    json_quote(quoted[2], sizeof(quoted[2]), param ? param : "");
    json_quote(quoted[3], sizeof(quoted[3]), code ? code : "");
    return (size_t)snprintf(
        out, size, "{\"error\":{\"message\":%s,\"type\":%s,\"param\":%s,\"code\":%s}}",
        quoted[0], quoted[1], param ? quoted[2] : "null", code ? quoted[3] : "null");
}

void exchange_error(struct exchange *x, int status, const char *type, const char *param,
                    const char *code, const char *fmt, ...)
{
    char message[1024], body[4800];
    va_list args;
    size_t n;

    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    n = http_error_text(body, sizeof(body), message, type, param, code);
    if (code)
        exchange_note(x, "error", code);
    exchange_reply(x, status, "application/json", body, n);
}

void exchange_stream(struct exchange *x, int status, const char *type)
{
    pthread_mutex_lock(&x->http->lock);
    x->status = status;
    set_type(x, type);
    x->streams = true;
    if (!x->collects)
        wake(x);
    pthread_mutex_unlock(&x->http->lock);
}

/* Room for N more; what was sent is forgotten first. */
static bool make_room(struct exchange *x, size_t n)
{
    const size_t limit = x->http->o.max_buffered * (x->collects ? COLLECTED : 1);
    size_t room = x->out_room ? x->out_room : 1024;
    char *larger;

    if (x->out_at)
        memmove(x->out, x->out + x->out_at, x->n_out - x->out_at);
    x->n_out -= x->out_at;
    x->out_at = 0;
    if (n > limit - x->n_out)
        return false;
    if (x->n_out + n <= x->out_room)
        return true;
    while (room < x->n_out + n)
        room *= 2;
    larger = realloc(x->out, room);
    if (!larger)
        return false;
    x->out = larger;
    x->out_room = room;
    return true;
}

int exchange_write(struct exchange *x, const char *bytes, size_t n)
{
    struct http *const h = x->http;
    int rc = 0;

    pthread_mutex_lock(&h->lock);
    if (x->gone || !x->connection) {
        rc = -1;
    } else if (x->n_out + n > x->out_room && !make_room(x, n)) {
        rc = -1;
        x->gone = true; /* a stream with a hole must not look complete */
        if (x->wire)
            wire_cut(x->wire);
        wake(x);
    } else {
        memcpy(x->out + x->n_out, bytes, n);
        x->n_out += n;
        if (!x->collects)
            wake(x);
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

void exchange_end(struct exchange *x)
{
    struct http *const h = x->http;

    pthread_mutex_lock(&h->lock);
    end(x);
    pthread_mutex_unlock(&h->lock);
    exchange_drop(x);
}

void exchange_tell(struct exchange *x)
{
    struct http *const h = x->http;

    if (x->on_gone)
        x->on_gone(x->gone_user);
    pthread_mutex_lock(&h->lock);
    x->telling = false;
    pthread_cond_broadcast(&h->told);
    pthread_mutex_unlock(&h->lock);
    exchange_drop(x);
}
