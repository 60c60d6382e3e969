/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of a pool: who gets them, who finds them again, who has to go. That what is
 * found changes no bit is tested in test_kv_reuse.c.
 */
#include "support/toy_pool.h"

#include "decoder/kv_blocks.h"

static const struct gate_rule moa = {.place = ROUTER_LAYER, .fix_expert = true};

/* Reads 65 tokens that begin with ID, and lets go; how many were there. */
static size_t visit(struct artel_session *s, const struct fixture *f, int32_t id)
{
    int32_t ids[65];
    size_t cached;

    memcpy(ids, f->ids, sizeof(ids));
    ids[0] = id;
    read_prompt(s, ids, 65, 65, 0, 0);
    cached = session_cached(s);
    session_reset(s);
    return cached;
}

static void a_full_pool_says_so(void **state)
{
    struct fixture f;
    struct artel_session *a, *b, *alone;
    struct artel_error err;

    (void)state;
    fixture_open(&f, &moa, 4);
    a = fixture_session(&f, true);
    b = fixture_session(&f, true);
    alone = fixture_session(&f, false);
    read_prompt(b, f.ids, 40, 60, 1, 0);
    read_prompt(alone, f.ids, 40, 60, 1, 0);
    read_prompt(a, f.ids, 100, 192, 0, 0);
    assert_int_equal(stats_of(&f).promised, 1);
    /* One that cannot be promised its room is left as it was. */
    assert_error(session_prefill_begin(b, f.ids, 40, 65, 1, 0, 4, NULL, &err),
                 ARTEL_ELIMIT, err, "KV01");
    assert_error(
        session_prefill_begin(b, f.ids, 40, N_CONTEXT + 1, 1, 0, 4, NULL, &err),
        ARTEL_ELIMIT, err, "CTX03");
    assert_step_alike(&f, b, alone, 20);
    assert_error(session_step(b, 1, &err), ARTEL_ELIMIT, err, "CTX03");
    /* One that was promised never lacks it. */
    while (session_length(a) < 192)
        assert_int_equal(session_step(a, 1, &err), 0);
    assert_error(session_step(a, 1, &err), ARTEL_ELIMIT, err, "CTX03");
    assert_int_equal(stats_of(&f).used, 4);
    /* Its own blocks are as good as free to it. */
    read_prompt(a, f.ids + 7, 150, 192, 1, 0);
    session_reset(b);
    assert_error(session_step(b, 1, &err), ARTEL_ELIMIT, err, "CTX03");
    assert_error(session_prefill_begin(b, f.ids, 40, 65, 1, 0, 4, NULL, &err),
                 ARTEL_ELIMIT, err, "KV01");
    session_close(a);
    read_prompt(b, f.ids, 40, 256, 1, 0);
    session_close(b);
    session_close(alone);
    assert_int_equal(stats_of(&f).used + stats_of(&f).promised, 0);
    fixture_close(&f);
}

static void the_longest_unused_goes_first(void **state)
{
    struct fixture f;
    struct artel_session *s;

    (void)state;
    fixture_open(&f, &moa, 4);
    s = fixture_session(&f, true);
    for (int32_t id = 1; id <= 3; id++)
        assert_int_equal(visit(s, &f, id), 0);
    assert_int_equal(stats_of(&f).kept, 3);
    assert_int_equal(visit(s, &f, 1), 64); /* now 2 is the longest unused */
    assert_int_equal(visit(s, &f, 4), 0);  /* and leaves */
    assert_int_equal(visit(s, &f, 3), 64);
    assert_int_equal(visit(s, &f, 1), 64);
    assert_int_equal(visit(s, &f, 4), 64);
    assert_int_equal(visit(s, &f, 2), 0);
    kv_pool_forget(f.pool);
    assert_int_equal(stats_of(&f).kept, 0);
    assert_int_equal(visit(s, &f, 2), 0);
    session_close(s);
    fixture_close(&f);
}

/* Where a beginning has to go, its end goes before it. */
static void the_end_of_a_sequence_goes_first(void **state)
{
    struct fixture f;
    struct artel_session *s;

    (void)state;
    fixture_open(&f, &moa, 6);
    s = fixture_session(&f, true);
    read_prompt(s, f.ids, 257, 257, 0, 0);
    session_reset(s);
    assert_int_equal(stats_of(&f).kept, 4);
    read_prompt(s, f.ids + 100, 250, 250, 0, 0); /* takes two more */
    session_reset(s);
    read_prompt(s, f.ids, 257, 257, 0, 0);
    assert_int_equal(session_cached(s), 128);
    session_close(s);
    fixture_close(&f);
}

