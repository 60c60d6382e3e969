/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client may send, byte by byte: heads, lengths, chunks, methods, media, bodies.
 */
#include "support/http_case.h"

#define HOST "Host: localhost\r\n"
#define JSON "Content-Type: application/json\r\n"

static struct http_case c;
static struct raw r;

static int start(void **state)
{
    (void)state;
    case_prepare(&c);
    case_open(&c);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    case_empties(&c);
    case_close(&c);
    return 0;
}

/* Answered by one of two statuses (0: closed without one), and closed. */
static void refused(const char *text, int status, int or_status)
{
    case_ask(&c, &r, text);
    if ((r.status != status && r.status != or_status) || !r.closed)
        fail_msg("%.60s: %d%s", text, r.status, r.closed ? "" : ", and not closed");
}

static void a_request_is_answered(void **state)
{
    (void)state;
    assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_false(r.closed);
    assert_string_equal(r.body, "{\"status\":\"ok\"}");
    assert_int_equal(strlen(raw_header(&r, "X-Request-Id")), 16);
    assert_int_equal(case_ask(&c, &r,
                              "POST /echo HTTP/1.1\r\n" HOST JSON
                              "Content-Length: 7\r\n\r\n{\"a\":1}"),
                     200);
    assert_string_equal(r.body, "{\"a\":1}");
    assert_int_equal(
        case_ask(&c, &r,
                 "POST /later HTTP/1.1\r\n" HOST JSON
                 "Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2;x=y\r\n2]"
                 "\r\n0\r\n\r\n"),
        200);
    assert_string_equal(r.body, "[1,2]");
    assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.0\r\n\r\n"), 200);
    assert_true(r.closed);
    assert_int_equal(case_ask(&c, &r,
                              "POST /stream HTTP/1.1\r\n" HOST JSON
                              "Content-Length: 1\r\n\r\n4"),
                     200);
    assert_string_equal(r.body, "word word word word ");
    assert_string_equal(raw_header(&r, "Transfer-Encoding"), "chunked");
    assert_string_equal(raw_header(&r, "X-Accel-Buffering"), "no");
    /* HTTP/1.0 knows no chunks: the stream comes as a whole. */
    assert_int_equal(
        case_ask(&c, &r, "POST /stream HTTP/1.0\r\n" JSON "Content-Length: 1\r\n\r\n4"),
        200);
    assert_string_equal(r.body, "word word word word ");
    assert_true(r.closed);
}

static void h01_both_length_headers_close(void **state)
{
    (void)state;
    refused(
        "POST /echo HTTP/1.1\r\n" HOST JSON
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health "
        "HTTP/1.1\r\n" HOST "\r\n",
        400, 400);
    refused("POST /echo HTTP/1.1\r\n" HOST JSON
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            400, 400);
    assert_int_equal(c.n_handled, 0);
}

static void h02_bad_lengths_close(void **state)
{
    static const char *const lengths[] = {"+3", "3, 3", "-1", "", "0x3", "3 3", "3a"};
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        snprintf(text, sizeof(text),
                 "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: %s\r\n\r\n[1]",
                 lengths[i]);
        refused(text, 400, 400);
    }
    refused("POST /echo HTTP/1.1\r\n" HOST JSON
            "Content-Length: 3\r\nContent-Length: 30\r\n\r\n[1]",
            400, 400);
    refused("POST /echo HTTP/1.1\r\n" HOST JSON
            "Content-Length: 99999999999999999999\r\n\r\n[1]",
            413, 413);
    refused("POST /echo HTTP/1.1\r\n" HOST JSON
            "Content-Length: 18446744073709551615\r\n\r\n[1]",
            413, 413);
    assert_int_equal(c.n_handled, 0);
}

static void h03_unknown_transfer_codings_close(void **state)
{
    (void)state;
    refused("POST /echo HTTP/1.1\r\n" HOST JSON
            "Transfer-Encoding: xchunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
            501, 400);
    refused("POST /echo HTTP/1.1\r\n" HOST JSON
            "Transfer-Encoding: gzip, chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
            501, 400);
    refused("POST /echo HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: "
            "chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
            400, 400);
}

