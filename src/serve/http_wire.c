/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections, and a thread that watches them. libmicrohttpd looks away from a connection
 * that waits for its reply, and knows one deadline, which every byte puts off; so the
 * watcher
 *
 *   - is told by epoll when a client closes, or half-closes, which counts as leaving: its
 *     request is not worked on any more;
 *   - closes who sends a head or a body too slowly (408), is silent between requests, or
 *     does not take its reply, seen by the bytes that TCP has acknowledged;
 *   - reads for a while what refused clients still send, for TCP takes back an answer
 *     that was not read when its connection is closed on unread bytes.
 */
#define _GNU_SOURCE /* POLLRDHUP */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "serve/http_parts.h"

#define LOOK_SECONDS    0.5 /* between two looks at a silent connection */
#define TICK_MS         100
#define REFUSED_SECONDS 2.0 /* for what a refused client still sends */
#define SAID_SECONDS    0.25
#define LINGER_BYTES    ((size_t)1 << 20)
#define SEND_BUFFER     (128 << 10)
#define TOLD_AT_ONCE    64

static struct tcp_info tcp_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
        memset(&info, 0, sizeof(info));
    return info;
}

void wire_enter(struct wire *w, enum wire_phase phase)
{
    const double now = clock_seconds();

    w->phase = phase;
    w->since = w->moved = w->due = now;
    if (phase == WIRE_IDLE)
        w->received = tcp_of(w->fd).tcpi_bytes_received;
}

void wire_cut(struct wire *w)
{
    w->phase = WIRE_CUT;
    shutdown(w->fd, SHUT_RDWR);
}

static const char *reason_of(int status)
{
    switch (status) {
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    default:
        return "Service Unavailable";
    }
}

void wire_say(struct wire *w, int status, const char *message)
{
    char body[1200], text[1600];
    const size_t n_body = http_error_text(
        body, sizeof(body), message,
        status == 503 ? "overloaded_error" : "invalid_request_error", NULL, NULL);
    const int n = snprintf(text, sizeof(text),
                           "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\n%sConnection: close\r\n\r\n%s",
                           status, reason_of(status), n_body,
                           status == 503 ? "Retry-After: 1\r\n" : "", body);
    const ssize_t sent = send(w->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);

    (void)sent; /* a reply that its reader has no room for is lost to him */
    w->refused = true;
    w->phase = WIRE_CUT;
    w->since = w->due = clock_seconds();
    shutdown(w->fd, SHUT_WR);
}

bool wire_is_left(const struct wire *w)
{
    struct pollfd p = {.fd = w->fd, .events = POLLRDHUP};

    return poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

bool wire_left(struct wire *w)
{
    struct exchange *const x = w->now;

    if (!x || x->ended || x->gone)
        return false;
    x->gone = true;
    wire_cut(w);
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(x->connection);
    }
    if (!x->on_gone)
        return false;
    x->telling = true;
    x->teller = pthread_self();
    x->holders++;
    return true;
}

/* ---- they come and go ---- */

static struct wire *wire_new(struct http *h)
{
    struct wire *w = h->free_wires, **larger;

    if (w) {
        h->free_wires = w->next;
        return w;
    }
    if (h->n_wires == h->wires_room) {
        const size_t room = h->wires_room ? 2 * h->wires_room : 64;

        larger = realloc(h->wires, room * sizeof(struct wire *));
        if (!larger)
            return NULL;
        h->wires = larger;
        h->wires_room = room;
    }
    w = calloc(1, sizeof(*w));
    if (w)
        h->wires[h->n_wires++] = w;
    return w;
}

static void name_client(struct wire *w, const struct sockaddr *a)
{
    char text[INET6_ADDRSTRLEN] = "?";

    if (a && a->sa_family == AF_INET) {
        const struct sockaddr_in *const in = (const void *)a;

        inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
        snprintf(w->client, sizeof(w->client), "%s:%u", text, ntohs(in->sin_port));
    } else if (a && a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *const in = (const void *)a;

        inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof(text));
        snprintf(w->client, sizeof(w->client), "[%s]:%u", text, ntohs(in->sin6_port));
    } else {
        snprintf(w->client, sizeof(w->client), "?");
    }
}

