/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl is optional: without it everything else works, and a judge is refused.
 */
#include "eval/judge_http.h"

#include "base/error.h"

#ifdef ARTEL_HAS_CURL

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX_BYTES ((size_t)4 << 20)

struct judge_http {
    CURL *curl;
    struct curl_slist *headers;
    const volatile sig_atomic_t *stopped;
    char *body;
    size_t n, room;
    char trouble[CURL_ERROR_SIZE];
};

bool judge_http_there(void)
{
    return true;
}

static size_t take(char *data, size_t one, size_t n, void *user)
{
    struct judge_http *const h = user;

    n *= one;
    if (n > BODY_MAX_BYTES - h->n)
        return 0; /* curl ends the transfer */
    if (h->n + n + 1 > h->room) {
        const size_t room = 2 * (h->n + n + 1);
        char *const more = realloc(h->body, room);

        if (!more)
            return 0;
        h->body = more;
        h->room = room;
    }
    memcpy(h->body + h->n, data, n);
    h->n += n;
    h->body[h->n] = '\0';
    return n;
}

static int watch(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct judge_http *const h = user;

    (void)a, (void)b, (void)c, (void)d;
    return h->stopped && *h->stopped;
}

static bool add_header(struct judge_http *h, const char *line)
{
    struct curl_slist *const more = curl_slist_append(h->headers, line);

    if (more)
        h->headers = more;
    return more != NULL;
}

static bool set_headers(struct judge_http *h, const char *key)
{
    char *line = NULL;
    bool ok = add_header(h, "Content-Type: application/json") &&
              add_header(h, "Accept: application/json");

    if (ok && key) {
        const size_t n = strlen(key) + 32;

        line = malloc(n);
        ok = line != NULL;
        if (ok) {
            snprintf(line, n, "Authorization: Bearer %s", key);
            ok = add_header(h, line);
        }
        free(line);
    }
    return ok;
}

int judge_http_open(struct judge_http **out, const char *url, const char *key,
                    size_t timeout_s, const volatile sig_atomic_t *stopped,
                    struct artel_error *err)
{
    struct judge_http *const h = calloc(1, sizeof(*h));

    *out = NULL;
    if (!h || curl_global_init(CURL_GLOBAL_DEFAULT) || !(h->curl = curl_easy_init()) ||
        !set_headers(h, key)) {
        judge_http_close(h);
        return error_nomem(err, sizeof(*h));
    }
    h->stopped = stopped;
    curl_easy_setopt(h->curl, CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, h->headers);
    curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h->curl, CURLOPT_TIMEOUT, (long)timeout_s);
    curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(h->curl, CURLOPT_ERRORBUFFER, h->trouble);
    curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, h);
    curl_easy_setopt(h->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(h->curl, CURLOPT_XFERINFOFUNCTION, watch);
    curl_easy_setopt(h->curl, CURLOPT_XFERINFODATA, h);
    *out = h;
    return 0;
}

void judge_http_close(struct judge_http *h)
{
    if (!h)
        return;
    curl_slist_free_all(h->headers);
    curl_easy_cleanup(h->curl);
    free(h->body);
    free(h);
}

int judge_http_post(struct judge_reply *out, struct judge_http *h, const char *json,
                    struct artel_error *err)
{
    curl_off_t wait = 0;
    CURLcode code;

    *out = (struct judge_reply){0};
    h->n = 0;
    h->trouble[0] = '\0';
    take((char[]){""}, 1, 0, h); /* room, so that there always is a text */
    if (!h->body)
        return error_nomem(err, 1);
    curl_easy_setopt(h->curl, CURLOPT_POSTFIELDS, json);
    code = curl_easy_perform(h->curl);
    if (h->stopped && *h->stopped)
        return error_set(err, ARTEL_ESTOPPED, "STOP", NULL, "asked to stop");
    out->body = h->body;
    if (code != CURLE_OK) {
        escape_text(out->trouble, sizeof(out->trouble),
                    h->trouble[0] ? h->trouble : curl_easy_strerror(code),
                    strlen(h->trouble[0] ? h->trouble : curl_easy_strerror(code)));
        return 0;
    }
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &out->status);
    curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &wait);
    out->wait_seconds = wait > 0 ? (size_t)wait : 0;
    return 0;
}

#else

bool judge_http_there(void)
{
    return false;
}

int judge_http_open(struct judge_http **out, const char *url, const char *key,
                    size_t timeout_s, const volatile sig_atomic_t *stopped,
                    struct artel_error *err)
{
    (void)url, (void)key, (void)timeout_s, (void)stopped;
    *out = NULL;
    return error_set(err, ARTEL_EUSAGE, "JDG01", "judge",
                     "this build has no libcurl: install libcurl4-openssl-dev and "
                     "build again");
}

void judge_http_close(struct judge_http *h)
{
    (void)h;
}

int judge_http_post(struct judge_reply *out, struct judge_http *h, const char *json,
                    struct artel_error *err)
{
    (void)out, (void)h, (void)json;
    return error_set(err, ARTEL_EBUG, "JDG01", "judge", "there is no libcurl");
}

#endif
