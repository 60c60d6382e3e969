/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May this request be? Asked once its head is there and before its body is read, in this
 * order: is it well formed, is it for this server (Host, Origin), does the server take
 * requests, who asks (keys), is there such a thing (route, method), and is its body one
 * that could be read (media type, length).
 */
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "serve/http_parts.h"

static const char *header(const struct exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool guard_decode(char *out, const char *url)
{
    const size_t n = strcspn(url, "?");
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)url[i];

        if (c == '%') {
            const int high = n - i > 2 ? hex(url[i + 1]) : -1;
            const int low = high < 0 ? -1 : hex(url[i + 2]);

            c = low < 0 ? 0 : (unsigned char)(high << 4 | low);
            i += 2;
        }
        if (c < 0x20 || c == 0x7f)
            return false;
        out[at++] = (char)c;
    }
    out[at] = '\0';
    return true;
}

int guard_keys(struct http *h, const struct http_options *o, struct artel_error *err)
{
    h->n_keys = o->n_keys + o->n_admin_keys;
    h->has_keys = o->n_keys > 0;
    h->has_admin_keys = o->n_admin_keys > 0;
    h->keys = calloc(h->n_keys + 1, sizeof(*h->keys));
    if (!h->keys)
        return error_nomem(err, h->n_keys * sizeof(*h->keys));
    for (size_t i = 0; i < h->n_keys; i++) {
        const char *const key =
            i < o->n_keys ? o->keys[i] : o->admin_keys[i - o->n_keys];

        h->keys[i].admin = i >= o->n_keys;
        SHA256((const unsigned char *)key, strlen(key), h->keys[i].digest);
    }
    return 0;
}

/* Digests are compared, all of them and each as a whole: time tells nothing of a key. */
static void known(const struct exchange *x, bool *key, bool *admin)
{
    const char *p = header(x, "Authorization");
    unsigned char digest[32];
    unsigned any = 0, any_admin = 0;

    *key = *admin = false;
    if (!p || heads_count(x->connection, "Authorization") != 1 ||
        strncasecmp(p, "Bearer ", 7) != 0)
        return;
    p += 7;
    p += strspn(p, " ");
    SHA256((const unsigned char *)p, strlen(p), digest);
    for (size_t i = 0; i < x->http->n_keys; i++) {
        const struct key *const k = &x->http->keys[i];
        const unsigned same = CRYPTO_memcmp(digest, k->digest, sizeof(digest)) == 0;

        any |= same;
        any_admin |= same & k->admin;
    }
    *key = any;
    *admin = any_admin;
}

/* Is NAME (N bytes, such as "localhost:80") one of this server's? The port is not looked
 * at: what an attacker's page cannot choose is the name. */
static bool is_our_host(const struct http *h, const char *name, size_t n)
{
    static const char *const always[] = {"localhost", "127.0.0.1", "[::1]"};
    const char *const end = name + n;
    const char *colon = memchr(name, *name == '[' ? ']' : ':', n);
    size_t length;

    if (*name == '[' && colon)
        colon++;
    length = colon ? (size_t)(colon - name) : n;
    if (colon && colon < end && *colon != ':')
        return false;
    for (size_t i = 0; i < 3; i++)
        if (length == strlen(always[i]) && !strncasecmp(name, always[i], length))
            return true;
    for (size_t i = 0; i < h->o.n_hosts; i++)
        if (length == strlen(h->o.hosts[i]) &&
            !strncasecmp(name, h->o.hosts[i], length))
            return true;
    return length == strlen(h->o.host) && !strncasecmp(name, h->o.host, length);
}

static size_t trimmed(const char *s)
{
    size_t n = strlen(s);

    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    return n;
}

/* Of a page that this server showed, or of a page that may call. */
static bool is_our_origin(const struct exchange *x, const char *origin)
{
    const char *const host = header(x, "Host"), *const after = strstr(origin, "://");

    for (size_t i = 0; i < x->http->o.n_origins; i++)
        if (!strcmp(x->http->o.origins[i], "*") ||
            !strcasecmp(x->http->o.origins[i], origin))
            return true;
    return host && after && trimmed(host) == strlen(after + 3) &&
           !strncasecmp(host, after + 3, trimmed(host));
}

