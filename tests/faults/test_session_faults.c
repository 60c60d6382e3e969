/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No memory for a pool, for a session over it, for merged weights, or for a long prompt
 * that routes itself: the one who asks is told, and everybody else goes on.
 */
#define _GNU_SOURCE
#include "support/toy_pool.h"

#include <sys/mman.h>

#include "alloc_faults.h"

void *__real_mmap(void *at, size_t n, int prot, int flags, int file, off_t offset);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int file, off_t offset);

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int file, off_t offset)
{
    return allocation_fails() ? MAP_FAILED
                              : __real_mmap(at, n, prot, flags, file, offset);
}

static const struct gate_rule moa = {.place = ROUTER_LAYER, .fix_expert = true};

static void arm(size_t fail_at)
{
    allocation.armed = true;
    allocation.seen = 0;
    allocation.fail_at = fail_at;
}

static void a_pool_without_memory_is_none(void **state)
{
    struct fixture f;
    struct kv_pool *p;
    struct artel_error err;

    (void)state;
    fixture_open(&f, &moa, 4);
    for (size_t i = 0; i < 2; i++) {
        int rc;

        arm(i);
        rc = kv_pool_open(&p, f.model, 1 << 20, &err);
        allocation.armed = false;
        assert_int_equal(rc, ARTEL_ELIMIT);
        assert_null(p);
    }
    assert_int_equal(kv_pool_open(&p, f.model, (size_t)1 << 60, &err), ARTEL_ELIMIT);
    fixture_close(&f);
}

static void a_session_without_memory_is_none(void **state)
{
    struct fixture f;
    struct artel_session *s;
    struct artel_error err;
    int rc = -1;
    size_t n = 0;

    (void)state;
    fixture_open(&f, &moa, 8);
    for (; rc < 0; n++) {
        arm(n);
        rc = session_open_pooled(&s, f.model, &f.mixture, 300, f.pool, &err);
        allocation.armed = false;
        if (rc < 0) {
            assert_int_equal(rc, ARTEL_ELIMIT);
            assert_null(s);
        }
    }
    assert_true(n > 4);
    read_prompt(s, f.ids, 200, 300, EXPERT_AUTO, 150);
    session_close(s);
    assert_int_equal(stats_of(&f).used + stats_of(&f).promised, 0);
    fixture_close(&f);
}

/* It begins again when there is memory, and its neighbour never noticed. */
static void a_long_prompt_without_memory_lets_go(void **state)
{
    struct fixture f;
    struct artel_session *s, *other, *alone;
    struct artel_error err;
    size_t failed = 0;

    (void)state;
    fixture_open(&f, &moa, 20);
    s = fixture_session(&f, true);
    other = fixture_session(&f, true);
    alone = fixture_session(&f, false);
    read_prompt(other, f.ids, 100, 200, 0, 0);
    read_prompt(alone, f.ids, 100, 200, 0, 0);
    for (size_t i = 0; i < 2; i++) {
        int rc;

        arm(i);
        rc = session_prefill(s, f.ids, 390, EXPERT_AUTO, 10, 300, &err);
        allocation.armed = false;
        failed += rc < 0;
        assert_true(rc == 0 || rc == ARTEL_ELIMIT);
        assert_int_equal(session_length(s), rc < 0 ? 0 : 390);
        assert_int_equal(stats_of(&f).promised, 2);
        assert_step_alike(&f, other, alone, 4);
    }
    assert_int_equal(failed, 2);
    read_prompt(s, f.ids, 390, 395, EXPERT_AUTO, 10);
    session_reset(alone);
    read_prompt(alone, f.ids, 390, 395, EXPERT_AUTO, 10);
    assert_same(&f, s, alone);
    session_close(s);
    session_close(other);
    session_close(alone);
    fixture_close(&f);
}

/* Refused where they must be, else the experts stay beside the weights. */
static void merged_weights_without_memory_are_none(void **state)
{
    struct fixture f;
    struct artel_session *s;
    struct artel_error err;
    size_t n = 0;
    int rc = -1;

    (void)state;
    fixture_open(&f, &moa, 8);
    s = fixture_session(&f, false);
    for (; rc < 0; n++) {
        arm(n);
        rc = session_set_merge(s, MERGE_ALWAYS, 1000, 0, &err);
        allocation.armed = false;
        assert_true(rc == 0 || rc == ARTEL_ELIMIT);
    }
    assert_int_equal(n, 5);
    for (int mode = MERGE_AUTO; mode <= MERGE_ALWAYS; mode++) {
        assert_int_equal(
            session_set_merge(s, (enum merge_mode)mode, 1000, 1 << 30, &err), 0);
        arm(0);
        rc = session_prefill(s, f.ids, 20, 1, 0, 0, &err);
        allocation.armed = false;
        assert_int_equal(rc, mode == MERGE_AUTO ? 0 : ARTEL_ELIMIT);
        assert_int_equal(session_merged(s), MERGE_NOTHING);
        assert_int_equal(session_length(s), rc < 0 ? 0 : 20);
    }
    assert_int_equal(session_prefill(s, f.ids, 20, 1, 0, 0, &err), 0);
    assert_int_equal(session_merged(s), MERGE_ALL);
    session_close(s);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_without_memory_is_none),
        cmocka_unit_test(a_session_without_memory_is_none),
        cmocka_unit_test(merged_weights_without_memory_are_none),
        cmocka_unit_test(a_long_prompt_without_memory_lets_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
