/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of several sessions: each ends as if it had stepped alone, to the bit, with
 * any experts or gates beside it, any number of threads, and sessions that come
 * and go; and a step agrees with a prefill of the same tokens within 1e-4 (logits
 * below 10, sums of 48 products).
 */
#include "support/toy_decoder.h"

#include <omp.h>

#include "decoder/decode.h"
#include "decoder/session.h"

#define LONG  400 /* several chunks of keys */
#define MANY  35  /* more than share one pass */
#define STEPS 5

struct fixture {
    struct artel_model *model;
    struct mixture mixture;
    int32_t ids[LONG + STEPS];
};

static void open_fixture(struct fixture *f, const struct gate_rule *rule)
{
    struct artel_error err;
    struct rng r;

    f->model = toy_open(31);
    f->model->weights->config.context = 512;
    assert_int_equal(model_prepare(f->model, PRECISION_FP32,
                                   MATRIX_DECODE | MATRIX_FORWARD, 512, &err),
                     0);
    assert_int_equal(
        mixture_init(&f->mixture, "test", &f->model->weights->config, rule, &err), 0);
    toy_expert(&f->mixture, f->model, "one", 3, NULL, 1);
    toy_expert(&f->mixture, f->model, "two", 2, "035", 2);
    toy_identity(&f->mixture, f->model, "nothing");
    toy_expert(&f->mixture, f->model, "three", 17, "456", 3);
    mixture_draw_routers(&f->mixture, 1.0f, 4);
    rng_init(&r, 8, 0);
    for (size_t i = 0; i < LONG + STEPS; i++)
        f->ids[i] = (int32_t)rng_below(&r, TOY_VOCAB);
}

static void close_fixture(struct fixture *f)
{
    mixture_release(&f->mixture);
    toy_close(f->model);
}

/* Session I: a prompt of its own length under an expert of its own, now and then routed. */
static struct artel_session *prepared(const struct fixture *f, size_t i)
{
    static const size_t length[] = {6, 127, 9, 128, 20, 300, 7};
    const bool routes = f->mixture.n_routers && i % 2;
    const size_t n = length[i % 7];
    struct artel_session *s;
    struct artel_error err;

    assert_int_equal(session_open(&s, f->model, &f->mixture, n + 2 * STEPS, &err), 0);
    assert_int_equal(session_prefill(s, f->ids + i % 3, n,
                                     routes ? EXPERT_AUTO : (int)(i % 5) - 1, 1, 4,
                                     &err),
                     0);
    return s;
}

static int32_t token(size_t i, size_t step)
{
    return (int32_t)((7 * i + 13 * step + 3) % TOY_VOCAB);
}

static void assert_same(const struct artel_session *a, const struct artel_session *b)
{
    assert_int_equal(session_length(a), session_length(b));
    assert_memory_equal(session_logits(a), session_logits(b),
                        TOY_VOCAB * sizeof(float));
}