static void used_blocks_are_not_forgotten(void **state)
{
    struct fixture f;
    struct artel_session *a, *b;

    (void)state;
    fixture_open(&f, &moa, 12);
    a = fixture_session(&f, true);
    b = fixture_session(&f, true);
    read_prompt(a, f.ids, 200, 200, 0, 0);
    kv_pool_forget(f.pool);
    read_prompt(b, f.ids, 200, 200, 0, 0);
    assert_int_equal(session_cached(b), 192);
    assert_int_equal(stats_of(&f).used, 5);
    session_close(a);
    assert_int_equal(stats_of(&f).used, 4);
    session_close(b);
    fixture_close(&f);
}

/* With two buckets half of all names meet in one. */
static void names_are_compared_in_full(void **state)
{
    const struct kv_name name = {40, 3};
    struct fixture f;
    int32_t ids[KV_BLOCK];
    uint32_t b;

    (void)state;
    fixture_open(&f, &moa, 2);
    memcpy(ids, f.ids, sizeof(ids));
    b = kv_pool_take(f.pool, KV_NONE);
    assert_int_equal(kv_pool_name(f.pool, b, 9, &name, ids), 1);
    assert_int_equal(kv_pool_find(f.pool, 9, &name, ids), b);
    for (int i = -20; i < 20; i++) {
        const struct kv_name by = {(uint64_t)(60 + i), 3}, under = {40, 3 + i};

        assert_int_equal(kv_pool_find(f.pool, 9, &by, ids), i == -20 ? b : KV_NONE);
        assert_int_equal(kv_pool_find(f.pool, 9, &under, ids), i ? KV_NONE : b);
        assert_int_equal(kv_pool_find(f.pool, (uint64_t)(29 + i), &name, ids),
                         i == -20 ? b : KV_NONE);
    }
    for (size_t i = 0; i < KV_BLOCK; i++) {
        ids[i]++;
        assert_int_equal(kv_pool_find(f.pool, 9, &name, ids), KV_NONE);
        ids[i]--;
    }
    kv_pool_leave(f.pool, b);
    assert_int_equal(kv_pool_find(f.pool, 9, &name, ids), b);
    kv_pool_forget(f.pool);
    assert_int_equal(kv_pool_find(f.pool, 9, &name, ids), KV_NONE);
    fixture_close(&f);
}

/* Room comes and goes while a sequence stands. */
static void a_promise_may_change(void **state)
{
    struct fixture f;
    struct artel_session *a, *b, *alone;
    struct artel_error err;

    (void)state;
    fixture_open(&f, &moa, 6);
    a = fixture_session(&f, true);
    b = fixture_session(&f, true);
    alone = fixture_session(&f, false);
    read_prompt(a, f.ids, 100, 100, 0, 0);
    read_prompt(alone, f.ids, 100, 100, 0, 0);
    read_prompt(b, f.ids + 9, 100, 192, 0, 0);
    assert_error(session_step(a, 1, &err), ARTEL_ELIMIT, err, "CTX03");
    assert_error(session_promise(a, 193, &err), ARTEL_ELIMIT, err, "KV01");
    assert_error(session_promise(a, N_CONTEXT + 1, &err), ARTEL_ELIMIT, err, "CTX03");
    assert_int_equal(session_promise(a, 192, &err), 0);
    assert_int_equal(stats_of(&f).promised, 2);
    assert_int_equal(session_promise(b, 100, &err), 0);
    assert_int_equal(session_promise(a, 256, &err), 0);
    assert_int_equal(session_promise(a, 130, &err), 0);
    assert_int_equal(stats_of(&f).promised, 1);
    assert_step_alike(&f, a, alone, 30);
    assert_error(session_step(a, 1, &err), ARTEL_ELIMIT, err, "CTX03");
    session_close(b);
    assert_int_equal(session_promise(a, 384, &err), 0);
    assert_step_alike(&f, a, alone, 60);
    session_close(a);
    session_close(alone);
    assert_int_equal(stats_of(&f).used + stats_of(&f).promised, 0);
    fixture_close(&f);
}

/* Two that begin alike and part inside a block or at its border, and go on side by side. */
static void who_parts_writes_for_itself(void **state)
{
    static const size_t parts[] = {63, 64, 65, 127, 128, 129, 150};

    (void)state;
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        const size_t at = parts[i];
        struct fixture f;
        struct artel_session *a, *b, *alone[2];
        int32_t other[N_IDS];

        fixture_open(&f, &moa, 12);
        memcpy(other, f.ids, sizeof(other));
        other[at] = (other[at] + 1) % TOY_VOCAB;
        a = fixture_session(&f, true);
        b = fixture_session(&f, true);
        for (size_t k = 0; k < 2; k++) {
            alone[k] = fixture_session(&f, false);
            read_prompt(alone[k], k ? other : f.ids, 170, 200, 0, 0);
        }
        read_prompt(a, f.ids, 170, 200, 0, 0);
        read_prompt(b, other, 170, 200, 0, 0);
        assert_int_equal(session_cached(b), at / KV_BLOCK * KV_BLOCK);
        assert_int_equal(stats_of(&f).used, 6 - at / KV_BLOCK);
        assert_same(&f, a, alone[0]);
        assert_same(&f, b, alone[1]);
        assert_step_alike(&f, b, alone[1], 10);
        assert_step_alike(&f, a, alone[0], 15);
        session_close(a);
        assert_step_alike(&f, b, alone[1], 15);
        session_close(b);
        for (size_t k = 0; k < 2; k++)
            session_close(alone[k]);
        fixture_close(&f);
    }
}

