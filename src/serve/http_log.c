/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The access log: a line of JSON for every request. Whatever a client sent is escaped, so
 * that a line is a line. A reader that stalls (a full pipe) loses lines instead of
 * stalling the server.
 */
#define _GNU_SOURCE /* dup3 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "files/json_scan.h"
#include "serve/http_parts.h"

#define LINE_ROOM 4000 /* a pipe takes this much at once */
#define TEXT_ROOM 1024

/* One byte as a JSON escape, where it cannot stand as it is. */
static size_t escaped(char out[7], unsigned char c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *const p = c ? strchr(plain, c) : NULL;

    if (p)
        return (size_t)snprintf(out, 7, "\\%c", letter[p - plain]);
    return (size_t)snprintf(out, 7, "\\u%04x", c);
}

size_t json_quote(char *out, size_t size, const char *text)
{
    const size_t n = strlen(text);
    size_t at = 0;

    out[at++] = '"';
    for (size_t i = 0; i < n;) {
        const size_t whole = utf8_sequence(text + i, n - i);
        const unsigned char c = (unsigned char)text[i];
        /* U+0080 to U+009F are control characters too. */
        const bool as_is = whole && c >= 0x20 && c != 0x7f && c != '"' && c != '\\' &&
                           !(c == 0xc2 && (unsigned char)text[i + 1] < 0xa0);
        char code[7];
        const size_t n_code = as_is       ? whole
                              : whole > 1 ? escaped(code, (unsigned char)text[i + 1])
                                          : escaped(code, whole ? c : '?');

        if (at + n_code + 2 > size)
            break;
        memcpy(out + at, as_is ? text + i : code, n_code);
        at += n_code;
        i += whole ? whole : 1;
    }
    out[at++] = '"';
    out[at] = '\0';
    return at;
}

int log_open(struct http *h, const char *path, struct artel_error *err)
{
    h->log_fd = -1;
    if (!path)
        return 0;
    h->log_fd = strcmp(path, "-")
                    ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)
                    : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    return h->log_fd < 0 ? error_errno(err, path, "write the access log") : 0;
}

int http_reopen_log(struct http *h, const char *path, struct artel_error *err)
{
    int fd, rc = 0;

    if (h->log_fd < 0 || !path || !strcmp(path, "-"))
        return 0;
    /* Without waiting: a pipe that nobody reads would hold the server up. */
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640);
    if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND) < 0)
        rc = error_errno(err, path, "open the access log anew");
    /* The descriptor keeps its number, so that who writes a line need not ask for it. */
    if (rc == 0 && dup3(fd, h->log_fd, O_CLOEXEC) < 0)
        rc = error_errno(err, path, "open the access log anew");
    if (fd >= 0)
        close(fd);
    return rc;
}

void log_close(struct http *h)
{
    if (h->log_fd >= 0)
        close(h->log_fd);
    h->log_fd = -1;
}

static void log_line(struct http *h, const char *line, size_t n)
{
    struct pollfd p = {.fd = h->log_fd, .events = POLLOUT};

    pthread_mutex_lock(&h->log_lock);
    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT) ||
        write(h->log_fd, line, n) != (ssize_t)n)
        h->log_lost++;
    pthread_mutex_unlock(&h->log_lock);
}

static size_t put_time(char *out, size_t size)
{
    struct timespec t;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    n = strftime(out, size, "{\"time\":\"%Y-%m-%dT%H:%M:%S", &tm);
    return n + (size_t)snprintf(out + n, size - n, ".%03ldZ\"", t.tv_nsec / 1000000);
}

static size_t put(char *line, size_t at, const char *name, const char *value)
{
    char quoted[TEXT_ROOM];
    const size_t n = json_quote(quoted, sizeof(quoted), value);

    /* What does not fit is left out, and the line stays one. */
    if (at + strlen(name) + n + 8 > LINE_ROOM - 80)
        return at;
    return at + (size_t)snprintf(line + at, LINE_ROOM - at, ",\"%s\":%s", name, quoted);
}

void log_exchange(struct exchange *x)
{
    char line[LINE_ROOM];
    size_t at;

    if (x->http->log_fd < 0)
        return;
    at = put_time(line, sizeof(line));
    at = put(line, at, "id", x->id);
    at = put(line, at, "client", x->client);
    at = put(line, at, "method", x->method);
    at = put(line, at, "path", x->url ? x->url : "");
    at += (size_t)snprintf(line + at, sizeof(line) - at,
                           ",\"status\":%d,\"bytes\":%llu,\"seconds\":%.6f",
                           x->gone && !x->sent ? 499 : x->status,
                           (unsigned long long)x->sent, clock_seconds() - x->started);
    if (x->gone)
        at += (size_t)snprintf(line + at, sizeof(line) - at, ",\"left\":true");
    for (const struct pair *p = x->notes; p; p = p->next)
        at = put(line, at, p->name, p->value);
    at += (size_t)snprintf(line + at, sizeof(line) - at, "}\n");
    log_line(x->http, line, at);
}

void log_refusal(struct http *h, const char *client, int status)
{
    char line[LINE_ROOM];
    size_t at;

    if (h->log_fd < 0)
        return;
    at = put_time(line, sizeof(line));
    at = put(line, at, "client", client);
    at += (size_t)snprintf(line + at, sizeof(line) - at, ",\"status\":%d}\n", status);
    log_line(h, line, at);
}
