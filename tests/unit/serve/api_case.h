/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole server over the toy mixture, in this process: catalogue, engine, API and HTTP
 * as artel_serve() puts them together; and a client.
 */
#ifndef ARTEL_TESTS_API_CASE_H
#define ARTEL_TESTS_API_CASE_H

#include "served.h"
#include "support/raw_client.h"

#include <jansson.h>

#include "serve/api.h"

struct api_case {
    struct served served;
    struct api api;
    struct raw raw;
    json_t *json; /* of the last reply, or NULL */
};

static inline void api_case_open(struct api_case *c)
{
    static const char *const admin[] = {"root-key"};
    const struct artel_open_options oo = {.precision = "fp32"};
    const struct engine_options eo = {
        .seats = 4, .queue = 6, .context = 256, .cache_bytes = (size_t)16 << 20};
    struct http_options ho;
    struct http *http;
    struct artel_error err;

    memset(c, 0, sizeof(*c));
    served_make(&c->served);
    assert_int_equal(catalogue_open(&c->api.catalogue, c->served.mixture,
                                    c->served.adapters, &oo, &err),
                     0);
    assert_int_equal(engine_open(&c->api.engine, &eo, &err), 0);
    assert_int_equal(grammar_pieces_open(&c->api.pieces,
                                         catalogue_model(c->api.catalogue)->tokenizer,
                                         &err),
                     0);
    c->api.max_choices = 6;
    assert_int_equal(api_open(&c->api, &err), 0);
    http_options_default(&ho);
    ho.port = 0;
    ho.routes = api_routes;
    ho.n_routes = n_api_routes;
    ho.user = &c->api;
    ho.admin_keys = admin;
    ho.n_admin_keys = 1;
    assert_int_equal(http_open(&http, &ho, &err), 0);
    c->api.http = http;
}

static inline void api_case_close(struct api_case *c)
{
    http_hush(c->api.http);
    api_close(&c->api);
    engine_close(c->api.engine);
    http_close(c->api.http);
    grammar_pieces_close(c->api.pieces);
    catalogue_close(c->api.catalogue);
    json_decref(c->json);
    served_remove(&c->served);
}

/* Send a request on a connection of its own, which stays open. */
static inline void api_send(struct api_case *c, const char *method, const char *path,
                            const char *key, const char *body)
{
    const size_t n = strlen(body);
    char *const text = malloc(n + 1000);
    const int used = snprintf(text, 1000,
                              "%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s%s"
                              "Content-Type: application/json\r\n"
                              "Content-Length: %zu\r\n\r\n",
                              method, path, key ? "Authorization: Bearer " : "",
                              key ? key : "", key ? "\r\n" : "", n);

    memcpy(text + used, body, n);
    raw_open(&c->raw, http_port(c->api.http));
    assert_true(raw_send(&c->raw, text, (size_t)used + n));
    free(text);
}

/* The whole exchange. Returns the status. */
static inline int api_ask(struct api_case *c, const char *method, const char *path,
                          const char *key, const char *body)
{
    int status;

    api_send(c, method, path, key, body);
    status = raw_reply(&c->raw, 60);
    raw_close(&c->raw);
    json_decref(c->json);
    c->json = json_loads(c->raw.body, JSON_ALLOW_NUL, NULL);
    return status;
}

static inline int api_post(struct api_case *c, const char *path, const char *body)
{
    return api_ask(c, "POST", path, NULL, body);
}

/* A value by its way: "choices.0.message.content". */
static inline const json_t *at(const json_t *v, const char *way)
{
    char part[64];

    while (v && *way) {
        const size_t n = strcspn(way, ".");

        assert_true(n < sizeof(part));
        memcpy(part, way, n);
        part[n] = '\0';
        v = json_is_array(v) ? json_array_get(v, strtoul(part, NULL, 10))
                             : json_object_get(v, part);
        way += way[n] ? n + 1 : n;
    }
    return v;
}

static inline const char *text_of(const json_t *v, const char *way)
{
    const char *const text = json_string_value(at(v, way));

    return text ? text : "(none)";
}

static inline long long number_of(const json_t *v, const char *way)
{
    const json_t *const n = at(v, way);

    return json_is_integer(n) ? json_integer_value(n) : -1;
}

/* The one that a program's tests ask one after the other, and how it comes and goes. */
static struct api_case c;

static inline int open_case(void **state)
{
    (void)state;
    api_case_open(&c);
    return 0;
}

static inline int close_case(void **state)
{
    (void)state;
    api_case_close(&c);
    return 0;
}

/* Of a body: one message of the user. */
#define USER(text) "\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]"

#endif
