/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages of several experts in one pass leave what each would leave by itself, and may
 * be stopped and go on the other way (R27).
 */
#include "run_fixture.h"

#include <jansson.h>
#include <math.h>

#define THREE                                                                          \
    "model: " TOY "\nmethod: [single, moa]\nlora: {rank: 4, alpha: 8}\n"               \
    "domains:\n"                                                                       \
    "  one: {train: a.jsonl, valid: a-valid.jsonl}\n"                                  \
    "  two: {train: b.jsonl, valid: b-valid.jsonl}\n"                                  \
    "  three: {train: c.jsonl, valid: a-valid.jsonl}\n"                                \
    "train: {batch_size: 4, epochs: 2, learning_rate: 3e-2, save_steps: 2,\n"          \
    "        cutoff_len: 64, precision: fp32, max_grad_norm: 0.5, eval_steps: 2,\n"    \
    "        early_stopping_patience: 2, load_best_model_at_end: true}\n"              \
    "router: {router_only: true}\noutput: alone\n"

static const char *const stages[] = {"one", "two", "three"};

static void open_three(struct fixture *f)
{
    fixture_open(f);
    write_dialect(f, "b.jsonl", "uvwxyz", 13, 2);
    write_dialect(f, "c.jsonl", "mnopq", 9, 3);
    write_text(f, "r.yaml", THREE);
}

static json_t *stage_of(const struct fixture *f, const char *output, const char *expert)
{
    char name[128];
    char *text;
    json_t *o;

    snprintf(name, sizeof(name), "%s/train/expert-%s/stage.json", output, expert);
    text = slurp(f, name);
    assert_non_null(text);
    o = json_loads(text, 0, NULL);
    assert_non_null(o);
    free(text);
    assert_true(
        json_real_value(json_object_get(json_object_get(o, "summary"), "seconds")) > 0);
    json_object_del(json_object_get(o, "summary"), "seconds");
    return o;
}

/* What every step's line says but for time. */
static void same_log(const struct fixture *f, const char *left, const char *right,
                     const char *expert)
{
    static const char *const keys[] = {
        "step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "eval_loss"};
    char name[128], *text[2], *line[2], *rest[2];

    for (size_t i = 0; i < 2; i++) {
        snprintf(name, sizeof(name), "%s/train/expert-%s/log.jsonl", i ? right : left,
                 expert);
        text[i] = slurp(f, name);
        assert_non_null(text[i]);
        line[i] = strtok_r(text[i], "\n", &rest[i]);
    }
    for (; line[0] && line[1]; line[0] = strtok_r(NULL, "\n", &rest[0]),
                               line[1] = strtok_r(NULL, "\n", &rest[1])) {
        json_t *a = json_loads(line[0], 0, NULL), *b = json_loads(line[1], 0, NULL);

        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            const json_t *x = json_object_get(a, keys[k]);

            assert_true(x == json_object_get(b, keys[k]) ||
                        json_equal(x, json_object_get(b, keys[k])));
            assert_true(!x || isfinite(json_number_value(x)));
        }
        json_decref(a);
        json_decref(b);
    }
    assert_true(!line[0] && !line[1]);
    free(text[0]);
    free(text[1]);
}

static void same_results(const struct fixture *f, const char *left, const char *right)
{
    same_bytes(f, left, right, "moa/router.safetensors");
    for (size_t i = 0; i < 3; i++) {
        json_t *a = stage_of(f, left, stages[i]), *b = stage_of(f, right, stages[i]);
        char name[128];

        snprintf(name, sizeof(name), "experts/%s/adapter_model.safetensors", stages[i]);
        same_bytes(f, left, right, name);
        if (!json_equal(a, b))
            fail_msg("stage.json of %s differs: %s %s", stages[i], json_dumps(a, 0),
                     json_dumps(b, 0));
        same_log(f, left, right, stages[i]);
        json_decref(a);
        json_decref(b);
    }
}

