/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices of the toy model: their likelihoods, acc, acc_norm, and which of these is a set's
 * score. Between the sets they differ by each part of the rule: the sum, the division by
 * letters (which bytes are not), the first of equals.
 */
#include "support/choices_case.h"

#include "eval/measure.h"

static void the_toy_model_chooses_as_the_reference(void **state)
{
    (void)state;
    check_choices(ARTEL_SOURCE "/tests/golden/toy-tied.gguf", "toy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_toy_model_chooses_as_the_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
