/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt that comes in pieces ends as one that came at once, to the bit, whatever is
 * computed between the pieces; and who watches is told of every position.
 */
#include "support/toy_pool.h"

#define N_PROMPT 330 /* of the fixture's tokens */

static const struct gate_rule rules[] = {
    {.place = ROUTER_LAYER, .fix_expert = true},
    {.place = ROUTER_LAYER, .fix_expert = true, .selector = SELECT_VOTE},
    {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX},
    {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
    {.place = ROUTER_FFN,
     .decides = DECIDE_TOKEN,
     .kind = GATE_TOP_K,
     .top_k = 2,
     .n_clusters = 2,
     .clusters = {DISTANCE_MEAN, 0.99f, 1.0f}},
    {.place = ROUTER_BASE, .fix_expert = true, .n_reads = 1, .reads = {TOY_LAYERS}},
};
#define N_RULES (sizeof(rules) / sizeof(*rules))

static void begin(struct artel_session *s, const struct fixture *f, size_t n,
                  int expert, const struct prefill_watch *watch)
{
    struct artel_error err;

    assert_int_equal(
        session_prefill_begin(s, f->ids, n, n, expert, n / 2, n / 3, watch, &err), 0);
}

static size_t finish(struct artel_session *s, size_t rows)
{
    struct artel_error err;
    size_t pieces = 1;
    int rc;

    while ((rc = session_prefill_some(s, rows, &err)) == 0)
        pieces++;
    assert_int_equal(rc, 1);
    return pieces;
}

static void pieces_change_no_bit(void **state)
{
    static const size_t lengths[] = {3, 40, 258, N_PROMPT}, rows[] = {1, 30, 64, 300};

    (void)state;
    for (size_t i = 0; i < N_RULES; i++) {
        struct fixture f;
        struct artel_session *whole, *pieces;
        struct artel_error err;

        fixture_open(&f, &rules[i], KV_LEAST);
        whole = fixture_session(&f, false);
        pieces = fixture_session(&f, false);
        for (size_t k = 0; k < 16; k++) {
            const size_t n = lengths[k / 4], some = rows[k % 4];
            const int expert = k % 3 ? EXPERT_AUTO : EXPERT_BASE + (int)(k % 2);

            session_reset(whole);
            session_reset(pieces);
            assert_int_equal(
                session_prefill(whole, f.ids, n, expert, n / 2, n / 3, &err), 0);
            begin(pieces, &f, n, expert, NULL);
            assert_true(finish(pieces, some) > 1 || n <= some || n <= 4);
            assert_same(&f, whole, pieces);
            assert_int_equal(session_step(whole, 7, &err), 0);
            assert_int_equal(session_step(pieces, 7, &err), 0);
            assert_same(&f, whole, pieces);
        }
        session_close(whole);
        session_close(pieces);
        fixture_close(&f);
    }
}

/* Another sequence of the same mixture goes on between any two pieces. */
static void steps_between_pieces_change_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_RULES; i++) {
        struct fixture f;
        struct artel_session *alone[2], *mixed[2];
        struct artel_error err;
        size_t steps = 0;
        int rc = 0;

        fixture_open(&f, &rules[i], KV_LEAST);
        for (size_t k = 0; k < 2; k++) {
            alone[k] = fixture_session(&f, false);
            mixed[k] = fixture_session(&f, false);
        }
        for (size_t k = 0; k < 2; k++)
            assert_int_equal(session_prefill(k ? mixed[0] : alone[0], f.ids, 20,
                                             EXPERT_AUTO, 4, 8, &err),
                             0);
        assert_int_equal(
            session_prefill(alone[1], f.ids, 300, EXPERT_AUTO, 150, 100, &err), 0);
        begin(mixed[1], &f, 300, EXPERT_AUTO, NULL);
        while (rc == 0) {
            assert_int_equal(session_step(mixed[0], f.ids[steps++], &err), 0);
            rc = session_prefill_some(mixed[1], 40, &err);
        }
        assert_int_equal(rc, 1);
        assert_true(steps > 2);
        for (size_t k = 0; k < steps; k++)
            assert_int_equal(session_step(alone[0], f.ids[k], &err), 0);
        assert_same(&f, alone[0], mixed[0]);
        for (size_t k = 0; k < 2; k++) {
            session_close(alone[k]);
            session_close(mixed[k]);
        }
        fixture_close(&f);
    }
}

