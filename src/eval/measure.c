/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One set of rows, one mixture: the answers' likelihood with the expert that each
 * row's prompt was routed to, then answers of its own, judged.
 */
#include "eval/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/corpus.h"
#include "eval/generate.h"
#include "eval/score.h"

void measured_release(struct measured *r)
{
    free(r->chosen);
    free(r->value);
    free(r->weight);
    *r = (struct measured){0};
}

static int likelihood(struct measured *out, const struct artel_mixture *m,
                      const struct corpus *c, const struct measure_options *o,
                      struct artel_error *err)
{
    const struct artel_score_options so = {.expert = o->expert, .stopped = o->stopped};
    const size_t n = out->n_rows, E = m->mixture ? m->mixture->n_experts : 0;
    struct artel_score_row *const rows = calloc(n, sizeof(*rows));
    const struct example **const examples = calloc(n, sizeof(*examples));
    int rc;

    if (!rows || !examples) {
        rc = error_nomem(err, n * sizeof(*rows));
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        examples[i] = corpus_at(c, i);
    rc = score_examples(rows, m, examples, n, &so, err);
    if (rc < 0)
        goto done;
    for (size_t i = 0; i < n; i++) {
        out->value[i] = rows[i].nll;
        out->weight[i] = (double)rows[i].answer_tokens;
        out->nll += rows[i].nll;
        out->answer_tokens += rows[i].answer_tokens;
        if (o->expert != ARTEL_AUTO)
            continue;
        out->n_routed++;
        out->n_right += o->expected >= 0 && rows[i].expert == o->expected;
        if (rows[i].expert >= 0 && (size_t)rows[i].expert < E)
            out->chosen[rows[i].expert]++;
    }
    out->perplexity =
        out->answer_tokens ? exp(out->nll / (double)out->answer_tokens) : (double)NAN;

done:
    free(rows);
    free(examples);
    return rc;
}

static void judge(struct measured *out, const struct corpus *c, enum answer_score score,
                  struct artel_answer *answers)
{
    const double n = (double)out->n_rows;

    for (size_t i = 0; i < out->n_rows; i++) {
        const struct answer_verdict v =
            answer_judge(score, answers[i].text, corpus_answer_text(c, i));

        out->score += v.right / n;
        out->json_valid += v.json_valid / n;
        out->json_name += v.json_name / n;
        out->generated_tokens += (double)answers[i].n_ids;
        out->generate_seconds += answers[i].prefill_seconds + answers[i].decode_seconds;
        artel_answer_release(&answers[i]);
    }
    out->n_judged = out->n_rows;
}

/* The row's own tokens before its last answer, so that what is measured is exactly what
 * was trained. */
static int row_prompt(struct prompt *p, const struct corpus *c, size_t i,
                      struct artel_error *err)
{
    const struct example *const e = corpus_at(c, i);

    if (!e->n_prompt || !corpus_answer_text(c, i))
        return error_set(err, ARTEL_EFORMAT, "EVL02", NULL,
                         "row %zu has no prompt and answer to be scored", e->row);
    for (size_t k = 0; k < e->n_prompt; k++) {
        const int rc = ids_push(&p->ids, e->ids[k], err);

        if (rc < 0)
            return rc;
    }
    p->pool_first = e->pool_first;
    p->pool_n = e->pool_n;
    return 0;
}

static int generation(struct measured *out, const struct artel_mixture *m,
                      const struct corpus *c, const struct measure_options *o,
                      struct artel_error *err)
{
    const size_t n = out->n_rows;
    struct prompt *const prompts = calloc(n, sizeof(*prompts));
    struct artel_answer *const answers = calloc(n, sizeof(*answers));
    struct artel_generate_options go;
    int rc = prompts && answers ? 0 : error_nomem(err, n * sizeof(*answers));

    artel_generate_options_default(&go, NULL); /* greedy, whatever the model likes */
    go.expert = o->expert;
    go.max_tokens = o->max_tokens ? o->max_tokens : 256;
    go.stopped = o->stopped;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = row_prompt(&prompts[i], c, i, err);
    if (rc == 0)
        rc = generate_encoded(answers, m, prompts, n, &go, err);
    if (rc == 0)
        judge(out, c, o->score, answers);
    if (rc == 0 && o->stopped && *o->stopped)
        rc = error_set(err, ARTEL_ESTOPPED, "STOP", NULL, "asked to stop");
    for (size_t i = 0; prompts && i < n; i++)
        prompt_release(&prompts[i]);
    free(prompts);
    free(answers);
    return rc;
}

int measure_set(struct measured *out, const struct artel_mixture *m, const char *path,
                const struct measure_options *o, struct artel_error *err)
{
    const size_t E = m->mixture ? m->mixture->n_experts : 0;
    const struct corpus_options co = {
        .max_rows = o->max_rows,
        .cutoff_len = o->cutoff_len ? o->cutoff_len : m->model->weights->config.context,
        .keep_text = true};
    struct corpus *c = NULL;
    int rc;

    *out = (struct measured){.perplexity = (double)NAN};
    rc = corpus_open(&c, path, m->model->tokenizer, m->model->chat, &co, err);
    if (rc < 0)
        return error_in(err, rc, path);
    out->n_rows = corpus_count(c);
    out->n_dropped = corpus_stats(c)->rows - out->n_rows;
    out->chosen = calloc(E ? E : 1, sizeof(*out->chosen));
    out->value = calloc(out->n_rows + 1, sizeof(*out->value));
    out->weight = calloc(out->n_rows + 1, sizeof(*out->weight));
    if (!out->chosen || !out->value || !out->weight)
        rc = error_nomem(err, out->n_rows * sizeof(*out->value));
    else if (corpus_choices(c, 0))
        rc = measure_choices(out, m, c, o, err);
    else
        rc = likelihood(out, m, c, o, err);
    if (rc == 0 && !out->choices && o->generate && o->score != ANSWER_LOSS)
        rc = generation(out, m, c, o, err);
    corpus_close(c);
    if (rc < 0) {
        measured_release(out);
        error_in(err, rc, path);
    }
    return rc;
}
