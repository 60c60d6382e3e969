/* SPDX-License-Identifier: Apache-2.0 */
/*
 * modula-res without the residual: what a run leaves, what joins it, and what does not.
 */
#include "methods_fixture.h"

/* A folder of which the sums differ, and what refuses a recipe that means no such sum. */
static void res_leaves_the_residual_out_from_the_first_step_to_the_last(void **state)
{
    static const char *const without[] = {"method=modula-res", "train.epochs=6",
                                          "modula.residual=false"};
    static const char *const other[] = {"method=modula-flan", "modula.residual=false"};
    struct child c = {.recipe = "r.yaml", .set = without, .n_set = 2};
    struct fixture f;
    json_t *root;

    (void)state;
    open_methods(&f);
    assert_int_equal(run(&f, &c), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = other,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "modula.residual"));
    shell(&f, "cp -r out with");
    c.n_set = 3;
    c.notes = "notes";
    assert_int_equal(run(&f, &c), -ARTEL_ECONFLICT); /* what is there adds it */
    assert_true(said(&f, "notes", "modula.residual was not set, is false"));
    c.changes = CHANGES_RETRAIN;
    assert_int_equal(run(&f, &c), 0);
    learnt(&f, "res-one", 0.3);
    shell(&f, "cmp out/experts/universal/adapter_model.safetensors "
              "with/experts/universal/adapter_model.safetensors");
    root = read_json(&f, "out/modula-res/mixture.json");
    assert_true(
        json_is_false(json_object_get(json_object_get(root, "rule"), "residual")));
    json_decref(root);
    assert_int_equal(child_opens(&f, "out/modula-res"), 0);
    assert_int_equal(child_adds(&f, "out/modula-res"), 0);
    root = read_json(&f, "out/modula-res/mixture.json");
    assert_true(
        json_is_false(json_object_get(json_object_get(root, "rule"), "residual")));
    json_decref(root);
    root = read_json(&f, "out/modula-res/experts/three/adapter_config.json");
    assert_true(json_is_false(json_object_get(root, "residual")));
    json_decref(root);
    shell(&f,
          "rm -r out/experts-res/one && cp -r with/experts-res/one out/experts-res");
    assert_int_equal(child_opens(&f, "out/modula-res"), 17);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(res_leaves_the_residual_out_from_the_first_step_to_the_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