static bool malformed(struct exchange *x, const char *method, const char *version)
{
    const char *const coding = header(x, "Transfer-Encoding");
    const char *why;

    x->close_after = true; /* what follows on this connection is not a request */
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        exchange_error(x, 505, "invalid_request_error", NULL, NULL,
                       "this server speaks HTTP/1.1");
        return true;
    }
    why = heads_malformed(x->connection, method, x->url, version);
    if (!why && x->url[0] != '/' && strcmp(x->url, "*") != 0)
        why = "the target must begin with a slash";
    if (!why && !x->has_path)
        why = "the target is malformed";
    if (why) {
        exchange_error(x, 400, "invalid_request_error", NULL, "malformed_request", "%s",
                       why);
        return true;
    }
    if (coding && strcasecmp(coding, "chunked") != 0) {
        exchange_error(x, 501, "invalid_request_error", NULL, NULL,
                       "no transfer coding but chunked is known");
        return true;
    }
    if (strlen(x->url) > HTTP_URL_MAX) {
        exchange_error(x, 414, "invalid_request_error", NULL, NULL,
                       "the target has more than %zu bytes", HTTP_URL_MAX);
        return true;
    }
    return false;
}

static bool of_strangers(struct exchange *x)
{
    const char *const host = header(x, "Host"), *const origin = header(x, "Origin");

    if (host && x->http->loopback && !is_our_host(x->http, host, trimmed(host))) {
        exchange_error(x, 403, "permission_error", NULL, "host_not_allowed",
                       "this server is not known by the name in Host");
        return true;
    }
    if (!origin)
        return false;
    if (!is_our_origin(x, origin)) {
        exchange_error(x, 403, "permission_error", NULL, "origin_not_allowed",
                       "pages of this origin may not call this server");
        return true;
    }
    exchange_set_header(x, "Access-Control-Allow-Origin", origin);
    exchange_set_header(x, "Access-Control-Expose-Headers",
                        "x-request-id, x-artel-expert, x-artel-ignored, retry-after");
    exchange_set_header(x, "Vary", "Origin");
    return false;
}

/* GET serves HEAD too. A path that ends in a slash serves what lies below it. */
static const struct http_route *find_route(const struct exchange *x, char *allowed,
                                           size_t size)
{
    const char *const method = strcmp(x->method, "HEAD") ? x->method : "GET";
    const struct http_route *found = NULL;
    size_t at = 0, longest = 0;

    allowed[0] = '\0';
    for (size_t i = 0; i < x->http->o.n_routes; i++) {
        const struct http_route *const r = &x->http->o.routes[i];
        const size_t n = strlen(r->path);
        const bool below = n > 1 && r->path[n - 1] == '/';

        if (below ? strncmp(x->path, r->path, n) || !x->path[n]
                  : strcmp(x->path, r->path))
            continue;
        if (n < longest)
            continue;
        if (n > longest) {
            longest = n;
            found = NULL;
            at = 0;
        }
        if (!strcmp(r->method, method))
            found = r;
        at += (size_t)snprintf(allowed + at, size - at, "%s%s%s", at ? ", " : "",
                               r->method, strcmp(r->method, "GET") ? "" : ", HEAD");
        if (at >= size)
            at = size - 1;
    }
    return found;
}

/* A browser asks before it lets a page call. */
static void answer_options(struct exchange *x, const char *allowed)
{
    const char *const asked = header(x, "Access-Control-Request-Headers");
    char methods[160];

    snprintf(methods, sizeof(methods), "%s%sOPTIONS", allowed, *allowed ? ", " : "");
    exchange_set_header(x, "Allow", methods);
    if (header(x, "Origin") && header(x, "Access-Control-Request-Method")) {
        exchange_set_header(x, "Access-Control-Allow-Methods", methods);
        exchange_set_header(x, "Access-Control-Allow-Headers",
                            asked ? asked : "authorization, content-type");
        exchange_set_header(x, "Access-Control-Max-Age", "600");
    }
    exchange_reply(x, 204, NULL, "", 0);
}

