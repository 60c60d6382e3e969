/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation of a server's work fails in turn while three jobs are answered: at most
 * one of them fails, for want of memory, the others get their text, and so does whoever
 * asks next (H40).
 */
#include "faults/alloc_faults.h"
#include "unit/serve/engine_fixture.h"

#define JOBS 3

static const char *const texts[JOBS] = {"Hello there",
                                        "1 + 1 = ", "The quick brown fox"};

static struct job_options options_of(size_t i)
{
    struct job_options o = options((int)i - 2, 20);

    o.top_logprobs = 2;
    o.stop = texts; /* copied */
    o.n_stop = 1;
    return o;
}

/* How many failed. */
static size_t ask_all(struct engine *e, struct base *b, struct heard *const *want)
{
    size_t n_failed = 0;

    for (size_t i = 0; i < JOBS; i++) {
        const struct job_options o = options_of(i);
        struct heard *const h = new_heard();
        struct prompt p = {0};
        struct artel_error err;
        struct job *job;

        allocation.armed = false;
        assert_int_equal(prompt_encode_raw(&p, b->model->tokenizer, texts[i],
                                           strlen(texts[i]), &err),
                         0);
        allocation.armed = true;
        if (engine_submit(e, &job, &b->loaded, &p, &o, hear, h, &err) < 0) {
            assert_string_equal(err.code, "MEM01");
            assert_non_null(p.ids.at); /* still ours */
            n_failed++;
        } else {
            await(h, &h->over);
            if (h->code[0]) {
                assert_string_equal(h->code, "MEM01");
                n_failed++;
            } else if (want) {
                assert_string_equal(h->text, want[i]->text);
            }
        }
        allocation.armed = false;
        prompt_release(&p);
        free_heard(h);
    }
    return n_failed;
}

static void H40_one_failed_allocation_costs_one_answer(void **state)
{
    struct heard *want[JOBS];
    struct engine *e;
    struct base b;
    size_t total;
    size_t n_failed = 0;

    (void)state;
    open_base(&b, &by_layer, 7);
    e = new_engine((struct engine_options){.seats = 2, .prefill_rows = 8});
    for (size_t i = 0; i < JOBS; i++) {
        const struct job_options o = options_of(i);

        want[i] = ask(e, &b, texts[i], &o);
    }
    engine_close(e);
    for (size_t n = 0, last = 1; n < last; n++) {
        e = new_engine((struct engine_options){.seats = 2, .prefill_rows = 8});
        allocation.seen = 0;
        allocation.fail_at = n;
        total = ask_all(e, &b, want);
        last = allocation.seen;
        assert_true(total <= 1);
        n_failed += total;
        allocation.fail_at = (size_t)-1;
        assert_int_equal(ask_all(e, &b, want), 0);
        engine_close(e);
        assert_int_equal(held, 0);
    }
    assert_true(n_failed > 20);
    for (size_t i = 0; i < JOBS; i++)
        free_heard(want[i]);
    close_base(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(H40_one_failed_allocation_costs_one_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