static void h04_bad_chunks_close(void **state)
{
    static const char *const chunks[] = {"-2\r\n[1",
                                         "0x3\r\n[1]\r\n",
                                         "g\r\n",
                                         "\r\n",
                                         "3\r\n[1]x\r\n",
                                         "3\r\n[1]0\r\n\r\n",
                                         "11111111111111111\r\n[1]"};
    static char endless[200 << 10];
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        snprintf(text, sizeof(text),
                 "POST /echo HTTP/1.1\r\n" HOST JSON
                 "Transfer-Encoding: chunked\r\n\r\n%s",
                 chunks[i]);
        refused(text, 400, 413);
    }
    /* A size that never ends, and an extension that does not: libmicrohttpd's own 500. */
    for (int k = 0; k < 2; k++) {
        memset(endless, k ? 'x' : '0', sizeof(endless) - 1);
        raw_open(&r, c.port);
        raw_say(&r, "POST /echo HTTP/1.1\r\n" HOST JSON
                    "Transfer-Encoding: chunked\r\n\r\n");
        raw_say(&r, k ? "3;" : "0");
        raw_say(&r, endless);
        raw_reply(&r, 3);
        assert_true(r.status == 400 || r.status == 413 || r.status == 500);
        assert_true(raw_closes(&r, 3));
        raw_close(&r);
    }
    assert_int_equal(c.n_handled, 0);
}

static void h05_bad_header_lines_close(void **state)
{
    static const char *const lines[] = {"X : 1\r\n",
                                        " X: 1\r\n",
                                        "X: a\x01z\r\n",
                                        "X\x7f: a\r\n",
                                        "X\r\n",
                                        ": a\r\n",
                                        "X: a\r\n b\r\n",
                                        "X: a\r\n\tb\r\n",
                                        "X: a\n",
                                        "X: a\rb\r\n",
                                        "Auth: Bearer k\r\n orization\r\n",
                                        "X(y): a\r\n"};
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        snprintf(text, sizeof(text), "GET /health HTTP/1.1\r\n%s" HOST "Y: z\r\n\r\n",
                 lines[i]);
        refused(text, 400, 400);
        snprintf(text, sizeof(text), "GET /health HTTP/1.1\r\n" HOST "%sY: z\r\n\r\n",
                 lines[i]);
        refused(text, 400, 400);
    }
    refused("GET /health HTTP/1.1\n" HOST "Y: z\r\n\r\n", 400, 400);
    raw_ask(&r, c.port, "GET /health HTTP/1.1\r\n" HOST "X: a\0b\r\nY: z\r\n\r\n",
            sizeof("GET /health HTTP/1.1\r\n" HOST "X: a\0b\r\nY: z\r\n\r\n") - 1);
    assert_int_equal(r.status, 400);
}