/* The tokens alone do not make a block the same. */
static void other_experts_find_nothing(void **state)
{
    struct artel_error err;
    struct fixture f;
    struct mixture other;
    struct artel_session *s, *t;

    (void)state;
    fixture_open(&f, &moa, 30);
    s = fixture_session(&f, true);
    for (int expert = EXPERT_BASE; expert < 2; expert++) {
        read_prompt(s, f.ids, 100, 100, expert, 0);
        assert_int_equal(session_cached(s), 0);
        read_prompt(s, f.ids, 100, 100, expert, 0);
        assert_int_equal(session_cached(s), 64);
    }
    /* Nor where another begins: the second block is behind another first. */
    read_prompt(s, f.ids + 64, 100, 100, 0, 0);
    assert_int_equal(session_cached(s), 0);

    assert_int_equal(
        mixture_init(&other, "test", &f.model->weights->config, &moa, &err), 0);
    toy_expert(&other, f.model, "one", 3, NULL, 1);
    assert_int_equal(session_open_pooled(&t, f.model, &other, 200, f.pool, &err), 0);
    read_prompt(t, f.ids, 100, 100, 0, 0);
    assert_int_equal(session_cached(t), 0);
    session_close(t);
    /* The same mixture with an expert more is another. */
    toy_expert(&other, f.model, "two", 3, NULL, 2);
    assert_int_equal(session_open_pooled(&t, f.model, &other, 200, f.pool, &err), 0);
    read_prompt(t, f.ids, 100, 100, 0, 0);
    assert_int_equal(session_cached(t), 0);
    read_prompt(t, f.ids, 100, 100, 0, 0);
    assert_int_equal(session_cached(t), 64);
    session_close(t);
    mixture_release(&other);
    session_close(s);
    fixture_close(&f);
}

/* Rows that steps made differ in rounding, so nobody is given them. */
static void what_steps_made_is_not_kept(void **state)
{
    struct fixture f;
    struct artel_session *s;
    struct artel_error err;

    (void)state;
    fixture_open(&f, &moa, 12);
    s = fixture_session(&f, true);
    read_prompt(s, f.ids, 100, 250, 0, 0);
    for (size_t i = 100; i < 250; i++)
        assert_int_equal(session_step(s, f.ids[i], &err), 0);
    read_prompt(s, f.ids, 250, 250, 0, 0);
    assert_int_equal(session_cached(s), 64);
    read_prompt(s, f.ids, 250, 250, 0, 0);
    assert_int_equal(session_cached(s), 192);
    session_close(s);
    fixture_close(&f);
}

static void abandoned_prefills_leave_nothing(void **state)
{
    struct fixture f;
    struct artel_session *s;
    struct artel_error err;

    (void)state;
    fixture_open(&f, &moa, 8);
    s = fixture_session(&f, true);
    for (size_t pieces = 0; pieces < 4; pieces++)
        for (int expert = EXPERT_AUTO; expert < 1; expert++) {
            assert_int_equal(
                session_prefill_begin(s, f.ids, 300, 400, expert, 140, 80, NULL, &err),
                0);
            for (size_t i = 0; i < pieces; i++)
                assert_int_equal(session_prefill_some(s, 30, &err), 0);
            assert_int_equal(stats_of(&f).used + stats_of(&f).promised, 7);
            if (pieces % 2)
                session_reset(s);
        }
    session_close(s);
    assert_int_equal(stats_of(&f).used + stats_of(&f).promised, 0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_pool_says_so),
        cmocka_unit_test(the_longest_unused_goes_first),
        cmocka_unit_test(the_end_of_a_sequence_goes_first),
        cmocka_unit_test(used_blocks_are_not_forgotten),
        cmocka_unit_test(names_are_compared_in_full),
        cmocka_unit_test(a_promise_may_change),
        cmocka_unit_test(who_parts_writes_for_itself),
        cmocka_unit_test(other_experts_find_nothing),
        cmocka_unit_test(what_steps_made_is_not_kept),
        cmocka_unit_test(abandoned_prefills_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
