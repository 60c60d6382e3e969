/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An expert of random numbers merged into the model that ARTEL_TEST_MODEL names, as
 * GGUF and as a folder: rows' likelihoods are those of base and expert apart.
 */
#include "artel.h"

#include <jansson.h>
#include <math.h>

#include "base/rng.h"
#include "plan/convert.h"
#include "unit/save/fixture.h"

#define N_ROWS 3

static double told(const json_t *report, const char *key)
{
    return json_number_value(json_object_get(json_object_get(report, "measured"), key));
}

static void write_expert(const char *folder, const char *path)
{
    struct artel_model *model;
    struct artel_error err;
    struct lora_options o;
    struct expert e;
    struct rng rng;

    assert_int_equal(model_open(&model, path, &err), 0);
    lora_options_default(&o);
    o.use_rslora = true;
    assert_int_equal(
        expert_init_uniform(&e, "random", &model->weights->config, &o, &err), 0);
    expert_draw(&e, 1, 2);
    rng_init(&rng, 3, 4);
    for (size_t i = 0; i < model->weights->config.n_layers * N_SITES; i++)
        for (size_t k = 0; k < e.lora[i].rank * e.lora[i].n_out; k++)
            e.lora[i].b[k] = 0.004f * rng_normal(&rng);
    assert_int_equal(
        adapter_write(folder, &e, &model->weights->config, NULL, NULL, &err), 0);
    expert_release(&e);
    model_close(model);
}

/* A likelihood is a sum over all layers of float products: 1e-5 a token is what threads of
 * another order would do too; halves of the weights (2^-11 each) do a thousand times that. */
static void merged_rows_are_those_of_base_and_expert(void **state)
{
    static const struct {
        const char *to, *type;
        double most;
    } forms[] = {{"gguf", "f32", 1e-4}, {"safetensors", "f16", 2e-2}};
    const char *const model = getenv("ARTEL_TEST_MODEL");
    char *scratch, *adapter, *out;

    (void)state;
    if (!model || !*model)
        skip();
    scratch = scratch_open();
    adapter = path_join(scratch, "random");
    out = path_join(scratch, "out");
    write_expert(adapter, model);
    for (size_t i = 0; i < 2; i++) {
        struct artel_convert_options o;
        struct artel_error err = {0};
        json_t *report;
        char *json;

        artel_convert_options_default(&o);
        o.to = forms[i].to;
        o.type = forms[i].type;
        o.model = model;
        o.measure = ARTEL_SOURCE "/tests/golden/smollm2_rows.jsonl";
        o.max_rows = N_ROWS;
        if (artel_convert(&json, adapter, out, &o, &err) < 0)
            fail_msg("%s: %s [%s]", err.file, err.reason, err.code);
        report = json_loads(json, 0, NULL);
        assert_int_equal((int)told(report, "rows"), N_ROWS);
        assert_true(told(report, "largest_row_change") <= forms[i].most);
        assert_true(fabs(told(report, "perplexity_beside") -
                         told(report, "perplexity_base")) > 0.01);
        json_decref(report);
        artel_free(json);
        if (i == 0)
            assert_int_equal(unlink(out), 0);
    }
    scratch_close(scratch);
    free(adapter);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_rows_are_those_of_base_and_expert),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