static bool without_key(struct exchange *x)
{
    const enum http_access access = x->route ? x->route->access : HTTP_KEY;
    const struct http *const h = x->http;
    bool key, admin;

    if (access == HTTP_OPEN)
        return false;
    known(x, &key, &admin);
    if (!key && (h->has_keys || (access == HTTP_ADMIN && h->has_admin_keys))) {
        exchange_set_header(x, "WWW-Authenticate", "Bearer");
        exchange_error(x, 401, "authentication_error", NULL, "invalid_api_key",
                       "a key is needed: Authorization: Bearer KEY");
        return true;
    }
    if (access == HTTP_ADMIN && !admin) {
        exchange_error(x, 403, "permission_error", NULL, NULL,
                       h->has_admin_keys ? "this needs an administrator's key"
                                         : "this server takes no such calls: it was "
                                           "started without administrators' keys");
        return true;
    }
    return false;
}

/* The value of a parameter at AT, quoted or not, is UTF-8's name. */
static bool is_utf8(const char *at, size_t n)
{
    if (n >= 2 && at[0] == '"' && at[n - 1] == '"') {
        at++;
        n -= 2;
    }
    return (n == 5 && !strncasecmp(at, "utf-8", 5)) ||
           (n == 4 && !strncasecmp(at, "utf8", 4));
}

/* application/json, and no charset beside it in which bytes would mean something else. */
static bool is_json(const char *type)
{
    static const char json[] = "application/json", blank[] = " \t",
                      charset[] = "charset=";

    if (!type || strncasecmp(type, json, sizeof(json) - 1) != 0)
        return false;
    type += sizeof(json) - 1;
    for (type += strspn(type, blank); *type; type += strspn(type, blank)) {
        size_t n;

        if (*type++ != ';')
            return false;
        type += strspn(type, blank);
        n = strcspn(type, "; \t");
        if (!strncasecmp(type, charset, sizeof(charset) - 1) &&
            !is_utf8(type + sizeof(charset) - 1, n - (sizeof(charset) - 1)))
            return false;
        type += n;
    }
    return true;
}

static bool bad_body(struct exchange *x, bool has_body, uint64_t length)
{
    const char *const type = header(x, "Content-Type");
    const char *const coding = header(x, "Content-Encoding");
    const char *const expect = header(x, "Expect");

    if (expect && strcasecmp(expect, "100-continue") != 0) {
        exchange_error(x, 417, "invalid_request_error", NULL, NULL,
                       "no expectation but 100-continue is known");
        return true;
    }
    if (length > x->http->o.max_body) {
        exchange_error(x, 413, "invalid_request_error", NULL, "body_too_large",
                       "the body may have %zu bytes", x->http->o.max_body);
        return true;
    }
    if (!has_body)
        return false;
    if (coding && strcasecmp(coding, "identity") != 0) {
        exchange_error(x, 415, "invalid_request_error", NULL, NULL,
                       "bodies are taken as they are, not compressed");
        return true;
    }
    if (strcmp(x->method, "POST") == 0 && !is_json(type)) {
        exchange_error(x, 415, "invalid_request_error", NULL, NULL,
                       "Content-Type must be application/json, in UTF-8");
        return true;
    }
    return false;
}

bool guard_refuses(struct exchange *x, const char *method, const char *version)
{
    const char *length;
    char allowed[128];
    bool has_body;
    uint64_t n_body;

    snprintf(x->method, sizeof(x->method), "%s", method);
    if (malformed(x, method, version))
        return true;
    length = header(x, "Content-Length");
    n_body = length ? strtoull(length, NULL, 10) : 0;
    has_body = n_body || header(x, "Transfer-Encoding");
    /* Refused before it is read, a body is still on its way. */
    x->close_after = has_body;
    x->collects = strcmp(version, "HTTP/1.1") != 0;
    x->route = find_route(x, allowed, sizeof(allowed));
    if (of_strangers(x))
        return true;
    if (!strcmp(method, "OPTIONS")) {
        answer_options(x, allowed);
        return true;
    }
    if (without_key(x))
        return true;
    if (x->http->draining && (!x->route || x->route->access != HTTP_OPEN)) {
        x->close_after = true;
        exchange_error(x, 503, "overloaded_error", NULL, "draining",
                       "the server is about to stop");
        return true;
    }
    if (!x->route && *allowed) {
        exchange_set_header(x, "Allow", allowed);
        exchange_error(x, 405, "invalid_request_error", NULL, NULL,
                       "this is asked for by %s", allowed);
        return true;
    }
    if (!x->route) {
        exchange_error(x, 404, "invalid_request_error", NULL, "not_found",
                       "there is nothing at this path");
        return true;
    }
    if (bad_body(x, has_body, n_body))
        return true;
    x->close_after = false;
    return false;
}
