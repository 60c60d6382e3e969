/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items add to the same sums piece by piece in their order, whichever threads they are
 * on; one that gives up lets the others through once those before it are done.
 */
#include "check.h"

#include <omp.h>
#include <string.h>
#include <time.h>

#include "base/relay.h"

#define ITEMS  40
#define PIECES 30

static void rest(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&t, NULL);
}

/* Plain memory: only the turns order it. */
struct board {
    size_t last[PIECES]; /* item that was here last, plus one */
    size_t wrong[PIECES];
};

static void visit(struct relay *t, struct board *b, size_t item)
{
    for (size_t k = 0; k < PIECES; k++) {
        if (item % 7 == 3 && k % 11 == 5)
            rest(2); /* long enough for the others to fall asleep */
        relay_wait(t, item);
        relay_wait(t, item);
        b->wrong[k] += b->last[k] > item || (b->last[k] < item && item % 10 != 1);
        b->last[k] = item + 1;
        relay_pass(t, item);
    }
    relay_end(t, item);
}

static void items_follow_each_other_through_every_piece(void **state)
{
    struct relay_item of[ITEMS];
    struct relay t;

    (void)state;
    assert_int_equal(relay_init(&t), 0);
    for (int threads = 1; threads <= 5; threads++) {
        struct board b;

        memset(&b, 0, sizeof(b));
        relay_begin(&t, of, ITEMS);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (size_t i = 0; i < ITEMS; i++) {
            if (i % 10 == 0 && i)
                relay_give_up(&t, i);
            else
                visit(&t, &b, i);
        }
        for (size_t k = 0; k < PIECES; k++) {
            assert_int_equal(b.wrong[k], 0);
            assert_int_equal(b.last[k], ITEMS);
        }
    }
    relay_destroy(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_follow_each_other_through_every_piece),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
