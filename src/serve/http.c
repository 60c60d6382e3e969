/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: opened, drained, closed. It listens on a socket of its own making, so that
 * a failure can be told as the system told it.
 */
#include "serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "serve/http_parts.h"

#define BACKLOG         4096
#define REFUSED_AT_ONCE 256 /* connections above the limit that are being told so */

void http_options_default(struct http_options *o)
{
    *o = (struct http_options){.host = "127.0.0.1",
                               .max_body = (size_t)1 << 20,
                               .max_connections = 512,
                               .max_buffered = (size_t)256 << 10,
                               .head_seconds = 10,
                               .body_seconds = 30,
                               .idle_seconds = 60,
                               .write_seconds = 30};
}

/* ---- listening ---- */

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >>
                   24 ==
               127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(
               &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof(a);

    if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6
                     ? ((const struct sockaddr_in6 *)(const void *)&a)->sin6_port
                     : ((const struct sockaddr_in *)(const void *)&a)->sin_port);
}

static int listen_at(struct http *h, const struct addrinfo *a)
{
    const int on = 1;
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        const int error = errno;

        close(fd);
        return error;
    }
    h->listen_fd = fd;
    h->loopback = is_loopback(a->ai_addr);
    h->port = port_of(fd);
    return 0;
}

static int start_listening(struct http *h, struct artel_error *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char port[8], name[160];
    int rc, error = 0;

    snprintf(port, sizeof(port), "%u", h->o.port);
    rc = getaddrinfo(h->o.host, port, &hints, &found);
    if (rc)
        return error_set(err, ARTEL_EIO, "SRV01",
                         escape_text(name, sizeof(name), h->o.host, strlen(h->o.host)),
                         "cannot listen at this address: %s", gai_strerror(rc));
    error = listen_at(h, found);
    freeaddrinfo(found);
    if (error)
        return error_set(err, ARTEL_EIO, "SRV01",
                         escape_text(name, sizeof(name), h->o.host, strlen(h->o.host)),
                         "cannot listen at port %u: %s", h->o.port, strerror(error));
    return 0;
}

/* Names in a request are taken as libmicrohttpd found them; guard_decode() decodes. */
static size_t leave_escaped(void *cls, struct MHD_Connection *c, char *text)
{
    (void)cls;
    (void)c;
    return strlen(text);
}

static int start_daemon(struct http *h, struct artel_error *err)
{
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
    const unsigned limit = (unsigned)(h->o.max_connections + REFUSED_AT_ONCE);

    h->daemon = MHD_start_daemon(
        flags, h->port, NULL, NULL, http_on_request, h, MHD_OPTION_LISTEN_SOCKET,
        h->listen_fd, MHD_OPTION_CONNECTION_LIMIT, limit,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_POOL_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_URI_LOG_CALLBACK, http_on_line, h,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        http_on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, http_on_wire, h,
        MHD_OPTION_END);
    if (!h->daemon)
        return error_set(err, ARTEL_ELIMIT, "SRV01", h->o.host,
                         "cannot start to serve: %s", strerror(errno));
    h->listen_fd = -1; /* its own now */
    return 0;
}

/* ---- options ---- */

static int copy_texts(const char *const **out, const char *const *in, size_t n,
                      struct artel_error *err)
{
    const char **const list = calloc(n + 1, sizeof(*list));

    *out = list;
    for (size_t i = 0; list && i < n; i++)
        if (!(list[i] = strdup(in[i])))
            return error_nomem(err, strlen(in[i]));
    return list ? 0 : error_nomem(err, n * sizeof(*list));
}

static void free_texts(const char *const *list, size_t n)
{
    for (size_t i = 0; list && i < n; i++)
        free((void *)(uintptr_t)list[i]);
    free((void *)(uintptr_t)list);
}

static int copy_options(struct http *h, const struct http_options *o,
                        struct artel_error *err)
{
    int rc;

    h->o = *o;
    h->o.keys = h->o.admin_keys = h->o.hosts = h->o.origins = NULL;
    h->o.n_keys = h->o.n_admin_keys = 0;
    h->o.access_log = NULL;
    h->o.host = strdup(o->host);
    rc = h->o.host ? 0 : error_nomem(err, strlen(o->host));
    if (!rc)
        rc = copy_texts(&h->o.hosts, o->hosts, o->n_hosts, err);
    if (!rc)
        rc = copy_texts(&h->o.origins, o->origins, o->n_origins, err);
    if (!rc)
        rc = guard_keys(h, o, err);
    return rc;
}

/* ---- life ---- */

int http_open(struct http **out, const struct http_options *o, struct artel_error *err)
{
    struct http *const h = calloc(1, sizeof(*h));
    int rc;

    *out = NULL;
    if (!h)
        return error_nomem(err, sizeof(*h));
    h->holders = 1;
    h->listen_fd = h->epoll_fd = h->wake_fd = h->log_fd = -1;
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->log_lock, NULL);
    pthread_cond_init(&h->told, NULL);
    if (getrandom(&h->id_state, sizeof(h->id_state), 0) != sizeof(h->id_state))
        h->id_state = (uint64_t)(1e9 * clock_seconds());
    rc = copy_options(h, o, err);
    if (!rc)
        rc = log_open(h, o->access_log, err);
    if (!rc)
        rc = start_listening(h, err);
    if (!rc)
        rc = watch_open(h, err);
    if (!rc)
        rc = start_daemon(h, err);
    if (rc < 0) {
        http_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}

void http_drain(struct http *h)
{
    h->draining = true;
}

void http_hush(struct http *h)
{
    pthread_mutex_lock(&h->lock);
    h->hushed = true;
    while (h->n_working)
        pthread_cond_wait(&h->told, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

void http_drop(struct http *h)
{
    bool last;

    pthread_mutex_lock(&h->lock);
    last = --h->holders == 0;
    pthread_mutex_unlock(&h->lock);
    if (!last)
        return;
    log_close(h);
    free(h->keys);
    free((void *)(uintptr_t)h->o.host);
    free_texts(h->o.hosts, h->o.n_hosts);
    free_texts(h->o.origins, h->o.n_origins);
    for (size_t i = 0; i < h->n_wires; i++)
        free(h->wires[i]);
    free(h->wires);
    pthread_cond_destroy(&h->told);
    pthread_mutex_destroy(&h->log_lock);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/* Everyone who still answers is told that nobody listens. */
static void leave_all(struct http *h)
{
    for (size_t i = 0;; i++) {
        struct exchange *x = NULL;

        pthread_mutex_lock(&h->lock);
        h->closing = true;
        if (i >= h->n_wires) {
            pthread_mutex_unlock(&h->lock);
            return;
        }
        if (h->wires[i]->open && h->wires[i]->phase == WIRE_WAITING) {
            x = h->wires[i]->now;
            if (!wire_left(h->wires[i]))
                x = NULL;
        }
        pthread_mutex_unlock(&h->lock);
        if (x)
            exchange_tell(x);
    }
}

void http_close(struct http *h)
{
    if (!h)
        return;
    leave_all(h);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    watch_close(h);
    if (h->listen_fd >= 0)
        close(h->listen_fd);
    http_drop(h);
}

void http_stats(struct http *h, struct http_stats *out)
{
    pthread_mutex_lock(&h->lock);
    *out = h->stats;
    pthread_mutex_unlock(&h->lock);
}
