/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices of the toy model, which reaches 512 tokens: what is put behind a question has
 * the likelihood of one row with both, whose beginning goes where it is too long.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "artel.h"
#include "data/corpus.h"
#include "eval/choices.h"
#include "eval/score.h"
#include "text/tokenizer.h"

#define TOY ARTEL_SOURCE "/tests/golden/toy-tied.gguf"

static char path[] = "/tmp/artel-choices-XXXXXX";

static int remove_rows(void **state)
{
    (void)state;
    return unlink(path);
}

/* A question of N words in DOMAIN, and another of three. */
static void write_rows(const char *domain, size_t n, const char *choice)
{
    FILE *const f = fopen(path, "w");

    assert_non_null(f);
    for (size_t i = 0; i < 2; i++) {
        fprintf(f, "{\"domain\": \"%s\", \"question\": \"", domain);
        for (size_t k = 0; k < (i ? 3 : n); k++)
            fprintf(f, "w%zu ", k);
        fprintf(f, "\", \"choices\": [\"ab\", \"%s\"], \"answer\": 0}\n", choice);
    }
    assert_int_equal(fclose(f), 0);
}

static struct artel_mixture *opened(struct corpus **c)
{
    struct artel_open_options oo;
    struct artel_mixture *m = NULL;
    struct artel_error err = {0};

    artel_open_options_default(&oo);
    oo.precision = "fp32";
    if (artel_mixture_open(&m, TOY, NULL, &oo, &err) < 0 ||
        corpus_open(c, path, m->model->tokenizer, m->model->chat,
                    &(struct corpus_options){0}, &err) < 0)
        fail_msg("%s: %s", err.file, err.reason);
    return m;
}

/* The last tokens that fit of QUESTION with CHOICE, whose likelihood counts. */
static double whole(const struct artel_mixture *m, const struct example *question,
                    const char *choice)
{
    const struct artel_score_options so = {.expert = ARTEL_BASE};
    const size_t room = m->model->n_positions;
    struct artel_score_row row;
    struct example e = {.pool_n = 1, .row = 1};
    const struct example *const rows[] = {&e};
    unsigned char loss[4096] = {0};
    struct ids ids = {0};
    size_t cut;

    for (size_t i = 0; i < question->n; i++)
        assert_int_equal(ids_push(&ids, question->ids[i], NULL), 0);
    assert_int_equal(tokenizer_encode(m->model->tokenizer, &ids, choice, strlen(choice),
                                      false, NULL),
                     0);
    assert_true(ids.n < sizeof(loss));
    memset(loss + question->n, 1, ids.n - question->n);
    cut = ids.n > room ? ids.n - room : 0;
    e.ids = ids.at + cut;
    e.n = ids.n - cut;
    e.loss = loss + cut;
    e.n_loss = ids.n - question->n;
    assert_int_equal(score_examples(&row, m, rows, 1, &so, NULL), 0);
    ids_release(&ids);
    return row.nll;
}

static void a_question_loses_its_beginning_to_the_models_reach(void **state)
{
    static const char *const choices[] = {"ab", "a longer one"};
    const struct artel_score_options so = {.expert = ARTEL_BASE};
    struct choice_scores s;
    struct artel_mixture *m;
    struct artel_error err = {0};
    struct corpus *c;

    (void)state;
    write_rows("exam", 300, choices[1]);
    m = opened(&c);
    assert_true(corpus_at(c, 0)->n > m->model->n_positions);
    assert_int_equal(choices_check(m, c, &err), 0);
    if (choices_score(&s, m, c, NULL, &so, &err) < 0)
        fail_msg("%s", err.reason);
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 2; k++)
            assert_near(s.nll[2 * i + k], whole(m, corpus_at(c, i), choices[k]), 0);
    choice_scores_release(&s);
    corpus_close(c);
    artel_mixture_close(m);
}

static void a_choice_leaves_room_and_says_something(void **state)
{
    static char longest[2048];
    static const struct {
        const char *domain, *choice, *code;
    } cases[] = {
        {"exam", longest, "EVL07"}, {"piqa", longest, "EVL07"}, {"exam", "", "EVL05"}};

    (void)state;
    memset(longest, 'x', sizeof(longest) - 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct artel_mixture *m;
        struct artel_error err;
        struct corpus *c;

        write_rows(cases[i].domain, 3, cases[i].choice);
        m = opened(&c);
        assert_error(choices_check(m, c, &err), ARTEL_EFORMAT, err, cases[i].code);
        corpus_close(c);
        artel_mixture_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_loses_its_beginning_to_the_models_reach),
        cmocka_unit_test(a_choice_leaves_room_and_says_something),
    };
    const int fd = mkstemp(path);

    if (fd < 0 || close(fd))
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_rows);
}
