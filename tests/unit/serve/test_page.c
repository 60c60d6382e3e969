/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page as it comes out of the program: all of it is there, from nowhere else, and a
 * browser that has it need not take it again. What it does is seen by tests/browser/.
 */
#include <string.h>

#include "serve/api.h"
#include "serve/page.h"
#include "support/http_case.h"

static const struct http_route routes[] = {{"GET", "/", HTTP_OPEN, page_serve},
                                           {"GET", "/page/", HTTP_OPEN, page_serve}};
static const char *const keys[] = {"a-key-that-the-page-does-not-need"};

static struct http_case c;
static struct api api;
static struct raw r;

static int start(void **state)
{
    (void)state;
    case_prepare(&c);
    api = (struct api){.page = true};
    c.o.routes = routes;
    c.o.n_routes = 2;
    c.o.user = &api;
    c.o.keys = keys;
    c.o.n_keys = 1;
    case_open(&c);
    raw_open(&r, c.port);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    raw_close(&r);
    case_close(&c);
    return 0;
}

static int get(const char *path, const char *more)
{
    char text[400];

    snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path,
             more);
    raw_say(&r, text);
    return raw_reply(&r, 5);
}

/* What follows each BEFORE in the text of the last reply, up to END, is served. */
static size_t all_are_served(const char *before, const char *prefix, char end)
{
    char *const text = strdup(r.body);
    size_t n = 0;

    assert_non_null(text);
    for (const char *at = text; (at = strstr(at, before)); n++) {
        char path[100];

        at += strlen(before);
        snprintf(path, sizeof(path), "%s%.*s", prefix,
                 (int)strcspn(at, (char[]){end, 0}), at);
        if (get(path, "") != 200)
            fail_msg("%s: %d", path, r.status);
    }
    free(text);
    return n;
}

static void all_that_it_asks_for_is_there(void **state)
{
    static const char *const scripts[] = {"main",  "answer",  "chat",   "compare",
                                          "route", "mixture", "server", "markdown"};

    (void)state;
    assert_int_equal(get("/", ""), 200);
    assert_string_equal(raw_header(&r, "Content-Type"), "text/html; charset=utf-8");
    assert_int_equal(all_are_served("href=\"", "", '"'), 4);
    assert_int_equal(get("/", ""), 200);
    assert_true(all_are_served("src=\"", "", '"') >= 2);
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        char path[40];

        snprintf(path, sizeof(path), "/page/%s.js", scripts[i]);
        assert_int_equal(get(path, ""), 200);
        assert_string_equal(raw_header(&r, "Content-Type"),
                            "text/javascript; charset=utf-8");
        assert_null(strstr(r.body, "innerHTML"));
        assert_null(strstr(r.body, "eval("));
        assert_true(all_are_served(" from './", "/page/", '\'') > 0);
    }
}

static void nothing_comes_from_elsewhere(void **state)
{
    (void)state;
    assert_int_equal(get("/", ""), 200);
    assert_null(strstr(r.body, "://"));
    assert_null(strstr(r.body, "<style"));
    assert_non_null(
        strstr(raw_header(&r, "Content-Security-Policy"), "default-src 'self'"));
    assert_string_equal(raw_header(&r, "X-Content-Type-Options"), "nosniff");
    assert_int_equal(get("/page/page.css", ""), 200);
    assert_null(strstr(r.body, "url("));
    assert_null(strstr(r.body, "@import"));
}

static void what_is_known_is_not_sent_again(void **state)
{
    char line[120], other[120], html[80];

    (void)state;
    assert_int_equal(get("/", ""), 200);
    snprintf(html, sizeof(html), "%s", raw_header(&r, "ETag"));
    snprintf(line, sizeof(line), "If-None-Match: \"x\", W/%s\r\n", html);
    assert_int_equal(get("/", line), 304);
    assert_int_equal(r.n_body, 0);
    assert_string_equal(raw_header(&r, "ETag"), html);
    assert_int_equal(get("/", "If-None-Match: *\r\n"), 304);
    assert_int_equal(get("/", "If-None-Match: \"x\"\r\n"), 200);
    /* Another file has another tag. */
    snprintf(other, sizeof(other), "If-None-Match: %s\r\n", html);
    assert_int_equal(get("/page/main.js", other), 200);
}

static void what_is_not_there_is_told(void **state)
{
    (void)state;
    assert_int_equal(get("/page/main.c", ""), 404);
    assert_int_equal(get("/page/../page/main.js", ""), 404);
    assert_non_null(strstr(r.body, "\"error\""));
    api.page = false;
    assert_int_equal(get("/", ""), 404);
    assert_int_equal(get("/page/main.js", ""), 404);
}

#define ROW(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(all_that_it_asks_for_is_there),
        ROW(nothing_comes_from_elsewhere),
        ROW(what_is_known_is_not_sent_again),
        ROW(what_is_not_there_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
