/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One POST of JSON at a time, by libcurl where the build has it.
 */
#ifndef ARTEL_EVAL_JUDGE_HTTP_H
#define ARTEL_EVAL_JUDGE_HTTP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

struct artel_error;
struct judge_http;

bool judge_http_there(void);

/* KEY may be NULL; it goes nowhere but into the Authorization header. */
int judge_http_open(struct judge_http **out, const char *url, const char *key,
                    size_t timeout_s, const volatile sig_atomic_t *stopped,
                    struct artel_error *err);
void judge_http_close(struct judge_http *h);

struct judge_reply {
    long status;         /* of HTTP; 0: there was no reply, and TROUBLE says why */
    char trouble[200];   /* or "" */
    char *body;          /* owned by the judge_http, ended, until the next post */
    size_t wait_seconds; /* that the endpoint asks for, or 0 */
};
/* ARTEL_ESTOPPED, or no memory; all else is in OUT. */
int judge_http_post(struct judge_reply *out, struct judge_http *h, const char *json,
                    struct artel_error *err);

#endif