static void R27_together_leaves_what_each_leaves_alone(void **state)
{
    static const char *const all[] = {"train.together=true", "output=all"};
    static const char *const two[] = {"train.together=2", "output=two"};
    static const char *const on[] = {"train.together=true"};
    struct fixture f;

    (void)state;
    open_three(&f);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", .threads = 2}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = all,
                                             .n_set = 2,
                                             .threads = 2,
                                             .notes = "notes"}),
                     0);
    /* Side by side they were: the last begins before the first ends. */
    {
        char *notes = slurp(&f, "notes");
        const char *begun = strstr(notes, "expert-three 1 ");
        const char *ended = strstr(notes, "expert-one 3 ");

        assert_non_null(begun);
        assert_non_null(ended);
        assert_true(begun < ended);
        free(notes);
    }
    same_results(&f, "alone", "all");
    assert_int_equal(
        run(&f,
            &(struct child){.recipe = "r.yaml", .set = two, .n_set = 2, .threads = 2}),
        0);
    same_results(&f, "alone", "two");
    /* Nothing is left to do, whichever way is asked for. */
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = on,
                                             .n_set = 1,
                                             .notes = "again"}),
                     0);
    assert_false(said(&f, "again", "\n2 "));
    assert_true(said(&f, "again", "up to date"));
    fixture_close(&f);
}

static void R27_stopped_it_goes_on_either_way(void **state)
{
    static const char *const set[][2] = {{"train.together=true", "output=stopped"},
                                         {"train.together=false", "output=stopped"}};
    static const char *const swapped[][2] = {
        {"train.together=auto", "output=swapped"},
        {"train.together=false", "output=swapped"}};
    struct fixture f;

    (void)state;
    open_three(&f);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = set[0],
                                             .n_set = 2,
                                             .stop_stage = "expert-two",
                                             .stop_step = 3}),
                     -ARTEL_ESTOPPED);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = set[0],
                                             .n_set = 2,
                                             .stop_stage = "expert-one",
                                             .stop_step = 9}),
                     -ARTEL_ESTOPPED);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set[1], .n_set = 2}), 0);
    same_results(&f, "alone", "stopped");
    /* One of them done and one begun alone, the rest together. */
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = swapped[1],
                                             .n_set = 2,
                                             .stop_stage = "expert-two",
                                             .stop_step = 3}),
                     -ARTEL_ESTOPPED);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = swapped[0], .n_set = 2}), 0);
    same_results(&f, "alone", "swapped");
    fixture_close(&f);
}

static void R27_what_cannot_be_together_is_refused(void **state)
{
    static const char *const dropout[] = {"train.together=true", "lora.dropout=0.1",
                                          "output=refused"};
    static const char *const aside[] = {"train.together=auto", "lora.dropout=0.1",
                                        "output=aside"};
    static const char *const wrong[] = {"train.together=maybe"};
    struct fixture f;

    (void)state;
    open_three(&f);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = dropout,
                                             .n_set = 3,
                                             .notes = "notes"}),
                     -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "train.together: experts with lora.dropout"));
    assert_null(slurp(&f, "refused/recipe.yaml"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = aside, .n_set = 3}), 0);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = wrong, .n_set = 1}),
        -ARTEL_EUSAGE);
    fixture_close(&f);
}

/* What was written is read again, and means the same. */
static void the_key_goes_to_text_and_back(void **state)
{
    static const char *const sets[] = {"train.together=auto", "train.together=false",
                                       "train.together=true", "train.together=3",
                                       "train.together=1"};
    static const char *const texts[] = {"together: \"auto\"\n", "together: false\n",
                                        "together: true\n", "together: 3\n",
                                        "together: false\n"};
    static const size_t values[] = {0, 1, TOGETHER_ALL, 3, 1};
    struct fixture f;

    (void)state;
    open_three(&f);
    for (size_t i = 0; i < 5; i++) {
        struct artel_error err = {0};
        struct recipe *r, *again;
        char path[256], *text;

        path_in(path, sizeof(path), &f, "r.yaml");
        assert_int_equal(recipe_open(&r, path, &sets[i], 1, &err), 0);
        assert_int_equal(r->train.together, values[i]);
        assert_int_equal(recipe_print(&text, r, &err), 0);
        if (!strstr(text, texts[i]))
            fail_msg("%s", text);
        write_text(&f, "printed.yaml", text);
        path_in(path, sizeof(path), &f, "printed.yaml");
        assert_int_equal(recipe_open(&again, path, NULL, 0, &err), 0);
        assert_int_equal(again->train.together, values[i]);
        recipe_close(r);
        recipe_close(again);
        free(text);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R27_together_leaves_what_each_leaves_alone),
        cmocka_unit_test(R27_stopped_it_goes_on_either_way),
        cmocka_unit_test(R27_what_cannot_be_together_is_refused),
        cmocka_unit_test(the_key_goes_to_text_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
