/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layer made the first number that is none: told exactly, whatever the step's
 * numbers are and whatever it keeps.
 */
#define TOY_LAYERS 3
#include "support/toy_decoder.h"

#include "tiles/tiles.h"

/* One of an expert's numbers, at a linear of a layer. */
static float *number_of(struct mixture *m, size_t layer, enum site s)
{
    return expert_lora(&m->experts[0], layer, s)->b + 1;
}

/* What a pass says of a model whose expert has BAD there; NULL: nowhere. */
static size_t named(enum precision precision, bool recompute, size_t layer, enum site s,
                    const float *bad)
{
    const struct gate_rule rule = {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX};
    const struct pass_options o = {.routing = ROUTE_ROUTER,
                                   .backward = true,
                                   .recompute = recompute,
                                   .max_rows = 40,
                                   .max_seqs = TOY_SEQS};
    struct artel_model *model = toy_open(7);
    struct mixture m;
    struct decoder_pass *pass;
    struct toy_data data;
    struct artel_error err;
    float before[TOY_DIM];
    size_t found;

    assert_int_equal(model_prepare(model, precision, MATRIX_FORWARD | MATRIX_BACKWARD,
                                   TOY_CONTEXT, &err),
                     0);
    assert_int_equal(mixture_init(&m, "test", &model->weights->config, &rule, &err), 0);
    toy_expert(&m, model, "all", 3, NULL, 1);
    toy_identity(&m, model, "identity");
    mixture_draw_routers(&m, 0.4f, 9);
    if (bad)
        *number_of(&m, layer, s) = *bad;
    toy_fill(&data, 5);
    assert_int_equal(pass_open(&pass, model, &m, &o, &err), 0);
    decoder_forward(pass, &data.block);
    memcpy(before, pass_hidden(pass, 3), sizeof(before));
    found = pass_nonfinite_layer(pass);
    if (!bad)
        assert_memory_equal(pass_hidden(pass, 3), before, sizeof(before));
    pass_close(pass);
    mixture_release(&m);
    toy_close(model);
    return found;
}

static void the_layer_is_named(void **state)
{
    static const enum site sites[] = {SITE_V, SITE_O, SITE_UP, SITE_DOWN};
    static const float bad[] = {NAN, INFINITY};
    const int n_precisions = precision_native_bf16() ? 2 : 1;

    (void)state;
    for (int k = 0; k < 2 * n_precisions; k++) {
        const enum precision precision = k / 2 ? PRECISION_BF16 : PRECISION_FP32;
        const bool recompute = k % 2;

        for (size_t l = 0; l < TOY_LAYERS; l++)
            for (size_t i = 0; i < 4; i++)
                for (size_t b = 0; b < 2; b++)
                    assert_int_equal(named(precision, recompute, l, sites[i], &bad[b]),
                                     l);
        assert_int_equal(named(precision, recompute, 0, SITE_Q, NULL), TOY_LAYERS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_layer_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
