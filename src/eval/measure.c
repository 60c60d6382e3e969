/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One set of rows, one mixture: the answers' likelihood with the expert that each
 * row's prompt was routed to; what a set holds tells how else it is measured.
 */
#include "eval/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "data/corpus.h"
#include "data/sniff.h"
#include "decoder/gate_sums.h"
#include "eval/choices.h"
#include "eval/score.h"

void measured_release(struct measured *r)
{
    free(r->chosen);
    free(r->sums);
    free(r->value);
    free(r->weight);
    *r = (struct measured){0};
}

void measured_route(struct measured *r, int expert, int expected)
{
    r->n_routed++;
    r->n_right += expected >= 0 && expert == expected;
    if (expert >= 0 && (size_t)expert < r->n_experts)
        r->chosen[expert]++;
}

void measured_rows(struct measured *out, const struct artel_score_row *rows, size_t n,
                   const struct measure_options *o)
{
    for (size_t i = 0; i < n; i++) {
        out->value[i] = rows[i].nll;
        out->weight[i] = (double)rows[i].answer_tokens;
        out->nll += rows[i].nll;
        out->answer_tokens += rows[i].answer_tokens;
        if (o->expert == ARTEL_AUTO)
            measured_route(out, rows[i].expert, o->expected);
    }
}

struct artel_score_options measure_score_options(const struct measure_options *o)
{
    return (struct artel_score_options){.expert = o->expert,
                                        .stopped = o->stopped,
                                        .on_rows = o->on_rows,
                                        .user = o->user};
}

static int likelihood(struct measured *out, const struct artel_mixture *m,
                      const struct corpus *c, const struct measure_options *o,
                      struct artel_error *err)
{
    const struct artel_score_options so = measure_score_options(o);
    const size_t n = out->n_rows;
    struct artel_score_row *const rows = calloc(n, sizeof(*rows));
    const struct example **const examples = calloc(n, sizeof(*examples));
    int rc;

    if (!rows || !examples) {
        rc = error_nomem(err, n * sizeof(*rows));
        goto done;
    }
    for (size_t i = 0; i < n; i++)
        examples[i] = corpus_at(c, i);
    rc = score_rows(rows, m, examples, n, NULL, out->sums, &so, err);
    if (rc < 0)
        goto done;
    measured_rows(out, rows, n, o);
    out->perplexity =
        out->answer_tokens ? exp(out->nll / (double)out->answer_tokens) : (double)NAN;

done:
    free(rows);
    free(examples);
    return rc;
}

static int is_text(bool *text, const char *path, struct artel_error *err)
{
    enum file_kind kind = FILE_JSONL;
    struct map map;
    int rc = map_open(&map, path, err);

    if (rc < 0)
        return rc;
    rc = sniff(&kind, path, (const char *)map.data, map.size, err);
    map_release(&map);
    *text = kind == FILE_TEXT;
    return rc;
}

static int open_corpus(struct corpus **out, const struct artel_mixture *m,
                       const char *path, const struct measure_options *o,
                       struct artel_error *err)
{
    const struct corpus_options co = {.max_rows = o->max_rows,
                                      .cutoff_len = score_cutoff(m, o->cutoff_len),
                                      .keep_text = true};

    return corpus_open(out, path, m->model->tokenizer, m->model->chat, &co, err);
}

int measure_check(const struct artel_mixture *m, const char *path,
                  const struct measure_options *o, struct artel_error *err)
{
    struct corpus *c = NULL;
    bool windows = false;
    int rc = o->in_windows ? is_text(&windows, path, err) : 0;

    if (rc == 0 && !windows)
        rc = open_corpus(&c, m, path, o, err);
    if (rc == 0 && c && corpus_choices(c, 0))
        rc = choices_check(m, c, err);
    corpus_close(c);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

static int measured_init(struct measured *out, const struct artel_mixture *m,
                         const struct measure_options *o, struct artel_error *err)
{
    *out = (struct measured){.perplexity = (double)NAN};
    out->n_experts = m->mixture ? m->mixture->n_experts : 0;
    out->n_routers = m->mixture ? m->mixture->n_routers : 0;
    out->chosen = calloc(out->n_experts + 1, sizeof(*out->chosen));
    if (out->n_routers && o->expert == ARTEL_AUTO)
        out->sums = calloc(1, gate_sums_bytes(out->n_routers, out->n_experts));
    if (!out->chosen || (out->n_routers && o->expert == ARTEL_AUTO && !out->sums))
        return error_nomem(err, out->n_experts * sizeof(*out->chosen));
    return 0;
}

static int fill(struct measured *out, const struct artel_mixture *m,
                const struct corpus *c, const struct measure_options *o,
                struct artel_error *err)
{
    int rc;

    out->n_rows = corpus_count(c);
    out->n_dropped = corpus_stats(c)->rows - out->n_rows;
    out->value = calloc(out->n_rows + 1, sizeof(*out->value));
    out->weight = calloc(out->n_rows + 1, sizeof(*out->weight));
    if (!out->value || !out->weight)
        rc = error_nomem(err, out->n_rows * sizeof(*out->value));
    else if (corpus_choices(c, 0))
        rc = measure_choices(out, m, c, o, err);
    else
        rc = likelihood(out, m, c, o, err);
    if (rc == 0 && !out->choices && o->generate &&
        (o->score != ANSWER_LOSS || o->judge))
        rc = measure_answers(out, m, c, o, err);
    return rc;
}

int measure_corpus(struct measured *out, const struct artel_mixture *m,
                   const struct corpus *c, const struct measure_options *o,
                   struct artel_error *err)
{
    int rc = measured_init(out, m, o, err);

    if (rc == 0)
        rc = fill(out, m, c, o, err);
    if (rc < 0)
        measured_release(out);
    return rc;
}

int measure_set(struct measured *out, const struct artel_mixture *m, const char *path,
                const struct measure_options *o, struct artel_error *err)
{
    struct corpus *c = NULL;
    bool windows = false;
    int rc = measured_init(out, m, o, err);

    if (rc == 0 && o->in_windows)
        rc = is_text(&windows, path, err);
    if (rc == 0 && windows)
        rc = measure_windows(out, m, path, o, err);
    if (rc == 0 && !windows)
        rc = open_corpus(&c, m, path, o, err);
    if (rc == 0 && c)
        rc = fill(out, m, c, o, err);
    corpus_close(c);
    if (rc < 0) {
        measured_release(out);
        error_in(err, rc, path);
    }
    return rc;
}
