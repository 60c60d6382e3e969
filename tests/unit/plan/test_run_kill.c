/* SPDX-License-Identifier: Apache-2.0 */
/*
 * R02: a run is killed at random moments, again and again, and ends in the same
 * bytes as one that was left alone. R13, R14: what a kill leaves, and what a bad
 * disk makes of checkpoints, does no harm.
 *
 * ARTEL_TEST_KILLS kills (20).
 */
#include "run_fixture.h"

static const char *const moves[] = {"train.save_steps=1", "train.eval_steps=3",
                                    "train.epochs=2"};
#define N_MOVES 3

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void wait_seconds(double s)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)s,
                                 .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)},
              NULL);
}

static void killed_at_random_it_ends_in_the_same_bytes(void **state)
{
    const char *asked = getenv("ARTEL_TEST_KILLS");
    const int n_kills = asked ? atoi(asked) : 20;
    const struct child whole = {.recipe = "whole.yaml", .set = moves, .n_set = N_MOVES};
    const struct child c = {.recipe = "r.yaml", .set = moves, .n_set = N_MOVES};
    struct fixture f;
    struct rng rng;
    char out[256];
    double took = now();
    int kills = 0, ends = 0;

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &whole), 0);
    took = now() - took;
    if (took > 3.0) /* a busy machine: earlier kills rather than a test of minutes */
        took = 3.0;
    path_in(out, sizeof(out), &f, "out");
    rng_init(&rng, 7, 1);
    while (kills < n_kills) {
        const pid_t pid = start(&f, &c);
        int code;

        wait_seconds(took * (double)rng_uniform(&rng));
        kill(pid, SIGKILL);
        code = finish(pid);
        if (code == 128 + SIGKILL) {
            kills++;
            continue;
        }
        assert_int_equal(code, 0);
        same_weights(&f, "whole", "out");
        assert_int_equal(remove_tree(out, NULL), 0);
        ends++;
    }
    assert_int_equal(run(&f, &c), 0);
    same_weights(&f, "whole", "out");
    print_message("%d kills, %d runs ended in between\n", kills, ends);
    fixture_close(&f);
}

/* Names of the checkpoints of a stage, newest first. */
static size_t checkpoints(char (*out)[64], size_t room, const struct fixture *f,
                          const char *stage)
{
    char path[256];
    size_t n = 0;
    DIR *dir;
    const struct dirent *d;

    path_in(path, sizeof(path), f, stage);
    dir = opendir(path);
    assert_non_null(dir);
    while ((d = readdir(dir)) && n < room)
        if (!strncmp(d->d_name, "checkpoint-", 11))
            snprintf(out[n++], sizeof(*out), "%.60s", d->d_name);
    closedir(dir);
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++)
            if (atoi(out[k] + 11) > atoi(out[i] + 11)) {
                char tmp[64];

                memcpy(tmp, out[i], 64);
                memcpy(out[i], out[k], 64);
                memcpy(out[k], tmp, 64);
            }
    return n;
}

/* Cut the parameters in half. */
static void damage(const struct fixture *f, const char *stage, const char *checkpoint)
{
    char path[400];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s/%s/state.safetensors", f->folder, stage,
             checkpoint);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
}

static void damaged_checkpoints_are_passed_over(void **state)
{
    static const char stage[] = "out/train/moa-router";
    const struct child stop = {.recipe = "r.yaml",
                               .set = moves,
                               .n_set = N_MOVES,
                               .stop_stage = "moa-router",
                               .stop_step = 7};
    const struct child c = {
        .recipe = "r.yaml", .set = moves, .n_set = N_MOVES, .notes = "notes"};
    char names[8][64], *notes;
    struct fixture f;
    size_t n;

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f,
            &(struct child){.recipe = "whole.yaml", .set = moves, .n_set = N_MOVES}),
        0);
    assert_int_equal(run(&f, &stop), -ARTEL_ESTOPPED);
    n = checkpoints(names, 8, &f, stage);
    assert_int_equal(n, 2);
    assert_string_equal(names[0], "checkpoint-7");
    damage(&f, stage, names[0]);
    write_text(&f, "out/train/moa-router/.state.artel-tmp.1", "half");
    assert_int_equal(run(&f, &c), 0);
    notes = slurp(&f, "notes");
    assert_non_null(strstr(notes, "continues at step 6 of 24"));
    free(notes);
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

static void where_all_are_damaged_nothing_starts_anew(void **state)
{
    static const char stage[] = "out/train/moa-router";
    struct child c = {.recipe = "r.yaml",
                      .set = moves,
                      .n_set = N_MOVES,
                      .stop_stage = "moa-router",
                      .stop_step = 5};
    char names[8][64];
    struct fixture f;
    size_t n;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &c), -ARTEL_ESTOPPED);
    n = checkpoints(names, 8, &f, stage);
    for (size_t i = 0; i < n; i++)
        damage(&f, stage, names[i]);
    c.stop_stage = NULL;
    assert_int_equal(run(&f, &c), -ARTEL_EFORMAT);
    assert_int_equal(checkpoints(names, 8, &f, stage), n);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_random_it_ends_in_the_same_bytes),
        cmocka_unit_test(damaged_checkpoints_are_passed_over),
        cmocka_unit_test(where_all_are_damaged_nothing_starts_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
