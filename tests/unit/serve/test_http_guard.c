/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may ask: keys, names, origins; what the log tells of it; where one cannot listen.
 */
#include "support/http_case.h"

#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define HOST "Host: localhost\r\n"

static struct http_case c;
static struct raw r;

static const char *const keys[] = {"sk-one", "sk-two"}, *const admins[] = {"sk-root"};

/* The status of METHOD PATH with HEADERS. */
static int ask(const char *method, const char *path, const char *headers)
{
    char text[1024];

    snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\n%s\r\n", method, path, headers);
    return case_ask(&c, &r, text);
}

static void h34_every_route_but_health_asks_for_a_key(void **state)
{
    static const char *const paths[] = {"/echo", "/later", "/stream",  "/flood",
                                        "/hold", "/admin", "/nothing", "/v1/models"};
    static char text[1100000];
    size_t n;

    (void)state;
    case_prepare(&c);
    c.o.keys = keys;
    c.o.n_keys = 2;
    c.o.admin_keys = admins;
    c.o.n_admin_keys = 1;
    case_open(&c);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        assert_int_equal(ask("POST", paths[i], HOST), 401);
        assert_string_equal(raw_header(&r, "WWW-Authenticate"), "Bearer");
        assert_int_equal(ask("GET", paths[i], HOST "Authorization: Bearer sk-on\r\n"),
                         401);
        assert_int_equal(
            ask("POST", paths[i], HOST "Authorization: Bearer sk-onee\r\n"), 401);
        assert_int_equal(ask("POST", paths[i], HOST "Authorization: Basic sk-one\r\n"),
                         401);
        assert_int_equal(ask("POST", paths[i], HOST "Authorization: Bearer \r\n"), 401);
        assert_int_equal(ask("POST", paths[i],
                             HOST "Authorization: Bearer sk-one\r\n"
                                  "Authorization: Bearer sk-one\r\n"),
                         401);
    }
    assert_int_equal(ask("GET", "/health", HOST), 200);
    assert_int_equal(ask("POST", "/echo", HOST "Authorization: Bearer sk-one\r\n"),
                     200);
    assert_int_equal(ask("POST", "/echo", HOST "authorization: bearer sk-two\r\n"),
                     200);
    assert_int_equal(ask("POST", "/echo", HOST "Authorization: Bearer sk-root\r\n"),
                     200);
    assert_int_equal(ask("POST", "/admin", HOST "Authorization: Bearer sk-two\r\n"),
                     403);
    assert_int_equal(ask("POST", "/admin", HOST "Authorization: Bearer sk-root\r\n"),
                     200);
    assert_int_equal(ask("DELETE", "/tree/a", HOST "Authorization: Bearer sk-two\r\n"),
                     403);
    n = (size_t)sprintf(text, "POST /echo HTTP/1.1\r\n" HOST "Authorization: Bearer ");
    memset(text + n, 'k', 1000000);
    raw_ask(&r, c.port, text, n + 1000000);
    assert_int_equal(r.status, 431);
    case_close(&c);
    /* Without keys nothing is asked for, and nobody administers. */
    case_prepare(&c);
    case_open(&c);
    assert_int_equal(ask("POST", "/echo", HOST), 200);
    assert_int_equal(ask("POST", "/admin", HOST "Authorization: Bearer x\r\n"), 403);
    case_close(&c);
}

static void h35_other_names_and_origins_are_refused(void **state)
{
    static const char *const names[] = {"artel.example"};
    static const char *const origins[] = {"https://app.example"};
    static const char *const bad[] = {"evil.example",
                                      "evil.example:80",
                                      "localhost.evil.example",
                                      "127.0.0.2",
                                      "localhost@evil.example",
                                      "[::1",
                                      "[::1]x",
                                      "",
                                      "[::2]:80"};
    char text[256];

    (void)state;
    case_prepare(&c);
    c.o.hosts = names;
    c.o.n_hosts = 1;
    c.o.origins = origins;
    c.o.n_origins = 1;
    case_open(&c);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "Host: %s\r\n", bad[i]);
        if (ask("GET", "/health", text) != 403)
            fail_msg("%s: %d", bad[i], r.status);
    }
    assert_int_equal(ask("GET", "/health", "Host: LocalHost:8080\r\n"), 200);
    assert_int_equal(ask("GET", "/health", "Host: 127.0.0.1:8080\r\n"), 200);
    assert_int_equal(ask("GET", "/health", "Host: [::1]:8080\r\n"), 200);
    assert_int_equal(ask("GET", "/health", "Host: artel.example\r\n"), 200);

    assert_int_equal(ask("POST", "/echo", HOST "Origin: https://evil.example\r\n"),
                     403);
    assert_null(raw_header(&r, "Access-Control-Allow-Origin"));
    assert_int_equal(ask("POST", "/echo", HOST "Origin: null\r\n"), 403);
    assert_int_equal(ask("OPTIONS", "/echo",
                         HOST "Origin: https://evil.example\r\n"
                              "Access-Control-Request-Method: POST\r\n"),
                     403);
    assert_int_equal(ask("POST", "/echo", HOST), 200);
    assert_null(raw_header(&r, "Access-Control-Allow-Origin"));
    assert_int_equal(ask("POST", "/echo",
                         "Host: localhost:81\r\n"
                         "Origin: http://localhost:81\r\n"),
                     200);
    assert_int_equal(ask("POST", "/echo", HOST "Origin: https://app.example\r\n"), 200);
    assert_string_equal(raw_header(&r, "Access-Control-Allow-Origin"),
                        "https://app.example");
    assert_string_equal(raw_header(&r, "Vary"), "Origin");
    assert_int_equal(ask("OPTIONS", "/echo",
                         HOST "Origin: https://app.example\r\n"
                              "Access-Control-Request-Method: POST\r\n"
                              "Access-Control-Request-Headers: authorization, x-a\r\n"),
                     204);
    assert_string_equal(raw_header(&r, "Access-Control-Allow-Methods"),
                        "POST, OPTIONS");
    assert_string_equal(raw_header(&r, "Access-Control-Allow-Headers"),
                        "authorization, x-a");
    case_close(&c);
}

