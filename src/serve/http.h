/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 by libmicrohttpd, with what it leaves to its user: limits on everything that a
 * client sends, deadlines for slow ones, keys, Host and Origin, an access log, and watching
 * the connections that wait for an answer.
 *
 * An exchange is one request and its reply. Its handler runs once the body is there and
 * returns at once; the reply may be written then or later, from any thread.
 */
#ifndef ARTEL_SERVE_HTTP_H
#define ARTEL_SERVE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;
struct http;
struct exchange;

enum http_access { HTTP_OPEN, HTTP_KEY, HTTP_ADMIN };

typedef void http_handler(void *user, struct exchange *x);

struct http_route {
    const char *method; /* "POST"; "GET" serves HEAD too */
    const char *path; /* "/v1/models"; one that ends in "/" serves what lies below it */
    enum http_access access;
    http_handler *handler;
};

struct http_options {
    const char *host;                /* address to listen at, "127.0.0.1" */
    uint16_t port;                   /* 0: any that is free */
    const struct http_route *routes; /* (n_routes) must outlive the server */
    size_t n_routes;
    void *user;              /* given to handlers */
    const char *const *keys; /* (n_keys); none: no key is asked for */
    size_t n_keys;
    const char *const *admin_keys; /* (n_admin_keys); none: HTTP_ADMIN is 403 for all */
    size_t n_admin_keys;
    const char *const
        *hosts; /* (n_hosts) accepted in Host beside the address itself and
                               * localhost; checked where HOST is loopback */
    size_t n_hosts;
    const char *const *origins; /* (n_origins) of browsers that may call; "*": all */
    size_t n_origins;
    size_t max_body;        /* bytes, 1 MiB */
    size_t max_connections; /* 512 */
    size_t max_buffered;  /* bytes of a stream that its reader has not taken, 256 KiB */
    double head_seconds;  /* deadline for the head of a request, 10 */
    double body_seconds;  /* for its body, 30 */
    double idle_seconds;  /* between requests, 60 */
    double write_seconds; /* a reader that takes nothing, 30 */
    const char
        *access_log; /* JSON lines: a path, "-" for standard output, NULL: none */
};
void http_options_default(struct http_options *o);

/* ARTEL_EIO SRV01 names address and reason where it cannot listen. */
int http_open(struct http **out, const struct http_options *o, struct artel_error *err);
uint16_t http_port(const struct http *h); /* where it listens */
/* From now on requests are refused with 503, but for HTTP_OPEN routes; replies under way
 * go on, and connections close after them. */
void http_drain(struct http *h);
/* The access log was moved away: what follows goes to a new file at PATH, or on to where it
 * went where there can be none. Nothing where PATH is NULL or "-". */
int http_reopen_log(struct http *h, const char *path, struct artel_error *err);
/* No handler runs when this returns, and none is called any more: what they use may be
 * closed. Replies go on. */
void http_hush(struct http *h);
/* Ends every exchange: to who answers, its client has left. He may still end it later. */
void http_close(struct http *h);

struct http_stats {
    size_t connections, exchanges; /* now */
    uint64_t requests, refused;    /* answered, and of those with 429 or 503 */
    uint64_t status[6];            /* [2]: those with 2xx, and so on */
    uint64_t bytes_in, bytes_out;
};
void http_stats(struct http *h, struct http_stats *out);

/* ---- in a handler ---- */
const char *exchange_method(const struct exchange *x);
const char *exchange_path(const struct exchange *x); /* decoded, without the query */
const char *exchange_header(const struct exchange *x, const char *name); /* or NULL */
const char *exchange_body(const struct exchange *x,
                          size_t *n); /* until it is answered */
const char *
exchange_id(const struct exchange *x); /* for logs and answers: 16 letters */

/* ---- the reply, from any thread; each exchange is answered once ---- */
/* A header of the reply; before it begins. NAME and VALUE are copied. */
void exchange_set_header(struct exchange *x, const char *name, const char *value);
/* A word for the access log: "expert":"sql". VALUE is escaped there. */
void exchange_note(struct exchange *x, const char *name, const char *value);
/* The whole reply; BODY (N bytes) is copied. X is gone afterwards. */
void exchange_reply(struct exchange *x, int status, const char *type, const char *body,
                    size_t n);
/* An error in OpenAI's form; PARAM and CODE may be NULL. X is gone afterwards. */
void exchange_error(struct exchange *x, int status, const char *type, const char *param,
                    const char *code, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* A reply in pieces: begin, write any number of times, end. Write returns not 0 when nobody
 * takes it any more (the client is gone, or MAX_BUFFERED is reached); end must still
 * be called. */
void exchange_stream(struct exchange *x, int status, const char *type);
int exchange_write(struct exchange *x, const char *bytes, size_t n);
void exchange_end(struct exchange *x); /* X is gone afterwards */
/* FN is called once, from a thread of the server, if the client leaves (or half-closes)
 * before the reply has ended; the reply must still be ended. Set it in the handler. Once
 * exchange_reply, _error or _end has returned it is neither running nor called any more; no
 * lock that exchange_write, _note or _set_header takes is held while it runs. */
void exchange_on_gone(struct exchange *x, void (*fn)(void *user), void *user);

#endif
