/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/rng.h"
#include "decoder/logprobs.h"

#define V 300

static void probabilities_of_all_tokens_sum_to_one(void **state)
{
    struct candidate all[V];
    float x[V], of;
    double sum = 0;
    struct rng r;

    (void)state;
    rng_init(&r, 3, 0);
    for (size_t i = 0; i < V; i++)
        x[i] = 4 * rng_normal(&r);
    assert_int_equal(logprobs_of(&of, all, V, x, V, 7), V);
    for (size_t i = 0; i < V; i++) {
        sum += exp((double)all[i].logit);
        assert_true(!i || all[i].logit <= all[i - 1].logit);
        if (all[i].id == 7)
            assert_near(all[i].logit, of, 0);
        assert_near(all[i].logit - of, x[all[i].id] - x[7], 1e-5);
    }
    assert_near(sum, 1, 1e-6);
}

static void equal_ones_come_lowest_id_first(void **state)
{
    const float x[6] = {1, 3, 2, 3, -1, 3};
    struct candidate top[3];
    float of;

    (void)state;
    assert_int_equal(logprobs_of(&of, top, 3, x, 6, 4), 3);
    assert_int_equal(top[0].id, 1);
    assert_int_equal(top[1].id, 3);
    assert_int_equal(top[2].id, 5);
    assert_int_equal(logprobs_of(&of, top, 0, x, 6, 4), 0);
    assert_near(of, -1 - log(exp(1) + 3 * exp(3) + exp(2) + exp(-1)), 1e-6);
}

static void what_is_no_number_cannot_come(void **state)
{
    const float x[4] = {NAN, 0, -INFINITY, 0}, none[2] = {NAN, -INFINITY};
    const float inf[3] = {INFINITY, 0, -3.4e38f};
    struct candidate top[4];
    float of;

    (void)state;
    assert_int_equal(logprobs_of(&of, top, 4, x, 4, 0), 2);
    assert_true(isinf(of) && of < 0);
    assert_near(top[1].logit, -log(2), 1e-6);
    assert_int_equal(logprobs_of(&of, top, 2, none, 2, 1), 0);
    assert_true(isinf(of) && of < 0);
    assert_int_equal(logprobs_of(&of, top, 2, inf, 3, 0), 2);
    assert_near(of, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_of_all_tokens_sum_to_one),
        cmocka_unit_test(equal_ones_come_lowest_id_first),
        cmocka_unit_test(what_is_no_number_cannot_come),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
