/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: the newest whole one is found, whatever happened to the others,
 * and whenever the writer was killed.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/log.h"
#include "save/checkpoint.h"
#include "unit/save/fixture.h"

#define N_NUMBERS 300

/* Writes checkpoint STEP, whose every number is STEP. */
static int write_step(const char *stage, uint64_t step, size_t keep,
                      struct artel_error *err)
{
    float numbers[N_NUMBERS];
    const struct tensor tensors[] = {
        {.name = "expert.law.m",
         .dtype = DTYPE_F32,
         .n_dims = 1,
         .shape = {N_NUMBERS},
         .data = numbers,
         .bytes = sizeof(numbers)},
        {.name = "router.params",
         .dtype = DTYPE_F32,
         .n_dims = 1,
         .shape = {2},
         .data = numbers,
         .bytes = 2 * sizeof(float)},
    };
    json_t *state =
        json_pack("{s:s, s:I}", "base_digest", "abc", "row", (json_int_t)step);
    int rc;

    for (size_t i = 0; i < N_NUMBERS; i++)
        numbers[i] = (float)step;
    rc = checkpoint_write(stage, step, tensors, 2, state, keep, err);
    json_decref(state);
    return rc;
}

/* The newest whole one is of STEP and holds what was written. */
static void newest_is(const char *stage, uint64_t step)
{
    struct artel_error err = {0};
    struct checkpoint c;
    const struct tensor *t;
    float x;

    if (checkpoint_newest(&c, stage, &err) != 1)
        fail_msg("%s: %s", err.file, err.reason);
    assert_int_equal(c.step, step);
    assert_int_equal(json_integer_value(json_object_get(c.state, "row")), step);
    t = safetensors_find(c.file, "expert.law.m");
    assert_non_null(t);
    assert_int_equal(t->shape[0], N_NUMBERS);
    for (size_t i = 0; i < N_NUMBERS; i++) {
        memcpy(&x, (const char *)t->data + i * sizeof(x), sizeof(x));
        assert_near(x, step, 0.0);
    }
    checkpoint_release(&c);
}

static char *inside(const char *stage, uint64_t step, const char *name)
{
    char text[96];

    snprintf(text, sizeof(text), "checkpoint-%" PRIu64 "%s%s", step, *name ? "/" : "",
             name);
    return path_join(stage, text);
}

static bool there(const char *stage, uint64_t step)
{
    char *path = inside(stage, step, "");
    const bool found = access(path, F_OK) == 0;

    free(path);
    return found;
}

static size_t count_entries(const char *folder)
{
    DIR *d = opendir(folder);
    size_t n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void the_newest_is_the_one_of_the_highest_step(void **state)
{
    char *stage = scratch_open(), *none = path_join(stage, "none");
    struct checkpoint c;

    (void)state;
    assert_int_equal(checkpoint_newest(&c, stage, NULL), 0);
    assert_int_equal(checkpoint_newest(&c, none, NULL), 0);
    for (uint64_t step = 8; step <= 11; step++)
        assert_int_equal(write_step(stage, step, 0, NULL), 0);
    assert_int_equal(write_step(stage, 9, 0, NULL), 0); /* R31: by step, not by time */
    newest_is(stage, 11);
    assert_int_equal(checkpoint_at(&c, stage, 9, NULL), 1);
    assert_int_equal(c.step, 9);
    checkpoint_release(&c);
    assert_int_equal(checkpoint_at(&c, stage, 12, NULL), 0);
    assert_int_equal(count_entries(stage), 4);
    free(none);
    scratch_close(stage);
}

static void a_step_can_be_written_again(void **state)
{
    char *stage = scratch_open(), *path;

    (void)state;
    assert_int_equal(write_step(stage, 5, 1, NULL), 0);
    path = inside(stage, 5, "state.safetensors");
    assert_int_equal(truncate(path, 10), 0);
    free(path);
    assert_int_equal(write_step(stage, 5, 1, NULL), 0);
    newest_is(stage, 5);
    assert_int_equal(count_entries(stage), 1);
    scratch_close(stage);
}

static void R35_retention_keeps_the_newest(void **state)
{
    (void)state;
    for (size_t keep = 1; keep <= 2; keep++) {
        char *stage = scratch_open();

        for (uint64_t step = 1; step <= 5; step++) {
            assert_int_equal(write_step(stage, step, keep, NULL), 0);
            newest_is(stage, step);
            assert_int_equal(count_entries(stage), step < keep ? step : keep);
        }
        assert_true(there(stage, 5));
        scratch_close(stage);
    }
}

/* Training went back from a damaged 300 to 200: saving 250 must not remove 250 or 200 in
 * favour of 300. */
static void R35_retention_does_not_count_a_past_given_up(void **state)
{
    char *stage = scratch_open(), *path;

    (void)state;
    assert_int_equal(write_step(stage, 200, 0, NULL), 0);
    assert_int_equal(write_step(stage, 300, 0, NULL), 0);
    path = inside(stage, 300, "state.json");
    assert_int_equal(truncate(path, 3), 0);
    free(path);
    assert_int_equal(write_step(stage, 250, 1, NULL), 0);
    assert_true(there(stage, 250) && there(stage, 300) && !there(stage, 200));
    newest_is(stage, 250);
    assert_int_equal(write_step(stage, 300, 1, NULL), 0);
    newest_is(stage, 300);
    scratch_close(stage);
}

static pid_t dead_process(void)
{
    const pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    assert_true(pid > 0 && waitpid(pid, NULL, 0) == pid);
    return pid;
}

static void R13_leftovers_of_dead_processes_go(void **state)
{
    char *stage = scratch_open(), name[128], *dead, *alive, *inner;
    struct checkpoint c;

    (void)state;
    snprintf(name, sizeof(name), ".checkpoint-900.artel-tmp.%ld", (long)dead_process());
    dead = path_join(stage, name);
    snprintf(name, sizeof(name), ".checkpoint-901.artel-tmp.%ld", (long)getppid());
    alive = path_join(stage, name);
    assert_int_equal(mkdir(dead, 0777) | mkdir(alive, 0777), 0);
    inner = path_join(dead, "state.safetensors");
    assert_int_equal(write_file(inner, "x", 1, NULL), 0);
    assert_int_equal(checkpoint_newest(&c, stage, NULL), 0);
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(alive, F_OK), 0);
    assert_int_equal(write_step(stage, 1, 1, NULL), 0);
    newest_is(stage, 1);
    free(inner);
    free(dead);
    free(alive);
    scratch_close(stage);
}

