/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes carried out on the toy model: what a run leaves, that it continues
 * bit for bit, and what it refuses (D16, D18, D22, C07, C09, C19, C20, R10, R11,
 * R14, R17, R18, R19, R26).
 */
#include "run_fixture.h"

/* The NAME of the last line of a stage's log that has one. */
static double last_logged(const struct fixture *f, const char *log, const char *name)
{
    char *text = slurp(f, log);
    double value = NAN;

    assert_non_null(text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *o = json_loads(line, 0, NULL);

        assert_non_null(o);
        if (json_object_get(o, name))
            value = json_number_value(json_object_get(o, name));
        json_decref(o);
    }
    free(text);
    return value;
}

static void moa_learns_to_tell_two_dialects(void **state)
{
    static const char *const set[] = {"train.epochs=3"};
    struct fixture f;
    json_t *root, *summary;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 1}), 0);
    assert_near(last_logged(&f, "out/train/moa-router/log.jsonl", "router_accuracy"), 1,
                0.01);
    assert_near(
        last_logged(&f, "out/train/moa-router/log.jsonl", "eval_router_accuracy"), 1,
        0.01);
    root = read_json(&f, "out/train/expert-one/stage.json");
    summary = json_object_get(root, "summary");
    assert_true(json_is_true(json_object_get(root, "complete")));
    assert_int_equal(json_integer_value(json_object_get(summary, "steps")), 18);
    assert_true(json_number_value(json_object_get(summary, "last_loss")) <
                json_number_value(json_object_get(summary, "first_loss")) - 0.3);
    json_decref(root);
    root = read_json(&f, "out/moa/mixture.json");
    assert_string_equal(json_string_value(json_object_get(root, "method")), "moa");
    assert_int_equal(json_array_size(json_object_get(root, "domains")), 2);
    summary = json_object_get(json_object_get(root, "training"), "stages");
    assert_int_equal(json_object_size(summary), 3);
    json_decref(root);
    fixture_close(&f);
}

static void a_second_call_does_nothing(void **state)
{
    struct fixture f;
    char before[DIGEST_SIZE], after[DIGEST_SIZE];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), 0);
    digest_of(before, &f, "out/moa/mixture.json");
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", .notes = "notes"}), 0);
    digest_of(after, &f, "out/moa/mixture.json");
    assert_string_equal(before, after);
    assert_false(said(&f, "notes", "2 expert-one"));
    /* From the copy that the run keeps, too. */
    assert_int_equal(run(&f, &(struct child){.recipe = "out/recipe.yaml"}), 0);
    digest_of(after, &f, "out/moa/mixture.json");
    assert_string_equal(before, after);
    fixture_close(&f);
}

static void stopped_anywhere_ends_in_the_same_bytes(void **state)
{
    static const struct {
        const char *stage;
        uint64_t step;
    } stops[] = {{"expert-one", 1}, {"expert-one", 6}, {"expert-two", 3},
                 {"moa-router", 2}, {"moa-router", 5}, {"moa-router", 12}};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml"}), 0);
    for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
        const struct child c = {.recipe = "r.yaml",
                                .stop_stage = stops[i].stage,
                                .stop_step = stops[i].step};
        const int rc = run(&f, &c);

        /* At a stage's last step there is nothing left to stop. */
        assert_true(rc == -ARTEL_ESTOPPED || rc == 0);
    }
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), 0);
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

static void threads_change_no_bit(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "one.yaml", RECIPE("one"));
    write_text(&f, "two.yaml", RECIPE("two"));
    assert_int_equal(run(&f, &(struct child){.recipe = "one.yaml", .threads = 1}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "two.yaml", .threads = 2}), 0);
    same_weights(&f, "one", "two");
    fixture_close(&f);
}

static void accumulation_and_dropout_resume_too(void **state)
{
    static const char *const set[] = {"train.gradient_accumulation_steps=2",
                                      "lora.dropout=0.1", "train.eval_steps=1",
                                      "train.save_steps=1", "train.epochs=1.5"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "whole.yaml", .set = set, .n_set = 5}), 0);
    for (uint64_t step = 1; step < 5; step++)
        run(&f, &(struct child){.recipe = "r.yaml",
                                .set = set,
                                .n_set = 5,
                                .stop_stage = step & 1 ? "expert-one" : "moa-router",
                                .stop_step = step});
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 5}), 0);
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