static const struct gate_rule rules[] = {
    {.place = ROUTER_LAYER, .fix_expert = true},
    {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX},
    {.place = ROUTER_FFN, .kind = GATE_SOFTMAX},
    {.place = ROUTER_LINEAR, .kind = GATE_TOP_K, .top_k = 2},
    {.place = ROUTER_LAYER, .decides = DECIDE_TOKEN, .kind = GATE_ONE_HOT},
    {.place = ROUTER_FFN, .decides = DECIDE_TOKEN, .kind = GATE_TOP_K, .top_k = 2},
    {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
    {.place = ROUTER_LINEAR,
     .decides = DECIDE_TOKEN,
     .kind = GATE_TOP_K,
     .top_k = 3,
     .absolute = true,
     .temperature = 0.7f},
    {.place = ROUTER_NONE},
};

static void run_together(const struct fixture *f, size_t n, int threads)
{
    struct artel_session *alone[MANY], *together[MANY];
    struct artel_error err;

    for (size_t i = 0; i < n; i++) {
        alone[i] = prepared(f, i);
        omp_set_num_threads(threads);
        together[i] = prepared(f, i);
        omp_set_num_threads(1);
    }
    for (size_t step = 0; step < STEPS; step++) {
        int32_t ids[MANY];

        for (size_t i = 0; i < n; i++) {
            ids[i] = token(i, step);
            assert_int_equal(session_step(alone[i], ids[i], &err), 0);
        }
        omp_set_num_threads(threads);
        assert_int_equal(sessions_step(together, ids, n, &err), 0);
        omp_set_num_threads(1);
        for (size_t i = 0; i < n; i++)
            assert_same(alone[i], together[i]);
    }
    for (size_t i = 0; i < n; i++) {
        session_close(alone[i]);
        session_close(together[i]);
    }
}

static void company_and_threads_change_no_bit(void **state)
{
    const int before = omp_get_max_threads();

    (void)state;
    omp_set_num_threads(1);
    for (size_t r = 0; r < sizeof(rules) / sizeof(*rules); r++) {
        struct fixture f;

        open_fixture(&f, &rules[r]);
        run_together(&f, 1, 3);
        run_together(&f, 3, 1);
        run_together(&f, 7, 2);
        if (r < 2)
            run_together(&f, MANY, 5);
        close_fixture(&f);
    }
    omp_set_num_threads(before);
}

static void sessions_come_and_go_at_every_step(void **state)
{
    struct artel_session *alone[7], *joined[7];
    struct artel_error err;
    struct fixture f;

    (void)state;
    open_fixture(&f, &rules[0]);
    for (size_t i = 0; i < 7; i++) {
        alone[i] = prepared(&f, i);
        joined[i] = prepared(&f, i);
    }
    for (size_t step = 0; step < 2 * STEPS; step++) {
        struct artel_session *now[7];
        int32_t ids[7];
        size_t n = 0;

        for (size_t i = 0; i < 7; i++)
            if ((step * 5 + i * 3) % 7 < 4) {
                now[n] = joined[i];
                ids[n++] = token(i, step);
                assert_int_equal(session_step(alone[i], token(i, step), &err), 0);
            }
        assert_int_equal(sessions_step(now, ids, n, &err), 0);
        for (size_t i = 0; i < 7; i++)
            assert_same(alone[i], joined[i]);
    }
    for (size_t i = 0; i < 7; i++) {
        session_close(alone[i]);
        session_close(joined[i]);
    }
    close_fixture(&f);
}

static void a_long_sequence_equals_its_prefill(void **state)
{
    struct artel_error err;
    struct fixture f;

    (void)state;
    open_fixture(&f, &rules[0]);
    for (int expert = EXPERT_BASE; expert < 4; expert++) {
        struct artel_session *steps, *whole;

        assert_int_equal(session_open(&steps, f.model, &f.mixture, LONG, &err), 0);
        assert_int_equal(session_open(&whole, f.model, &f.mixture, LONG, &err), 0);
        assert_int_equal(session_prefill(steps, f.ids, 100, expert, 0, 1, &err), 0);
        for (size_t n = 101; n <= LONG; n++) {
            assert_int_equal(session_step(steps, f.ids[n - 1], &err), 0);
            if (n != 127 && n != 128 && n != 129 && n != 256 && n != 257 && n != LONG)
                continue;
            assert_int_equal(session_prefill(whole, f.ids, n, expert, 0, 1, &err), 0);
            for (size_t v = 0; v < TOY_VOCAB; v++)
                assert_near(session_logits(steps)[v], session_logits(whole)[v], 1e-4);
        }
        session_close(steps);
        session_close(whole);
    }
    close_fixture(&f);
}

static void where_one_is_full_none_moves(void **state)
{
    struct artel_session *s[3], *fresh[3];
    struct artel_error err;
    struct fixture f;
    const int32_t ids[3] = {1, 2, 3};

    (void)state;
    open_fixture(&f, &rules[0]);
    for (size_t i = 0; i < 3; i++) {
        s[i] = prepared(&f, i);
        fresh[i] = prepared(&f, i);
    }
    while (session_length(s[1]) < session_room(s[1]))
        assert_int_equal(session_step(s[1], 4, &err), 0);
    assert_error(sessions_step(s, ids, 3, &err), ARTEL_ELIMIT, err, "CTX03");
    assert_same(s[0], fresh[0]);
    assert_same(s[2], fresh[2]);
    assert_int_equal(sessions_step((struct artel_session *[]){s[0], s[2]},
                                   (int32_t[]){1, 3}, 2, &err),
                     0);
    assert_int_equal(session_step(fresh[0], ids[0], &err), 0);
    assert_int_equal(session_step(fresh[2], ids[2], &err), 0);
    assert_same(s[0], fresh[0]);
    assert_same(s[2], fresh[2]);
    for (size_t i = 0; i < 3; i++) {
        session_close(s[i]);
        session_close(fresh[i]);
    }
    close_fixture(&f);
}

static void a_step_inside_a_region_is_the_same(void **state)
{
    struct artel_session *alone, *inside[3];
    struct artel_error err;
    struct fixture f;

    (void)state;
    open_fixture(&f, &rules[0]);
    alone = prepared(&f, 0);
    assert_int_equal(session_step(alone, 5, &err), 0);
    for (size_t i = 0; i < 3; i++)
        inside[i] = prepared(&f, 0);
#pragma omp parallel for num_threads(3)
    for (size_t i = 0; i < 3; i++)
        (void)session_step(inside[i], 5, NULL);
    for (size_t i = 0; i < 3; i++) {
        assert_same(alone, inside[i]);
        session_close(inside[i]);
    }
    session_close(alone);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(company_and_threads_change_no_bit),
        cmocka_unit_test(sessions_come_and_go_at_every_step),
        cmocka_unit_test(a_long_sequence_equals_its_prefill),
        cmocka_unit_test(where_one_is_full_none_moves),
        cmocka_unit_test(a_step_inside_a_region_is_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
