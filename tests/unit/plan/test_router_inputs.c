/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run keeps what its routers read: a training that was killed and one with other
 * settings find it, and no bit of what comes out tells the difference.
 */
#include "run_fixture.h"

#define ROWS 48

static const char *const routers[] = {
    "router.router_only=true", "router.learning_rate=5e-3", "router.cache_mib=64"};
static const char *const without[] = {
    "router.router_only=true", "router.learning_rate=5e-3", "router.cache_mib=0"};
static const char *const other_rate[] = {"router.router_only=true",
                                         "router.learning_rate=2e-2"};

#define SET(list) .set = (list), .n_set = sizeof(list) / sizeof((list)[0])

/* NAME of what a stage says of its router inputs. */
static int counted(const struct fixture *f, const char *stage, const char *name)
{
    char path[128];
    json_t *root;
    const json_t *inputs;
    int n;

    snprintf(path, sizeof(path), "out/train/%s/stage.json", stage);
    root = read_json(f, path);
    inputs = json_object_get(json_object_get(root, "summary"), "router_inputs");
    assert_non_null(inputs);
    n = (int)json_integer_value(json_object_get(inputs, name));
    json_decref(root);
    return n;
}

static void expect(const struct fixture *f, const char *stage, int found, int computed)
{
    assert_int_equal(counted(f, stage, "found"), found);
    assert_int_equal(counted(f, stage, "computed"), computed);
}

static void open_run(struct fixture *f)
{
    fixture_open(f);
    write_text(f, "r.yaml", RECIPE("out"));
    write_text(f, "plain.yaml", RECIPE("plain"));
    assert_int_equal(run(f, &(struct child){.recipe = "plain.yaml", SET(without)}), 0);
}

static void a_second_training_computes_nothing(void **state)
{
    struct fixture f;
    char path[256];

    (void)state;
    open_run(&f);
    path_in(path, sizeof(path), &f, "plain/train/router-inputs");
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(other_rate)}), 0);
    expect(&f, "moa-router", 0, ROWS);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             SET(routers),
                                             .changes = CHANGES_RETRAIN,
                                             .notes = "notes"}),
                     0);
    expect(&f, "moa-router", ROWS, 0);
    assert_true(said(&f, "notes", "router inputs: 48 rows found on disk, 0 computed"));
    same_bytes(&f, "plain", "out", "moa/router.safetensors");
    /* The size alone makes nothing out of date. */
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(without)}), 0);
    /* Another expert of one domain: the other's rows are found all the same. */
    write_dialect(&f, "b.jsonl", "uvwxyz", 24, 5);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             SET(routers),
                                             .changes = CHANGES_RETRAIN}),
                     0);
    expect(&f, "moa-router", ROWS / 2, ROWS / 2);
    fixture_close(&f);
}

static void stopped_or_killed_it_goes_on_from_them(void **state)
{
    struct child killed = {.recipe = "r.yaml",
                           SET(routers),
                           .only = "moa-router",
                           .shell = "kill -9 $PPID",
                           .shell_step = 5};
    const struct child stopped = {
        .recipe = "r.yaml", SET(routers), .stop_stage = "moa-router", .stop_step = 7};
    struct fixture f;

    (void)state;
    open_run(&f);
    assert_int_equal(
        run(&f,
            &(struct child){.recipe = "r.yaml", SET(routers), .only = "expert-one"}),
        0);
    assert_int_equal(
        run(&f,
            &(struct child){.recipe = "r.yaml", SET(routers), .only = "expert-two"}),
        0);
    assert_int_equal(run(&f, &killed), 128 + SIGKILL);
    assert_int_equal(run(&f, &stopped), -ARTEL_ESTOPPED);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(routers)}), 0);
    expect(&f, "moa-router", 7 * 4, ROWS - 7 * 4);
    same_bytes(&f, "plain", "out", "moa/router.safetensors");
    fixture_close(&f);
}

/* Spoil every file of the folder. */
static void damage(const struct fixture *f)
{
    char folder[256], path[600];
    const struct dirent *d;
    size_t n = 0;
    DIR *dir;

    path_in(folder, sizeof(folder), f, "out/train/router-inputs");
    dir = opendir(folder);
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        struct stat st;
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
        if (*d->d_name == '.' || stat(path, &st) != 0)
            continue;
        file = fopen(path, "r+");
        assert_non_null(file);
        assert_int_equal(fseek(file, st.st_size / 2, SEEK_SET), 0);
        fputs("????", file);
        assert_int_equal(fclose(file), 0);
        n++;
    }
    closedir(dir);
    assert_true(n > 0);
}

static void damaged_files_are_computed_again(void **state)
{
    struct fixture f;

    (void)state;
    open_run(&f);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(other_rate)}), 0);
    damage(&f);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             SET(routers),
                                             .changes = CHANGES_RETRAIN,
                                             .notes = "notes"}),
                     0);
    assert_true(said(&f, "notes", "its router inputs are computed again"));
    expect(&f, "moa-router", 0, ROWS);
    same_bytes(&f, "plain", "out", "moa/router.safetensors");
    fixture_close(&f);
}

/* ridge and classifier read the same of the base, so the second computes nothing. */
static void solved_routers_share_them(void **state)
{
    static const char *const both[] = {"method=[ridge, classifier]"};
    static const char *const none[] = {"method=[ridge, classifier]",
                                       "router.cache_mib=0"};
    static const char *const lambda[] = {"method=[ridge, classifier]",
                                         "router.ridge_lambda=1e-3"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    write_text(&f, "plain.yaml", RECIPE("plain"));
    assert_int_equal(run(&f, &(struct child){.recipe = "plain.yaml", SET(none)}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(both)}), 0);
    expect(&f, "ridge-router", 0, ROWS);
    expect(&f, "classifier-router", ROWS, 0);
    same_bytes(&f, "plain", "out", "ridge/router.safetensors");
    same_bytes(&f, "plain", "out", "classifier/router.safetensors");
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             SET(lambda),
                                             .changes = CHANGES_RETRAIN}),
                     0);
    expect(&f, "ridge-router", ROWS, 0);
    fixture_close(&f);
}

/* Routers that learn on behind a joint stage find what they had read before a stop. */
static void a_refresh_finds_them_too(void **state)
{
    static const char *const refresh[] = {"router.refresh=2"};
    struct child c = {.recipe = "r.yaml",
                      SET(refresh),
                      .stop_stage = "moa-router",
                      .stop_step = 20}; /* 12 are the joint part's */
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    write_text(&f, "whole.yaml", RECIPE("whole"));
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml", SET(refresh)}), 0);
    assert_int_equal(run(&f, &c), -ARTEL_ESTOPPED);
    c.stop_stage = NULL;
    assert_int_equal(run(&f, &c), 0);
    expect(&f, "moa-router", ROWS, 0);
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_training_computes_nothing),
        cmocka_unit_test(stopped_or_killed_it_goes_on_from_them),
        cmocka_unit_test(damaged_files_are_computed_again),
        cmocka_unit_test(solved_routers_share_them),
        cmocka_unit_test(a_refresh_finds_them_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
