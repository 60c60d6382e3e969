/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of the domains that were there before: their rows are answered by the mixture as
 * it was and by what became of it, through the evaluation's own functions, so that
 * artel eval over the same rows says the same.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "data/corpus.h"
#include "eval/bootstrap.h"
#include "eval/measure.h"
#include "plan/grow_parts.h"

/* What is wrong with a domain's rows is said and costs its score, not the work: RC, or 0
 * where it is of that kind. */
static int leave_out(struct grow_rows *g, struct grow_domain *d, size_t i, int rc,
                     const struct artel_error *why)
{
    char message[600], text[512];

    if (rc != ARTEL_EFORMAT && rc != ARTEL_EIO)
        return rc;
    snprintf(message, sizeof(message), "%s is not scored: %s", d->name,
             artel_error_text(text, sizeof(text), why));
    run_tell(g->run, RUN_WARNING, message);
    corpus_close(g->asked[i]);
    g->asked[i] = NULL;
    d->score_name = NULL;
    return 0;
}

int grow_asked_open(struct grow_rows *g, struct grow_domain *d, size_t i,
                    const char *path, const char *score,
                    const struct artel_model *model, struct artel_error *err)
{
    const struct corpus_options o = {.max_rows = g->score_rows,
                                     .cutoff_len = model->weights->config.context,
                                     .keep_text = true};
    const int kind = score ? answer_score_from_name(score) : ANSWER_LOSS;
    struct artel_error why;
    int rc;

    if (kind <= ANSWER_LOSS || !g->score_rows)
        return 0;
    d->score_name = answer_score_name((enum answer_score)kind);
    rc = corpus_open(&g->asked[i], path, model->tokenizer, model->chat, &o, &why);
    if (rc < 0) {
        error_in(&why, rc, path);
        rc = leave_out(g, d, i, rc, &why);
    }
    if (rc < 0 && err)
        *err = why;
    return rc;
}

size_t grow_positions(const struct grow_rows *g, size_t context)
{
    size_t most = 0;

    for (size_t i = 0; i < g->n; i++)
        for (size_t k = 0; g->asked[i] && k < corpus_count(g->asked[i]); k++) {
            const struct example *const e = corpus_at(g->asked[i], k);
            const size_t answered = e->n_prompt + ANSWER_TOKENS;

            if (corpus_choices(g->asked[i], k)) /* which stand behind it */
                return context;
            most = answered > most ? answered : most;
            most = e->n > most ? e->n : most;
        }
    return most < context ? most : context;
}

/* How sure the change is from BEFORE to AFTER, where the score is a mean over rows. */
static int compare(struct grow_domain *d, const struct measured *before,
                   const struct measured *after, uint64_t seed, struct artel_error *err)
{
    struct change change = {.low = (double)NAN, .high = (double)NAN};
    int rc = 0;

    if (after->shares && before->shares && after->n_judged > 1)
        rc = bootstrap_change(&change, after->value, 1, before->value, after->weight,
                              after->n_rows, false, seed, err);
    d->score_change = d->score_after - d->score_before;
    d->score_low = change.low;
    d->score_high = change.high;
    return rc;
}

/* Of domain I, whose expert is EXPERT, into R. */
static int answer(struct measured *r, const struct grow_rows *g,
                  const struct grow_domain *d, size_t i, const struct artel_mixture *m,
                  int expert, bool before, struct artel_error *err)
{
    const int kind = answer_score_from_name(d->score_name); /* below 0: of choices */
    const struct measure_options o = {
        .expert = m->mixture->n_routers ? ARTEL_AUTO : expert,
        .expected = -1,
        .score = kind < 0 ? ANSWER_LOSS : (enum answer_score)kind,
        .generate = true,
        .max_tokens = ANSWER_TOKENS,
        .stopped = g->run->stop};
    char message[128];

    snprintf(message, sizeof(message), "%s: answering %zu rows%s", d->name,
             corpus_count(g->asked[i]), before ? "" : " again");
    run_tell(g->run, RUN_NOTE, message);
    return measure_corpus(r, m, g->asked[i], &o, err);
}

int grow_score(struct grow_domain *d, struct grow_rows *g, size_t i,
               const struct artel_mixture *m, int expert, bool before,
               struct artel_error *err)
{
    struct measured after = {0};
    struct artel_error why = {0};
    int rc;

    if (before) {
        rc = answer(&g->answers[i], g, d, i, m, expert, true, &why);
        d->score_rows = g->answers[i].n_judged;
        d->score_before = d->score_rows ? g->answers[i].score : (double)NAN;
        if (g->answers[i].choices)
            d->score_name = g->answers[i].by_length ? "acc_norm" : "acc";
        if (rc < 0)
            rc = leave_out(g, d, i, rc, &why);
    } else if (!m->mixture->n_routers) {
        /* The same expert alone: what it answers is what it answered. */
        d->score_after = d->score_before;
        rc = compare(d, &g->answers[i], &g->answers[i], g->seed, &why);
    } else {
        rc = answer(&after, g, d, i, m, expert, false, &why);
        d->score_after = after.n_judged ? after.score : (double)NAN;
        if (rc == 0)
            rc = compare(d, &g->answers[i], &after, g->seed, &why);
        measured_release(&after);
    }
    if (rc < 0 && err)
        *err = why;
    return rc;
}

void grow_asked_close(struct grow_rows *g)
{
    for (size_t i = 0; g->asked && i < g->n; i++)
        corpus_close(g->asked[i]);
    for (size_t i = 0; g->answers && i < g->n; i++)
        measured_release(&g->answers[i]);
    free(g->asked);
    free(g->answers);
    g->asked = NULL;
    g->answers = NULL;
}
