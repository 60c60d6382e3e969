/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiple choice without generating: every choice is put as the answer to the
 * question, and the likeliest is the model's.
 *
 *     accuracy   argmax log p(choice | question)
 *     score      argmax log p(choice | question) / characters of the choice
 *
 * The first of equals wins. The question is a user turn of the chat template; the
 * choice alone carries the loss, no end-of-turn token follows it.
 */
#include "eval/measure.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/corpus.h"
#include "eval/score.h"
#include "text/tokenizer.h"

struct trial {
    struct example example;
    int32_t *ids;        /* (n) owned */
    unsigned char *loss; /* (n) owned */
};

static void trials_free(struct trial *t, size_t n)
{
    for (size_t i = 0; t && i < n; i++) {
        free(t[i].ids);
        free(t[i].loss);
    }
    free(t);
}

static int trial_init(struct trial *t, const struct example *question,
                      const char *choice, const struct tokenizer *tok,
                      struct artel_error *err)
{
    struct ids ids = {0};
    int rc = tokenizer_encode(tok, &ids, choice, strlen(choice), false, err);
    const size_t n = question->n_prompt + ids.n;

    t->ids = calloc(n + 1, sizeof(*t->ids));
    t->loss = calloc(n + 1, 1);
    if (rc == 0 && (!t->ids || !t->loss))
        rc = error_nomem(err, n * sizeof(*t->ids));
    if (rc == 0) {
        memcpy(t->ids, question->ids, question->n_prompt * sizeof(*t->ids));
        if (ids.n)
            memcpy(t->ids + question->n_prompt, ids.at, ids.n * sizeof(*t->ids));
        memset(t->loss + question->n_prompt, 1, ids.n);
        t->example = *question;
        t->example.ids = t->ids;
        t->example.loss = t->loss;
        t->example.n = n;
        t->example.n_loss = ids.n;
    }
    ids_release(&ids);
    return rc;
}

static double characters(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n ? (double)n : 1;
}

/* Index of the smallest nll, divided by characters where BY_LENGTH. */
static size_t likeliest(const struct choice_row *row, const struct artel_score_row *s,
                        bool by_length)
{
    size_t best = 0;
    double least = 0;

    for (size_t k = 0; k < row->n_choices; k++) {
        const double v = s[k].nll / (by_length ? characters(row->choices[k]) : 1);

        if (k == 0 || v < least) {
            least = v;
            best = k;
        }
    }
    return best;
}

static void count(struct measured *out, const struct corpus *c,
                  const struct artel_score_row *scored)
{
    for (size_t i = 0; i < out->n_rows; i++) {
        const struct choice_row *const row = corpus_choices(c, i);
        const bool right = likeliest(row, scored, true) == row->answer;

        out->value[i] = right;
        out->weight[i] = 1;
        out->score += right;
        out->accuracy += likeliest(row, scored, false) == row->answer;
        scored += row->n_choices;
    }
    out->score /= (double)out->n_rows;
    out->accuracy /= (double)out->n_rows;
    out->n_judged = out->n_rows;
}

int measure_choices(struct measured *out, const struct artel_mixture *m,
                    const struct corpus *c, const struct measure_options *o,
                    struct artel_error *err)
{
    const struct artel_score_options so = {.expert = o->expert, .stopped = o->stopped};
    const struct example **rows = NULL;
    struct artel_score_row *scored = NULL;
    struct trial *trials = NULL;
    size_t n = 0, at = 0;
    int rc = 0;

    for (size_t i = 0; i < corpus_count(c); i++) {
        if (!corpus_choices(c, i))
            return error_set(err, ARTEL_EFORMAT, "EVL01", NULL,
                             "row %zu has no choices, the rows before it have",
                             corpus_at(c, i)->row);
        n += corpus_choices(c, i)->n_choices;
    }
    trials = calloc(n, sizeof(*trials));
    rows = calloc(n, sizeof(*rows));
    scored = calloc(n, sizeof(*scored));
    if (!trials || !rows || !scored)
        rc = error_nomem(err, n * sizeof(*trials));
    for (size_t i = 0; rc == 0 && i < corpus_count(c); i++)
        for (size_t k = 0; rc == 0 && k < corpus_choices(c, i)->n_choices; k++, at++) {
            rc = trial_init(&trials[at], corpus_at(c, i),
                            corpus_choices(c, i)->choices[k], m->model->tokenizer, err);
            rows[at] = &trials[at].example;
        }
    if (rc == 0)
        rc = score_examples(scored, m, rows, n, &so, err);
    if (rc == 0) {
        out->choices = true;
        count(out, c, scored);
    }
    trials_free(trials, at);
    free(rows);
    free(scored);
    return rc;
}