/* Ways to spoil checkpoint-20; FILE is its state.safetensors or state.json. */
static void cut_to(const char *file, off_t n)
{
    assert_int_equal(truncate(file, n), 0);
}

static void flip(const char *file, size_t byte, int bit)
{
    FILE *f = fopen(file, "r+");
    int c = EOF;

    assert_true(f && fseek(f, (long)byte, SEEK_SET) == 0 && (c = fgetc(f)) != EOF);
    assert_int_equal(fseek(f, (long)byte, SEEK_SET), 0);
    assert_int_equal(fputc(c ^ 1 << bit, f), c ^ 1 << bit);
    fclose(f);
}

static void expect_the_one_before(const char *stage)
{
    char before[DIGEST_SIZE], after[DIGEST_SIZE];

    scratch_digest(before, stage);
    newest_is(stage, 10);
    scratch_digest(after, stage);
    assert_string_equal(before, after); /* nothing deleted or repaired */
}

static void R14_a_damaged_one_is_passed_over(void **state)
{
    static const char *const files[] = {"state.safetensors", "state.json"};

    (void)state;
    for (int f = 0; f < 2; f++)
        for (int how = 0; how < 24; how++) {
            char *stage = scratch_open(), *path;
            struct stat st;

            assert_int_equal(write_step(stage, 10, 0, NULL), 0);
            assert_int_equal(write_step(stage, 20, 0, NULL), 0);
            path = inside(stage, 20, files[f]);
            assert_int_equal(stat(path, &st), 0);
            if (how < 10) /* the end of state.json is a line feed that nobody needs */
                cut_to(path, (st.st_size - 2) * how / 9);
            else if (how < 20 && f == 0)
                flip(path, (size_t)st.st_size * (size_t)(how - 10) / 10, how % 8);
            else if (how == 20)
                assert_int_equal(unlink(path), 0);
            else if (how == 21)
                assert_int_equal(unlink(path) | mkdir(path, 0777), 0);
            else if (how == 22)
                assert_int_equal(unlink(path) | symlink("/dev/zero", path), 0);
            else
                assert_int_equal(unlink(path) | mkfifo(path, 0666), 0);
            expect_the_one_before(stage);
            free(path);
            scratch_close(stage);
        }
}

/* Standard error while the newest is looked for; the caller frees. */
static char *warnings_of_newest(const char *stage, struct artel_error *err, int want)
{
    char *path = path_join(stage, "stderr"), *text = calloc(1, 8192);
    const int kept = dup(2);
    FILE *f = fopen(path, "w+");
    struct checkpoint c;

    assert_true(f && text && kept >= 0 && dup2(fileno(f), 2) == 2);
    log_set_level(LOG_WARN);
    assert_int_equal(checkpoint_newest(&c, stage, err), want);
    checkpoint_release(&c);
    log_set_level(LOG_QUIET);
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    rewind(f);
    (void)!fread(text, 1, 8191, f);
    fclose(f);
    unlink(path);
    free(path);
    return text;
}

static void R14_the_warning_names_file_and_reason(void **state)
{
    char *stage = scratch_open(), *path, *text;
    struct artel_error err;

    (void)state;
    assert_int_equal(write_step(stage, 10, 0, NULL), 0);
    assert_int_equal(write_step(stage, 20, 0, NULL), 0);
    path = inside(stage, 20, "state.safetensors");
    flip(path, 700, 3);
    text = warnings_of_newest(stage, &err, 1);
    assert_non_null(strstr(text, "checkpoint-20/state.safetensors"));
    assert_non_null(strstr(text, "[CKP03]"));
    free(text);
    free(path);
    scratch_close(stage);
}