/* What was begun and left, or begun anew, leaves no trace. */
static void a_prefill_may_be_abandoned(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_RULES; i++)
        for (size_t pieces = 0; pieces < 4; pieces++) {
            struct fixture f;
            struct artel_session *fresh, *used;
            struct artel_error err;

            fixture_open(&f, &rules[i], KV_LEAST);
            fresh = fixture_session(&f, false);
            used = fixture_session(&f, false);
            begin(used, &f, 280, pieces % 2 ? EXPERT_AUTO : 1, NULL);
            for (size_t k = 0; k < pieces; k++)
                assert_int_equal(session_prefill_some(used, 50, &err), 0);
            if (pieces > 1) {
                session_reset(used);
                assert_int_equal(session_length(used), 0);
            }
            begin(used, &f, N_PROMPT, EXPERT_AUTO, NULL);
            begin(fresh, &f, N_PROMPT, EXPERT_AUTO, NULL);
            finish(used, 100);
            finish(fresh, 100);
            assert_same(&f, fresh, used);
            session_close(used);
            begin(fresh, &f, 100, EXPERT_AUTO, NULL);
            session_close(fresh);
            fixture_close(&f);
        }
}

struct heard {
    size_t n;
    float last[TOY_VOCAB];
    float some[TOY_VOCAB]; /* of position 99 */
};

static void hear(void *user, size_t at, const float *logits)
{
    struct heard *h = user;

    assert_int_equal(at, h->n++);
    memcpy(h->last, logits, sizeof(h->last));
    if (at == 99)
        memcpy(h->some, logits, sizeof(h->some));
}

static void every_position_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_RULES; i++)
        for (int expert = EXPERT_AUTO; expert < 2; expert++) {
            struct heard heard = {0}, again = {0};
            float mean[TOY_DIM], other[TOY_DIM];
            const struct prefill_watch watch = {hear, mean, &heard},
                                       second = {hear, other, &again};
            struct fixture f;
            struct artel_session *s, *t;
            struct artel_error err;

            fixture_open(&f, &rules[i], KV_LEAST);
            s = fixture_session(&f, false);
            t = fixture_session(&f, false);
            begin(s, &f, 259, expert, &watch);
            finish(s, 33);
            assert_int_equal(heard.n, 259);
            assert_memory_equal(heard.last, session_logits(s), sizeof(heard.last));
            /* Under a given expert no later token changes what was said before. */
            if (expert > EXPERT_AUTO) {
                begin(t, &f, 100, expert, NULL);
                finish(t, 100);
                assert_memory_equal(heard.some, session_logits(t), sizeof(heard.some));
            }
            /* What the cache holds is told all the same. */
            assert_int_equal(session_prefill(t, f.ids, 259, expert, 129, 86, &err), 0);
            begin(t, &f, 259, expert, &second);
            finish(t, 300);
            assert_int_equal(again.n, 259);
            assert_int_equal(session_cached(t), 0);
            assert_memory_equal(heard.some, again.some, sizeof(heard.some));
            assert_memory_equal(mean, other, sizeof(mean));
            assert_same(&f, s, t);
            session_close(s);
            session_close(t);
            fixture_close(&f);
        }
}

static void the_mean_is_that_of_normed_outputs(void **state)
{
    const struct pass_options o = {.max_rows = 64, .max_seqs = 1};
    const struct prefill_watch watch = {.hidden_mean = (float[TOY_DIM]){0}};
    double want[TOY_DIM] = {0};
    struct fixture f;
    struct decoder_pass *p;
    struct artel_session *s;
    struct artel_error err;

    (void)state;
    fixture_open(&f, &rules[0], KV_LEAST);
    s = fixture_session(&f, false);
    begin(s, &f, 60, EXPERT_BASE, &watch);
    finish(s, 16);
    assert_int_equal(pass_open(&p, f.model, NULL, &o, &err), 0);
    decoder_forward(p,
                    &(struct block){.seqs = &(struct sequence){.ids = f.ids, .n = 60},
                                    .n_seqs = 1,
                                    .n_rows = 60});
    for (size_t t = 0; t < 60; t++) {
        const float *x = pass_hidden(p, t);
        double sum = 0;

        for (size_t i = 0; i < TOY_DIM; i++)
            sum += (double)x[i] * (double)x[i];
        for (size_t i = 0; i < TOY_DIM; i++)
            want[i] += (double)x[i] * (double)f.model->final_norm[i] /
                       sqrt(sum / TOY_DIM + 1e-5) / 60;
    }
    for (size_t i = 0; i < TOY_DIM; i++)
        assert_near(watch.hidden_mean[i], (float)want[i], 1e-5);
    pass_close(p);
    session_close(s);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_change_no_bit),
        cmocka_unit_test(steps_between_pieces_change_no_bit),
        cmocka_unit_test(a_prefill_may_be_abandoned),
        cmocka_unit_test(every_position_is_told),
        cmocka_unit_test(the_mean_is_that_of_normed_outputs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
