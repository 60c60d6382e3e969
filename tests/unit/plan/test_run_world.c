/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world moves under a run: its folder, its data, its log, its base; and
 * numbers that are not finite (C09, D16, R10, R16, R23, R32, R34).
 */
#include "run_fixture.h"

#include <math.h>

#include "decoder/frozen.h"
#include "experts/expert.h"
#include "save/adapter.h"

/* Run r.yaml, and SHELL (with %s the fixture's folder) at step 3 of each stage. */
static int run_with(const struct fixture *f, const char *shell, const char *const *set,
                    size_t n_set)
{
    char command[600];

    snprintf(command, sizeof(command), "cd %s && %s", f->folder, shell);
    return run(f, &(struct child){.recipe = "r.yaml",
                                  .set = set,
                                  .n_set = n_set,
                                  .shell = command,
                                  .shell_step = 3,
                                  .notes = "notes"});
}

static void a_moved_run_folder_ends_the_run(void **state)
{
    struct fixture f;
    char path[256];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run_with(&f, "mv out gone", NULL, 0), -ARTEL_EIO);
    assert_true(said(&f, "notes", "error RUN03"));
    path_in(path, sizeof(path), &f, "out");
    assert_int_not_equal(access(path, F_OK), 0);
    fixture_close(&f);
}

static void data_changed_while_training_ends_the_run(void **state)
{
    static const char *const changes[] = {"echo >> a.jsonl", "rm a.jsonl",
                                          "cp b.jsonl c && mv c a.jsonl"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;

        fixture_open(&f);
        write_text(&f, "r.yaml", RECIPE("out"));
        assert_int_equal(run_with(&f, changes[i], NULL, 0), -ARTEL_ECONFLICT);
        assert_true(said(&f, "notes", "error RUN05"));
        assert_true(said(&f, "notes", "a.jsonl"));
        assert_true(said(&f, "notes", "checkpoint-2"));
        assert_false(said(&f, "notes", "checkpoint-4"));
        fixture_close(&f);
    }
}

static void touched_data_is_no_change(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run_with(&f, "touch a.jsonl", NULL, 0), 0);
    fixture_close(&f);
}

static void trouble_with_the_log_never_stops_training(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml"}), 0);
    assert_int_equal(run_with(&f, "rm out/train/*/log.jsonl", NULL, 0), 0);
    assert_true(said(&f, "notes", "training goes on"));
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

static void a_cut_base_ends_the_run_and_a_replaced_one_does_not(void **state)
{
    static const char *const set[] = {"model=toy.gguf"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run_with(&f, "cp " TOY " new && cp -f new new2 && mv new2 toy.gguf", set, 1),
        -ARTEL_EIO); /* not there yet */
    {
        char command[600];

        snprintf(command, sizeof(command), "cp " TOY " %s/toy.gguf", f.folder);
        assert_int_equal(system(command), 0);
    }
    assert_int_equal(run_with(&f, "truncate -s 5000 toy.gguf", set, 1), -ARTEL_EIO);
    assert_true(said(&f, "notes", "error RUN04"));
    assert_int_equal(run_with(&f, "true", set, 1), -ARTEL_EFORMAT);
    {
        char command[600];

        snprintf(command, sizeof(command), "cp " TOY " %s/toy.gguf", f.folder);
        assert_int_equal(system(command), 0);
    }
    assert_int_equal(run_with(&f, "cp " TOY " n && mv n toy.gguf", set, 1), 0);
    fixture_close(&f);
}

/* What the child heard cannot be written down while the disk is full; its log can be read
 * back: the checkpoint that failed is not there, the one before it is. */
static void a_failed_save_is_made_good_by_the_next(void **state)
{
    static const char *const set[] = {"method=single", "train.save_total_limit=9"};
    const struct child c = {
        .recipe = "r.yaml", .set = set, .n_set = 2, .full_from = 3, .full_to = 5};
    struct fixture f;
    char path[256];

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml"}), 0);
    assert_int_equal(run(&f, &c), 0);
    path_in(path, sizeof(path), &f, "out/train/expert-one/checkpoint-2");
    assert_int_equal(access(path, F_OK), 0);
    path_in(path, sizeof(path), &f, "out/train/expert-one/checkpoint-4");
    assert_int_not_equal(access(path, F_OK), 0);
    path_in(path, sizeof(path), &f, "out/train/expert-one/checkpoint-6");
    assert_int_equal(access(path, F_OK), 0);
    same_bytes(&f, "whole", "out", "experts/one/adapter_model.safetensors");
    fixture_close(&f);
}

static void where_the_last_save_fails_the_run_fails_and_goes_on_later(void **state)
{
    const struct child full = {.recipe = "r.yaml", .full_from = 3};
    struct fixture f;
    char path[256];

    (void)state;
    fixture_open(&f);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml"}), 0);
    assert_int_equal(run(&f, &full), -ARTEL_EIO);
    path_in(path, sizeof(path), &f, "out/train/expert-one/checkpoint-2");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), 0);
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

