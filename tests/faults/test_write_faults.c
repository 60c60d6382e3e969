/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows R05 to R09: each system call of a write fails in turn. The target then holds
 * the old content or the new, nothing lies beside it, the descriptor is closed and
 * the error names file and reason.
 */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/error.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t n);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t n);
int __wrap_fsync(int fd);
int __wrap_close(int fd);
int __wrap_rename(const char *from, const char *to);

enum call { CALL_OPEN, CALL_WRITE, CALL_FSYNC, CALL_CLOSE, CALL_RENAME, N_CALLS };

static struct {
    bool armed;
    enum call call;
    size_t at;    /* the call, from 0, that fails */
    size_t times; /* how many in a row */
    int error;
    bool shorten; /* writes: take half instead of failing */
    size_t seen[N_CALLS];
} plan;

static bool fails(enum call call)
{
    size_t i;

    if (!plan.armed)
        return false;
    i = plan.seen[call]++;
    if (call != plan.call || i < plan.at || i >= plan.at + plan.times)
        return false;
    errno = plan.error;
    return true;
}

int __wrap_open(const char *path, int flags, ...)
{
    return fails(CALL_OPEN) ? -1 : __real_open(path, flags, 0666);
}

ssize_t __wrap_write(int fd, const void *data, size_t n)
{
    if (!fails(CALL_WRITE))
        return __real_write(fd, data, n);
    return plan.shorten ? __real_write(fd, data, (n + 1) / 2) : -1;
}

int __wrap_fsync(int fd)
{
    return fails(CALL_FSYNC) ? -1 : __real_fsync(fd);
}

/* As the kernel does it: the descriptor is gone even when close() tells of an error. */
int __wrap_close(int fd)
{
    const bool failed = fails(CALL_CLOSE);
    const int error = errno, rc = __real_close(fd);

    if (!failed)
        return rc;
    errno = error;
    return -1;
}

int __wrap_rename(const char *from, const char *to)
{
    return fails(CALL_RENAME) ? -1 : __real_rename(from, to);
}

static char folder[] = "/tmp/artel-faults-XXXXXX";
static char target[sizeof(folder) + 16];
static char content[300000];

static size_t count_entries(const char *path)
{
    DIR *d = opendir(path);
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void assert_content(const char *want, size_t n)
{
    char *got = malloc(n + 1);
    FILE *f = fopen(target, "rb");

    assert_non_null(got);
    assert_non_null(f);
    assert_int_equal(fread(got, 1, n + 1, f), n);
    assert_memory_equal(got, want, n);
    fclose(f);
    free(got);
}

static void put_old(void)
{
    struct artel_error err = {0};

    plan.armed = false;
    assert_int_equal(write_file(target, "old", 3, &err), 0);
}

static int write_with_plan(struct artel_error *err)
{
    int rc;

    memset(plan.seen, 0, sizeof(plan.seen));
    plan.armed = true;
    rc = write_file(target, content, sizeof(content), err);
    plan.armed = false;
    return rc;
}

static void R05_R06_every_failing_call_leaves_old_or_new(void **state)
{
    static const int errors[] = {ENOSPC, EIO, EDQUOT, EROFS, EFBIG};
    size_t calls[N_CALLS];
    const size_t descriptors = count_entries("/proc/self/fd");
    struct artel_error err = {0};

    (void)state;
    plan.times = 0;
    put_old();
    assert_int_equal(write_with_plan(&err), 0);
    memcpy(calls, plan.seen, sizeof(calls));
    assert_true(calls[CALL_WRITE] >= 1 && calls[CALL_FSYNC] == 2 &&
                calls[CALL_RENAME] == 1);
    for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++)
        for (int call = 0; call < N_CALLS; call++)
            for (size_t at = 0; at < calls[call]; at++) {
                /* the folder is touched after the rename: the new file stands then */
                const bool renamed =
                    call != CALL_RENAME && call != CALL_WRITE && at > 0;

                put_old();
                plan.call = (enum call)call;
                plan.at = at;
                plan.times = 1;
                plan.error = errors[e];
                plan.shorten = false;
                err = (struct artel_error){0};
                assert_error(write_with_plan(&err), ARTEL_EIO, err, "IO01");
                assert_non_null(strstr(err.reason, strerror(errors[e])));
                assert_non_null(strstr(err.file, renamed ? folder : target));
                assert_content(renamed ? content : "old",
                               renamed ? sizeof(content) : 3);
                assert_int_equal(count_entries(folder), 3);
                assert_int_equal(count_entries("/proc/self/fd"), descriptors);
            }
}

