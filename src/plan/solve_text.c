/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A classifier of what users wrote, as hashed character n-grams (experts/ngrams.h): the
 * base is not asked. It reads each row as it will read requests, from the tokens of the
 * user turn, so what a template or a cut makes of a text is the same in both.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "experts/logistic.h"
#include "plan/stages.h"
#include "text/tokenizer.h"

/* Rows on their way to the classifier. */
struct reader {
    const struct job *job;
    struct arena arena;
    struct ngrams ngrams;
    struct labelled_rows rows;
    size_t tokens;
};

size_t stage_solve_text_bytes(const struct job *job, const struct mixture *m)
{
    const size_t n_params = (m->routers[0].dim + 1) * m->n_experts;
    size_t values = 0;

    /* A token of English has about four characters, each ends an n-gram of every size;
     * the room of the rows doubles. */
    for (size_t i = 0; i < job->texts.n; i++)
        values += job->texts.trains[i]
                      ? corpus_stats(job->texts.trains[i])->n_tokens * 4 *
                            (m->rule.ngrams.max - m->rule.ngrams.min + 1)
                      : 0;
    return 4 * values * sizeof(float) + 21 * n_params * sizeof(double) +
           m->routers[0].dim * 12;
}

static int read_row(struct reader *r, const struct example *e, uint32_t label,
                    struct artel_error *err)
{
    const struct tokenizer *t = r->job->model->tokenizer;

    ngrams_begin(&r->ngrams);
    ngrams_of_ids(&r->ngrams, t, e->ids + e->pool_first, e->pool_n);
    ngrams_end(&r->ngrams);
    r->tokens += e->pool_n;
    return labelled_rows_add_sparse(&r->rows, label, r->ngrams.at, r->ngrams.value,
                                    r->ngrams.n, err);
}

static int read_all(struct reader *r, const struct stage *s, struct artel_error *err)
{
    const struct job *job = r->job;
    const struct run_options *o = job->o;
    size_t first, end;
    int rc = 0;

    stage_texts(job, s, &first, &end);
    for (size_t i = first; rc == 0 && i < end; i++) {
        const struct corpus *c = job->texts.trains[i];

        if (o->stop && *o->stop)
            return error_set(err, ARTEL_ESTOPPED, "STOP", NULL,
                             "asked to stop; this stage begins anew");
        for (size_t k = 0; rc == 0 && k < corpus_count(c); k++)
            if (!texts_holds_out(&job->texts, corpus_at(c, k)))
                rc = read_row(r, corpus_at(c, k), (uint32_t)i, err);
    }
    return rc;
}

static json_t *summary_new(const struct reader *r, const struct stage *s,
                           const struct mixture *m, double seconds)
{
    const struct job *job = r->job;

    return json_pack("{s:I, s:I, s:I, s:I, s:f, s:I, s:o}", "parameters",
                     (json_int_t)m->n_router_params, "steps", (json_int_t)0, "rows",
                     (json_int_t)r->rows.n, "tokens", (json_int_t)r->tokens, "seconds",
                     seconds, "threads", (json_int_t)cpu_threads(), "data",
                     stage_texts_summary(job, s));
}

int stage_solve_text(json_t **summary, const struct job *job, const struct stage *s,
                     struct mixture *m, struct artel_error *err)
{
    const double start = clock_seconds();
    struct reader r = {.job = job, .rows = {.dim = m->routers[0].dim, .sparse = true}};
    struct arena measure = {0};
    int rc;

    ngrams_carve(&r.ngrams, &measure, &m->rule.ngrams);
    rc = arena_init(&r.arena, measure.used, err);
    if (rc < 0)
        return rc;
    ngrams_carve(&r.ngrams, &r.arena, &m->rule.ngrams);
    rc = read_all(&r, s, err);
    if (rc == 0)
        rc = logistic_solve(m->routers[0].w, m->routers[0].b, &r.rows, m->n_experts,
                            job->r->router.classifier_lambda, err);
    if (rc == 0) {
        *summary = summary_new(&r, s, m, clock_seconds() - start);
        rc = *summary ? 0 : error_nomem(err, 1024);
    }
    labelled_rows_release(&r.rows);
    arena_release(&r.arena);
    return rc;
}
