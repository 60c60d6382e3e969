/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client over a bare socket: it sends exactly the bytes it is given, and tells status
 * lines and whether the server closed. A library for HTTP would repair the request.
 */
#ifndef ARTEL_TESTS_RAW_CLIENT_H
#define ARTEL_TESTS_RAW_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

struct raw {
    int fd;
    size_t n;           /* bytes that have come and are not taken yet */
    char have[1 << 16]; /* (n) */
    int status;         /* of the reply last read; 0: none came */
    char head[4096];    /* its head, ended */
    char body[1 << 16]; /* its body, chunks put together, ended */
    size_t n_body;
    bool closed; /* the server has closed */
};

void raw_open(struct raw *r, unsigned port);
/* False: the server took no more (it has closed). */
bool raw_send(struct raw *r, const void *bytes, size_t n);
bool raw_say(struct raw *r, const char *text);
/* The next reply, waiting up to SECONDS for each of its bytes. Returns its status. */
int raw_reply(struct raw *r, double seconds);
/* Does the server close within SECONDS? What it still says is taken. */
bool raw_closes(struct raw *r, double seconds);
/* The value of a header of the last reply, or NULL; until the next call. */
const char *raw_header(struct raw *r, const char *name);
void raw_close(struct raw *r);

/* All of it once: the status of the reply to TEXT (0: none) and whether the server closed
 * within half a second after it. */
int raw_ask(struct raw *r, unsigned port, const void *bytes, size_t n);

double raw_now(void);

#endif
