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
    {ANSWER_LAST_LINE, "steps\n  done \n\n", "other\ndone", true},
    {ANSWER_LAST_LINE, "done\nmore", "done", false},
    {ANSWER_LAST_LINE, "Done", "done", false},
    {ANSWER_LAST_LINE, " \n", " \n", false},
    {ANSWER_LAST_LINE, "", "", false},
    {ANSWER_SQL, "select  a,b\nFROM t WHERE x='Q';",
     "SELECT a , b from T where x = 'Q'", true},
    {ANSWER_SQL, "SELECT a FROM t WHERE x = 'q'", "SELECT a FROM t WHERE x = 'Q'",
     false},
    {ANSWER_SQL, "SELECT a FROM t WHERE n >= 3", "SELECT a FROM t WHERE n >= 30",
     false},
    {ANSWER_SQL, "SELECT a FROM t", "SELECT a FROM t LIMIT 1", false},
    {ANSWER_SQL, "SELECT a; SELECT b;", "SELECT a; SELECT b", true},
    {ANSWER_SQL, "SELECT 'a  b", "SELECT 'a b", false},
    {ANSWER_SQL, "SELECT ab", "SELECT a b", false},
    {ANSWER_SQL, "", "", false},
    {ANSWER_SQL, ";", "SELECT 1", false},
    {ANSWER_ONE_LINE, "[1, 2]\n", "[1, 2]", true},
    {ANSWER_ONE_LINE, "[1,2]", "[1, 2]", false},
    {ANSWER_SHORT, "trend micro ", "trend micro", true},
    {ANSWER_SHORT, "Trend micro", "trend micro", false},
    {ANSWER_YES_NO, "No, it is not.", "No. The study shows it.", true},
    {ANSWER_YES_NO, "Nothing", "No. The study shows it.", false},
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

static void rows_of_another_kind_are_not_asked(void **state)
{
    (void)state;
    assert_true(answer_counts(ANSWER_ONE_LINE, "42\n"));
    assert_false(answer_counts(ANSWER_ONE_LINE, "def f():\n    return 1"));
    assert_false(answer_counts(ANSWER_ONE_LINE, " \n"));
    assert_true(answer_counts(ANSWER_SHORT, "individual software inc"));
    assert_false(answer_counts(ANSWER_SHORT, "samsung black flat panel"));
    assert_false(answer_counts(ANSWER_SHORT, "two\nlines"));
    assert_true(answer_counts(ANSWER_YES_NO, "Maybe. It depends."));
    assert_false(answer_counts(ANSWER_YES_NO, "Nobody knows."));
    assert_true(answer_counts(ANSWER_EXACT, ""));
    assert_false(answer_counts(ANSWER_LOSS, "x"));
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
    assert_int_equal(answer_score_from_name("rouge-l"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_judged_by_the_part_that_counts),
        cmocka_unit_test(rows_of_another_kind_are_not_asked),
        cmocka_unit_test(json_verdict_tells_how_far_it_came),
        cmocka_unit_test(every_name_is_found_and_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
