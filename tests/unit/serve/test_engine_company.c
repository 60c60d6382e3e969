/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer does not depend on who else is answered (H42): many jobs of mixed experts join
 * at random, and each text is what the job gets alone, byte for byte.
 */
#include "engine_fixture.h"

#define JOBS 40

static const char words[] =
    "the cat sat on a mat and 12 + 7 is what? SELECT name FROM t "
    "WHERE x = 3; dear sir, please find the log of 2024-01-02 ";

struct request {
    char text[300];
    struct job_options o;
    struct base *base;
};

static void draw(struct request *q, struct base *bases, struct rng *r)
{
    const size_t n = 3 + rng_below(r, rng_below(r, 3) ? 40 : 290);
    const size_t from = rng_below(r, 4) ? 0 : rng_below(r, 40); /* many begin alike */

    for (size_t i = 0; i < n; i++)
        q->text[i] = words[(from + i) % (sizeof(words) - 1)];
    q->text[n] = '\0';
    q->o = options((int)rng_below(r, 2 + N_EXPERTS) - 2, 1 + rng_below(r, 40));
    if (rng_below(r, 2)) {
        q->o.sampling.temperature = 0.9f;
        q->o.sampling.top_p = 0.95f;
        q->o.sampling.frequency_penalty = 0.3f;
        q->o.sampling.seed = rng_u32(r);
    }
    q->base = &bases[rng_below(r, 2)];
}

static void open_bases(struct base b[2], const struct gate_rule *rule)
{
    open_base(&b[0], rule, 7);
    open_base(&b[1], rule, 31);
    /* Two mixtures over one base, as where one has been replaced by another. */
    b[1].opened.model = b[0].model;
}

static void close_bases(struct base b[2])
{
    close_base(&b[0]);
    close_base(&b[1]);
}

static void answer_all(const struct gate_rule *rule, size_t threads, size_t seats)
{
    struct engine *const e =
        new_engine((struct engine_options){.seats = seats, .prefill_rows = 32});
    static struct request q[JOBS];
    struct heard *alone[JOBS], *h[JOBS];
    struct engine_stats s;
    struct base b[2];
    struct rng r;

    open_bases(b, rule);
    rng_init(&r, 11 + threads, 0);
    for (size_t i = 0; i < JOBS; i++) {
        struct engine *const own = new_engine((struct engine_options){.seats = 1});

        draw(&q[i], b, &r);
        alone[i] = ask(own, q[i].base, q[i].text, &q[i].o);
        engine_close(own);
    }
    for (size_t i = 0; i < JOBS; i++) {
        h[i] = new_heard();
        submit(e, h[i], q[i].base, q[i].text, &q[i].o);
        if (!rng_below(&r, 3))
            nanosleep(&(struct timespec){.tv_nsec = rng_below(&r, 3000000)}, NULL);
    }
    for (size_t i = 0; i < JOBS; i++) {
        await(h[i], &h[i]->over);
        assert_string_equal(h[i]->code, "");
        assert_int_equal(h[i]->n_text, alone[i]->n_text);
        assert_memory_equal(h[i]->text, alone[i]->text, alone[i]->n_text);
        assert_int_equal(h[i]->n_ids, alone[i]->n_ids);
        assert_memory_equal(h[i]->ids, alone[i]->ids, h[i]->n_ids * sizeof(*h[i]->ids));
        assert_int_equal(h[i]->route.expert, alone[i]->route.expert);
        free_heard(h[i]);
        free_heard(alone[i]);
    }
    engine_stats(e, &s);
    assert_true(s.steps < s.completion_tokens); /* there was company */
    assert_true(s.cached_tokens > 0);
    engine_close(e);
    close_bases(b);
    assert_int_equal(held, 0);
}

static void H42_company_changes_no_byte(void **state)
{
    const struct gate_rule by_token = {
        .place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX};
    const size_t most = getenv("OMP_NUM_THREADS") ? cpu_threads() : 2;
    struct artel_error err;

    (void)state;
    for (size_t threads = 1; threads <= most; threads++) {
        assert_int_equal(cpu_set_threads(threads, &err), 0);
        answer_all(&by_layer, threads, 8);
        answer_all(&by_layer, threads, 3);
        answer_all(&by_token, threads, 8);
    }
}

/* A mixture over a base of its own waits until those of the other one have left. */
static void another_base_gets_its_turn(void **state)
{
    struct engine *e = new_engine((struct engine_options){.seats = 4});
    const struct job_options o = options(0, 30);
    struct heard *h[8], *alone[2];
    struct base b[2];

    (void)state;
    open_base(&b[0], &by_layer, 7);
    open_base(&b[1], &by_layer, 31);
    for (size_t i = 0; i < 2; i++)
        alone[i] = ask(e, &b[i], words, &o);
    for (size_t i = 0; i < 8; i++) {
        h[i] = new_heard();
        submit(e, h[i], &b[i / 2 % 2], words, &o);
    }
    for (size_t i = 0; i < 8; i++) {
        await(h[i], &h[i]->over);
        assert_string_equal(h[i]->code, "");
        assert_string_equal(h[i]->text, alone[i / 2 % 2]->text);
        free_heard(h[i]);
    }
    free_heard(alone[0]);
    free_heard(alone[1]);
    engine_close(e);
    close_bases(b);
}

static void await_held(int n)
{
    for (int i = 0; i < 1000 * PATIENCE && held != n; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(held, n);
}

static void what_nobody_uses_is_let_go_of(void **state)
{
    struct engine *e = new_engine((struct engine_options){.seats = 4});
    const struct job_options o = options(0, 30);
    struct heard *slow = new_heard();
    struct base b[2];

    (void)state;
    open_bases(b, &by_layer);
    free_heard(ask(e, &b[0], words, &o));
    await_held(1); /* its session is kept */
    slow->hold_at = 'T';
    submit(e, slow, &b[1], words, &o);
    await(slow, &slow->holding);
    assert_int_equal(held, 3);
    engine_trim(e);
    release(slow);
    await(slow, &slow->over);
    await_held(0);
    free_heard(slow);
    engine_close(e);
    close_bases(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(H42_company_changes_no_byte),
        cmocka_unit_test(another_base_gets_its_turn),
        cmocka_unit_test(what_nobody_uses_is_let_go_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
