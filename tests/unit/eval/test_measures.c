/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an evaluation that need no model: prompts of choices, intervals, what
 * a judge says, results on disk.
 */
#include "check.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "data/corpus.h"
#include "decoder/gate_sums.h"
#include "eval/bootstrap.h"
#include "eval/judge.h"
#include "eval/keep.h"
#include "eval/question.h"

static const char *const four[] = {"one", "två", "three", "four"};

static void prompts_are_those_of_the_harness(void **state)
{
    static const struct {
        const char *domain, *question;
        size_t k;
        const char *given, *rest;
        double length;
        bool by_length;
    } cases[] = {
        {"mmlu/us_foreign_policy", " Which? ", 2,
         "The following are multiple choice questions (with answers) about us foreign "
         "policy.\n\nWhich?\nA. one\nB. två\nC. three\nD. four\nAnswer:",
         " C", 1, false},
        {"mmlu", "Which?", 0,
         "Which?\nA. one\nB. två\nC. three\nD. four\nAnswer:", " A", 1, false},
        {"piqa", "Goal", 1, "Question: Goal\nAnswer:", " två", 3, true},
        {"winogrande", "The _ was  here. ", 0, "The one", " was  here.", 1, false},
        {"truthfulqa", "Who?", 3, "Q: Who?\nA:", " four", 4, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct choice_row row = {cases[i].question, four, 4, 0, cases[i].domain};
        const enum question_style style = question_style(cases[i].domain);
        struct artel_error err;
        char *given, *rest;

        assert_int_equal(question_texts(&given, &rest, style, &row, cases[i].k, &err),
                         0);
        assert_string_equal(given, cases[i].given);
        assert_string_equal(rest, cases[i].rest);
        assert_near(question_length(style, &row, cases[i].k), cases[i].length, 0);
        assert_int_equal(question_by_length(style), cases[i].by_length);
        free(given);
        free(rest);
    }
    assert_int_equal(question_style("exam"), QUESTION_CHAT);
    assert_int_equal(question_style("mmluish"), QUESTION_CHAT);
}

static void a_question_without_a_gap_is_refused(void **state)
{
    const struct choice_row row = {"no gap", four, 2, 0, "winogrande"};
    struct artel_error err;
    char *given, *rest;

    (void)state;
    assert_error(question_texts(&given, &rest, QUESTION_WINOGRANDE, &row, 0, &err),
                 ARTEL_EFORMAT, err, "EVL04");
    assert_null(given);
}

/* Of n differences with mean m and deviation d, the interval is about m +- 1.96 d/sqrt n. */
static void intervals_cover_what_they_should(void **state)
{
    enum { N = 400 };
    double after[N], before[N], weight[N];
    struct change one, again, other;
    struct artel_error err;

    (void)state;
    for (size_t i = 0; i < N; i++) {
        after[i] = i % 4 != 0; /* 0.75 */
        before[i] = i % 2;     /* 0.5 */
        weight[i] = 1;
    }
    assert_int_equal(
        bootstrap_change(&one, after, 1, before, weight, N, false, 1, &err), 0);
    assert_near(one.value, 0.25, 1e-12);
    assert_near(one.low, 0.25 - 1.96 * sqrt(0.1875 / N), 0.01);
    assert_near(one.high, 0.25 + 1.96 * sqrt(0.1875 / N), 0.01);
    bootstrap_change(&again, after, 1, before, weight, N, false, 1, &err);
    bootstrap_change(&other, after, 1, before, weight, N, false, 2, &err);
    assert_memory_equal(&one, &again, sizeof(one));
    assert_true(other.low != one.low || other.high != one.high);
}

static void perplexities_change_by_the_whole(void **state)
{
    const double after[] = {2, 9, 4}, before[] = {3, 8, 6}, weight[] = {2, 6, 4};
    struct change c;
    struct artel_error err;

    (void)state;
    assert_int_equal(bootstrap_change(&c, after, 1, before, weight, 3, true, 1, &err),
                     0);
    assert_near(c.value, exp(15.0 / 12) - exp(17.0 / 12), 1e-12);
    assert_true(c.low <= c.value && c.value <= c.high);
    assert_int_equal(bootstrap_change(&c, after, 1, after, weight, 3, true, 1, &err),
                     0);
    assert_true(c.value == 0 && c.low == 0 && c.high == 0);
}

/* Rows that were not asked are no rows: neither drawn nor counted. */
static void rows_without_weight_are_left_out(void **state)
{
    enum { N = 24 };
    double after[2 * N] = {0}, before[2 * N] = {0}, weight[2 * N] = {0};
    double after_asked[N] = {0}, before_asked[N] = {0}, ones[N];
    struct change c, asked;
    struct artel_error err;

    (void)state;
    for (size_t i = 0; i < N; i++) {
        after[2 * i + 1] = after_asked[i] = i % 2;
        before[2 * i + 1] = before_asked[i] = i % 4 == 0;
        weight[2 * i + 1] = ones[i] = 1;
    }
    assert_int_equal(
        bootstrap_change(&c, after, 1, before, weight, 2 * N, false, 1, &err), 0);
    assert_int_equal(
        bootstrap_change(&asked, after_asked, 1, before_asked, ones, N, false, 1, &err),
        0);
    assert_near(c.value, 0.25, 0);
    assert_memory_equal(&c, &asked, sizeof(c));
}

/* Two experts over the same rows: every resample has both. */
static void a_mean_of_experts_changes_as_their_mean(void **state)
{
    const double before[] = {3, 8, 6}, weight[] = {2, 6, 4}, ones[] = {1, 1, 1};
    const double after[] = {2, 9, 4, 4, 7, 8}, right[] = {1, 0, 1, 0, 0, 1};
    struct change c, swapped;
    struct artel_error err;

    (void)state;
    assert_int_equal(bootstrap_change(&c, after, 2, before, weight, 3, true, 1, &err),
                     0);
    assert_near(c.value, (exp(15.0 / 12) + exp(19.0 / 12)) / 2 - exp(17.0 / 12), 1e-12);
    assert_true(c.low < c.value && c.value < c.high);
    assert_int_equal(bootstrap_change(&swapped, (const double[]){4, 7, 8, 2, 9, 4}, 2,
                                      before, weight, 3, true, 1, &err),
                     0);
    assert_near(swapped.value, c.value, 1e-12);
    assert_near(swapped.low, c.low, 1e-12);
    assert_near(swapped.high, c.high, 1e-12);
    assert_int_equal(bootstrap_change(&c, right, 2, ones, ones, 3, false, 1, &err), 0);
    assert_near(c.value, 0.5 - 1, 1e-12);
}

static void a_judge_is_understood(void **state)
{
    static const struct {
        const char *text;
        bool ok;
    } cases[] = {
        {"{\"helpfulness\":1,\"relevance\":2,\"accuracy\":0,\"readability\":2,"
         "\"fluency\":1}",
         true},
        {"Sure:\n```json\n{\"fluency\": 1.0, \"helpfulness\":1,\"relevance\":2,"
         "\"accuracy\":0,\"readability\":2, \"why\": \"so\"}\n```",
         true},
        {"{\"helpfulness\":3,\"relevance\":2,\"accuracy\":0,\"readability\":2,"
         "\"fluency\":1}",
         false},
        {"{\"helpfulness\":1.5,\"relevance\":2,\"accuracy\":0,\"readability\":2,"
         "\"fluency\":1}",
         false},
        {"{\"helpfulness\":1}", false},
        {"I cannot rate this.", false},
        {"} {", false},
        {"", false},
    };
    static const int want[JUDGE_QUALITIES] = {1, 2, 0, 2, 1};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int quality[JUDGE_QUALITIES];

        assert_int_equal(judge_parse(quality, cases[i].text), cases[i].ok);
        if (cases[i].ok)
            assert_memory_equal(quality, want, sizeof(want));
    }
}

