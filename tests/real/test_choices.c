/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Likelihoods of choices with the demo's model against transformers in fp32
 * (tests/golden/make_choices_golden.py): prompts, seams, and what is computed once for
 * all choices. Needs the model: ARTEL_TEST_MODEL names it.
 */
#include "artel.h"
#include "check.h"

#include <jansson.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "data/corpus.h"
#include "eval/choices.h"

#define GOLDEN ARTEL_SOURCE "/tests/golden/choices_"

static void choices_have_the_reference_likelihood(void **state)
{
    const char *const path = getenv("ARTEL_TEST_MODEL");
    const struct artel_score_options so = {.expert = ARTEL_BASE};
    const struct corpus_options co = {.keep_text = true};
    struct artel_open_options oo;
    struct artel_mixture *m = NULL;
    struct choice_scores s;
    struct corpus *c;
    struct artel_error err = {0};
    json_t *golden;
    size_t at = 0;

    (void)state;
    if (!path || !*path)
        skip();
    golden = json_load_file(GOLDEN "reference.json", 0, NULL);
    artel_open_options_default(&oo);
    oo.precision = "fp32";
    if (cpu_set_threads(0, &err) < 0 ||
        artel_mixture_open(&m, path, NULL, &oo, &err) < 0 ||
        corpus_open(&c, GOLDEN "rows.jsonl", m->model->tokenizer, m->model->chat, &co,
                    &err) < 0 ||
        choices_score(&s, m, c, NULL, &so, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(corpus_count(c), json_array_size(golden));
    for (size_t i = 0; i < corpus_count(c); i++) {
        const json_t *const row = json_array_get(golden, i);

        assert_int_equal(corpus_choices(c, i)->n_choices, json_array_size(row));
        for (size_t k = 0; k < json_array_size(row); k++, at++) {
            const double want = -json_number_value(json_array_get(row, k));

            assert_near(s.nll[at], want, 1e-3 + 1e-4 * fabs(want));
        }
    }
    choice_scores_release(&s);
    corpus_close(c);
    artel_mixture_close(m);
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_have_the_reference_likelihood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