static void h06_hostile_targets_find_nothing(void **state)
{
    static const char *const targets[] = {"/a%00b",
                                          "/%",
                                          "/%4",
                                          "/%zz",
                                          "/tree/%0a",
                                          "/../etc/passwd",
                                          "/%2e%2e%2fetc",
                                          "/%252e%252e",
                                          "//health",
                                          "/health/",
                                          "http://a/health",
                                          "health",
                                          "/tree",
                                          "/tree/",
                                          "/nothing"};
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\n" HOST "\r\n", targets[i]);
        case_ask(&c, &r, text);
        if (r.status != 400 && r.status != 404)
            fail_msg("%s: %d", targets[i], r.status);
    }
    /* A target does not end where NUL stands. */
    raw_ask(&r, c.port, "GET /health\0/a HTTP/1.1\r\n" HOST "\r\n",
            sizeof("GET /health\0/a HTTP/1.1\r\n" HOST "\r\n") - 1);
    assert_int_equal(r.status, 400);
    /* A path is decoded once, and is a name, not a file. */
    assert_int_equal(
        case_ask(&c, &r, "GET /tree/%2e./%252e?x=%00 HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_string_equal(r.body, "/tree/../%2e");
}

static void h07_oversized_heads_are_told(void **state)
{
    static char text[1100000];
    size_t n;

    (void)state;
    n = (size_t)sprintf(text, "GET /health HTTP/1.1\r\n" HOST "X: ");
    memset(text + n, 'a', 100 << 10);
    raw_ask(&r, c.port, text, n + (100 << 10));
    assert_int_equal(r.status, 431);
    assert_true(r.closed);
    n = (size_t)sprintf(text, "GET /health HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 10000; i++)
        n += (size_t)sprintf(text + n, "X%d: y\r\n", i);
    n += (size_t)sprintf(text + n, "\r\n");
    raw_ask(&r, c.port, text, n);
    assert_int_equal(r.status, 431);
    n = (size_t)sprintf(text, "GET /");
    memset(text + n, 'a', 1000000);
    n += 1000000;
    n += (size_t)sprintf(text + n, " HTTP/1.1\r\n" HOST "\r\n");
    raw_ask(&r, c.port, text, n);
    assert_int_equal(r.status, 414);
    n = (size_t)sprintf(text, "GET /");
    memset(text + n, 'a', 9000);
    n += 9000;
    n += (size_t)sprintf(text + n, " HTTP/1.1\r\n" HOST "\r\n");
    raw_ask(&r, c.port, text, n);
    assert_int_equal(r.status, 414);
}

static void h08_other_protocols_close(void **state)
{
    static const unsigned char tls[] = {0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3, '\n', '\n'};
    unsigned char noise[512];
    uint32_t seed = 7;

    (void)state;
    refused("GET /health\r\n\r\n", 400, 505);
    refused("GET /health HTTP/0.9\r\n\r\n", 400, 505);
    refused("GET /health HTTP/1.9\r\n" HOST "\r\n", 400, 505);
    refused("GET /health HTTP/11\r\n" HOST "\r\n", 400, 505);
    refused("GET  /health  HTTP/1.1x\r\n" HOST "\r\n", 400, 505);
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 400);
    refused("GET /health HTTP/1.1\r\n\r\n", 400, 400);
    refused("GET /health HTTP/1.1\r\n" HOST HOST "\r\n", 400, 400);
    raw_ask(&r, c.port, tls, sizeof(tls));
    assert_true(r.closed && (r.status == 0 || r.status == 400));
    for (size_t i = 0; i < sizeof(noise); i++) {
        seed = seed * 1664525u + 1013904223u;
        noise[i] = (unsigned char)(seed >> 24);
    }
    noise[300] = '\n';
    raw_ask(&r, c.port, noise, sizeof(noise));
    assert_true(r.closed && (r.status == 0 || r.status == 400));
}

static void h09_methods_are_told(void **state)
{
    static const char *const methods[] = {"get",   "TRACE", "CONNECT", "PUT",
                                          "PATCH", "BREW",  "POST"};
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        snprintf(text, sizeof(text), "%s /health HTTP/1.1\r\n" HOST "\r\n", methods[i]);
        assert_int_equal(case_ask(&c, &r, text), 405);
        assert_string_equal(raw_header(&r, "Allow"), "GET, HEAD");
    }
    raw_open(&r, c.port);
    raw_say(&r, "HEAD /health HTTP/1.1\r\n" HOST "\r\nOPTIONS /echo HTTP/1.1\r\n" HOST
                "\r\n");
    /* Its length without the bytes. */
    while (!strstr(r.have, "\r\n\r\n")) {
        r.have[r.n] = '\0';
        r.n += (size_t)read(r.fd, r.have + r.n, 4096);
        r.have[r.n] = '\0';
    }
    assert_non_null(strstr(r.have, "200 OK"));
    assert_non_null(strstr(r.have, "Content-Length: 15"));
    {
        char *const next = strstr(r.have, "\r\n\r\n") + 4;

        memmove(r.have, next, r.n - (size_t)(next - r.have));
        r.n -= (size_t)(next - r.have);
    }
    assert_int_equal(raw_reply(&r, 2), 204);
    assert_string_equal(raw_header(&r, "Allow"), "POST, OPTIONS");
    raw_close(&r);
}

/* JSON is UTF-8: bytes that are said to mean something else are not read as it. */
static void h10_charsets_are_checked(void **state)
{
    static const struct {
        const char *type;
        int status;
    } cases[] = {
        {"application/json; charset=utf-8", 200},
        {"Application/JSON;charset=\"UTF-8\"", 200},
        {"application/json ;  Charset=utf8 ; x=y", 200},
        {"application/json;", 200},
        {"application/json; charset=latin1", 415},
        {"application/json; x=y; charset=iso-8859-1", 415},
        {"application/json; charset=utf-8; charset=utf-16", 415},
        {"application/json; charset=\"latin1\"", 415},
        {"application/json; charset=utf-16", 415},
        {"application/json; charset=\"", 415},
        {"application/json; charset=", 415},
        {"application/json; charset =latin1", 415},
        {"application/json latin1", 415},
        {"application/jsonl", 415},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char request[300];

        snprintf(request, sizeof(request),
                 "POST /echo HTTP/1.1\r\n" HOST "Content-Type: %s\r\n"
                 "Content-Length: 2\r\n\r\n{}",
                 cases[i].type);
        if (case_ask(&c, &r, request) != cases[i].status)
            fail_msg("%s: %s", cases[i].type, r.have);
        if (cases[i].status == 415)
            assert_non_null(strstr(r.have, "invalid_request_error"));
    }
}