static void changed_settings_are_listed_and_refused(void **state)
{
    static const char *const seed[] = {"train.seed=2", "lora.rank=2"};
    static const char *const rate[] = {"train.learning_rate=2e-2"};
    struct fixture f;
    char before[DIGEST_SIZE], after[DIGEST_SIZE];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .stop_stage = "expert-one",
                                             .stop_step = 3}),
                     -ARTEL_ESTOPPED);
    digest_of(before, &f, "out/train/expert-one/stage.json");
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = seed,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     -ARTEL_ECONFLICT);
    assert_true(said(&f, "notes", "train.seed was 1, is 2"));
    assert_true(said(&f, "notes", "lora.rank was 4, is 2"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = seed,
                                             .n_set = 2,
                                             .changes = CHANGES_SAFE}),
                     -ARTEL_ECONFLICT);
    digest_of(after, &f, "out/train/expert-one/stage.json");
    assert_string_equal(before, after);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = rate,
                                             .n_set = 1,
                                             .changes = CHANGES_SAFE,
                                             .notes = "notes"}),
                     0);
    assert_true(said(&f, "notes", "continues at step 3 of 6"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = seed,
                                             .n_set = 2,
                                             .changes = CHANGES_RETRAIN}),
                     0);
    write_text(&f, "fresh.yaml", RECIPE("fresh"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "fresh.yaml", .set = seed, .n_set = 2}), 0);
    same_weights(&f, "out", "fresh");
    fixture_close(&f);
}

static void changed_data_is_refused(void **state)
{
    struct fixture f;
    char before[DIGEST_SIZE], after[DIGEST_SIZE];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .stop_stage = "expert-two",
                                             .stop_step = 1}),
                     -ARTEL_ESTOPPED);
    digest_of(before, &f, "out/.lock");
    write_dialect(&f, "b.jsonl", "uvwxyz", 25, 2);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", .notes = "notes"}),
                     -ARTEL_ECONFLICT);
    assert_true(said(&f, "notes", "error RUN05"));
    assert_true(said(&f, "notes", "b.jsonl"));
    digest_of(after, &f, "out/.lock");
    assert_string_equal(before, after);
    fixture_close(&f);
}

static void bad_folders_are_refused_untouched(void **state)
{
    struct fixture f;
    char path[256];
    struct stat st;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", .must_resume = true}),
                     -ARTEL_ECONFLICT);
    path_in(path, sizeof(path), &f, "out");
    assert_int_equal(mkdir(path, 0777), 0);
    write_text(&f, "out/thesis.txt", "mine");
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), -ARTEL_ECONFLICT);
    path_in(path, sizeof(path), &f, "out/.lock");
    assert_int_not_equal(stat(path, &st), 0);
    /* A file where a folder is needed: no step is made. */
    write_text(&f, "file", "");
    write_text(&f, "r2.yaml", RECIPE("file/out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r2.yaml"}), -ARTEL_EIO);
    fixture_close(&f);
}

static void data_inside_the_output_is_refused(void **state)
{
    static const char *const set[] = {"domains.one.train=out/experts/a.jsonl"};
    struct fixture f;
    char path[256];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .stop_stage = "expert-one",
                                             .stop_step = 1}),
                     -ARTEL_ESTOPPED);
    path_in(path, sizeof(path), &f, "out/experts");
    mkdir(path, 0777);
    write_dialect(&f, "out/experts/a.jsonl", "abcdef", 24, 1);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 1}),
        -ARTEL_EUSAGE);
    fixture_close(&f);
}

static void bad_validation_sets(void **state)
{
    static const char *const choices[] = {"domains.one.valid=mc.jsonl",
                                          "domains.one.train=mc.jsonl"};
    static const char *const empty[] = {"domains.one.valid=empty.jsonl"};
    static const char *const same[] = {"domains.one.valid=a.jsonl",
                                       "train.max_steps=1"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    write_text(&f, "empty.jsonl", "\n\n");
    write_text(&f, "mc.jsonl",
               "{\"question\": \"ab\", \"choices\": [\"c\", \"d\"], \"answer\": 0}\n");
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = empty, .n_set = 1}),
        -ARTEL_EFORMAT);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                                 .set = choices + i,
                                                 .n_set = 1,
                                                 .notes = "notes"}),
                         -ARTEL_EFORMAT);
        assert_true(said(&f, "notes", "row 1 has no answer to learn"));
    }
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = same,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     0);
    assert_true(said(&f, "notes", "24 of 24 validation rows are also training rows"));
    fixture_close(&f);
}

static void too_little_memory_is_refused_with_numbers(void **state)
{
    struct fixture f;
    char path[256];
    struct stat st;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .memory = 1000, .notes = "notes"}),
        -ARTEL_ELIMIT);
    assert_true(said(&f, "notes", "1000 (0 MiB) are allowed"));
    path_in(path, sizeof(path), &f, "out");
    assert_int_not_equal(stat(path, &st), 0);
    fixture_close(&f);
}

