/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "decoder/sampler.h"

#include <stdlib.h>

#define V 6

static const float logits[V] = {1, 3, 2, 3, -1, 0};

static struct sampler made(struct sampler_options o)
{
    struct sampler s;

    if (o.repetition_penalty == 0)
        o.repetition_penalty = 1;
    if (o.top_p == 0)
        o.top_p = 1;
    assert_int_equal(sampler_init(&s, &o, V, 0, NULL), 0);
    return s;
}

/* How often each id comes in N draws. */
static void count(size_t *hits, struct sampler_options o, const float *x, size_t n)
{
    struct sampler s = made(o);

    memset(hits, 0, V * sizeof(*hits));
    for (size_t i = 0; i < n; i++) {
        const int32_t id = sampler_pick(&s, x);

        assert_in_range(id, 0, V - 1);
        hits[id]++;
    }
    sampler_release(&s);
}

static void zero_temperature_takes_the_lowest_id_of_the_likeliest(void **state)
{
    struct sampler s = made((struct sampler_options){.top_k = 3, .seed = 5});

    (void)state;
    for (int i = 0; i < 20; i++)
        assert_int_equal(sampler_pick(&s, logits), 1);
    sampler_release(&s);
}

static void nan_is_never_picked(void **state)
{
    const float x[V] = {NAN, 1, NAN, 2, -INFINITY, NAN},
                none[V] = {NAN, NAN, NAN, NAN, NAN, NAN};
    const float inf[V] = {0, 0, INFINITY, NAN, 0, 0};
    struct sampler s = made((struct sampler_options){0});
    size_t hits[V];

    (void)state;
    assert_int_equal(sampler_pick(&s, x), 3);
    assert_int_equal(sampler_pick(&s, none), -1);
    assert_int_equal(sampler_pick(&s, inf), 2);
    sampler_release(&s);
    count(hits, (struct sampler_options){.temperature = 1}, x, 1000);
    assert_int_equal(hits[1] + hits[3], 1000);
    count(hits, (struct sampler_options){.temperature = 1, .top_p = 0.9f}, inf, 100);
    assert_int_equal(hits[2], 100);
}

static void frequencies_follow_the_softmax(void **state)
{
    size_t hits[V];
    double total = 0;

    (void)state;
    for (int i = 0; i < V; i++)
        total += exp((double)logits[i] / 2);
    count(hits, (struct sampler_options){.temperature = 2, .seed = 3}, logits, 40000);
    for (int i = 0; i < V; i++)
        assert_near((double)hits[i] / 40000, exp((double)logits[i] / 2) / total, 0.01);
}

static void top_k_keeps_exactly_k_lowest_ids_first(void **state)
{
    size_t hits[V];

    (void)state;
    count(hits, (struct sampler_options){.temperature = 5, .top_k = 3}, logits, 3000);
    assert_true(hits[1] && hits[2] && hits[3]);
    assert_int_equal(hits[0] + hits[4] + hits[5], 0);
    count(hits, (struct sampler_options){.temperature = 5, .top_k = 1}, logits, 100);
    assert_int_equal(hits[1], 100);
}

static void top_p_and_min_p_cut_the_tail(void **state)
{
    const float x[V] = {logf(0.5f),  logf(0.3f),  logf(0.1f),
                        logf(0.06f), logf(0.03f), logf(0.01f)};
    size_t hits[V];

    (void)state;
    count(hits, (struct sampler_options){.temperature = 1, .top_p = 0.79f}, x, 3000);
    assert_true(hits[0] && hits[1]);
    assert_int_equal(hits[0] + hits[1], 3000);
    assert_near((double)hits[0] / 3000, 0.5 / 0.8, 0.04);
    count(hits, (struct sampler_options){.temperature = 1, .min_p = 0.15f}, x, 3000);
    assert_int_equal(hits[0] + hits[1] + hits[2], 3000);
    assert_true(hits[2]);
    count(hits, (struct sampler_options){.temperature = 1, .top_k = 4, .top_p = 0.9f},
          x, 3000);
    assert_int_equal(hits[0] + hits[1] + hits[2], 3000);
    assert_true(hits[2]);
    count(hits, (struct sampler_options){.temperature = 1, .top_p = 1e-6f}, x, 100);
    assert_int_equal(hits[0], 100);
}