static void h10_media_are_checked(void **state)
{
    (void)state;
    assert_int_equal(
        case_ask(&c, &r, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\n{}"),
        415);
    assert_int_equal(case_ask(&c, &r,
                              "POST /echo HTTP/1.1\r\n" HOST "Content-Type: text/plain"
                              "\r\nContent-Length: 2\r\n\r\n{}"),
                     415);
    assert_int_equal(case_ask(&c, &r,
                              "POST /echo HTTP/1.1\r\n" HOST JSON
                              "Content-Encoding: gzip\r\n"
                              "Content-Length: 2\r\n\r\n{}"),
                     415);
    assert_int_equal(case_ask(&c, &r, "POST /echo HTTP/1.1\r\n" HOST "\r\n"), 200);
    raw_open(&r, c.port);
    raw_say(&r, "POST /echo HTTP/1.1\r\n" HOST JSON
                "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_int_equal(raw_reply(&r, 2), 100);
    raw_say(&r, "{}");
    assert_int_equal(raw_reply(&r, 2), 200);
    raw_close(&r);
    assert_int_equal(case_ask(&c, &r,
                              "POST /echo HTTP/1.1\r\n" HOST JSON "Expect: tea\r\n"
                              "Content-Length: 2\r\n\r\n{}"),
                     417);
    /* Refused before it is sent. */
    raw_open(&r, c.port);
    raw_say(&r, "POST /echo HTTP/1.1\r\n" HOST JSON
                "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n");
    assert_int_equal(raw_reply(&r, 2), 413);
    raw_close(&r);
}

static void h11_large_bodies_are_not_read(void **state)
{
    static char piece[64 << 10];
    size_t sent = 0;

    (void)state;
    memset(piece, '1', sizeof(piece));
    raw_open(&r, c.port);
    raw_say(&r,
            "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 1000000000\r\n\r\n");
    raw_send(&r, piece, sizeof(piece)); /* on its way already */
    assert_int_equal(raw_reply(&r, 3), 413);
    assert_true(raw_closes(&r, 4));
    raw_close(&r);
    raw_open(&r, c.port);
    raw_say(&r,
            "POST /echo HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\n");
    /* One endless chunk. */
    raw_say(&r, "3b9aca00\r\n");
    while (sent < (size_t)4 << 20 && raw_send(&r, piece, sizeof(piece)))
        sent += sizeof(piece);
    assert_int_equal(raw_reply(&r, 3), 413);
    assert_true(raw_closes(&r, 4));
    raw_close(&r);
    assert_int_equal(c.n_handled, 0);
}

static void h19_requests_follow_on_one_socket(void **state)
{
    char text[256];

    (void)state;
    raw_open(&r, c.port);
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof(text),
                 "POST /%s HTTP/1.1\r\n" HOST JSON "Content-Length: 3\r\n\r\n%03d",
                 i % 10 == 3 ? "later" : "echo", i);
        raw_say(&r, text);
    }
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof(text), "%03d", i);
        assert_int_equal(raw_reply(&r, 3), 200);
        assert_string_equal(r.body, text);
    }
    /* After an error that was clean, the connection goes on; else it is closed. */
    raw_say(&r, "GET /nothing HTTP/1.1\r\n" HOST "\r\nGET /health HTTP/1.1\r\n" HOST
                "\r\n");
    assert_int_equal(raw_reply(&r, 3), 404);
    assert_int_equal(raw_reply(&r, 3), 200);
    raw_say(&r, "POST /nothing HTTP/1.1\r\n" HOST JSON
                "Content-Length: 40\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n"
                "\r\n");
    assert_int_equal(raw_reply(&r, 3), 404);
    assert_true(raw_closes(&r, 3));
    assert_int_equal(r.n, 0);
    raw_close(&r);
}

#define ROW(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(a_request_is_answered),
        ROW(h01_both_length_headers_close),
        ROW(h02_bad_lengths_close),
        ROW(h03_unknown_transfer_codings_close),
        ROW(h04_bad_chunks_close),
        ROW(h05_bad_header_lines_close),
        ROW(h06_hostile_targets_find_nothing),
        ROW(h07_oversized_heads_are_told),
        ROW(h08_other_protocols_close),
        ROW(h09_methods_are_told),
        ROW(h10_media_are_checked),
        ROW(h10_charsets_are_checked),
        ROW(h11_large_bodies_are_not_read),
        ROW(h19_requests_follow_on_one_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
