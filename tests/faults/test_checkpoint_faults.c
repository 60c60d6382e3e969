/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every write, sync, rename, folder and close of a save fails in turn, once and
 * from then on, each with several reasons: the checkpoint before is always there
 * or the new one is, and nothing else is left.
 */
#include "faults/io_faults.h"
#include "save/checkpoint.h"
#include "unit/save/fixture.h"

#define N_NUMBERS 20000 /* more than one buffer of the stream */

static int write_step(const char *stage, uint64_t step, size_t keep,
                      struct artel_error *err)
{
    static float numbers[N_NUMBERS];
    const struct tensor tensor = {.name = "expert.law.m",
                                  .dtype = DTYPE_F32,
                                  .n_dims = 1,
                                  .shape = {N_NUMBERS},
                                  .data = numbers,
                                  .bytes = sizeof(numbers)};

    for (size_t i = 0; i < N_NUMBERS; i++)
        numbers[i] = (float)step;
    return checkpoint_write(stage, step, &tensor, 1, NULL, keep, err);
}

/* Step of the newest whole checkpoint, whose content is checked. */
static uint64_t newest(const char *stage)
{
    struct artel_error err = {0};
    struct checkpoint c;
    uint64_t step;
    float x;

    if (checkpoint_newest(&c, stage, &err) != 1)
        fail_msg("%s: %s", err.file, err.reason);
    step = c.step;
    for (size_t i = 0; i < N_NUMBERS; i++) {
        memcpy(&x, (const char *)safetensors_at(c.file, 0)->data + i * sizeof(x),
               sizeof(x));
        assert_near(x, step, 0.0);
    }
    checkpoint_release(&c);
    return step;
}

static size_t count_hidden(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *entry;
    size_t n = 0;

    while ((entry = readdir(d)) != NULL)
        n += entry->d_name[0] == '.' && strlen(entry->d_name) > 2;
    closedir(d);
    return n;
}

/* Save step 2 after step 1 with the fault set; false once the fault is never reached. */
static bool save_with_fault(size_t keep)
{
    char *stage = scratch_open();
    struct artel_error err = {0};
    bool reached;
    uint64_t found;
    int rc;

    fault.armed = false;
    assert_int_equal(write_step(stage, 1, keep, NULL), 0);
    fault.seen = 0;
    fault.armed = true;
    rc = write_step(stage, 2, keep, &err);
    fault.armed = false;
    reached = fault.seen >= fault.nth;
    found = newest(stage);
    if (rc == 0 && found != 2)
        fail_msg("%s %zu: told saved, found %d", call_names[fault.call], fault.nth,
                 (int)found);
    if (rc < 0 && !err.reason[0])
        fail_msg("%s %zu: no reason told", call_names[fault.call], fault.nth);
    if (rc < 0 && fault.call != CALL_FSYNC && fault.call != CALL_CLOSE)
        assert_int_equal(found,
                         1); /* the sync after the rename comes too late for that */
    assert_int_equal(count_hidden(stage), 0);
    assert_int_equal(write_step(stage, 3, 1, NULL), 0);
    assert_int_equal(newest(stage), 3);
    scratch_close(stage);
    return reached;
}

static void run_all(const int *numbers, size_t n_numbers, bool sticky, bool short_)
{
    for (size_t i = 0; i < n_numbers; i++)
        for (int call = 0; call < (short_ ? 1 : N_CALLS); call++)
            for (size_t nth = 1;; nth++) {
                fault.sticky = sticky;
                fault.short_ = short_;
                fault.number = numbers[i];
                fault.call = (enum call)call;
                fault.nth = nth;
                if (!save_with_fault(1 + nth % 2))
                    break;
                assert_true(nth < 100);
            }
}

static void R05_disk_full_keeps_the_one_before(void **state)
{
    const int numbers[] = {ENOSPC, EDQUOT, EROFS};

    (void)state;
    run_all(numbers, 3, true, false);
}

static void R06_io_error_keeps_the_one_before(void **state)
{
    const int numbers[] = {EIO};

    (void)state;
    run_all(numbers, 1, true, false);
}

/* What failed once is written again from memory, so the save succeeds. */
static void R07_one_failure_is_survived(void **state)
{
    const int numbers[] = {EIO};

    (void)state;
    run_all(numbers, 1, false, false);
    for (size_t nth = 1; nth <= 4; nth++) {
        char *stage = scratch_open();

        fault.call = CALL_FSYNC;
        fault.nth = nth;
        fault.seen = 0;
        fault.armed = true;
        assert_int_equal(write_step(stage, 1, 1, NULL), 0);
        fault.armed = false;
        assert_int_equal(newest(stage), 1);
        scratch_close(stage);
    }
}

static void R08_short_writes_are_continued(void **state)
{
    const int numbers[] = {0};

    (void)state;
    run_all(numbers, 1, false, true);
    run_all(numbers, 1, true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R05_disk_full_keeps_the_one_before),
        cmocka_unit_test(R06_io_error_keeps_the_one_before),
        cmocka_unit_test(R07_one_failure_is_survived),
        cmocka_unit_test(R08_short_writes_are_continued),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