static void R15_all_damaged_is_an_error(void **state)
{
    char *stage = scratch_open(), *path, *text;
    struct artel_error err;

    (void)state;
    assert_int_equal(write_step(stage, 10, 0, NULL), 0);
    assert_int_equal(write_step(stage, 20, 0, NULL), 0);
    path = inside(stage, 20, "state.safetensors");
    flip(path, 700, 3);
    free(path);
    path = inside(stage, 10, "state.json");
    assert_int_equal(unlink(path), 0);
    free(path);
    text = warnings_of_newest(stage, &err, ARTEL_EFORMAT);
    assert_string_equal(err.code, "CKP06");
    assert_non_null(strstr(err.reason, "20 CKP03"));
    assert_non_null(strstr(err.reason, "10 CKP01"));
    assert_true(there(stage, 10) && there(stage, 20));
    free(text);
    scratch_close(stage);
}

static void rewrite_state(const char *stage, uint64_t step, const char *key,
                          json_int_t value)
{
    char *path = inside(stage, step, "state.json");
    json_t *root;

    assert_int_equal(json_read_file(&root, path, 1 << 20, NULL), 0);
    json_object_set_new(root, key, json_integer(value));
    assert_int_equal(json_write_file(path, root, false, NULL), 0);
    json_decref(root);
    free(path);
}

static void R16_a_newer_format_is_refused(void **state)
{
    char *stage = scratch_open();
    struct artel_error err;
    struct checkpoint c;

    (void)state;
    assert_int_equal(write_step(stage, 10, 0, NULL), 0);
    assert_int_equal(write_step(stage, 20, 0, NULL), 0);
    rewrite_state(stage, 20, "format_version", 2);
    assert_error(checkpoint_newest(&c, stage, &err), ARTEL_EFORMAT, err, "CKP04");
    rewrite_state(stage, 20, "format_version", 1);
    newest_is(stage, 20);
    rewrite_state(stage, 20, "step", 10);
    newest_is(stage, 10);
    scratch_close(stage);
}

static void R37_a_planted_link_is_not_followed(void **state)
{
    char *stage = scratch_open(), *precious = scratch_open(), *link, *file;
    char before[DIGEST_SIZE], after[DIGEST_SIZE];
    struct artel_error err;

    (void)state;
    file = path_join(precious, "state.safetensors");
    assert_int_equal(write_file(file, "precious", 8, NULL), 0);
    scratch_digest(before, precious);
    assert_int_equal(write_step(stage, 1, 0, NULL), 0);
    link = inside(stage, 2, "");
    assert_int_equal(symlink(precious, link), 0);
    assert_error(write_step(stage, 2, 1, &err), ARTEL_ECONFLICT, err, "CKP05");
    newest_is(stage, 1);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(file, link), 0);
    assert_error(write_step(stage, 2, 1, &err), ARTEL_ECONFLICT, err, "CKP05");
    assert_int_equal(write_step(stage, 3, 1, NULL), 0); /* retention meets the link */
    newest_is(stage, 3);
    assert_int_equal(count_entries(stage), 2);
    scratch_digest(after, precious);
    assert_string_equal(before, after);
    free(link);
    free(file);
    scratch_close(stage);
    scratch_close(precious);
}

/* A child saves one step after another until it is killed. */
static void R02_killed_at_any_time_a_whole_one_is_there(void **state)
{
    char *stage = scratch_open();
    struct artel_error err;
    struct checkpoint c;
    uint64_t last = 1;

    (void)state;
    assert_int_equal(write_step(stage, last, 1, NULL), 0);
    for (int round = 0; round < 20 || (last == 1 && round < 200); round++) {
        const struct timespec wait = {.tv_nsec = 1000000L + round * 3000000L};
        const pid_t pid = fork();

        if (pid == 0)
            for (uint64_t step = last + 1;; step++)
                if (write_step(stage, step, 1, NULL) < 0)
                    _exit(1);
        assert_true(pid > 0);
        nanosleep(&wait, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        if (checkpoint_newest(&c, stage, &err) != 1)
            fail_msg("round %d: %s: %s", round, err.file, err.reason);
        assert_true(c.step >= last);
        last = c.step;
        checkpoint_release(&c);
        newest_is(stage, last);
    }
    assert_true(last > 1);
    /* One more where retention was cut off, one where the next was half written. */
    assert_true(count_entries(stage) <= 3);
    scratch_close(stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_is_the_one_of_the_highest_step),
        cmocka_unit_test(a_step_can_be_written_again),
        cmocka_unit_test(R35_retention_keeps_the_newest),
        cmocka_unit_test(R35_retention_does_not_count_a_past_given_up),
        cmocka_unit_test(R13_leftovers_of_dead_processes_go),
        cmocka_unit_test(R14_a_damaged_one_is_passed_over),
        cmocka_unit_test(R14_the_warning_names_file_and_reason),
        cmocka_unit_test(R15_all_damaged_is_an_error),
        cmocka_unit_test(R16_a_newer_format_is_refused),
        cmocka_unit_test(R37_a_planted_link_is_not_followed),
        cmocka_unit_test(R02_killed_at_any_time_a_whole_one_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