static void a_checkpoint_of_another_run_is_refused(void **state)
{
    static const char *const seed[] = {"train.seed=9"};
    struct fixture f;
    char command[600];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    write_text(&f, "r2.yaml", RECIPE("other"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .stop_stage = "expert-one",
                                             .stop_step = 3}),
                     -ARTEL_ESTOPPED);
    assert_int_equal(run(&f, &(struct child){.recipe = "r2.yaml",
                                             .set = seed,
                                             .n_set = 1,
                                             .stop_stage = "expert-one",
                                             .stop_step = 5}),
                     -ARTEL_ESTOPPED);
    snprintf(command, sizeof(command),
             "cd %s && cp -r other/train/expert-one/checkpoint-5 out/train/expert-one/",
             f.folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", .notes = "notes"}),
                     -ARTEL_ECONFLICT);
    assert_true(said(&f, "notes", "train.seed was 9, is 1"));
    fixture_close(&f);
}

/* An adapter whose product overflows: every row that runs through it is lost. */
static int write_bomb(const struct fixture *f)
{
    struct artel_error err = {0};
    struct artel_model *model;
    struct expert e = {0};
    struct lora_options lora;
    char path[256];
    int rc;

    lora_options_default(&lora);
    lora.rank = 4;
    rc = model_open(&model, TOY, &err);
    if (rc == 0)
        rc = expert_init_uniform(&e, "one", &model->weights->config, &lora, &err);
    for (size_t i = 0; rc == 0 && i < e.n_params; i++)
        e.params[i] = i & 1 ? 3e30f : -2e30f;
    path_in(path, sizeof(path), f, "bomb");
    if (rc == 0)
        rc = adapter_write(path, &e, &model->weights->config, &lora, NULL, &err);
    expert_release(&e);
    model_close(model);
    return rc;
}

static void steps_that_are_not_finite_may_be_skipped_and_are_counted(void **state)
{
    static const char *const none[] = {"domains.one.adapter=bomb"};
    static const char *const some[] = {"domains.one.adapter=bomb", "train.nan_steps=3",
                                       "train.save_steps=1"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    assert_int_equal(write_bomb(&f), 0);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = none,
                                             .n_set = 1,
                                             .notes = "notes"}),
                     -ARTEL_ENONFINITE);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = some,
                                             .n_set = 3,
                                             .notes = "notes"}),
                     -ARTEL_ENONFINITE);
    assert_true(said(&f, "notes", "step 3 skipped"));
    assert_false(said(&f, "notes", "step 4 skipped"));
    fixture_close(&f);
}

static void skipped_steps_resume_as_well(void **state)
{
    /* One row a step: those of the healthy domain do train. */
    static const char *const set[] = {"domains.one.adapter=bomb",
                                      "train.nan_steps=1000", "train.batch_size=1",
                                      "train.save_steps=5"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    assert_int_equal(write_bomb(&f), 0);
    write_text(&f, "whole.yaml", RECIPE("whole"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml",
                                             .set = set,
                                             .n_set = 4,
                                             .notes = "notes"}),
                     0);
    assert_true(said(&f, "notes", "skipped"));
    for (uint64_t step = 4; step < 40; step += 9)
        run(&f, &(struct child){.recipe = "r.yaml",
                                .set = set,
                                .n_set = 4,
                                .stop_stage = "moa-router",
                                .stop_step = step + (step & 1)});
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 4}), 0);
    same_weights(&f, "whole", "out");
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_moved_run_folder_ends_the_run),
        cmocka_unit_test(data_changed_while_training_ends_the_run),
        cmocka_unit_test(touched_data_is_no_change),
        cmocka_unit_test(trouble_with_the_log_never_stops_training),
        cmocka_unit_test(a_cut_base_ends_the_run_and_a_replaced_one_does_not),
        cmocka_unit_test(a_failed_save_is_made_good_by_the_next),
        cmocka_unit_test(where_the_last_save_fails_the_run_fails_and_goes_on_later),
        cmocka_unit_test(a_checkpoint_of_another_run_is_refused),
        cmocka_unit_test(steps_that_are_not_finite_may_be_skipped_and_are_counted),
        cmocka_unit_test(skipped_steps_resume_as_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
