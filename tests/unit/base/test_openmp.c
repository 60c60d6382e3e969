/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program starts itself again under the number of a process that left LLVM's OpenMP a
 * file without content, or under a limit; gcc's OpenMP minds neither.
 */
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artel.h"
#include "base/cpu.h"
#include "check.h"

#define LIMITED 7 /* the exit of a child that was told of a limit */

static void note_of(char *out, size_t room, pid_t pid)
{
    snprintf(out, room, "/dev/shm/__KMP_REGISTERED_LIB_%d_%d", (int)pid, (int)getuid());
}

/* What the program does when it was started again. */
static int use_openmp(void)
{
    struct artel_error err = {0};
    int n = 0;

    if (cpu_set_threads(2, &err) < 0)
        return strcmp(err.code, "CPU06") == 0 ? LIMITED : 1;
#pragma omp parallel reduction(+ : n)
    n += 1;
    return n == 2 ? 0 : 1;
}

/* The wait status of the program started again over a leftover of BYTES zeros (-1: none),
 * with files limited to LIMIT bytes (0: not). */
static int start_again(int bytes, rlim_t limit)
{
    const pid_t pid = fork();
    char note[80];
    int status = -1;

    assert_true(pid >= 0);
    if (pid == 0) {
        char self[] = "/proc/self/exe", word[] = "again";
        char *const words[] = {self, word, NULL};
        const struct rlimit l = {.rlim_cur = limit, .rlim_max = limit};

        note_of(note, sizeof(note), getpid());
        if (bytes >= 0) {
            const int fd = open(note, O_WRONLY | O_CREAT | O_TRUNC, 0600);

            if (fd < 0 || ftruncate(fd, bytes) < 0)
                _exit(99);
            close(fd);
        }
        if (limit && setrlimit(RLIMIT_FSIZE, &l) < 0)
            _exit(99);
        execv(self, words);
        _exit(99);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    note_of(note, sizeof(note), pid);
    unlink(note);
    return status;
}

static void test_leftovers(void **state)
{
    (void)state;
    if (access("/dev/shm", W_OK) < 0)
        skip();
    assert_int_equal(start_again(-1, 0), 0);
    assert_int_equal(start_again(0, 0), 0);
    assert_int_equal(start_again(1024, 0), 0);
}

static void test_small_files(void **state)
{
    const int status = start_again(-1, 512);

    (void)state;
    assert_true(WIFEXITED(status));
#if defined(__clang__)
    assert_int_equal(WEXITSTATUS(status), LIMITED);
#else
    assert_int_equal(WEXITSTATUS(status), 0);
#endif
    assert_int_equal(start_again(-1, 1024), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_small_files),
    };

    if (argc > 1 && !strcmp(argv[1], "again"))
        return use_openmp();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
