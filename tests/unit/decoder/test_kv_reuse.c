/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pool has kept changes no bit of what is read or written after it: against the
 * same prompt by a session that shares nothing.
 */
#include "support/toy_pool.h"

#include <omp.h>

static const struct gate_rule rules[] = {
    {.place = ROUTER_LAYER, .fix_expert = true},
    {.place = ROUTER_LAYER, .fix_expert = true, .selector = SELECT_VOTE},
    {.place = ROUTER_LAYER, .fix_expert = true, .pool = POOL_LAST},
    {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX},
    {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
    {.place = ROUTER_FFN,
     .decides = DECIDE_TOKEN,
     .kind = GATE_TOP_K,
     .top_k = 2,
     .n_clusters = 2,
     .clusters = {DISTANCE_MEAN, 0.99f, 1.0f}},
    {.place = ROUTER_BASE, .fix_expert = true, .n_reads = 2, .reads = {2, TOY_LAYERS}},
};
#define N_RULES (sizeof(rules) / sizeof(*rules))

/* Routers of the layers from FIRST on have no opinion: the first expert. */
static void hush(struct fixture *f, size_t first)
{
    for (size_t r = first; r < f->mixture.n_routers; r++)
        memset(f->mixture.routers[r].w, 0,
               f->mixture.n_experts * f->mixture.routers[r].dim * sizeof(float));
}

static const size_t lengths[] = {4,   63,  64,  65,  68,  127, 128,
                                 129, 132, 192, 256, 258, 261, 330};
#define N_LENGTHS (sizeof(lengths) / sizeof(*lengths))

/* One prompt by POOLED and by ALONE, which begins anew. */
static void compare(struct fixture *f, struct artel_session *pooled,
                    struct artel_session *alone, const int32_t *ids, size_t n,
                    int expert, size_t turn)
{
    const size_t room = n + 6 < N_CONTEXT ? n + 6 : N_CONTEXT;

    session_reset(alone);
    read_prompt(alone, ids, n, room, expert, turn);
    read_prompt(pooled, ids, n, room, expert, turn);
    assert_same(f, pooled, alone);
    assert_step_alike(f, pooled, alone, room - n < 6 ? room - n : 6);
}

/* Prompts of many lengths by two sessions in turn; how many tokens were found. */
static size_t read_many(const struct gate_rule *rule, int expert, bool half)
{
    struct fixture f;
    struct artel_session *alone, *s[2];
    size_t found = 0;

    fixture_open_in(&f, rule, 40, half);
    alone = fixture_session(&f, false);
    s[0] = fixture_session(&f, true);
    s[1] = fixture_session(&f, true);
    for (size_t k = 0; k < 3 * N_LENGTHS; k++) {
        const size_t n = lengths[k * 5 % N_LENGTHS];

        compare(&f, s[k % 2], alone, f.ids, n, expert, k % 3 ? n - n / 4 : 0);
        found += session_cached(s[k % 2]);
    }
    session_close(alone);
    session_close(s[0]);
    session_close(s[1]);
    fixture_close(&f);
    return found;
}

static void what_is_kept_changes_no_bit(void **state)
{
    (void)state;
    for (int half = 0; half <= precision_native_bf16(); half++)
        for (size_t i = 0; i < N_RULES; i++)
            for (int expert = EXPERT_AUTO; expert < 2; expert++) {
                const size_t found = read_many(&rules[i], expert, half);

                /* Nothing but soft gates and what yields is of one prompt alone. */
                if (expert > EXPERT_AUTO || (i != 3 && i != 5))
                    assert_true(found > 500);
                else
                    assert_int_equal(found, 0);
            }
}

/* One system prompt before different turns: all layers agree, or one of them does not. */
static void a_shared_beginning_serves_many_turns(void **state)
{
    size_t all_agreed = 0, all_refused = 0;

    (void)state;
    for (size_t place = 0; place < 2; place++)
        for (size_t loud = 0; loud < TOY_LAYERS; loud++) {
            struct fixture f;
            struct artel_session *alone, *s;
            int32_t ids[N_IDS];
            size_t agreed = 0, refused = 0;
            bool known[2] = {0};

            fixture_open(&f, &rules[place], 60);
            hush(&f, 0);
            if (loud) { /* the router of one layer has an opinion */
                struct rng r;

                rng_init(&r, 5 + loud, 0);
                for (size_t k = 0; k < TOY_DIM; k++)
                    f.mixture.routers[loud].w[TOY_DIM + k] = rng_normal(&r);
            }
            alone = fixture_session(&f, false);
            s = fixture_session(&f, true);
            memcpy(ids, f.ids, sizeof(ids));
            for (size_t turn = 0; turn < 12; turn++) {
                struct rng r;

                rng_init(&r, 90 + turn, 0);
                for (size_t k = 150; k < 200; k++)
                    ids[k] = (int32_t)rng_below(&r, TOY_VOCAB);
                compare(&f, s, alone, ids, 170 + 2 * turn, EXPERT_AUTO, 150);
                assert_int_equal(session_cached(s), known[session_expert(s)] ? 128 : 0);
                known[session_expert(s)] = true;
                *(session_layers_agreeing(s) == TOY_LAYERS ? &agreed : &refused) += 1;
            }
            all_agreed += agreed;
            all_refused += refused;
            session_close(alone);
            session_close(s);
            fixture_close(&f);
        }
    assert_true(all_agreed > 12 && all_refused > 12);
}

/* A conversation grows: every turn finds what the one before it left. */
static void turns_of_a_conversation_go_on(void **state)
{
    struct fixture f;
    struct artel_session *alone, *s;
    size_t from = 0;

    (void)state;
    fixture_open(&f, &rules[0], 30);
    hush(&f, 0);
    alone = fixture_session(&f, false);
    s = fixture_session(&f, true);
    for (size_t n = 70; n < 380; n += 60) {
        compare(&f, s, alone, f.ids, n, EXPERT_AUTO, from);
        if (n > 70) /* what was prompt last time and lies before this turn */
            assert_int_equal(session_cached(s), (n - 60) / KV_BLOCK * KV_BLOCK);
        from = n;
    }
    session_close(alone);
    session_close(s);
    fixture_close(&f);
}

/* Others take and leave blocks between the pieces, and the pool is small. */
static void a_crowd_changes_no_bit(void **state)
{
    enum { SEATS = 4 };
    static const int experts[SEATS] = {EXPERT_AUTO, 1, EXPERT_AUTO, EXPERT_BASE};

    (void)state;
    for (size_t i = 0; i < N_RULES; i++) {
        struct fixture f;
        struct artel_session *s[SEATS], *alone;
        struct artel_error err;
        struct rng r;
        bool reading[SEATS] = {0}, there[SEATS] = {0};
        size_t n[SEATS] = {0}, prompt[SEATS] = {0}, done = 0, refused = 0;

        fixture_open(&f, &rules[i], 11);
        alone = fixture_session(&f, false);
        for (size_t k = 0; k < SEATS; k++)
            s[k] = fixture_session(&f, true);
        rng_init(&r, 77, i);
        for (size_t round = 0; round < 220; round++) {
            const size_t k = rng_below(&r, SEATS);

            if (reading[k]) {
                reading[k] = session_prefill_some(s[k], 40, &err) == 0;
            } else if (there[k] && n[k] < prompt[k] + 5) {
                assert_int_equal(session_step(s[k], f.ids[n[k]++], &err), 0);
            } else {
                const size_t want = 60 + rng_below(&r, 220);

                if (there[k]) { /* the same by one that shares nothing */
                    session_reset(alone);
                    read_prompt(alone, f.ids, prompt[k], N_CONTEXT, experts[k],
                                prompt[k] - 30);
                    for (size_t at = prompt[k]; at < n[k]; at++)
                        assert_int_equal(session_step(alone, f.ids[at], &err), 0);
                    assert_same(&f, s[k], alone);
                    done++;
                }
                if (session_prefill_begin(s[k], f.ids, want, want + 5, experts[k],
                                          want - 30, 30, NULL, &err) < 0) {
                    assert_string_equal(err.code, "KV01");
                    session_reset(s[k]);
                    there[k] = false;
                    refused++;
                    continue;
                }
                prompt[k] = n[k] = want;
                reading[k] = there[k] = true;
            }
            stats_of(&f);
        }
        assert_true(done > 4 && refused > 0);
        session_close(alone);
        for (size_t k = 0; k < SEATS; k++)
            session_close(s[k]);
        assert_int_equal(stats_of(&f).used + stats_of(&f).promised, 0);
        fixture_close(&f);
    }
}

/* Steps of many at once: each as by itself, wherever its blocks lie. */
static void company_changes_no_bit(void **state)
{
    struct fixture f;
    struct artel_session *s[6], *alone[6];
    struct artel_error err;
    int32_t ids[6];

    (void)state;
    fixture_open(&f, &rules[0], 40);
    for (size_t k = 0; k < 6; k++) {
        s[k] = fixture_session(&f, true);
        alone[k] = fixture_session(&f, false);
        read_prompt(s[k], f.ids, 90 + 40 * k, N_CONTEXT, (int)(k % 3) - 1, 0);
        read_prompt(alone[k], f.ids, 90 + 40 * k, N_CONTEXT, (int)(k % 3) - 1, 0);
    }
    for (size_t i = 0; i < 80; i++) {
        for (size_t k = 0; k < 6; k++)
            ids[k] = (int32_t)((i + 3 * k) % TOY_VOCAB);
        assert_int_equal(sessions_step(s, ids, 6, &err), 0);
        for (size_t k = 0; k < 6; k++) {
            assert_int_equal(session_step(alone[k], ids[k], &err), 0);
            assert_same(&f, s[k], alone[k]);
        }
    }
    for (size_t k = 0; k < 6; k++) {
        session_close(s[k]);
        session_close(alone[k]);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_changes_no_bit),
        cmocka_unit_test(a_shared_beginning_serves_many_turns),
        cmocka_unit_test(turns_of_a_conversation_go_on),
        cmocka_unit_test(a_crowd_changes_no_bit),
        cmocka_unit_test(company_changes_no_bit),
    };

    omp_set_num_threads(1); /* so many small forks would be most of the time */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
