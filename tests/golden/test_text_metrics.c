/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BLEU as sacrebleu, ROUGE-L as rouge-score and stems as nltk compute them. The sums
 * of logarithms may be taken in another order: 1e-9 of 100.
 */
#include "check.h"

#include <jansson.h>

#include "base/error.h"
#include "eval/text_metrics.h"
#include "files/json.h"
#include "files/lines.h"

static void check_set(const json_t *row)
{
    const json_t *const got = json_object_get(row, "got");
    const json_t *const want = json_object_get(row, "want");
    const json_t *const rouge = json_object_get(row, "rouge_l");
    struct artel_error err;
    struct bleu b = {0};

    for (size_t i = 0; i < json_array_size(got); i++) {
        const char *const g = json_string_value(json_array_get(got, i));
        const char *const w = json_string_value(json_array_get(want, i));
        const double expected = json_number_value(json_array_get(rouge, i));
        double f;

        assert_int_equal(bleu_add(&b, g, w, &err), 0);
        assert_int_equal(rouge_l(&f, g, w, &err), 0);
        if (!(fabs(f - expected) < 1e-12))
            fail_msg("ROUGE-L %.15g, not %.15g, of '%s' and '%s'", f, expected, g, w);
    }
    if (!(fabs(bleu_score(&b) - json_number_value(json_object_get(row, "bleu"))) <
          1e-9))
        fail_msg("BLEU %.15g, not %.15g, of the set that begins '%s'", bleu_score(&b),
                 json_number_value(json_object_get(row, "bleu")),
                 json_string_value(json_array_get(got, 0)));
}

static void check_stems(const json_t *stems)
{
    const json_t *pair;
    size_t i;

    json_array_foreach(stems, i, pair)
    {
        const char *const from = json_string_value(json_array_get(pair, 0));
        const char *const to = json_string_value(json_array_get(pair, 1));
        char word[64];
        size_t n;

        strcpy(word, from);
        n = stem_word(word, strlen(word));
        word[n] = '\0';
        if (strcmp(word, to) != 0)
            fail_msg("the stem of '%s' is '%s', not '%s'", from, word, to);
    }
}

static void text_metrics_equal_the_packages(void **state)
{
    size_t n, n_sets = 0, n_stems = 0;
    struct artel_error err;
    struct lines lines;
    const char *text;

    (void)state;
    assert_int_equal(lines_open(&lines, ARTEL_TESTS "/golden/text_metrics.jsonl", &err),
                     0);
    while (lines_next(&lines, &text, &n, &err) == 1) {
        const json_t *stems;
        json_t *row = NULL;

        assert_int_equal(
            json_parse(&row, text, n, "text_metrics.jsonl", lines.number - 1, &err), 0);
        stems = json_object_get(row, "stems");
        if (stems) {
            check_stems(stems);
            n_stems += json_array_size(stems);
        } else {
            check_set(row);
            n_sets++;
        }
        json_decref(row);
    }
    lines_release(&lines);
    assert_true(n_sets > 30 && n_stems > 700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_metrics_equal_the_packages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
