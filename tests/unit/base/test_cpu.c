/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where threads run. The tests are in the order of what they leave behind: once a
 * thread is pinned it stays so.
 */
#define _GNU_SOURCE
#include <omp.h>
#include <sched.h>
#include <stdlib.h>

#include "artel.h"
#include "base/cpu.h"
#include "check.h"

/* CPUs that each thread may run on: the fewest and the most. */
static void masks(int *least, int *most)
{
    int low = CPU_SETSIZE, high = 0;

#pragma omp parallel reduction(min : low) reduction(max : high)
    {
        cpu_set_t set;

        CPU_ZERO(&set);
        if (sched_getaffinity(0, sizeof(set), &set) == 0)
            low = high = CPU_COUNT(&set);
    }
    *least = low;
    *most = high;
}

static int process_cpus(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    return CPU_COUNT(&set);
}

static void a_place_given_by_the_user_stays(void **state)
{
    const int n = process_cpus();
    int least, most;

    (void)state;
    assert_int_equal(setenv("OMP_PROC_BIND", "false", 1), 0);
    assert_int_equal(cpu_set_threads(0, NULL), 0);
    unsetenv("OMP_PROC_BIND");
    masks(&least, &most);
    assert_int_equal(least, n);
    assert_int_equal(most, n);
    assert_int_equal(cpu_threads(), omp_get_num_procs());
}

static void more_threads_than_cpus_are_not_pinned(void **state)
{
    const int n = process_cpus();
    int least, most;

    (void)state;
    if (n > 8)
        skip();
    assert_int_equal(cpu_set_threads((size_t)n + 1, NULL), 0);
    masks(&least, &most);
    assert_int_equal(least, n);
    assert_int_equal(most, n);
}

/* Two programs of one thread each must not meet on the first CPU. */
static void fewer_threads_than_cpus_are_not_pinned(void **state)
{
    const int n = process_cpus();
    int least, most;

    (void)state;
    if (n < 2)
        skip();
    assert_int_equal(cpu_set_threads(1, NULL), 0);
    masks(&least, &most);
    assert_int_equal(least, n);
    assert_int_equal(most, n);
}

static void each_thread_has_a_cpu_of_its_own(void **state)
{
    const int n = process_cpus();
    cpu_set_t seen;
    int least, most;

    (void)state;
    CPU_ZERO(&seen);
    assert_int_equal(cpu_set_threads(0, NULL), 0);
    assert_int_equal(cpu_threads(), n);
    masks(&least, &most);
    assert_int_equal(least, 1);
    assert_int_equal(most, 1);
#pragma omp parallel
    {
        const int cpu = sched_getcpu();

#pragma omp critical(artel_test_cpus)
        CPU_SET(cpu, &seen);
    }
    assert_int_equal(CPU_COUNT(&seen), n);
    /* The pinned main thread's own mask is not taken for the process's. */
    assert_int_equal(cpu_set_threads(0, NULL), 0);
    assert_int_equal(cpu_threads(), n);
}

/* After the test above: this thread is pinned. */
static void unpinned_a_thread_may_run_anywhere(void **state)
{
    (void)state;
    assert_int_equal(process_cpus(), 1);
    cpu_unpin();
    assert_int_equal(process_cpus(), cpu_threads());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_given_by_the_user_stays),
        cmocka_unit_test(more_threads_than_cpus_are_not_pinned),
        cmocka_unit_test(fewer_threads_than_cpus_are_not_pinned),
        cmocka_unit_test(each_thread_has_a_cpu_of_its_own),
        cmocka_unit_test(unpinned_a_thread_may_run_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
