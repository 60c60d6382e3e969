/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs that wait, leave, come too late or too many. A listener holds the engine's thread,
 * and what happens meanwhile is what the test says. Under ThreadSanitizer: test_engine.c.
 */
#include "engine_fixture.h"

#include "decoder/kv_pool.h"

static const char prompt[] = "The quick brown fox jumps over the lazy dog";

/* Of the pool: 64 tokens of the toy, somewhat rounded up. */
#define BLOCK_BYTES (64 * (3 * 2 * 2 * 8 * sizeof(float) + sizeof(int32_t)) + 100)

static struct heard *holding(struct engine *e, struct base *b, char at, size_t tokens)
{
    const struct job_options o = options(0, tokens);
    struct heard *const h = new_heard();

    h->hold_at = at;
    submit(e, h, b, prompt, &o);
    await(h, &h->holding);
    return h;
}

static struct heard *asked(struct engine *e, struct base *b,
                           const struct job_options *o)
{
    struct heard *const h = new_heard();

    submit(e, h, b, prompt, o);
    return h;
}

static void assert_failed(struct heard *h, const char *events, const char *code)
{
    await(h, &h->over);
    assert_string_equal(h->code, code);
    assert_string_equal(h->events, events);
    free_heard(h);
}

static void assert_done(struct heard *h)
{
    await(h, &h->over);
    assert_string_equal(h->code, "");
    assert_string_equal(h->events, "SRTD");
    free_heard(h);
}

