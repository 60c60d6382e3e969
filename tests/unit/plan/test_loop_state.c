/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a run counts as dead, and when it has only nothing to learn.
 */
#include "plan/loop_state.h"

// clang-format off: cmocka.h needs these before it
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

#include "base/error.h"

#define N_VOCAB 320
#define STEPS   30

/* After FIRST steps with a gradient, steps without; the last check's answer. */
static int run(int first, float loss)
{
    struct loop_state s;
    struct artel_error err;
    int rc = 0;

    loop_state_init(&s);
    for (int i = 0; rc == 0 && i < STEPS; i++) {
        const struct step_report r = {.loss = loss,
                                      .grad_norm = i < first ? 1.0f : 0.0f};

        loop_state_count(&s, &r, 1);
        rc = loop_state_check_diverged(&s, &r, N_VOCAB, &err);
    }
    if (rc < 0)
        assert_string_equal(err.code, "NAN02");
    return rc;
}

static void a_gradient_that_vanishes_is_the_end(void **state)
{
    (void)state;
    assert_int_equal(run(5, 1), ARTEL_ENONFINITE);
}

static void what_never_had_a_gradient_goes_on(void **state)
{
    (void)state;
    assert_int_equal(run(0, 1), 0);
}

static void learning_goes_on(void **state)
{
    (void)state;
    assert_int_equal(run(STEPS, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gradient_that_vanishes_is_the_end),
        cmocka_unit_test(what_never_had_a_gradient_goes_on),
        cmocka_unit_test(learning_goes_on)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