static void penalty_lowers_what_was_seen_whatever_its_sign(void **state)
{
    const float x[V] = {2, 1.9f, -1, -1.1f, -9, -9};
    struct sampler s = made((struct sampler_options){.repetition_penalty = 1.2f});

    (void)state;
    assert_int_equal(sampler_pick(&s, x), 0);
    sampler_see(&s, 0);
    assert_int_equal(sampler_pick(&s, x), 1);
    sampler_see(&s, 1);
    assert_int_equal(sampler_pick(&s, x), 0);
    sampler_see(&s, -1);
    sampler_see(&s, V);
    sampler_release(&s);
    s = made((struct sampler_options){.repetition_penalty = 1.2f});
    sampler_see(&s, 0);
    assert_int_equal(sampler_pick(&s, (const float[V]){-1, -1.1f, -9, -9, -9, -9}), 1);
    sampler_release(&s);
}

static void same_seed_same_ids_and_streams_differ(void **state)
{
    const struct sampler_options o = {
        .temperature = 3, .top_p = 0.99f, .repetition_penalty = 1, .seed = 11};
    struct sampler a, b, c;
    size_t differ = 0;

    (void)state;
    sampler_init(&a, &o, V, 4, NULL);
    sampler_init(&b, &o, V, 4, NULL);
    sampler_init(&c, &o, V, 5, NULL);
    for (int i = 0; i < 200; i++) {
        const int32_t id = sampler_pick(&a, logits);

        assert_int_equal(id, sampler_pick(&b, logits));
        differ += id != sampler_pick(&c, logits);
    }
    assert_true(differ > 50);
    sampler_release(&a);
    sampler_release(&b);
    sampler_release(&c);
}

static void penalties_of_the_answer_count_what_came(void **state)
{
    const float x[V] = {2, 1.5f, 1.2f, -9, -9, -9};
    struct sampler s = made((struct sampler_options){.frequency_penalty = 0.4f});

    (void)state;
    sampler_see(&s, 0); /* the prompt's do not count */
    assert_int_equal(sampler_pick(&s, x), 0);
    sampler_wrote(&s, 0); /* 1.6 */
    assert_int_equal(sampler_pick(&s, x), 0);
    sampler_wrote(&s, 0); /* 1.2 */
    assert_int_equal(sampler_pick(&s, x), 1);
    sampler_release(&s);
    s = made((struct sampler_options){.presence_penalty = 0.4f});
    sampler_wrote(&s, 0);
    sampler_wrote(&s, 0); /* 1.6 all the same */
    assert_int_equal(sampler_pick(&s, x), 0);
    sampler_release(&s);
    s = made((struct sampler_options){.presence_penalty = -0.7f});
    sampler_wrote(&s, 1); /* below 0 it draws near */
    assert_int_equal(sampler_pick(&s, x), 1);
    sampler_release(&s);
}

/* 2 + 1 = 3, and 3 / 1.5 is less than 2.1; 2 / 1.5 + 1 would be more. */
static void biases_come_before_penalties(void **state)
{
    const float x[V] = {2, 2.1f, -9, -9, -9, -9};
    const struct token_bias bias[] = {{0, 0.5f}, {0, 0.5f}, {5, -100}};
    struct sampler_options o = {.bias = bias, .n_bias = 3};
    struct sampler s = made(o);

    (void)state;
    assert_int_equal(sampler_pick(&s, x), 0);
    sampler_release(&s);
    o.repetition_penalty = 1.5f;
    s = made(o);
    sampler_see(&s, 0);
    assert_int_equal(sampler_pick(&s, x), 1);
    sampler_release(&s);
}

static void only_what_is_allowed_comes(void **state)
{
    const unsigned char allowed[] = {1 << 2 | 1 << 4}, none[] = {0};
    const struct token_bias bias[] = {{1, 100}};
    struct sampler s = made((struct sampler_options){
        .temperature = 5, .seed = 2, .bias = bias, .n_bias = 1});
    size_t hits[V] = {0};

    (void)state;
    s.allowed = allowed;
    for (int i = 0; i < 500; i++)
        hits[sampler_pick(&s, logits)]++;
    assert_int_equal(hits[2] + hits[4], 500);
    assert_true(hits[2] > 100 && hits[4] > 100);
    s.allowed = none;
    assert_int_equal(sampler_pick(&s, logits), -1);
    s.allowed = NULL;
    assert_int_equal(sampler_pick(&s, logits), 1);
    sampler_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_temperature_takes_the_lowest_id_of_the_likeliest),
        cmocka_unit_test(nan_is_never_picked),
        cmocka_unit_test(frequencies_follow_the_softmax),
        cmocka_unit_test(top_k_keeps_exactly_k_lowest_ids_first),
        cmocka_unit_test(top_p_and_min_p_cut_the_tail),
        cmocka_unit_test(penalty_lowers_what_was_seen_whatever_its_sign),
        cmocka_unit_test(penalties_of_the_answer_count_what_came),
        cmocka_unit_test(biases_come_before_penalties),
        cmocka_unit_test(only_what_is_allowed_comes),
        cmocka_unit_test(same_seed_same_ids_and_streams_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
