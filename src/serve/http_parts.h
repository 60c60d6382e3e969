/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server inside: connections, requests on them, and who may touch what.
 *
 * Three kinds of threads meet here: libmicrohttpd's, which reads, writes and calls
 * handlers; the watcher, which sees deadlines and clients that leave; and whoever
 * answers. Everything that two of them use is under the server's one lock, which is held
 * for moments and never while code of others runs (a handler, ON_GONE).
 */
#ifndef ARTEL_SERVE_HTTP_PARTS_H
#define ARTEL_SERVE_HTTP_PARTS_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serve/http.h"

#define HTTP_POOL_BYTES  ((size_t)16 << 10) /* the head of a request fits in there */
#define HTTP_URL_MAX     ((size_t)8 << 10)
#define HTTP_CHUNK_BYTES ((size_t)16 << 10)
#define HTTP_ID_LENGTH   16
#define HTTP_LINGERING   64

enum wire_phase {
    WIRE_IDLE,    /* nothing of a request has come */
    WIRE_HEAD,    /* a part of its head */
    WIRE_BODY,    /* the head, and perhaps a part of its body */
    WIRE_WORKING, /* its handler runs */
    WIRE_WAITING, /* its handler has returned, the reply is not complete */
    WIRE_SENDING, /* the reply is complete, its reader has not taken all of it */
    WIRE_CUT      /* shut down by us */
};

/* A connection. Never freed before the server: the watcher may still have its address. */
struct wire {
    struct http *http;
    int fd;
    bool open;
    enum wire_phase phase;
    double since;      /* of the phase */
    double due;        /* when the watcher looks again */
    double moved;      /* when its reader last took something, or had nothing to take */
    uint64_t received; /* bytes, at the end of the request before */
    uint64_t acked;    /* bytes that its reader has taken */
    double said;       /* when its client has closed his half; 0: not yet */
    bool refused;      /* what it still sends is thrown away, so that it can read why */
    struct exchange *now;
    char client[56];
    struct wire *next; /* of the free ones */
};

struct pair {
    char *name, *value;
    struct pair *next;
};

struct exchange {
    struct http *http;
    struct wire *wire;                 /* NULL once libmicrohttpd is done with it */
    struct MHD_Connection *connection; /* the same; for its own thread alone */
    unsigned holders;                  /* libmicrohttpd, who answers, who tells him */
    char id[HTTP_ID_LENGTH + 1];
    char client[56];
    char *url;  /* as it came */
    char *path; /* decoded, where HAS_PATH */
    bool has_path;
    char method[24];
    const struct http_route *route;
    double started;
    bool seen;   /* its head has been looked at */
    bool handed; /* to its handler */

    char *body; /* (n_body), room for body_room and a 0 */
    size_t n_body, body_room;

    int status; /* 0: not begun */
    char type[80];
    struct pair *headers, *notes;
    char *out; /* (n_out), sent up to OUT_AT */
    size_t n_out, out_at, out_room;
    bool streams, ended, queued, suspended, close_after;
    bool collects; /* HTTP/1.0 has no chunks: a stream goes out when it has ended */
    uint64_t sent; /* bytes of the reply's body that were handed over */

    bool gone;
    void (*on_gone)(void *user);
    void *gone_user;
    bool telling; /* ON_GONE runs in TELLER */
    pthread_t teller;
};

struct key {
    unsigned char digest[32];
    bool admin;
};

struct lingering {
    int fd;
    double until;
};

struct http {
    struct http_options o; /* strings are copies */
    struct key *keys;      /* (n_keys), admin ones too */
    size_t n_keys;
    bool has_keys, has_admin_keys;
    bool loopback; /* Host is checked */
    uint16_t port;
    int listen_fd;
    struct MHD_Daemon *daemon;

    pthread_mutex_t lock;
    pthread_cond_t told;
    unsigned holders; /* the owner and every exchange */
    bool closing, hushed;
    unsigned n_working; /* handlers that run */
    atomic_bool draining;
    struct http_stats stats;
    struct wire **wires; /* (n_wires) all there ever were, open ones and free ones */
    size_t n_wires, wires_room;
    struct wire *free_wires;
    uint64_t id_state;

    int epoll_fd, wake_fd;
    pthread_t watcher;
    bool watching;
    struct lingering lingering[HTTP_LINGERING];
    size_t n_lingering;

    pthread_mutex_t log_lock;
    int log_fd; /* -1: none */
    uint64_t log_lost;
};

void http_drop(struct http *h); /* one holder less */

/* ---- http_request.c: what libmicrohttpd calls ---- */
void *http_on_line(void *cls, const char *uri, struct MHD_Connection *c);
enum MHD_Result http_on_request(void *cls, struct MHD_Connection *c, const char *url,
                                const char *method, const char *version,
                                const char *upload, size_t *n_upload, void **ctx);
void http_on_completed(void *cls, struct MHD_Connection *c, void **ctx,
                       enum MHD_RequestTerminationCode why);

/* ---- http_reply.c ---- */
struct exchange *exchange_new(struct http *h, struct wire *w, struct MHD_Connection *c,
                              const char *url);
void exchange_drop(struct exchange *x); /* one holder less; not under the lock */
/* Hand what has been answered to libmicrohttpd. In its thread, not under the lock: it has
 * locks of its own, which it holds when it calls us. */
enum MHD_Result exchange_queue(struct exchange *x);
/* {"error": ...} in OUT; returns its length. */
size_t http_error_text(char *out, size_t size, const char *message, const char *type,
                       const char *param, const char *code);

/* ---- http_guard.c: may this request be? ---- */
/* What is wrong with the head of X, answered; false: go on. METHOD, VERSION: as sent. */
bool guard_refuses(struct exchange *x, const char *method, const char *version);
/* The path of URL decoded into OUT, which has as much room, without its query; false: it
 * is malformed. */
bool guard_decode(char *out, const char *url);
int guard_keys(struct http *h, const struct http_options *o, struct artel_error *err);

/* ---- http_heads.c: what the lines of a head say of each other ---- */
/* NULL, or what is malformed. METHOD, TARGET and VERSION as libmicrohttpd gave them. */
const char *heads_malformed(struct MHD_Connection *c, const char *method,
                            const char *target, const char *version);
size_t heads_count(struct MHD_Connection *c, const char *name);

/* ---- http_wire.c: connections and their deadlines ---- */
void http_on_wire(void *cls, struct MHD_Connection *c, void **ctx,
                  enum MHD_ConnectionNotificationCode what);
int watch_open(struct http *h, struct artel_error *err);
void watch_close(struct http *h);
/* Under the lock. */
void wire_enter(struct wire *w, enum wire_phase phase);
/* Whole reply to who does not reach a handler any more, past libmicrohttpd; and close. */
void wire_say(struct wire *w, int status, const char *message);
void wire_cut(struct wire *w);
bool wire_is_left(const struct wire *w); /* closed or half-closed by the client */
/* The client has left while its request is answered. True: who answers is to be told, by
 * exchange_tell() once the lock is free; X is held until then. */
bool wire_left(struct wire *w);
void exchange_tell(struct exchange *x);

/* ---- http_log.c ---- */
int log_open(struct http *h, const char *path, struct artel_error *err);
void log_close(struct http *h);
void log_exchange(struct exchange *x);
/* A connection that was turned away, or a request that libmicrohttpd refused itself. */
void log_refusal(struct http *h, const char *client, int status);
/* TEXT as a JSON string in OUT (SIZE), cut to what fits; returns its length. */
size_t json_quote(char *out, size_t size, const char *text);

#endif