static void h36_the_log_has_a_line_for_every_request(void **state)
{
    char path[] = "/tmp/artel-log-XXXXXX";
    const int fd = mkstemp(path);
    json_t *line[6];
    FILE *f;
    char text[5000];
    size_t n = 0;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    case_prepare(&c);
    c.o.access_log = path;
    case_open(&c);
    ask("GET", "/health", HOST);
    ask("POST", "/echo", HOST);
    ask("GET", "/x\x1b[31m\"%0a\xff\xc2\x9b", HOST);
    ask("GET", "/health", HOST "X : 1\r\n");
    ask("GET", "/health", HOST "nonsense\r\n");
    case_close(&c);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(text, sizeof(text), f) && n < 6) {
        for (const char *p = text; *p && *p != '\n'; p++)
            assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
        line[n] = json_loads(text, 0, NULL);
        assert_non_null(line[n]);
        n++;
    }
    fclose(f);
    unlink(path);
    assert_int_equal(n, 5);
    assert_int_equal(json_integer_value(json_object_get(line[0], "status")), 200);
    assert_int_equal(json_integer_value(json_object_get(line[0], "bytes")), 15);
    assert_int_equal(strlen(json_string_value(json_object_get(line[0], "id"))), 16);
    assert_int_equal(strncmp(json_string_value(json_object_get(line[0], "client")),
                             "127.0.0.1:", 10),
                     0);
    assert_string_equal(json_string_value(json_object_get(line[1], "path")), "/echo");
    assert_string_equal(json_string_value(json_object_get(line[1], "expert")),
                        "a\nb\x1b[31m?");
    assert_string_equal(json_string_value(json_object_get(line[2], "path")),
                        "/x\x1b[31m\"%0a?\xc2\x9b");
    assert_int_equal(json_integer_value(json_object_get(line[2], "status")), 400);
    assert_int_equal(json_integer_value(json_object_get(line[3], "status")), 400);
    assert_int_equal(json_integer_value(json_object_get(line[4], "status")), 400);
    for (size_t i = 0; i < n; i++)
        json_decref(line[i]);
}

static void h38_where_one_cannot_listen_is_told(void **state)
{
    struct http_case other;
    struct artel_error err = {0};

    (void)state;
    case_prepare(&c);
    case_open(&c);
    case_prepare(&other);
    other.o.port = (uint16_t)c.port;
    assert_error(http_open(&other.http, &other.o, &err), ARTEL_EIO, err, "SRV01");
    assert_null(other.http);
    assert_string_equal(err.where, "127.0.0.1");
    assert_non_null(strstr(err.reason, "in use"));
    assert_int_equal(err.exit, 4);
    other.o.port = 0;
    other.o.host = "203.0.113.7";
    assert_error(http_open(&other.http, &other.o, &err), ARTEL_EIO, err, "SRV01");
    other.o.host = "no host\n";
    assert_error(http_open(&other.http, &other.o, &err), ARTEL_EIO, err, "SRV01");
    assert_null(strchr(err.where, '\n'));
    other.o.host = "127.0.0.1";
    other.o.access_log = "/nowhere/at/all";
    assert_int_equal(http_open(&other.http, &other.o, &err), ARTEL_EIO);
    case_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(h34_every_route_but_health_asks_for_a_key),
        cmocka_unit_test(h35_other_names_and_origins_are_refused),
        cmocka_unit_test(h36_the_log_has_a_line_for_every_request),
        cmocka_unit_test(h38_where_one_cannot_listen_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
