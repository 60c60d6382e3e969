/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the model's own, judged against those of the rows: by the set's score,
 * and all of them by how near their texts come.
 */
#include "eval/measure.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "data/corpus.h"
#include "eval/generate.h"
#include "eval/judge.h"
#include "eval/text_metrics.h"

/* The rows that are asked, and what came back. */
struct asked {
    size_t n;
    size_t *row;                  /* (n) of the corpus */
    struct prompt *prompts;       /* (n) */
    struct artel_answer *answers; /* (n) */
};

static void asked_release(struct asked *a)
{
    for (size_t i = 0; a->prompts && i < a->n; i++)
        prompt_release(&a->prompts[i]);
    for (size_t i = 0; a->answers && i < a->n; i++)
        artel_answer_release(&a->answers[i]);
    free(a->prompts);
    free(a->answers);
    free(a->row);
}

/* The row's own tokens before its last answer, so that what is measured is exactly what
 * was trained. */
static int row_prompt(struct prompt *p, const struct example *e,
                      struct artel_error *err)
{
    for (size_t k = 0; k < e->n_prompt; k++) {
        const int rc = ids_push(&p->ids, e->ids[k], err);

        if (rc < 0)
            return rc;
    }
    p->pool_first = e->pool_first;
    p->pool_n = e->pool_n;
    return 0;
}

static int choose_rows(struct asked *a, const struct corpus *c, enum answer_score score,
                       struct artel_error *err)
{
    const size_t n = corpus_count(c);
    int rc = 0;

    a->row = calloc(n + 1, sizeof(*a->row));
    a->prompts = calloc(n + 1, sizeof(*a->prompts));
    a->answers = calloc(n + 1, sizeof(*a->answers));
    if (!a->row || !a->prompts || !a->answers)
        return error_nomem(err, n * sizeof(*a->answers));
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct example *const e = corpus_at(c, i);
        const char *const want = corpus_answer_text(c, i);

        if (!e->n_prompt || !want)
            return error_set(err, ARTEL_EFORMAT, "EVL02", NULL,
                             "row %zu has no prompt and answer to be scored", e->row);
        /* what has no score is answered for a judge */
        if (score != ANSWER_LOSS && !answer_counts(score, want))
            continue;
        a->row[a->n] = i;
        rc = row_prompt(&a->prompts[a->n++], e, err);
    }
    return rc;
}

/* From here on the rows' values are how right their answers are. */
static void count_answers(struct measured *out)
{
    out->shares = true;
    memset(out->value, 0, out->n_rows * sizeof(*out->value));
    memset(out->weight, 0, out->n_rows * sizeof(*out->weight));
}

static int judge_one(struct measured *out, struct bleu *bleu, const struct asked *a,
                     size_t i, const char *want, enum answer_score score,
                     struct artel_error *err)
{
    const double n = (double)a->n;
    const char *const got = a->answers[i].text;
    const struct answer_verdict v = answer_judge(score, got, want);
    double f, right;
    int rc = bleu_add(bleu, got, want, err);

    if (rc == 0)
        rc = rouge_l(&f, got, want, err);
    if (rc < 0)
        return rc;
    right = score == ANSWER_ROUGE_L ? f : v.right;
    out->rouge_l += f / n;
    out->score += right / n;
    if (out->shares) {
        out->value[a->row[i]] = right;
        out->weight[a->row[i]] = 1;
    }
    out->json_valid += v.json_valid / n;
    out->json_name += v.json_name / n;
    out->generated_tokens += (double)a->answers[i].n_ids;
    out->generate_seconds +=
        a->answers[i].prefill_seconds + a->answers[i].decode_seconds;
    return 0;
}

static int judge_all(struct measured *out, const struct asked *a,
                     const struct corpus *c, enum answer_score score,
                     struct artel_error *err)
{
    struct bleu bleu = {0};
    int rc = 0;

    if (a->n && score != ANSWER_BLEU) /* which is of all answers together */
        count_answers(out);
    for (size_t i = 0; rc == 0 && i < a->n; i++)
        rc = judge_one(out, &bleu, a, i, corpus_answer_text(c, a->row[i]), score, err);
    out->n_judged = a->n;
    out->bleu = bleu_score(&bleu);
    if (score == ANSWER_BLEU)
        out->score = out->bleu / 100;
    return rc;
}

/* Progress of generation as progress of rows. */
struct counter {
    const struct measure_options *o;
    size_t n;
};

static void row_done(void *user, size_t row, size_t n_done)
{
    const struct counter *const c = user;

    (void)row;
    c->o->on_rows(c->o->user, n_done, c->n);
}

static int ask_judge(struct measured *out, const struct asked *a,
                     const struct corpus *c, const struct measure_options *o,
                     struct artel_error *err)
{
    const size_t most = judge_rows(o->judge);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < a->n && (!most || i < most); i++) {
        const struct judge_case one = {.asker = o->asker,
                                       .set = o->set,
                                       .question = corpus_prompt_text(c, a->row[i]),
                                       .want = corpus_answer_text(c, a->row[i]),
                                       .got = a->answers[i].text};

        rc = judge_rate(&out->judged, o->judge, &one, err);
        if (rc == 0 && o->stopped && *o->stopped)
            rc = error_set(err, ARTEL_ESTOPPED, "STOP", NULL, "asked to stop");
        if (rc == 0 && o->on_rows)
            o->on_rows(o->user, i + 1, a->n);
    }
    if (rc == 0 && out->judged.missing)
        log_warn("%s, %s: the judge gave no numbers for %zu of %zu ratings", o->asker,
                 o->set, out->judged.missing, out->judged.missing + out->judged.n);
    return rc;
}

int measure_answers(struct measured *out, const struct artel_mixture *m,
                    const struct corpus *c, const struct measure_options *o,
                    struct artel_error *err)
{
    struct artel_generate_options go;
    struct counter counter;
    struct asked a = {0};
    int rc = choose_rows(&a, c, o->score, err);

    artel_generate_options_default(&go, NULL); /* greedy, whatever the model likes */
    go.expert = o->expert;
    go.max_tokens = o->max_tokens ? o->max_tokens : 256;
    go.stopped = o->stopped;
    counter = (struct counter){o, a.n};
    if (o->on_rows) {
        go.on_row = row_done;
        go.user = &counter;
    }
    if (rc == 0 && a.n)
        rc = generate_encoded(a.answers, m, a.prompts, a.n, &go, err);
    if (rc < 0) {
        free(a.answers); /* released there */
        a.answers = NULL;
    }
    if (rc == 0 && o->stopped && *o->stopped)
        rc = error_set(err, ARTEL_ESTOPPED, "STOP", NULL, "asked to stop");
    if (rc == 0 && o->score != ANSWER_LOSS)
        rc = judge_all(out, &a, c, o->score, err);
    if (rc == 0 && o->judge)
        rc = ask_judge(out, &a, c, o, err);
    asked_release(&a);
    return rc;
}
