/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "eval/answer.h"

static const struct row {
    enum answer_score score;
    const char *got, *want;
    bool right;
} rows[] = {
    {ANSWER_EXACT, " Yes\n", "Yes", true},
    {ANSWER_EXACT, "yes", "Yes", false},
    {ANSWER_EXACT, "", "Yes", false},
    {ANSWER_EXACT, "a  b", "a b", false},
    {ANSWER_LAST_NUMBER, "3+4=7\n#### 7", "so\n#### 7", true},
    {ANSWER_LAST_NUMBER, "#### 1,234", "#### 1234", true},
    {ANSWER_LAST_NUMBER, "it is $12.50.", "#### 12.5", true},
    {ANSWER_LAST_NUMBER, "#### 7 and 8", "#### 7", true},
    {ANSWER_LAST_NUMBER, "7 then 8", "#### 7", false},
    {ANSWER_LAST_NUMBER, "-5", "#### 5", false},
    {ANSWER_LAST_NUMBER, "none", "none", false},
    {ANSWER_LAST_NUMBER, "", "#### 7", false},
    {ANSWER_LINE, "Calculation: 1\nAnswer: $621 million\n", "Answer: $621 million",
     true},
    {ANSWER_LINE, "Answer: 1\nAnswer: 2", "Answer: 2", true},
    {ANSWER_LINE, "$621 million", "Answer: $621 million", false},
    {ANSWER_LINE, "answer:5", "Answer: 5", true},
    {ANSWER_FIRST_WORD, "Yes, because", "yes.", true},
    {ANSWER_FIRST_WORD, "Maybe.", "No.", false},
    {ANSWER_FIRST_WORD, "...", "No.", false},
    {ANSWER_LAST_WORD, "So the answer is YES.", "the answer is yes.", true},
    {ANSWER_LAST_WORD, "So the answer is no.", "the answer is yes.", false},
    {ANSWER_FIRST_LETTER, "B. gravity", "B. other text", true},
    {ANSWER_FIRST_LETTER, "(b)", "B. gravity", true},
    {ANSWER_FIRST_LETTER, "Because", "B. gravity", false},
    {ANSWER_FIRST_LETTER, "C.", "B.", false},
    {ANSWER_JSON, "{\"b\": 1, \"name\": \"x\"}", "{\"name\":\"x\",\"b\":1}", true},
    {ANSWER_JSON, "{\"name\": \"x\", \"b\": 2}", "{\"name\":\"x\",\"b\":1}", false},
    {ANSWER_JSON, "Here: {\"name\":\"x\"}", "{\"name\":\"x\"}", false},
    {ANSWER_JSON, "[1]", "[1]", false},
};

static void answers_are_judged_by_the_part_that_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct answer_verdict v =
            answer_judge(rows[i].score, rows[i].got, rows[i].want);

        if (v.right != rows[i].right)
            fail_msg("%s: '%s' against '%s'", answer_score_name(rows[i].score),
                     rows[i].got, rows[i].want);
    }
}

static void json_verdict_tells_how_far_it_came(void **state)
{
    struct answer_verdict v;

    (void)state;
    v = answer_judge(ANSWER_JSON, "{\"name\":\"x\",\"a\":2}",
                     "{\"name\":\"x\",\"a\":1}");
    assert_true(v.json_valid && v.json_name && !v.right);
    v = answer_judge(ANSWER_JSON, "{\"name\":\"y\"}", "{\"name\":\"x\"}");
    assert_true(v.json_valid && !v.json_name);
    v = answer_judge(ANSWER_JSON, "{\"name\":", "{\"name\":\"x\"}");
    assert_true(!v.json_valid && !v.json_name && !v.right);
}

static void every_name_is_found_and_no_other(void **state)
{
    (void)state;
    for (int i = 0; i < N_ANSWER_SCORES; i++)
        assert_int_equal(
            answer_score_from_name(answer_score_name((enum answer_score)i)), i);
    assert_int_equal(answer_score_from_name("rouge"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_judged_by_the_part_that_counts),
        cmocka_unit_test(json_verdict_tells_how_far_it_came),
        cmocka_unit_test(every_name_is_found_and_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