static void the_best_weights_are_kept_and_patience_ends(void **state)
{
    /* A rate at which the toy gets worse after some steps. */
    const char *set[] = {"train.learning_rate=0.3", "train.epochs=10",
                         "train.eval_steps=2", "train.early_stopping_patience=2",
                         "method=single"};
    struct fixture f;
    json_t *root, *summary;
    json_int_t steps, best;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 5}), 0);
    root = read_json(&f, "out/train/expert-one/stage.json");
    summary = json_object_get(root, "summary");
    assert_true(json_is_true(json_object_get(summary, "early_stopped")));
    steps = json_integer_value(json_object_get(summary, "steps"));
    best = json_integer_value(json_object_get(summary, "best_step"));
    assert_int_equal(steps, best + 4);
    json_decref(root);
    /* with more patience it goes on from there */
    set[3] = "train.early_stopping_patience=0";
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = set,
                                             .n_set = 5,
                                             .only = "expert-one",
                                             .changes = CHANGES_SAFE}),
                     0);
    root = read_json(&f, "out/train/expert-one/stage.json");
    summary = json_object_get(root, "summary");
    assert_false(json_is_true(json_object_get(summary, "early_stopped")));
    assert_int_equal(json_integer_value(json_object_get(summary, "steps")), 60);
    json_decref(root);
    fixture_close(&f);
}

/* A best checkpoint of a past that was given up lies beside that of this one. */
static void the_best_is_found_by_its_step(void **state)
{
    static const char *const early[] = {"train.learning_rate=0.1", "train.epochs=4",
                                        "train.eval_steps=2", "method=single",
                                        "train.lr_scheduler=constant"};
    static const char *const late[] = {"output=late", "train.epochs=4",
                                       "train.eval_steps=2", "method=single"};
    struct fixture f;
    json_t *root;
    char command[400];
    json_int_t best;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = late, .n_set = 4}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = early,
                                             .n_set = 5,
                                             .stop_stage = "expert-one",
                                             .stop_step = 21}),
                     -ARTEL_ESTOPPED);
    snprintf(command, sizeof(command),
             "cd %s && cp -r late/train/expert-one/best/* out/train/expert-one/best/",
             f.folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = early,
                                             .n_set = 5,
                                             .notes = "notes"}),
                     0);
    assert_false(said(&f, "notes", "the best checkpoint is gone"));
    root = read_json(&f, "out/train/expert-one/stage.json");
    best = json_integer_value(
        json_object_get(json_object_get(root, "summary"), "best_step"));
    json_decref(root);
    assert_true(best > 0 && best < 24);
    fixture_close(&f);
}

static void a_rate_far_too_high_ends_with_exit_7(void **state)
{
    static const char *const rates[] = {"train.learning_rate=1e4",
                                        "train.learning_rate=1e3",
                                        "train.learning_rate=300"};
    struct fixture f;
    char name[32], recipe[32];

    (void)state;
    fixture_open(&f);
    for (size_t i = 0; i < 3; i++) {
        const char *const set[] = {rates[i], "train.epochs=30", "train.warmup_ratio=0",
                                   "method=single"};
        char text[800];

        snprintf(name, sizeof(name), "out%zu", i);
        snprintf(recipe, sizeof(recipe), "r%zu.yaml", i);
        snprintf(text, sizeof(text), "%soutput: %s\n", WITHOUT_OUTPUT, name);
        write_text(&f, recipe, text);
        assert_int_equal(
            run(&f, &(struct child){.recipe = recipe, .set = set, .n_set = 4}),
            -ARTEL_ENONFINITE);
    }
    fixture_close(&f);
}

static void a_share_is_held_out_for_validation(void **state)
{
    static const char *const set[] = {"train.val_size=0.25", "method=[single, mixed]"};
    struct fixture f;
    json_t *root, *data;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml",
               "model: " TOY "\noutput: out\n"
               "domains: {one: a.jsonl, two: b.jsonl}\n"
               "train: {batch_size: 4, cutoff_len: 64, precision: fp32}\n");
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
    root = read_json(&f, "out/train/mixed/stage.json");
    data = json_object_get(json_object_get(root, "summary"), "data");
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(data, "two"), "valid_rows")),
        6);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "summary"), "steps")),
        9);
    json_decref(root);
    root = read_json(&f, "out/mixed/mixture.json");
    assert_int_equal(json_array_size(json_object_get(root, "experts")), 1);
    json_decref(root);
    root = read_json(&f, "out/single/mixture.json");
    assert_int_equal(json_array_size(json_object_get(root, "experts")), 2);
    json_decref(root);
    fixture_close(&f);
}

static void routers_alone_leave_the_experts(void **state)
{
    static const char *const set[] = {"router.router_only=true", "train.epochs=4"};
    struct fixture f;
    json_t *root, *first;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
    root = read_json(&f, "out/moa/mixture.json");
    first = json_array_get(json_object_get(root, "experts"), 0);
    assert_string_equal(json_string_value(json_object_get(first, "folder")),
                        "../experts/one");
    json_decref(root);
    assert_near(last_logged(&f, "out/train/moa-router/log.jsonl", "router_accuracy"), 1,
                0.01);
    fixture_close(&f);
}

