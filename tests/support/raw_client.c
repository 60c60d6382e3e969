/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking sockets and poll().
 */
#include "support/raw_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

double raw_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void raw_open(struct raw *r, unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons((unsigned short)port)};

    r->n = r->n_body = 0;
    r->have[0] = '\0';
    r->status = 0;
    r->closed = false;
    r->head[0] = r->body[0] = '\0';
    r->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (r->fd < 0 || connect(r->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        perror("connect");
        abort();
    }
}

bool raw_send(struct raw *r, const void *bytes, size_t n)
{
    const char *p = bytes;

    while (n) {
        const ssize_t sent = send(r->fd, p, n, MSG_NOSIGNAL);

        if (sent < 0)
            return false;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

bool raw_say(struct raw *r, const char *text)
{
    return raw_send(r, text, strlen(text));
}

/* More bytes; false: the server has closed, or nothing came in time. */
static bool more(struct raw *r, double seconds)
{
    struct pollfd p = {.fd = r->fd, .events = POLLIN};
    ssize_t n;

    if (r->closed || r->n + 1 >= sizeof(r->have) ||
        poll(&p, 1, (int)(1000 * seconds)) != 1)
        return false;
    n = recv(r->fd, r->have + r->n, sizeof(r->have) - 1 - r->n, 0);
    if (n <= 0) {
        r->closed = true;
        return false;
    }
    r->n += (size_t)n;
    return true;
}

static void take(struct raw *r, size_t n)
{
    memmove(r->have, r->have + n, r->n - n);
    r->n -= n;
}

/* Up to and with END; its length, or 0. */
static size_t until(struct raw *r, const char *end, double seconds)
{
    for (;;) {
        const char *found;

        r->have[r->n] = '\0';
        found = strstr(r->have, end);
        if (found)
            return (size_t)(found - r->have) + strlen(end);
        if (!more(r, seconds))
            return 0;
    }
}

static bool take_body(struct raw *r, size_t n, double seconds)
{
    while (r->n < n)
        if (!more(r, seconds))
            break;
    if (n > r->n)
        n = r->n;
    if (r->n_body + n < sizeof(r->body)) {
        memcpy(r->body + r->n_body, r->have, n);
        r->n_body += n;
    }
    r->body[r->n_body] = '\0';
    take(r, n);
    return true;
}

static void take_chunks(struct raw *r, double seconds)
{
    for (;;) {
        const size_t line = until(r, "\r\n", seconds);
        size_t n;

        if (!line)
            return;
        n = strtoul(r->have, NULL, 16);
        take(r, line);
        take_body(r, n, seconds);
        if (!until(r, "\r\n", seconds))
            return;
        take(r, 2);
        if (!n)
            return;
    }
}

int raw_reply(struct raw *r, double seconds)
{
    const char *length, *coding;
    size_t n;

    r->status = 0;
    r->n_body = 0;
    r->head[0] = r->body[0] = '\0';
    n = until(r, "\r\n\r\n", seconds);
    if (!n || n >= sizeof(r->head))
        return 0;
    memcpy(r->head, r->have, n);
    r->head[n] = '\0';
    take(r, n);
    if (sscanf(r->head, "HTTP/1.%*d %d", &r->status) != 1)
        return r->status = -1;
    coding = raw_header(r, "Transfer-Encoding");
    if (coding && !strcasecmp(coding, "chunked")) {
        take_chunks(r, seconds);
        return r->status;
    }
    length = raw_header(r, "Content-Length");
    take_body(r, length ? strtoul(length, NULL, 10) : 0, seconds);
    return r->status;
}

bool raw_closes(struct raw *r, double seconds)
{
    const double end = raw_now() + seconds;

    while (!r->closed && raw_now() < end) {
        r->n = 0;
        more(r, end - raw_now() > 0 ? end - raw_now() : 0);
    }
    return r->closed;
}

const char *raw_header(struct raw *r, const char *name)
{
    static char value[1024];
    const size_t n = strlen(name);

    for (const char *p = strstr(r->head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        if (!strncasecmp(p + 2, name, n) && p[2 + n] == ':') {
            const char *const v = p + 3 + n + strspn(p + 3 + n, " ");

            snprintf(value, sizeof(value), "%.*s", (int)strcspn(v, "\r"), v);
            return value;
        }
    return NULL;
}

void raw_close(struct raw *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
}

int raw_ask(struct raw *r, unsigned port, const void *bytes, size_t n)
{
    raw_open(r, port);
    raw_send(r, bytes, n);
    raw_reply(r, 3);
    raw_closes(r, 0.25);
    raw_close(r);
    return r->status;
}
