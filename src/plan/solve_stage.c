/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A router that no loop trains: the base runs once over each row's prompt, up to the end
 * of what the router reads, and the router is solved from what it made of them. What is on
 * disk from an earlier time (train/kept_inputs.h) is not computed again.
 *
 * Rows are read domain by domain in the order of their file, a block never holding two
 * domains, so what a domain adds does not depend on the domains beside it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "experts/logistic.h"
#include "plan/stages.h"
#include "train/kept_inputs.h"

#define BLOCK_ROWS 512

/* The rows of one text on their way to the router. */
struct solver {
    const struct job *job;
    struct mixture *m;
    struct decoder_pass *pass;
    struct sequence seqs[BLOCK_ROWS];
    struct block block;            /* what the base is asked for */
    struct kept_inputs *disk;      /* NULL: none are kept */
    size_t n_laid;                 /* rows in turn, those included that are on disk: */
    const float *laid[BLOCK_ROWS]; /* NULL: the next of the block */
    /* Of a text what was computed, on its way to disk: */
    size_t n_fresh;
    const struct example **fresh; /* (rows of the text) */
    float *z;                     /* (rows of the text, D) */
    size_t expert;                /* whose text is read */
    bool keeps;                   /* rows themselves, for a classifier: */
    struct labelled_rows kept;
    size_t rows, tokens, found;
};

static struct pass_options options_of(const struct job *job)
{
    const size_t longest = job->texts.longest;

    return (struct pass_options){.routing = ROUTE_ROUTER,
                                 .max_rows =
                                     longest > BLOCK_ROWS ? longest : BLOCK_ROWS,
                                 .max_seqs = BLOCK_ROWS,
                                 .shared = true};
}

size_t stage_solve_bytes(const struct job *job, const struct mixture *m)
{
    const struct pass_options o = options_of(job);
    const size_t D = m->routers[0].dim + 1;
    size_t rows = 0; /* a classifier's, whose room doubles */
    size_t most = 0; /* of a text */

    if (m->rule.place == ROUTER_TEXT)
        return stage_solve_text_bytes(job, m);
    for (size_t i = 0; i < job->texts.n; i++) {
        const size_t n = job->texts.trains[i] ? corpus_count(job->texts.trains[i]) : 0;

        rows += method_traits(m->method)->made ? 0 : 2 * n;
        most = n > most && job->r->router.cache_mib ? n : most;
    }
    return (rows + most) * D * sizeof(float) + pass_bytes(job->model, m, &o) +
           sizeof(struct solver) + 2 * (D + m->n_experts) * D * sizeof(double);
}

/* What the base made of the rows that are laid. */
static int read_block(struct solver *v, struct artel_error *err)
{
    const struct run_options *o = v->job->o;

    if (!v->n_laid)
        return 0;
    if (o->stop && *o->stop)
        return error_set(err, ARTEL_ESTOPPED, "STOP", NULL,
                         "asked to stop; this stage begins anew");
    if (v->block.n_seqs)
        decoder_forward(v->pass, &v->block);
    for (size_t i = 0, s = 0; i < v->n_laid; i++) {
        const float *z = v->laid[i] ? v->laid[i] : pass_router_input(v->pass, 0, s++);
        const int rc =
            v->keeps ? labelled_rows_add(&v->kept, (uint32_t)v->expert, z, err) : 0;

        if (rc < 0)
            return rc;
        if (!v->keeps)
            ridge_add(&v->m->sums, v->expert, z);
    }
    for (size_t s = 0; v->z && s < v->block.n_seqs; s++, v->n_fresh++)
        memcpy(v->z + v->n_fresh * v->kept.dim, pass_router_input(v->pass, 0, s),
               v->kept.dim * sizeof(*v->z));
    v->rows += v->n_laid;
    v->found += v->n_laid - v->block.n_seqs;
    v->n_laid = v->block.n_seqs = v->block.n_rows = 0;
    return 0;
}

static int read_rows(struct solver *v, const struct corpus *c, struct artel_error *err)
{
    const size_t room = options_of(v->job).max_rows;
    int rc = 0;

    for (size_t i = 0; i < corpus_count(c); i++) {
        const struct example *e = corpus_at(c, i);
        const size_t n = e->pool_first + e->pool_n;
        const float *there = v->disk ? kept_inputs_find(v->disk, e) : NULL;

        if (texts_holds_out(&v->job->texts, e))
            continue;
        if (v->n_laid == BLOCK_ROWS || (!there && v->block.n_rows + n > room))
            rc = read_block(v, err);
        if (rc < 0)
            return rc;
        v->tokens += n;
        v->laid[v->n_laid++] = there;
        if (there)
            continue;
        if (v->z)
            v->fresh[v->n_fresh + v->block.n_seqs] = e;
        v->seqs[v->block.n_seqs++] = (struct sequence){.ids = e->ids,
                                                       .n = n,
                                                       .pool_first = e->pool_first,
                                                       .pool_n = e->pool_n,
                                                       .expert = -1};
        v->block.n_rows += n;
    }
    return read_block(v, err);
}