static void R07_a_file_whose_fsync_failed_is_not_trusted(void **state)
{
    struct artel_error err = {0};

    (void)state;
    put_old();
    plan.call = CALL_FSYNC;
    plan.at = 0;
    plan.times = 1; /* a second fsync would succeed */
    plan.error = EIO;
    assert_error(write_with_plan(&err), ARTEL_EIO, err, "IO01");
    assert_int_equal(plan.seen[CALL_FSYNC], 1);
    assert_int_equal(plan.seen[CALL_RENAME], 0);
    assert_content("old", 3);
    assert_int_equal(write_with_plan(&err), ARTEL_EIO); /* and again, from memory */
    plan.times = 0;
    assert_int_equal(write_with_plan(&err), 0);
    assert_content(content, sizeof(content));
}

static void R08_short_and_interrupted_writes_are_continued(void **state)
{
    struct artel_error err = {0};

    (void)state;
    plan.call = CALL_WRITE;
    plan.at = 0;
    plan.times = 12;
    for (int shorten = 0; shorten < 2; shorten++) {
        put_old();
        plan.shorten = shorten;
        plan.error = EINTR;
        assert_int_equal(write_with_plan(&err), 0);
        assert_content(content, sizeof(content));
    }
    plan.call = CALL_FSYNC;
    plan.times = 3;
    put_old();
    assert_int_equal(write_with_plan(&err), 0);
    assert_content(content, sizeof(content));
    plan.call = CALL_CLOSE; /* interrupted, but closed */
    put_old();
    assert_int_equal(write_with_plan(&err), 0);
}

static void no_descriptors_left_is_a_limit(void **state)
{
    struct artel_error err = {0};

    (void)state;
    put_old();
    plan.call = CALL_OPEN;
    plan.at = 0;
    plan.times = 1;
    plan.error = EMFILE;
    assert_error(write_with_plan(&err), ARTEL_ELIMIT, err, "IO01");
    assert_content("old", 3);
}

static void writers_of_formats_report_what_the_stream_met(void **state)
{
    static const float values[70000];
    const struct tensor t = {"w", DTYPE_F32, 1, {70000}, values, sizeof(values)};
    struct artel_error err = {0};
    json_t *v = json_string("text");
    int rc;

    (void)state;
    for (int json = 0; json < 2; json++) {
        put_old();
        memset(plan.seen, 0, sizeof(plan.seen));
        plan.call = CALL_WRITE;
        plan.at = 0;
        plan.times = 1;
        plan.error = ENOSPC;
        plan.shorten = false;
        plan.armed = true;
        rc = json ? json_write_file(target, v, false, &err)
                  : safetensors_write(target, &t, 1, NULL, 0, &err);
        plan.armed = false;
        assert_error(rc, ARTEL_EIO, err, "IO01");
        assert_non_null(strstr(err.reason, strerror(ENOSPC)));
        assert_content("old", 3);
        assert_int_equal(count_entries(folder), 3);
    }
    json_decref(v);
}

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(content); i++)
        content[i] = (char)(i * 31 >> 3);
    if (!mkdtemp(folder))
        return -1;
    snprintf(target, sizeof(target), "%s/target", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(target);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R05_R06_every_failing_call_leaves_old_or_new),
        cmocka_unit_test(R07_a_file_whose_fsync_failed_is_not_trusted),
        cmocka_unit_test(R08_short_and_interrupted_writes_are_continued),
        cmocka_unit_test(no_descriptors_left_is_a_limit),
        cmocka_unit_test(writers_of_formats_report_what_the_stream_met),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
