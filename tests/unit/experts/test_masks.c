/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A masked expert is the dense product with rows and columns struck out; slopes follow;
 * the share that stays is the one asked for; a mask is drawn alike each time.
 */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/masks.h"

static const struct model_config shape = {.architecture = "llama",
                                          .n_layers = 2,
                                          .dim = 96,
                                          .n_heads = 4,
                                          .n_kv_heads = 2,
                                          .head_dim = 24,
                                          .ffn_dim = 250};

static void open_expert(struct expert *e)
{
    struct lora_options o;
    struct artel_error err;
    struct rng r;

    lora_options_default(&o);
    o.rank = 5;
    o.targets[SITE_V] = false;
    memset(e, 0, sizeof(*e));
    assert_int_equal(expert_init_uniform(e, "a", &shape, &o, &err), 0);
    rng_init(&r, 1, 0);
    for (size_t i = 0; i < e->n_params; i++)
        e->params[i] = rng_normal(&r);
}

static bool all_zero(const float *x, size_t n, size_t stride)
{
    for (size_t i = 0; i < n; i++)
        if (x[i * stride] != 0.0f)
            return false;
    return true;
}

static void the_product_is_the_dense_one_with_rows_and_columns_struck_out(void **state)
{
    const struct mask m = {.drop = 0.5f, .seed = 3, .step = 7};
    struct expert e;
    void *room = malloc(mask_scratch(&shape));
    float *to;

    (void)state;
    open_expert(&e);
    to = malloc(e.n_params * sizeof(*to));
    mask_params(to, e.params, &e, 2, &m, room);
    for (size_t i = 0; i < e.n_layers * N_SITES; i++) {
        const struct lora *l = &e.lora[i];
        const float *a = to + (l->a - e.params), *b = to + (l->b - e.params);
        size_t columns = 0, rows = 0, kept = 0;

        if (!l->rank)
            continue;
        for (size_t j = 0; j < l->n_in; j++)
            columns += !all_zero(a + j, l->rank, l->n_in);
        for (size_t j = 0; j < l->n_out; j++)
            rows += !all_zero(b + j * l->rank, l->rank, 1);
        assert_int_equal(columns, mask_kept(l->n_in, 0.5f));
        assert_int_equal(rows, mask_kept(l->n_out, 0.5f));
        for (size_t o = 0; o < l->n_out; o++)
            for (size_t j = 0; j < l->n_in; j++) {
                const bool stays = !all_zero(a + j, l->rank, l->n_in) &&
                                   !all_zero(b + o * l->rank, l->rank, 1);
                float masked = 0.0f, dense = 0.0f;

                for (size_t r = 0; r < l->rank; r++) {
                    masked += b[o * l->rank + r] * a[r * l->n_in + j];
                    dense += l->b[o * l->rank + r] * l->a[r * l->n_in + j];
                }
                assert_true(masked == (stays ? dense : 0.0f));
                kept += stays;
            }
        assert_near((double)kept / (double)(l->n_out * l->n_in), 0.5, 0.01);
    }
    free(to);
    free(room);
    expert_release(&e);
}

/* f = <w, masked params>: its slope is the masked w, weighed where kept is weighed. */
static void slopes_are_those_of_the_parameters(void **state)
{
    struct expert e;
    void *room = malloc(mask_scratch(&shape));

    (void)state;
    open_expert(&e);
    for (int rescale = 0; rescale < 2; rescale++) {
        const struct mask m = {
            .drop = 0.3f, .rescale = rescale != 0, .seed = 5, .step = 11};
        float *to = malloc(e.n_params * sizeof(*to));
        float *slope = malloc(e.n_params * sizeof(*slope));
        double sum = 0.0, by_slope = 0.0;
        struct rng r;

        rng_init(&r, 9, 0);
        for (size_t i = 0; i < e.n_params; i++)
            slope[i] = rng_normal(&r);
        mask_params(to, e.params, &e, 0, &m, room);
        for (size_t i = 0; i < e.n_params; i++)
            sum += (double)to[i] * (double)slope[i];
        mask_slopes(slope, &e, 0, &m, room);
        for (size_t i = 0; i < e.n_params; i++) /* linear: f = <slope, params> */
            by_slope += (double)e.params[i] * (double)slope[i];
        assert_near(by_slope, sum, 1e-3);
        free(to);
        free(slope);
    }
    free(room);
    expert_release(&e);
}

static void a_mask_is_a_function_of_its_place(void **state)
{
    struct mask m = {.drop = 0.5f, .seed = 3, .step = 7};
    struct expert e;
    void *room = malloc(mask_scratch(&shape));
    float *one, *two;
    size_t n;

    (void)state;
    open_expert(&e);
    n = e.n_params * sizeof(*one);
    one = malloc(n);
    two = malloc(n);
    mask_params(one, e.params, &e, 2, &m, room);
    mask_params(two, e.params, &e, 2, &m, room);
    assert_memory_equal(one, two, n);
    mask_params(two, e.params, &e, 3, &m, room);
    assert_memory_not_equal(one, two, n);
    m.step++;
    mask_params(two, e.params, &e, 2, &m, room);
    assert_memory_not_equal(one, two, n);
    m = (struct mask){.drop = 0.0f, .seed = 3};
    mask_params(two, e.params, &e, 2, &m, room);
    assert_memory_equal(two, e.params, n);
    m = (struct mask){.drop = 0.25f};
    mask_expected(two, e.params, &e, &m);
    assert_true(two[0] == e.params[0]);
    assert_near(two[e.lora[0].b - e.params], 0.75f * e.lora[0].b[0], 1e-6);
    /* weighed by 1 / (1 - p) in training, it is what was learnt that is expected */
    m.rescale = true;
    mask_expected(two, e.params, &e, &m);
    assert_memory_equal(two, e.params, n);
    free(one);
    free(two);
    free(room);
    expert_release(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_product_is_the_dense_one_with_rows_and_columns_struck_out),
        cmocka_unit_test(slopes_are_those_of_the_parameters),
        cmocka_unit_test(a_mask_is_a_function_of_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
