/* SPDX-License-Identifier: Apache-2.0 */
/*
 * H40: memory fails for one request. It is told so or loses its connection; the next ones
 * are served, and nothing is left behind.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "support/http_case.h"

#define HOST "Host: localhost\r\n"

/* Fails one allocation of any thread: the one after COUNTDOWN others. */
static atomic_long countdown = -1;

static bool fails(void)
{
    long v = atomic_load(&countdown);

    while (v >= 0)
        if (atomic_compare_exchange_weak(&countdown, &v, v - 1))
            return v == 0;
    return false;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
char *__wrap_strdup(const char *s)
{
    return fails() ? NULL : __real_strdup(s);
}

static struct http_case c;
static struct raw r;

static void h40_a_request_without_memory_fails_alone(void **state)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\n" HOST "Content-Type: application/json\r\n"
        "Content-Length: 6\r\n\r\n[1, 2]";
    long spent = 1;
    unsigned failed = 0;

    (void)state;
    case_prepare(&c);
    case_open(&c);
    for (long n = 0; spent; n++) {
        atomic_store(&countdown, n);
        case_ask(&c, &r, request);
        spent = atomic_exchange(&countdown, -1) < 0;
        failed += r.status != 200;
        if (r.status != 200 && r.status != 503 && r.status != 0)
            fail_msg("the %ldth allocation: %d", n, r.status);
        assert_int_equal(case_ask(&c, &r, request), 200);
        assert_string_equal(r.body, "[1, 2]");
    }
    assert_true(failed > 3);
    case_empties(&c);
    case_close(&c);
}

static void opening_fails_in_order(void **state)
{
    static const char *const keys[] = {"sk-a-first-key", "sk-a-second-key"};
    struct artel_error err;
    int rc;

    (void)state;
    for (long n = 0;; n++) {
        case_prepare(&c);
        c.o.keys = c.o.hosts = c.o.origins = keys;
        c.o.n_keys = c.o.n_hosts = c.o.n_origins = 2;
        memset(&err, 0, sizeof(err));
        atomic_store(&countdown, n);
        rc = http_open(&c.http, &c.o, &err);
        atomic_store(&countdown, -1);
        if (!rc)
            break;
        assert_null(c.http);
        assert_true(err.code[0]);
    }
    case_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(h40_a_request_without_memory_fails_alone),
        cmocka_unit_test(opening_fails_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