static void results_come_back_as_they_were(void **state)
{
    char folder[] = "/tmp/artel-keep-XXXXXX", path[128];
    double value[] = {1, 0.1}, weight[] = {1, 3};
    size_t chosen[] = {4, 5};
    struct gate_sums *sums = calloc(1, gate_sums_bytes(1, 2));
    struct measured r = {.n_rows = 2,
                         .nll = 1.1,
                         .perplexity = (double)NAN,
                         .n_routed = 9,
                         .n_experts = 2,
                         .n_routers = 1,
                         .choices = true,
                         .shares = true,
                         .acc = 1.0 / 3,
                         .judged = {.quality = {2, 1, 0.5, 1.25, 0}, .n = 3},
                         .chosen = chosen,
                         .sums = sums,
                         .value = value,
                         .weight = weight},
                    got;
    struct artel_error err;
    FILE *f;

    (void)state;
    sums->n = 7;
    sums->gate[1] = 0.3;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(keep_read(&got, folder, "k", &err), 0);
    assert_int_equal(keep_write(&r, folder, "k", &err), 0);
    assert_int_equal(keep_read(&got, folder, "k", &err), 1);
    assert_true(isnan(got.perplexity) && got.acc == r.acc && got.nll == r.nll);
    assert_true(got.choices && got.shares && !got.windows && got.n_routed == 9 &&
                got.chosen[1] == 5);
    assert_memory_equal(got.value, value, sizeof(value));
    assert_memory_equal(got.weight, weight, sizeof(weight));
    assert_memory_equal(&got.judged, &r.judged, sizeof(r.judged));
    assert_memory_equal(got.sums, sums, gate_sums_bytes(1, 2));
    measured_release(&got);
    snprintf(path, sizeof(path), "%s/k.json", folder);
    for (int choices = 0; choices < 2; choices++) {
        /* what a version wrote that knew no shares but choices */
        json_t *const o = json_load_file(path, 0, NULL);

        json_object_del(o, "shares");
        json_object_set_new(o, "choices", json_boolean(choices));
        assert_int_equal(json_dump_file(o, path, 0), 0);
        json_decref(o);
        assert_int_equal(keep_read(&got, folder, "k", &err), 1);
        assert_int_equal(got.shares, choices);
        measured_release(&got);
    }
    r.choices = false;
    assert_int_equal(keep_write(&r, folder, "k", &err), 0);
    assert_int_equal(keep_read(&got, folder, "k", &err), 1);
    assert_true(got.shares && !got.choices);
    measured_release(&got);
    f = fopen(path, "w");
    fputs("{\"format_version\": 1, \"rows\": -1}", f);
    fclose(f);
    assert_int_equal(keep_read(&got, folder, "k", &err), 0);
    unlink(path);
    rmdir(folder);
    free(sums);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_those_of_the_harness),
        cmocka_unit_test(a_question_without_a_gap_is_refused),
        cmocka_unit_test(intervals_cover_what_they_should),
        cmocka_unit_test(perplexities_change_by_the_whole),
        cmocka_unit_test(rows_without_weight_are_left_out),
        cmocka_unit_test(a_mean_of_experts_changes_as_their_mean),
        cmocka_unit_test(a_judge_is_understood),
        cmocka_unit_test(results_come_back_as_they_were),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