/* Behind a joint stage the routers learn on; its experts stay, and a stop there resumes. */
static void a_refresh_moves_the_routers_alone(void **state)
{
    static const char *const set[] = {"router.refresh=4", "output=out"};
    struct fixture f;
    struct child again = {.recipe = "r.yaml",
                          .set = set,
                          .n_set = 2,
                          .stop_stage = "moa-router",
                          .stop_step = 20}; /* the joint part has 12 */
    char joint[DIGEST_SIZE], fresh[DIGEST_SIZE];

    (void)state;
    fixture_open(&f);
    write_text(&f, "joint.yaml", RECIPE("joint"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "joint.yaml"}), 0);
    assert_int_equal(run(&f, &again), -ARTEL_ESTOPPED);
    again.stop_stage = NULL;
    assert_int_equal(run(&f, &again), 0);
    digest_of(joint, &f, "joint/moa/experts/one/adapter_model.safetensors");
    digest_of(fresh, &f, "out/moa/experts/one/adapter_model.safetensors");
    assert_string_equal(fresh, joint);
    digest_of(joint, &f, "joint/moa/router.safetensors");
    digest_of(fresh, &f, "out/moa/router.safetensors");
    assert_string_not_equal(fresh, joint);
    assert_true(
        last_logged(&f, "out/train/moa-router/refresh/log.jsonl", "router_loss") <
        last_logged(&f, "out/train/moa-router/log.jsonl", "router_loss"));
    fixture_close(&f);
}

static void an_adapter_stands_in_for_stage_1(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), 0);
    write_text(&f, "r2.yaml",
               "model: " TOY "\noutput: again\n"
               "lora: {rank: 4, alpha: 8}\nstore_sample: 0\n"
               "domains:\n"
               "  one: {train: a.jsonl, adapter: out/experts/one}\n"
               "  two: {train: b.jsonl}\n"
               "train: {batch_size: 4, epochs: 1, learning_rate: 1e-2, cutoff_len: 64, "
               "precision: fp32}\n"
               "router: {learning_rate: 1e-2}\n");
    assert_int_equal(run(&f, &(struct child){.recipe = "r2.yaml"}), 0);
    same_weights(&f, "out", "again");
    fixture_close(&f);
}

static bool heard_a_step(const struct fixture *f, const char *notes)
{
    for (size_t i = 0; i < 2000; i++) {
        if (said(f, notes, "\n2 expert-one"))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

static void a_second_process_is_turned_away(void **state)
{
    static const char *const set[] = {"train.epochs=200", "method=single"};
    struct child c = {.recipe = "r.yaml", .set = set, .n_set = 2, .notes = "first"};
    struct fixture f;
    char words[64];
    pid_t pid;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    pid = start(&f, &c);
    assert_true(heard_a_step(&f, "first"));
    c.notes = "second";
    assert_int_equal(run(&f, &c), -ARTEL_ECONFLICT);
    snprintf(words, sizeof(words), "in use by process %ld", (long)pid);
    assert_true(said(&f, "second", words));
    kill(pid, SIGKILL);
    assert_int_equal(finish(pid), 128 + SIGKILL);
    /* R12: the kernel has dropped the lock, so the next one takes over. */
    c.notes = "third";
    pid = start(&f, &c);
    assert_true(heard_a_step(&f, "third"));
    kill(pid, SIGKILL);
    assert_int_equal(finish(pid), 128 + SIGKILL);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moa_learns_to_tell_two_dialects),
        cmocka_unit_test(a_second_call_does_nothing),
        cmocka_unit_test(stopped_anywhere_ends_in_the_same_bytes),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(accumulation_and_dropout_resume_too),
        cmocka_unit_test(changed_settings_are_listed_and_refused),
        cmocka_unit_test(changed_data_is_refused),
        cmocka_unit_test(bad_folders_are_refused_untouched),
        cmocka_unit_test(data_inside_the_output_is_refused),
        cmocka_unit_test(bad_validation_sets),
        cmocka_unit_test(too_little_memory_is_refused_with_numbers),
        cmocka_unit_test(the_best_weights_are_kept_and_patience_ends),
        cmocka_unit_test(the_best_is_found_by_its_step),
        cmocka_unit_test(a_rate_far_too_high_ends_with_exit_7),
        cmocka_unit_test(a_share_is_held_out_for_validation),
        cmocka_unit_test(routers_alone_leave_the_experts),
        cmocka_unit_test(a_refresh_moves_the_routers_alone),
        cmocka_unit_test(an_adapter_stands_in_for_stage_1),
        cmocka_unit_test(a_second_process_is_turned_away),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