static void await_idle(struct engine *e)
{
    for (int i = 0; i < 1000 * PATIENCE && !engine_idle(e); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_true(engine_idle(e));
}

static void H18_a_full_queue_takes_nobody(void **state)
{
    struct engine *e = new_engine((struct engine_options){.seats = 1, .queue = 2});
    const struct job_options o = options(1, 4);
    struct heard *first, *waits[2], *none = new_heard();
    struct engine_stats s;
    struct artel_error err;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    first = holding(e, &b, 'R', 4);
    for (size_t i = 0; i < 2; i++)
        waits[i] = asked(e, &b, &o);
    assert_error(submit_text(e, none, &b.loaded, prompt, &o, &err), ARTEL_ELIMIT, err,
                 "SRV09");
    engine_stats(e, &s);
    assert_int_equal(s.waiting, 2);
    assert_int_equal(s.running, 1);
    release(first);
    assert_done(first);
    assert_done(waits[0]);
    assert_done(waits[1]);
    assert_int_equal(none->n_events, 0);
    assert_int_equal(submit_text(e, none, &b.loaded, prompt, &o, &err), 0);
    assert_done(none);
    await_idle(e);
    engine_stats(e, &s);
    assert_int_equal(s.jobs, 4);
    assert_int_equal(s.jobs_done, 4);
    assert_int_equal(s.completion_tokens, 16);
    assert_int_equal(s.running + s.waiting, 0);
    engine_close(e);
    close_base(&b);
    assert_int_equal(held, 0);
}

static void H16_who_leaves_frees_its_seat(void **state)
{
    struct engine *e =
        new_engine((struct engine_options){.seats = 1, .queue = 4, .prefill_rows = 8});
    const struct job_options o = options(EXPERT_AUTO, 400);
    struct heard *first, *second, *queued, *last;
    struct engine_stats s;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    first = holding(e, &b, 'S', 400); /* it sits, its prompt has not been read */
    queued = asked(e, &b, &o);
    second = new_heard();
    second->hold_at = 'T';
    submit(e, second, &b, prompt, &o);
    last = new_heard();
    last->leave_after = 3;
    submit(e, last, &b, prompt, &o);
    engine_cancel(e, queued->job);
    engine_cancel(e, first->job);
    release(first);
    assert_failed(first, "SF", "SRV12");
    assert_failed(queued, "F", "SRV12");
    await(second, &second->holding); /* it writes */
    engine_cancel(e, second->job);
    release(second);
    await(second, &second->over);
    assert_int_equal(second->usage.completion_tokens, 1); /* not one step more */
    assert_failed(second, "SRTF", "SRV12");
    await(last, &last->over);
    assert_int_equal(last->n_texts, 3); /* nobody listened any more */
    assert_failed(last, "SRTF", "SRV12");
    await_idle(e);
    engine_stats(e, &s);
    assert_int_equal(s.jobs_cancelled, 4);
    assert_int_equal(s.jobs_failed, 4);
    engine_close(e);
    close_base(&b);
    assert_int_equal(held, 0);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void H45_who_waits_too_long_is_dropped(void **state)
{
    struct engine *e = new_engine((struct engine_options){.seats = 1, .queue = 3});
    struct job_options late = options(1, 400), o = options(1, 4);
    struct heard *first, *old[2], *young, *more;
    struct engine_stats s;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    first = holding(e, &b, 'R', 400);
    late.deadline = now() + 0.02;
    old[0] = asked(e, &b, &late);
    old[1] = asked(e, &b, &late);
    young = asked(e, &b, &o);
    while (now() < late.deadline)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    engine_cancel(e, first->job);
    release(first);
    assert_failed(first, "SRF", "SRV12");
    assert_failed(old[0], "F", "SRV13");
    assert_failed(old[1], "F", "SRV13");
    assert_done(young);
    /* And while it writes. */
    more = new_heard();
    more->hold_at = 'T';
    late.deadline = now() + 0.05;
    submit(e, more, &b, prompt, &late);
    while (now() < late.deadline)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    release(more);
    await(more, &more->over);
    assert_string_equal(more->code, "SRV13");
    free_heard(more);
    await_idle(e);
    engine_stats(e, &s);
    assert_int_equal(s.jobs_expired, 3);
    engine_close(e);
    close_base(&b);
}

static void drained_it_finishes_what_it_has(void **state)
{
    struct engine *e = new_engine((struct engine_options){.seats = 1});
    const struct job_options o = options(1, 4);
    struct heard *first, *waits, *none = new_heard();
    struct artel_error err;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    assert_true(engine_idle(e));
    first = holding(e, &b, 'R', 4);
    waits = asked(e, &b, &o);
    engine_drain(e);
    assert_error(submit_text(e, none, &b.loaded, prompt, &o, &err), ARTEL_ELIMIT, err,
                 "SRV10");
    assert_false(engine_idle(e));
    release(first);
    assert_done(first);
    assert_done(waits);
    await_idle(e);
    free_heard(none);
    engine_close(e);
    close_base(&b);
}

static void *let_go_later(void *h)
{
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    release(h);
    return NULL;
}

static void closed_it_fails_what_is_left(void **state)
{
    struct engine *e = new_engine((struct engine_options){.seats = 2});
    const struct job_options o = options(1, 400);
    struct heard *first, *other, *waits;
    pthread_t later;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    first = holding(e, &b, 'T', 400);
    other = asked(e, &b, &o);
    waits = asked(e, &b, &o);
    pthread_create(&later, NULL, let_go_later, first);
    engine_close(e);
    pthread_join(later, NULL);
    assert_failed(first, "SRTF", "SRV11");
    assert_true(other->over);
    assert_string_equal(other->code, "SRV11");
    free_heard(other);
    assert_failed(waits, "F", "SRV11");
    close_base(&b);
    assert_int_equal(held, 0);
}

/* Asleep is asleep: no CPU time while nobody asks. */
static void an_idle_engine_uses_no_cpu(void **state)
{
    struct engine *e = new_engine((struct engine_options){0});
    const struct job_options o = options(EXPERT_AUTO, 8);
    struct timespec before, after;
    struct engine_stats s, later;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    assert_done(asked(e, &b, &o));
    await_idle(e);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* OpenMP's team too */
    engine_stats(e, &s);
    assert_near(s.step_started, 0, 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    engine_stats(e, &later);
    assert_true(later.idle_seconds >= s.idle_seconds + 0.3);
    assert_near((double)(after.tv_sec - before.tv_sec) +
                    1e-9 * (double)(after.tv_nsec - before.tv_nsec),
                0, 0.005);
    engine_close(e);
    close_base(&b);
}

/* A long prompt is read between the steps of those who write, and lets a short one by. */
static void a_long_prompt_keeps_nobody_waiting(void **state)
{
    struct engine *e = new_engine(
        (struct engine_options){.seats = 3, .context = 512, .prefill_rows = 32});
    const struct job_options o = options(0, 400), few = options(1, 2);
    struct heard *writes, *reads = new_heard(), *brief = new_heard();
    char text[451];
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    memset(text, 'x', 450);
    for (size_t i = 0; i < 450; i += 3)
        text[i] = (char)('0' + i % 10);
    text[450] = '\0';
    writes = holding(e, &b, 'T', 400);
    reads->beside = writes;
    reads->hold_at = 'D';
    submit(e, reads, &b, text, &few);
    submit(e, brief, &b, prompt, &o);
    release(writes);
    await(reads, &reads->holding);
    assert_true(reads->usage.prompt_tokens > 300);
    assert_true(reads->beside_texts[1] - reads->beside_texts[0] >= 5);
    assert_true(brief->order < reads->order);
    engine_cancel(e, writes->job);
    engine_cancel(e, brief->job);
    release(reads);
    assert_failed(writes, "SRTF", "SRV12");
    assert_failed(brief, "SRTF", "SRV12");
    assert_done(reads);
    engine_close(e);
    close_base(&b);
}

/* Four blocks of 64 tokens: jobs of three wait for each other, one of seven is refused. */
static void room_for_keys_and_values_is_waited_for(void **state)
{
    struct engine *e = new_engine((struct engine_options){
        .seats = 4, .context = 512, .cache_bytes = 4 * BLOCK_BYTES});
    const struct job_options fits = options(0, 120), never = options(0, 380);
    struct heard *first, *more[3], *big = new_heard();
    struct engine_stats s;
    struct base b;

    (void)state;
    open_base(&b, &by_layer, 7);
    first = holding(e, &b, 'T', 120);
    for (size_t i = 0; i < 3; i++)
        more[i] = asked(e, &b, &fits);
    release(first);
    submit(e, big, &b, prompt, &never);
    assert_done(first);
    for (size_t i = 0; i < 3; i++)
        assert_done(more[i]);
    assert_failed(big, "F", "KV02");
    await_idle(e);
    engine_stats(e, &s);
    assert_int_equal(s.steps, s.completion_tokens - 4); /* one at a time */
    engine_close(e);
    close_base(&b);
}

/* More are let in than could all come to their ends at once: with 17 blocks three that begin
 * with five and end with seven, with 16 two. One that may not grow waits, and loses
 * nothing. */
static void answer_four(struct engine *e, struct base *b, bool three)
{
    const struct token_bias bias = {tokenizer_eos(b->model->tokenizer), -100};
    struct job_options o = options(0, 380);
    struct heard *first = new_heard(), *more[3], *alone;

    o.sampling.bias = &bias;
    o.sampling.n_bias = 1;
    alone = ask(e, b, prompt, &o);
    assert_int_equal(alone->usage.completion_tokens, 380);
    first->hold_at = 'T';
    submit(e, first, b, prompt, &o);
    await(first, &first->holding);
    for (size_t i = 0; i < 3; i++) {
        more[i] = new_heard();
        more[i]->beside = first;
        o.expert = (int)i;
        submit(e, more[i], b, prompt, &o);
    }
    release(first);
    await(first, &first->over);
    assert_string_equal(first->text, alone->text);
    for (size_t i = 0; i < 3; i++) {
        await(more[i], &more[i]->over);
        assert_string_equal(more[i]->reason, "length");
        assert_int_equal(more[i]->usage.completion_tokens, 380);
        assert_true(i || !strcmp(more[i]->text, alone->text));
        /* It sat down while the first was writing, or when that had left. */
        if (i == 0 || (i == 1 && three))
            assert_true(more[i]->beside_texts[0] + 100 < first->n_texts);
        else
            assert_int_equal(more[i]->beside_texts[0], first->n_texts);
        free_heard(more[i]);
    }
    free_heard(first);
    free_heard(alone);
}

/* What a cache must have is what one conversation of the shortest takes, and no byte more. */
static void a_cache_for_no_conversation_is_refused(void **state)
{
    const struct job_options fits = options(0, 80);
    struct artel_error err;
    struct engine *e;
    struct base b;
    size_t least;

    (void)state;
    open_base(&b, &by_layer, 7);
    least = kv_pool_least(b.model);
    e = new_engine((struct engine_options){.seats = 1, .cache_bytes = least});
    assert_int_equal(engine_check_room(e, &b.loaded, &err), 0);
    assert_int_equal(engine_room(e, &b.loaded), 128);
    assert_done(asked(e, &b, &fits));
    await_idle(e);
    engine_close(e);
    for (size_t bytes = 1; bytes < least; bytes += least - 2) {
        e = new_engine((struct engine_options){.cache_bytes = bytes});
        assert_int_equal(engine_check_room(e, &b.loaded, &err), ARTEL_EUSAGE);
        assert_string_equal(err.code, "SRV03");
        assert_string_equal(err.where, "cache");
        assert_non_null(strstr(err.reason, "128 tokens"));
        engine_close(e);
    }
    close_base(&b);
}

static void answers_grow_into_what_others_leave(void **state)
{
    (void)state;
    for (size_t blocks = 16; blocks <= 17; blocks++) {
        struct engine *e = new_engine((struct engine_options){
            .seats = 4, .context = 512, .cache_bytes = blocks * BLOCK_BYTES});
        struct base b;

        open_base(&b, &by_layer, 7);
        answer_four(e, &b, blocks == 17);
        engine_close(e);
        close_base(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(H18_a_full_queue_takes_nobody),
        cmocka_unit_test(H16_who_leaves_frees_its_seat),
        cmocka_unit_test(H45_who_waits_too_long_is_dropped),
        cmocka_unit_test(drained_it_finishes_what_it_has),
        cmocka_unit_test(closed_it_fails_what_is_left),
        cmocka_unit_test(a_long_prompt_keeps_nobody_waiting),
        cmocka_unit_test(room_for_keys_and_values_is_waited_for),
        cmocka_unit_test(a_cache_for_no_conversation_is_refused),
        cmocka_unit_test(answers_grow_into_what_others_leave),
        cmocka_unit_test(an_idle_engine_uses_no_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
