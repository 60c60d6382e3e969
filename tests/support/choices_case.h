/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiple choice against transformers in fp32 with the same model: the likelihood of each
 * choice, and what comes of it in each set (tests/golden/make_choices_golden.py).
 */
#ifndef ARTEL_TESTS_CHOICES_CASE_H
#define ARTEL_TESTS_CHOICES_CASE_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "artel.h"
#include "base/cpu.h"
#include "check.h"
#include "data/corpus.h"
#include "eval/choices.h"
#include "eval/measure.h"

#define CHOICES_GOLDEN ARTEL_SOURCE "/tests/golden/choices_"

static void check_likelihoods(const struct artel_mixture *m, const json_t *logp)
{
    const struct artel_score_options so = {.expert = ARTEL_BASE};
    const struct corpus_options co = {.keep_text = true};
    struct choice_scores s;
    struct corpus *c;
    struct artel_error err = {0};
    size_t at = 0;

    if (corpus_open(&c, CHOICES_GOLDEN "rows.jsonl", m->model->tokenizer,
                    m->model->chat, &co, &err) < 0 ||
        choices_score(&s, m, c, NULL, &so, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(corpus_count(c), json_array_size(logp));
    for (size_t i = 0; i < corpus_count(c); i++) {
        const json_t *const row = json_array_get(logp, i);

        assert_int_equal(corpus_choices(c, i)->n_choices, json_array_size(row));
        for (size_t k = 0; k < json_array_size(row); k++, at++) {
            const double want = -json_number_value(json_array_get(row, k));

            assert_near(s.nll[at], want, 1e-3 + 1e-4 * fabs(want));
        }
    }
    choice_scores_release(&s);
    corpus_close(c);
}

/* The rows of SET, by the beginning of their domain, go to PATH. */
static void write_set(const char *path, const char *set)
{
    FILE *const from = fopen(CHOICES_GOLDEN "rows.jsonl", "r"), *const to =
                                                                    fopen(path, "w");
    char begin[64], line[4096];

    assert_non_null(from);
    assert_non_null(to);
    snprintf(begin, sizeof(begin), "{\"domain\": \"%s", set);
    while (fgets(line, sizeof(line), from))
        if (!strncmp(line, begin, strlen(begin)))
            fputs(line, to);
    fclose(from);
    assert_int_equal(fclose(to), 0);
}

static void check_set(const struct artel_mixture *m, const char *set,
                      const json_t *want, bool by_length)
{
    const struct measure_options o = {.expert = ARTEL_BASE, .expected = -1};
    const json_int_t n = json_integer_value(json_object_get(want, "rows")),
                     acc = json_integer_value(json_object_get(want, "acc")),
                     norm = json_integer_value(json_object_get(want, "acc_norm"));
    char path[] = "/tmp/artel-set-XXXXXX";
    const int fd = mkstemp(path);
    struct measured r;
    struct artel_error err = {0};
    double sum = 0;
    int rc;

    assert_true(fd >= 0 && !close(fd));
    write_set(path, set);
    rc = measure_set(&r, m, path, &o, &err);
    unlink(path);
    if (rc < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_true(r.choices && n > 0);
    assert_int_equal(r.n_rows, n);
    assert_int_equal(r.n_judged, n);
    for (size_t i = 0; i < r.n_rows; i++)
        sum += r.value[i];
    if (fabs(r.acc * (double)n - (double)acc) > 1e-9 ||
        fabs(r.acc_norm * (double)n - (double)norm) > 1e-9)
        fail_msg("%s: acc %g and acc_norm %g of %lld rows, expected %lld and %lld", set,
                 r.acc * (double)n, r.acc_norm * (double)n, (long long)n,
                 (long long)acc, (long long)norm);
    assert_near(r.score, (double)(by_length ? norm : acc) / (double)n, 1e-12);
    assert_near(sum, (double)(by_length ? norm : acc), 0);
    measured_release(&r);
}

/* MODEL in fp32 gives what stands in CHOICES_GOLDEN "NAME.json". */
static void check_choices(const char *model, const char *name)
{
    static const struct {
        const char *set;
        bool by_length; /* what its score is */
    } sets[] = {{"mmlu", false},
                {"piqa", true},
                {"winogrande", false},
                {"truthfulqa", false},
                {"exam", true}};
    const size_t n_sets = sizeof(sets) / sizeof(sets[0]);
    struct artel_open_options oo;
    struct artel_mixture *m = NULL;
    struct artel_error err = {0};
    char path[256];
    json_t *golden, *of;

    snprintf(path, sizeof(path), "%s%s.json", CHOICES_GOLDEN, name);
    golden = json_load_file(path, 0, NULL);
    of = json_object_get(golden, "sets");
    assert_int_equal(json_object_size(of), n_sets);
    artel_open_options_default(&oo);
    oo.precision = "fp32";
    if (cpu_set_threads(0, &err) < 0 ||
        artel_mixture_open(&m, model, NULL, &oo, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    check_likelihoods(m, json_object_get(golden, "logp"));
    for (size_t i = 0; i < n_sets; i++)
        check_set(m, sets[i].set, json_object_get(of, sets[i].set), sets[i].by_length);
    artel_mixture_close(m);
    json_decref(golden);
}

#endif
