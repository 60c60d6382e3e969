/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A team meets: nobody passes before all are there, with more threads than CPUs
 * and with one that is late; and who waits long does not keep a CPU busy.
 */
#include "check.h"

#include <omp.h>
#include <stdbool.h>
#include <time.h>

#include "base/team.h"

#define MEETINGS 400
#define MOST     8

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void rest(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

/* Plain memory: only the meetings order it. */
struct board {
    uint32_t slot[2][MOST];
    uint32_t wrong[MOST];
    size_t n;
    bool halves;
    long late_ms;
};

static void write_and_read(struct member *m, void *data)
{
    struct board *b = data;

    if (!m->index)
        b->n = m->n;
    for (uint32_t i = 1; i <= MEETINGS; i++) {
        uint32_t *slot = b->slot[i % 2];

        slot[m->index] = i;
        if (b->halves) {
            team_arrive(m);
            team_wait(m);
        } else {
            team_meet(m);
        }
        for (size_t k = 0; k < m->n; k++)
            b->wrong[m->index] += slot[k] != i;
    }
}

static void nobody_passes_before_all_are_there(void **state)
{
    const int before = omp_get_max_threads();

    (void)state;
    for (int n = 1; n <= MOST; n++)
        for (int halves = 0; halves < 2; halves++) {
            struct board b = {.halves = halves};

            omp_set_num_threads(n);
            team_run(MOST, write_and_read, &b);
            assert_int_equal(b.n, n);
            for (int i = 0; i < n; i++)
                assert_int_equal(b.wrong[i], 0);
        }
    omp_set_num_threads(before);
}

static void come_late(struct member *m, void *data)
{
    const struct board *b = data;

    for (int i = 0; i < 3; i++) {
        if ((size_t)i == m->index)
            rest(b->late_ms);
        team_meet(m);
    }
}

static void who_waits_long_sleeps(void **state)
{
    struct board b = {.late_ms = 200};
    const int before = omp_get_max_threads();
    double used;

    (void)state;
    omp_set_num_threads(4);
    team_run(MOST, write_and_read, &b); /* threads exist */
    used = cpu_seconds();
    team_run(MOST, come_late, &b);
    used = cpu_seconds() - used;
    assert_true(used < 0.2); /* 3 x 0.2 s times 3 threads would be 1.8 s */
    omp_set_num_threads(before);
}

static void an_idle_team_costs_nothing(void **state)
{
    struct board b = {0};
    double used;

    (void)state;
    team_run(MOST, write_and_read, &b);
    used = cpu_seconds();
    rest(500);
    assert_true(cpu_seconds() - used < 0.2);
}

static void inside_a_region_a_team_is_one_thread(void **state)
{
    size_t n[3] = {0};

    (void)state;
#pragma omp parallel num_threads(3)
    {
        struct board b = {0};

        team_run(MOST, write_and_read, &b);
        n[omp_get_thread_num()] = b.n;
    }
    for (int i = 0; i < 3; i++)
        assert_in_range(n[i], 0, 1);
    assert_int_equal(n[0], 1);
}

static void asked_for_fewer_a_team_is_smaller(void **state)
{
    struct board b = {0};
    const int before = omp_get_max_threads();

    (void)state;
    omp_set_num_threads(4);
    team_run(2, write_and_read, &b);
    assert_int_equal(b.n, 2);
    omp_set_num_threads(before);
}

static void shares_cover_everything_once(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 7; n++)
        for (size_t items = 0; items <= 100; items++)
            for (size_t grain = 1; grain <= 16; grain *= 4) {
                size_t at = 0;

                for (size_t i = 0; i < n; i++) {
                    const struct member m = {.index = i, .n = n};
                    size_t first, end;

                    team_share(&m, items, grain, &first, &end);
                    assert_int_equal(first, at);
                    assert_true(end >= first && (end % grain == 0 || end == items));
                    at = end;
                }
                assert_int_equal(at, items);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_passes_before_all_are_there),
        cmocka_unit_test(who_waits_long_sleeps),
        cmocka_unit_test(an_idle_team_costs_nothing),
        cmocka_unit_test(inside_a_region_a_team_is_one_thread),
        cmocka_unit_test(asked_for_fewer_a_team_is_smaller),
        cmocka_unit_test(shares_cover_everything_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