static void wake_watcher(struct http *h)
{
    const uint64_t one = 1;
    const ssize_t n = write(h->wake_fd, &one, sizeof(one));

    (void)n; /* full: it wakes anyway */
}

static struct wire *wire_open(struct http *h, int fd, const struct sockaddr *a)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET};
    const int room = SEND_BUFFER;
    struct wire *const w = wire_new(h);

    if (!w)
        return NULL;
    memset(w, 0, sizeof(*w));
    w->http = h;
    w->fd = fd;
    w->open = true;
    name_client(w, a);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    wire_enter(w, WIRE_IDLE);
    event.data.ptr = w;
    epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    if (h->stats.connections++ == 0)
        wake_watcher(h);
    return w;
}

/* A closed connection's descriptor goes on here, where a refusal may still be unread. */
static void linger(struct http *h, const struct wire *w)
{
    char byte;

    if (h->n_lingering == HTTP_LINGERING || h->closing ||
        recv(w->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        return;
    const int fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return;
    shutdown(fd, SHUT_WR);
    h->lingering[h->n_lingering++] =
        (struct lingering){.fd = fd, .until = clock_seconds() + REFUSED_SECONDS};
}

static void wire_close(struct wire *w)
{
    struct http *const h = w->http;

    epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    if (w->refused)
        linger(h, w);
    w->open = false;
    w->fd = -1;
    w->next = h->free_wires;
    h->free_wires = w;
    h->stats.connections--;
}

void http_on_wire(void *cls, struct MHD_Connection *c, void **ctx,
                  enum MHD_ConnectionNotificationCode what)
{
    struct http *const h = cls;
    bool too_many = false;
    char client[56] = "";

    pthread_mutex_lock(&h->lock);
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*ctx)
            wire_close(*ctx);
        *ctx = NULL;
    } else {
        const union MHD_ConnectionInfo *const fd =
            MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        const union MHD_ConnectionInfo *const address =
            MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        struct wire *const w =
            wire_open(h, fd->connect_fd, address ? address->client_addr : NULL);

        *ctx = w;
        too_many = w && h->stats.connections > h->o.max_connections;
        if (too_many) {
            wire_say(w, 503, "this server has as many connections as it takes");
            memcpy(client, w->client, sizeof(client));
            h->stats.refused++;
        }
    }
    pthread_mutex_unlock(&h->lock);
    if (too_many)
        log_refusal(h, client, 503);
}

/* ---- the watcher ---- */

/* Those to be told that their client has left, once the lock is free. */
struct told {
    struct exchange *at[TOLD_AT_ONCE];
    size_t n;
};

static void leave(struct wire *w, struct told *t)
{
    struct exchange *const x = w->now;

    if (wire_left(w))
        t->at[t->n++] = x;
}

/* Has its reader taken anything since the last look? */
static void look_at_reader(struct wire *w, double now, struct told *t)
{
    const struct tcp_info info = tcp_of(w->fd);

    if (info.tcpi_bytes_acked != w->acked ||
        (!info.tcpi_unacked && !info.tcpi_notsent_bytes))
        w->moved = now;
    w->acked = info.tcpi_bytes_acked;
    if (now - w->moved < w->http->o.write_seconds)
        return;
    if (w->phase == WIRE_WAITING)
        leave(w, t);
    else
        wire_cut(w);
}

/* Libmicrohttpd 0.9 overlooks an end that comes together with the last bytes. Once it has
 * read those and nothing came of them, nothing will. */
static bool has_said_all(const struct wire *w, double now)
{
    int unread = 0;

    return w->said && now - w->said >= SAID_SECONDS &&
           (ioctl(w->fd, FIONREAD, &unread) < 0 || !unread);
}

