/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request on its way in, as libmicrohttpd tells of it: its line, its head, pieces of
 * its body, that it is whole, and that its reply is over.
 *
 * A reply that is not there when the handler returns suspends the connection; whoever
 * answers resumes it (http_reply.c).
 */
#include <stdlib.h>
#include <string.h>

#include "serve/http_parts.h"

static struct wire *wire_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *const info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

void *http_on_line(void *cls, const char *uri, struct MHD_Connection *c)
{
    struct http *const h = cls;
    struct wire *const w = wire_of(c);
    struct exchange *x;

    if (!w || w->http != h)
        return NULL;
    x = exchange_new(h, w, c, uri);
    pthread_mutex_lock(&h->lock);
    if (w->phase == WIRE_IDLE)
        wire_enter(w, WIRE_HEAD);
    w->now = x;
    pthread_mutex_unlock(&h->lock);
    return x;
}

/* The request that X was made for will not reach a handler: nobody answers but us. */
static enum MHD_Result give_up(struct exchange *x)
{
    x->ended = true;
    exchange_drop(x);
    return MHD_NO;
}

static enum MHD_Result look_at_head(struct exchange *x, const char *method,
                                    const char *version)
{
    struct http *const h = x->http;
    bool dead;

    pthread_mutex_lock(&h->lock);
    dead = x->wire->phase == WIRE_CUT || h->closing;
    pthread_mutex_unlock(&h->lock);
    if (dead)
        return give_up(x);
    if (guard_refuses(x, method, version)) {
        x->handed = true;
        pthread_mutex_lock(&h->lock);
        if (x->wire->phase != WIRE_CUT)
            wire_enter(x->wire, WIRE_SENDING);
        x->wire->refused = x->close_after;
        pthread_mutex_unlock(&h->lock);
        /* At once closes the connection; at the second call it may go on. */
        return x->close_after ? exchange_queue(x) : MHD_YES;
    }
    pthread_mutex_lock(&h->lock);
    if (x->wire->phase != WIRE_CUT)
        wire_enter(x->wire, WIRE_BODY);
    pthread_mutex_unlock(&h->lock);
    return MHD_YES;
}

/* Past libmicrohttpd, which takes no reply while a body comes. */
static enum MHD_Result cut_short(struct exchange *x, int status, const char *message)
{
    struct http *const h = x->http;

    pthread_mutex_lock(&h->lock);
    if (x->wire->phase != WIRE_CUT) {
        x->status = status;
        wire_say(x->wire, status, message);
    }
    pthread_mutex_unlock(&h->lock);
    return give_up(x);
}

static enum MHD_Result take_body(struct exchange *x, const char *piece, size_t n)
{
    struct http *const h = x->http;

    if (n > h->o.max_body - x->n_body)
        return cut_short(x, 413, "the body is larger than this server takes");
    if (x->n_body + n > x->body_room) {
        size_t room = x->body_room ? 2 * x->body_room : HTTP_CHUNK_BYTES;
        char *larger;

        while (room < x->n_body + n)
            room *= 2;
        if (room > h->o.max_body)
            room = h->o.max_body;
        larger = realloc(x->body, room + 1);
        if (!larger)
            return cut_short(x, 503, "no memory for this request");
        x->body = larger;
        x->body_room = room;
    }
    memcpy(x->body + x->n_body, piece, n);
    x->n_body += n;
    x->body[x->n_body] = '\0';
    pthread_mutex_lock(&h->lock);
    h->stats.bytes_in += n;
    pthread_mutex_unlock(&h->lock);
    return MHD_YES;
}

/* The request is whole: hand it out, once. False: its connection is dead. */
static bool handle(struct exchange *x)
{
    struct http *const h = x->http;
    bool dead, hushed;

    pthread_mutex_lock(&h->lock);
    dead = x->wire->phase == WIRE_CUT || h->closing;
    hushed = h->hushed;
    if (!dead)
        wire_enter(x->wire, WIRE_WORKING);
    if (!dead && !hushed)
        h->n_working++;
    pthread_mutex_unlock(&h->lock);
    if (dead)
        return false;
    if (hushed) {
        exchange_error(x, 503, "overloaded_error", NULL, "draining",
                       "the server is about to stop");
        return true;
    }
    x->route->handler(h->o.user, x);
    pthread_mutex_lock(&h->lock);
    h->n_working--;
    pthread_cond_broadcast(&h->told);
    pthread_mutex_unlock(&h->lock);
    return true;
}

static enum MHD_Result reply_or_wait(struct exchange *x)
{
    struct http *const h = x->http;
    enum MHD_Result rc = MHD_YES;
    bool tell = false, ready = false;

    pthread_mutex_lock(&h->lock);
    if (x->wire->phase == WIRE_WORKING)
        wire_enter(x->wire, x->ended ? WIRE_SENDING : WIRE_WAITING);
    if (!x->ended && (h->closing || wire_is_left(x->wire)))
        tell = wire_left(x->wire);
    if (x->gone || x->wire->phase == WIRE_CUT) {
        rc = MHD_NO;
    } else if (x->status && (x->ended || !x->collects)) {
        ready = true;
    } else {
        MHD_suspend_connection(x->connection);
        x->suspended = true;
    }
    pthread_mutex_unlock(&h->lock);
    if (tell)
        exchange_tell(x);
    return ready ? exchange_queue(x) : rc;
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *c, const char *url,
                                const char *method, const char *version,
                                const char *upload, size_t *n_upload, void **ctx)
{
    struct exchange *const x = *ctx;
    enum MHD_Result rc;

    (void)cls;
    (void)url;
    if (!x) { /* no memory even for that */
        struct wire *const w = wire_of(c);

        if (w) {
            pthread_mutex_lock(&w->http->lock);
            wire_say(w, 503, "no memory for this request");
            pthread_mutex_unlock(&w->http->lock);
        }
        return MHD_NO;
    }
    if (!x->seen) {
        x->seen = true;
        return look_at_head(x, method, version);
    }
    if (*n_upload) {
        rc = take_body(x, upload, *n_upload);
        *n_upload = 0;
        return rc;
    }
    if (!x->handed) {
        x->handed = true;
        if (!handle(x))
            return give_up(x);
    }
    return reply_or_wait(x);
}

void http_on_completed(void *cls, struct MHD_Connection *c, void **ctx,
                       enum MHD_RequestTerminationCode why)
{
    struct exchange *const x = *ctx;
    const union MHD_ConnectionInfo *const info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_HTTP_STATUS);
    struct http *h;
    bool tell = false, nobody;

    (void)cls;
    *ctx = NULL;
    if (!x)
        return;
    h = x->http;
    pthread_mutex_lock(&h->lock);
    nobody = !x->handed && !x->ended;
    if (nobody) { /* libmicrohttpd refused it on its own, or its sender has left */
        if (!x->status && info)
            x->status = (int)info->http_status;
        x->wire->refused = x->status != 0;
        x->gone = x->status == 0;
        x->ended = true;
    }
    if (!x->ended)
        tell = wire_left(x->wire);
    else if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK && x->queued)
        x->gone = true;
    if (x->wire->phase != WIRE_CUT)
        wire_enter(x->wire, WIRE_IDLE);
    x->wire->now = NULL;
    x->wire = NULL;
    x->connection = NULL;
    pthread_mutex_unlock(&h->lock);
    if (tell)
        exchange_tell(x);
    if (nobody)
        exchange_drop(x); /* for who would have answered */
    exchange_drop(x);
}