static int read_text(struct solver *v, const struct corpus *c, struct artel_error *err)
{
    const size_t n = corpus_count(c);
    int rc = 0;

    v->n_fresh = 0;
    if (v->disk) {
        v->z = malloc((n + 1) * v->kept.dim * sizeof(*v->z));
        v->fresh = calloc(n + 1, sizeof(*v->fresh));
        if (!v->z || !v->fresh)
            rc = error_nomem(err, n * v->kept.dim * sizeof(*v->z));
    }
    if (rc == 0)
        rc = read_rows(v, c, err);
    if (rc == 0 && v->disk)
        kept_inputs_write(v->disk, v->fresh, v->z, v->n_fresh);
    free(v->z);
    free(v->fresh);
    v->z = NULL;
    v->fresh = NULL;
    return rc;
}

/* Columns for the experts that have none: all, or the last of a mixture that grows. */
static int lay_sums(struct mixture *m, const struct job *job, struct artel_error *err)
{
    if (!job->grow)
        return ridge_init(&m->sums, m->routers[0].dim, m->n_experts, err);
    if (m->sums.n_domains + 1 != m->n_experts)
        return error_set(
            err, ARTEL_EFORMAT, "MIX22", m->method,
            "the sums that its router was solved from are not there: train "
            "the mixture anew");
    return ridge_grow(&m->sums, err);
}

static int read_all(struct solver *v, const struct stage *s, struct artel_error *err)
{
    const struct job *job = v->job;
    size_t first, end;
    int rc = 0;

    stage_texts(job, s, &first, &end);
    for (size_t i = first; rc == 0 && i < end; i++) {
        v->expert = job->grow && !v->keeps ? v->m->n_experts - 1 : i;
        rc = read_text(v, job->texts.trains[i], err);
        if (rc < 0)
            error_in(err, rc, text_at(job->r, i)->train);
    }
    return rc;
}

static json_t *summary_new(const struct solver *v, const struct stage *s,
                           double seconds)
{
    const struct job *job = v->job;

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:f, s:s, s:I, s:o, s:{s:I, s:I}}", "parameters",
        (json_int_t)v->m->n_router_params, "steps", (json_int_t)0, "rows",
        (json_int_t)v->rows, "tokens", (json_int_t)v->tokens, "seconds", seconds,
        "precision", job->precision == PRECISION_BF16 ? "bf16" : "fp32", "threads",
        (json_int_t)cpu_threads(), "data", stage_texts_summary(job, s), "router_inputs",
        "found", (json_int_t)v->found, "computed", (json_int_t)(v->rows - v->found));
}

static int solve(const struct solver *v, struct artel_error *err)
{
    const struct recipe_router *o = &v->job->r->router;
    const struct router *r = &v->m->routers[0];

    return v->keeps ? logistic_solve(r->w, r->b, &v->kept, v->m->n_experts,
                                     o->classifier_lambda, err)
                    : ridge_solve(r->w, r->b, &v->m->sums, o->ridge_lambda, err);
}

int stage_solve(json_t **summary, struct job *job, const struct stage *s,
                struct mixture *m, struct artel_error *err)
{
    const struct pass_options o = options_of(job);
    const double start = clock_seconds();
    struct solver *v;
    int rc;

    if (m->rule.place == ROUTER_TEXT)
        return stage_solve_text(summary, job, s, m, err);
    v = calloc(1, sizeof(*v));
    if (!v)
        return error_nomem(err, sizeof(*v));
    v->job = job;
    v->m = m;
    v->block.seqs = v->seqs;
    v->keeps = s->row->lesson == LESSON_CLASSIFIER;
    v->kept.dim = m->routers[0].dim;
    rc = model_prepare(job->model, job->precision, MATRIX_FORWARD, job_positions(job),
                       err);
    if (rc == 0 && !v->keeps)
        rc = lay_sums(m, job, err);
    if (rc == 0)
        rc = pass_open(&v->pass, job->model, m, &o, err);
    if (rc == 0)
        rc = stage_kept_inputs(&v->disk, job, s, m, err);
    if (rc == 0)
        rc = read_all(v, s, err);
    if (rc == 0)
        tell_inputs(job, s, v->found, v->rows - v->found);
    kept_inputs_close(v->disk);
    pass_close(v->pass);
    if (rc == 0)
        rc = solve(v, err);
    if (rc == 0) {
        *summary = summary_new(v, s, clock_seconds() - start);
        rc = *summary ? 0 : error_nomem(err, 1024);
    }
    labelled_rows_release(&v->kept);
    free(v);
    return rc;
}
