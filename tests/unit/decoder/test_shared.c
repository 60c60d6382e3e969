/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A forward that threads share, each with a part of the rows, leaves the bits of one
 * thread's: for any number of threads, with routers that one of them reads for all.
 */
#include "support/toy_decoder.h"

#include <omp.h>

#include "tiles/tiles.h"

#define ROWS     50 /* of a sequence */
#define ALL_ROWS ((size_t)TOY_SEQS * ROWS)

static void hidden_of(float *out, struct artel_model *model, const struct mixture *m,
                      bool shared)
{
    const struct pass_options o = {.routing = ROUTE_ROUTER,
                                   .max_rows = ALL_ROWS,
                                   .max_seqs = TOY_SEQS,
                                   .shared = shared};
    struct sequence seqs[TOY_SEQS];
    const struct block block = {.seqs = seqs, .n_seqs = TOY_SEQS, .n_rows = ALL_ROWS};
    int32_t ids[TOY_SEQS * ROWS];
    struct decoder_pass *pass;
    struct artel_error err;

    for (size_t i = 0; i < ALL_ROWS; i++)
        ids[i] = (int32_t)(i * 31 % TOY_VOCAB);
    for (size_t s = 0; s < TOY_SEQS; s++)
        seqs[s] = (struct sequence){.ids = ids + s * ROWS,
                                    .n = ROWS,
                                    .pool_first = 3 * s,
                                    .pool_n = ROWS / 2,
                                    .expert = -1};
    assert_int_equal(pass_open(&pass, model, m, &o, &err), 0);
    decoder_forward(pass, &block);
    for (size_t t = 0; t < ALL_ROWS; t++)
        memcpy(out + t * TOY_DIM, pass_hidden(pass, t), TOY_DIM * sizeof(float));
    pass_close(pass);
}

static void check(enum precision precision, const struct gate_rule *rule)
{
    static float want[TOY_SEQS * ROWS * TOY_DIM], got[TOY_SEQS * ROWS * TOY_DIM];
    struct artel_model *model = toy_open(7);
    struct mixture m;
    struct artel_error err;
    const int before = omp_get_max_threads();

    assert_int_equal(model_prepare(model, precision, MATRIX_FORWARD, TOY_CONTEXT, &err),
                     0);
    assert_int_equal(mixture_init(&m, "test", &model->weights->config, rule, &err), 0);
    toy_expert(&m, model, "all", 3, NULL, 1);
    toy_expert(&m, model, "ffn", 5, "456", 2);
    mixture_draw_routers(&m, 0.4f, 9);
    hidden_of(want, model, &m, false);
    for (int threads = 1; threads <= 7; threads += 2) {
        omp_set_num_threads(threads);
        memset(got, 0, sizeof(got));
        hidden_of(got, model, &m, true);
        assert_memory_equal(got, want, sizeof(want));
    }
    omp_set_num_threads(before);
    mixture_release(&m);
    toy_close(model);
}

static void threads_that_share_a_forward_change_no_bit(void **state)
{
    static const struct gate_rule rules[] = {
        {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
        {.place = ROUTER_LAYER, .kind = GATE_ONE_HOT},
        {.place = ROUTER_FFN, .decides = DECIDE_TOKEN, .kind = GATE_ONE_HOT},
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        check(PRECISION_FP32, &rules[i]);
        if (precision_native_bf16())
            check(PRECISION_BF16, &rules[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_share_a_forward_change_no_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
