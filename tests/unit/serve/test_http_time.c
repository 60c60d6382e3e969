/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slow clients, silent ones, those that leave and those that are too many.
 */
#include "support/http_case.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define HOST "Host: localhost\r\n"
#define JSON "Content-Type: application/json\r\n"

static struct http_case c;
static struct raw r;

static int start(void **state)
{
    (void)state;
    case_prepare(&c);
    c.o.head_seconds = 0.6;
    c.o.body_seconds = 0.8;
    c.o.idle_seconds = 1.5;
    c.o.write_seconds = 1;
    c.o.max_connections = 16;
    case_open(&c);
    return 0;
}

static int start_large(void **state)
{
    (void)state;
    case_prepare(&c);
    c.o.max_connections = 2000;
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

static void post(struct raw *to, const char *path, const char *body)
{
    char text[512];

    snprintf(text, sizeof(text),
             "POST %s HTTP/1.1\r\n" HOST JSON "Content-Length: %zu\r\n\r\n%s", path,
             strlen(body), body);
    raw_open(to, c.port);
    raw_say(to, text);
}

/* Say TEXT a byte each 50 ms until the server closes; seconds that this took. */
static double dribble(const char *text)
{
    const double began = raw_now();

    while (raw_now() - began < 5) {
        char byte;

        raw_send(&r, *text ? text : "x", 1);
        text += *text != 0;
        usleep(50000);
        if (recv(r.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
            break;
    }
    return raw_now() - began;
}

static void h12_a_slow_head_ends_at_its_deadline(void **state)
{
    double took;

    (void)state;
    raw_open(&r, c.port);
    took = dribble("GET /health HTTP/1.1\r\n" HOST "X: ");
    assert_true(took > 0.5 && took < 1.8);
    assert_int_equal(raw_reply(&r, 1), 408);
    assert_true(raw_closes(&r, 3));
    raw_close(&r);
}

static void h13_a_slow_body_and_silence_end(void **state)
{
    const double began = raw_now();
    double took;

    (void)state;
    raw_open(&r, c.port);
    raw_say(&r, "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 10000\r\n\r\n");
    took = dribble("[");
    assert_true(took > 0.7 && took < 1.8);
    assert_int_equal(raw_reply(&r, 1), 408);
    assert_true(raw_closes(&r, 3));
    raw_close(&r);
    /* Silent from the start, and after a request. */
    raw_open(&r, c.port);
    took = raw_now();
    assert_true(raw_closes(&r, 4));
    took = raw_now() - took;
    assert_true(took > 1.3 && took < 3);
    raw_close(&r);
    raw_open(&r, c.port);
    raw_say(&r, "GET /health HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(raw_reply(&r, 1), 200);
    took = raw_now();
    assert_true(raw_closes(&r, 4));
    took = raw_now() - took;
    assert_true(took > 1.2 && took < 3);
    raw_close(&r);
    assert_true(raw_now() - began < 12);
}

static void h14_who_takes_nothing_is_bounded_and_cut(void **state)
{
    static char large[1000000];
    const int small = 4096;
    struct http_stats stats;
    double began;

    (void)state;
    post(&r, "/flood", "[]");
    assert_true(case_wait(&c, &c.n_broken, 1, 3));
    /* What it has not taken: the kernel's buffers and ours. */
    assert_true(c.flooded < (size_t)12 << 20);
    assert_true(raw_closes(&r, 3));
    raw_close(&r);
    /* A whole reply that nobody takes: cut by the deadline for writing. */
    raw_open(&r, c.port);
    setsockopt(r.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    raw_say(&r, "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 1000000\r\n\r\n");
    memset(large, '1', 1000000);
    raw_send(&r, large, 1000000);
    began = raw_now();
    do {
        usleep(20000);
        http_stats(c.http, &stats);
    } while (stats.connections && raw_now() - began < 6);
    assert_int_equal(stats.connections, 0);
    assert_true(raw_now() - began > 0.8 && raw_now() - began < 4);
    raw_close(&r);
}

static void h15_a_half_close_counts_as_leaving(void **state)
{
    double at;

    (void)state;
    post(&r, "/hold", "[]");
    assert_true(case_wait(&c, &c.n_handled, 1, 2));
    usleep(50000);
    at = raw_now();
    shutdown(r.fd, SHUT_WR);
    assert_true(case_wait(&c, &c.n_left, 1, 2));
    assert_true(c.left_at - at < 0.25);
    assert_true(raw_closes(&r, 1));
    raw_close(&r);
    assert_true(case_wait(&c, &c.n_threads, 0, 2));
    /* One that came before the handler ran counts too; an answer at once is still given. */
    c.n_left = 0;
    raw_open(&r, c.port);
    raw_say(&r, "POST /hold HTTP/1.1\r\n" HOST "\r\n");
    shutdown(r.fd, SHUT_WR);
    assert_true(case_wait(&c, &c.n_left, 1, 2));
    raw_close(&r);
    raw_open(&r, c.port);
    raw_say(&r, "GET /health HTTP/1.1\r\n" HOST "\r\n");
    shutdown(r.fd, SHUT_WR);
    assert_int_equal(raw_reply(&r, 1), 200);
    raw_close(&r);
}

static void h16_who_leaves_is_noticed_at_once(void **state)
{
    double at;

    (void)state;
    for (int i = 0; i < 20; i++) {
        const bool stream = i % 2;

        c.n_left = c.n_handled = 0;
        post(&r, stream ? "/stream" : "/hold", stream ? "" : "[]");
        assert_true(case_wait(&c, &c.n_handled, 1, 2));
        usleep((unsigned)(i * 3000));
        at = raw_now();
        raw_close(&r);
        assert_true(case_wait(&c, &c.n_left, 1, 2));
        if (c.left_at - at > 0.25)
            fail_msg("%.3f s", c.left_at - at);
        assert_true(case_wait(&c, &c.n_threads, 0, 2));
    }
}

static void h16_who_leaves_in_the_middle_of_a_request_is_let_go(void **state)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\n" HOST JSON "Content-Length: 4\r\n\r\n[12";
    struct http_stats stats;
    double began;

    (void)state;
    for (size_t n = 0; n < sizeof(request); n += 9) {
        raw_open(&r, c.port);
        raw_send(&r, request, n);
        raw_close(&r);
        raw_open(&r, c.port); /* a whole request whose sender half-closes at once */
        raw_say(&r, "GET /health HTTP/1.1\r\n" HOST "\r\n");
        shutdown(r.fd, SHUT_WR);
        assert_int_equal(raw_reply(&r, 2), 200);
        raw_close(&r);
        usleep(40000);
    }
    began = raw_now();
    do {
        usleep(5000);
        http_stats(c.http, &stats);
    } while (stats.connections && raw_now() - began < 4);
    assert_int_equal(stats.connections, 0);
    assert_true(raw_now() - began < 2);
}

static void h18_connections_above_the_limit_are_told(void **state)
{
    struct raw *const held = calloc(16, sizeof(*held));
    double took = raw_now();

    (void)state;
    for (int i = 0; i < 16; i++)
        raw_open(&held[i], c.port);
    usleep(100000);
    assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 503);
    assert_string_equal(raw_header(&r, "Retry-After"), "1");
    assert_true(raw_now() - took < 1);
    /* Those that are there are served, and a place that is left is taken. */
    raw_say(&held[3], "GET /health HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(raw_reply(&held[3], 1), 200);
    raw_close(&held[5]);
    usleep(100000);
    assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
    for (int i = 0; i < 16; i++)
        raw_close(&held[i]);
    free(held);
}

static void h37_a_server_that_drains_takes_nothing_new(void **state)
{
    struct raw other;

    (void)state;
    post(&r, "/stream", "40");
    assert_true(case_wait(&c, &c.n_handled, 1, 2));
    http_drain(c.http);
    post(&other, "/echo", "[]");
    assert_int_equal(raw_reply(&other, 1), 503);
    assert_non_null(raw_header(&other, "Retry-After"));
    assert_true(raw_closes(&other, 3));
    raw_close(&other);
    assert_int_equal(case_ask(&c, &other, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
    assert_true(other.closed);
    assert_int_equal(raw_reply(&r, 2), 200); /* to its end */
    assert_int_equal(r.n_body, 200);
    raw_close(&r);
}

/* Processor seconds of this process. */
static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* An unconnected client, so that its descriptor is taken before the limit is set. */
static void reserve(struct raw *to)
{
    memset(to, 0, sizeof(*to));
    to->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(to->fd >= 0);
}

static void h39_without_descriptors_it_waits_and_recovers(void **state)
{
    const struct sockaddr_in a = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)c.port)};
    struct raw *const held = calloc(12, sizeof(*held));
    struct rlimit old, few;
    double cpu;

    (void)state;
    for (int i = 0; i < 12; i++)
        reserve(&held[i]);
    getrlimit(RLIMIT_NOFILE, &old);
    few = old;
    few.rlim_cur = (rlim_t)held[11].fd + 6; /* room for five accepted ones */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    cpu = cpu_seconds();
    for (int i = 0; i < 12; i++) {
        assert_int_equal(connect(held[i].fd, (const void *)&a, sizeof(a)), 0);
        raw_say(&held[i], "GET /health HTTP/1.1\r\n" HOST "\r\n");
    }
    for (int i = 0; i < 5; i++)
        assert_int_equal(raw_reply(&held[i], 2), 200);
    assert_int_equal(raw_reply(&held[11], 0.4), 0);
    assert_true(cpu_seconds() - cpu < 0.2);
    /* Who leaves makes room for who waits. */
    for (int i = 0; i < 12; i++) {
        if (i >= 5)
            assert_int_equal(raw_reply(&held[i], 2), 200);
        raw_close(&held[i]);
    }
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
    free(held);
}

/* A storm: all at once, more than there are places. Everyone gets an answer or is told. */
static void h45_a_storm_of_retries_is_answered(void **state)
{
    struct raw *const storm = calloc(200, sizeof(*storm));
    unsigned served = 0, told = 0;

    (void)state;
    for (int i = 0; i < 200; i++)
        post(&storm[i], "/later", "[]");
    for (int i = 0; i < 200; i++) {
        const int status = raw_reply(&storm[i], 3);

        served += status == 200;
        told += status == 503;
        raw_close(&storm[i]);
    }
    assert_int_equal(served + told, 200);
    assert_true(served >= 16);
    usleep(300000);
    assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.1\r\n" HOST "\r\n"), 200);
    free(storm);
}

static void h17_a_thousand_silent_connections_are_held(void **state)
{
    enum { N = 1000 };
    int *const fds = calloc(N, sizeof(int));
    struct http_stats stats;
    double took;

    (void)state;
    for (int i = 0; i < N; i++) {
        raw_open(&r, c.port);
        fds[i] = r.fd;
    }
    took = raw_now();
    for (int i = 0; i < 20; i++)
        assert_int_equal(case_ask(&c, &r, "GET /health HTTP/1.0\r\n\r\n"), 200);
    took = raw_now() - took;
    assert_true(took < 6);
    http_stats(c.http, &stats);
    assert_true(stats.connections >= N);
    for (int i = 0; i < N; i++) { /* each of them is served */
        r.fd = fds[i];
        r.n = 0;
        r.closed = false;
        raw_say(&r, "GET /health HTTP/1.1\r\n" HOST "\r\n");
        assert_int_equal(raw_reply(&r, 2), 200);
        raw_close(&r);
    }
    free(fds);
}

static void nothing_runs_while_nothing_happens(void **state)
{
    double cpu;

    (void)state;
    post(&r, "/hold", "[]");
    assert_true(case_wait(&c, &c.n_handled, 1, 2));
    cpu = cpu_seconds();
    usleep(500000);
    assert_true(cpu_seconds() - cpu < 0.05);
    raw_close(&r);
    assert_true(case_wait(&c, &c.n_left, 1, 2));
}

static void closing_ends_every_exchange(void **state)
{
    struct raw *const held = calloc(4, sizeof(*held));

    (void)state;
    for (int i = 0; i < 4; i++)
        post(&held[i], i % 2 ? "/stream" : "/hold", "");
    assert_true(case_wait(&c, &c.n_handled, 4, 2));
    http_close(c.http);
    assert_true(case_wait(&c, &c.n_threads, 0, 2));
    assert_int_equal(c.n_left, 4);
    for (int i = 0; i < 4; i++)
        raw_close(&held[i]);
    free(held);
    case_open(&c);
}

#define ROW(f) cmocka_unit_test_setup_teardown(f, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(h12_a_slow_head_ends_at_its_deadline),
        ROW(h13_a_slow_body_and_silence_end),
        ROW(h14_who_takes_nothing_is_bounded_and_cut),
        ROW(h15_a_half_close_counts_as_leaving),
        ROW(h16_who_leaves_is_noticed_at_once),
        cmocka_unit_test_setup_teardown(
            h16_who_leaves_in_the_middle_of_a_request_is_let_go, start_large, stop),
        ROW(h18_connections_above_the_limit_are_told),
        ROW(h37_a_server_that_drains_takes_nothing_new),
        ROW(h39_without_descriptors_it_waits_and_recovers),
        ROW(h45_a_storm_of_retries_is_answered),
        cmocka_unit_test_setup_teardown(h17_a_thousand_silent_connections_are_held,
                                        start_large, stop),
        ROW(nothing_runs_while_nothing_happens),
        ROW(closing_ends_every_exchange),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
