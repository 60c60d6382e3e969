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

static void open_expert(struct expert *e, const struct model_config *c, size_t rank)
{
    struct lora_options o;
    struct artel_error err;
    struct rng r;

    lora_options_default(&o);
    o.rank = rank;
    o.targets[SITE_V] = false;
    memset(e, 0, sizeof(*e));
    assert_int_equal(expert_init_uniform(e, "a", c, &o, &err), 0);
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
    open_expert(&e, &shape, 5);
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

/* round(N sqrt(1 - p)), at any size and share. */
static void as_many_places_stay_as_the_root_says(void **state)
{
    static const float drops[] = {0.0f, 0.1f, 0.25f, 0.3f, 0.5f, 0.75f, 0.9f, 0.99f};
    static const size_t sizes[] = {1, 2, 3, 7, 32, 96, 250, 576, 1536, 4096, 49152};

    (void)state;
    for (size_t i = 0; i < sizeof(drops) / sizeof(*drops); i++)
        for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
            const double stay = (double)sizes[k] * sqrt(1.0 - (double)drops[i]);

            assert_int_equal(mask_kept(sizes[k], drops[i]), (size_t)floor(stay + 0.5));
        }
    assert_int_equal(mask_kept(100, 0.75f), 50);
    assert_int_equal(mask_kept(100, 0.19f), 90);
    assert_int_equal(mask_kept(5, 0.75f), 3); /* 2.5 */
}

/* Of an expert in the sizes of a real base, at many shares. */
static void the_share_that_stays_is_the_one_asked_for(void **state)
{
    static const struct model_config large = {.architecture = "llama",
                                              .n_layers = 1,
                                              .dim = 576,
                                              .n_heads = 9,
                                              .n_kv_heads = 3,
                                              .head_dim = 64,
                                              .ffn_dim = 1536};
    static const float drops[] = {0.05f, 0.1f, 0.25f, 0.4f, 0.5f, 0.6f, 0.75f, 0.9f};
    void *room = malloc(mask_scratch(&large));
    struct expert e;
    float *to;

    (void)state;
    open_expert(&e, &large, 1);
    to = malloc(e.n_params * sizeof(*to));
    for (size_t i = 0; i < sizeof(drops) / sizeof(*drops); i++) {
        const struct mask m = {.drop = drops[i], .seed = 3, .step = i};
        const double p = (double)drops[i];

        mask_params(to, e.params, &e, 1, &m, room);
        for (size_t k = 0; k < N_SITES; k++) {
            const struct lora *l = &e.lora[k];
            const double N = (double)l->n_in, M = (double)l->n_out;
            size_t columns = 0, rows = 0;

            if (!l->rank)
                continue;
            for (size_t j = 0; j < l->n_in; j++)
                columns += to[l->a - e.params + (ptrdiff_t)j] != 0.0f;
            for (size_t j = 0; j < l->n_out; j++)
                rows += to[l->b - e.params + (ptrdiff_t)j] != 0.0f;
            assert_int_equal(columns, (size_t)floor(N * sqrt(1.0 - p) + 0.5));
            assert_int_equal(rows, (size_t)floor(M * sqrt(1.0 - p) + 0.5));
            if (l->n_in >= 512 && l->n_out >= 512)
                assert_near((double)(rows * columns) / (M * N), 1.0 - p,
                            0.01 * (1.0 - p));
        }
    }
    free(to);
    free(room);
    expert_release(&e);
}

/* No place is favoured: over many steps each stays about as often as any other. Bound:
 * five deviations of a binomial, and what rounding a count of places adds. */
static void every_place_has_the_same_chance(void **state)
{
    const size_t n_steps = 2000;
    const double stay = sqrt(0.4), expected = (double)n_steps * stay;
    const double bound = 5.0 * sqrt(expected * (1.0 - stay)) + 10.0;
    void *room = malloc(mask_scratch(&shape));
    const struct lora *l;
    size_t kept[96 + 250] = {0};
    struct expert e;
    float *to;

    (void)state;
    open_expert(&e, &shape, 1);
    l = expert_lora(&e, 1, SITE_UP);
    assert_true(l->n_in == 96 && l->n_out == 250);
    to = malloc(e.n_params * sizeof(*to));
    for (size_t i = 0; i < n_steps; i++) {
        const struct mask m = {.drop = 0.6f, .seed = 17, .step = i};

        mask_params(to, e.params, &e, 0, &m, room);
        for (size_t j = 0; j < 96 + 250; j++)
            kept[j] += to[l->a - e.params + (ptrdiff_t)j] != 0.0f;
    }
    for (size_t j = 0; j < 96 + 250; j++)
        assert_near(kept[j], expected, bound);
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
    open_expert(&e, &shape, 5);
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
    open_expert(&e, &shape, 5);
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
        cmocka_unit_test(as_many_places_stay_as_the_root_says),
        cmocka_unit_test(the_share_that_stays_is_the_one_asked_for),
        cmocka_unit_test(every_place_has_the_same_chance),
        cmocka_unit_test(slopes_are_those_of_the_parameters),
        cmocka_unit_test(a_mask_is_a_function_of_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