static void look_at(struct wire *w, double now, struct told *t)
{
    const struct http_options *const o = &w->http->o;
    const double age = now - w->since;

    w->due = now + (w->phase == WIRE_IDLE ? LOOK_SECONDS : LOOK_SECONDS / 4);
    if (w->phase <= WIRE_BODY && has_said_all(w, now)) {
        wire_cut(w);
        return;
    }
    switch (w->phase) {
    case WIRE_IDLE:
        if (tcp_of(w->fd).tcpi_bytes_received != w->received)
            wire_enter(w, WIRE_HEAD);
        else if (age >= o->idle_seconds)
            wire_cut(w);
        break;
    case WIRE_HEAD:
        if (age >= o->head_seconds)
            wire_say(w, 408, "the head of the request came too slowly");
        break;
    case WIRE_BODY:
        if (age < o->body_seconds)
            break;
        if (w->now)
            w->now->status = 408;
        wire_say(w, 408, "the body of the request came too slowly");
        break;
    case WIRE_WORKING:
        break;
    case WIRE_WAITING:
    case WIRE_SENDING:
        look_at_reader(w, now, t);
        break;
    case WIRE_CUT:
        if (age >= REFUSED_SECONDS)
            shutdown(w->fd, SHUT_RDWR);
        break;
    }
}

/* What refused clients still send is read and thrown away. */
static void read_on(struct http *h, double now)
{
    char waste[16 << 10];

    for (size_t i = 0; i < h->n_lingering;) {
        struct lingering *const l = &h->lingering[i];
        size_t n = 0;
        ssize_t got;

        while ((got = recv(l->fd, waste, sizeof(waste), MSG_DONTWAIT)) > 0 &&
               n < LINGER_BYTES)
            n += (size_t)got;
        if (got == 0 || (got < 0 && errno != EAGAIN) || now >= l->until) {
            close(l->fd);
            *l = h->lingering[--h->n_lingering];
        } else {
            i++;
        }
    }
}

static void tick(struct http *h, struct told *t)
{
    const double now = clock_seconds();

    for (size_t i = 0; i < h->n_wires && t->n < TOLD_AT_ONCE; i++)
        if (h->wires[i]->open && now >= h->wires[i]->due)
            look_at(h->wires[i], now, t);
    read_on(h, now);
}

static void *watch(void *user)
{
    struct http *const h = user;
    struct epoll_event events[TOLD_AT_ONCE];
    double ticked = 0;
    bool on = true, idle = true;

    while (on) {
        const int n =
            epoll_wait(h->epoll_fd, events, TOLD_AT_ONCE, idle ? -1 : TICK_MS);
        struct told t = {.n = 0};

        pthread_mutex_lock(&h->lock);
        for (int i = 0; i < n; i++) {
            struct wire *const w = events[i].data.ptr;
            uint64_t count;

            /* It may be another client's by now: looked at, not believed. */
            if (w && w->open && wire_is_left(w)) {
                w->said = clock_seconds();
                if (w->phase == WIRE_WAITING)
                    leave(w, &t);
            }
            if (!w && read(h->wake_fd, &count, sizeof(count)) < 0)
                continue;
        }
        if (clock_seconds() - ticked >= TICK_MS / 1000.0 && !t.n) {
            ticked = clock_seconds();
            tick(h, &t);
        }
        idle = !h->stats.connections && !h->n_lingering;
        on = h->watching;
        pthread_mutex_unlock(&h->lock);
        for (size_t i = 0; i < t.n; i++)
            exchange_tell(t.at[i]);
    }
    return NULL;
}

int watch_open(struct http *h, struct artel_error *err)
{
    struct epoll_event event = {.events = EPOLLIN};
    int rc;

    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->epoll_fd < 0 || h->wake_fd < 0 ||
        epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->wake_fd, &event) < 0)
        return error_set(err, ARTEL_ELIMIT, "SRV01", NULL,
                         "no descriptors to watch with: %s", strerror(errno));
    h->watching = true;
    rc = pthread_create(&h->watcher, NULL, watch, h);
    if (rc) {
        h->watching = false;
        return error_set(err, ARTEL_ELIMIT, "SRV01", NULL,
                         "no thread to watch with: %s", strerror(rc));
    }
    return 0;
}

void watch_close(struct http *h)
{
    bool on;

    pthread_mutex_lock(&h->lock);
    on = h->watching;
    h->watching = false;
    pthread_mutex_unlock(&h->lock);
    if (on) {
        wake_watcher(h);
        pthread_join(h->watcher, NULL);
    }
    for (size_t i = 0; i < h->n_lingering; i++)
        close(h->lingering[i].fd);
    if (h->wake_fd >= 0)
        close(h->wake_fd);
    if (h->epoll_fd >= 0)
        close(h->epoll_fd);
}
