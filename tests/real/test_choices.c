/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices of the demo's model: prompts, seams, what is computed once for all choices, and
 * what comes of it. Needs the model: ARTEL_TEST_MODEL names it.
 */
#include "support/choices_case.h"

#include <stdlib.h>

#include "eval/measure.h"

static void choices_have_the_reference_likelihood(void **state)
{
    const char *const path = getenv("ARTEL_TEST_MODEL");

    (void)state;
    if (!path || !*path)
        skip();
    check_choices(path, "reference");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_have_the_reference_likelihood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
