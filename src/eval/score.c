/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of whole rows are dealt to threads; a row's number depends on that row
 * alone, so neither threads nor the company in a block change it.
 *
 * Routed rows run once with every layer obeying its own router. That pass counts
 * where all of them chose the expert that the selector fixes, which is the rule;
 * the rows of a block where they did not run again under the fixed one. With a router of
 * the base all do.
 */
#include "eval/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "data/corpus.h"
#include "decoder/decoder.h"
#include "decoder/gate_sums.h"
#include "eval/opened.h"

#define BLOCK_ROWS 512

struct job {
    struct artel_score_row *out;
    const struct artel_mixture *m;
    const struct example *const *rows;
    const struct artel_score_options *o;
    const size_t *after; /* (n) as in score_rows(), or NULL */
    size_t n, n_done, longest;
    size_t *first; /* (n_blocks + 1) block b is rows first[b] .. first[b + 1] - 1 */
    size_t n_blocks, max_seqs;
    bool routed, by_token;
    char *sums; /* (n_blocks) of SUMS_BYTES each, or NULL */
    size_t sums_bytes;
    int rc;
    struct artel_error err;
};

/* One thread's room. */
struct worker {
    struct decoder_pass *pass;
    struct sequence *seqs; /* (max_seqs) */
    double *nll;           /* (max_seqs) */
    double *gates;         /* (n_routers, E) sums of one row's */
    size_t *index;         /* (max_seqs) rows that run again */
    size_t *place;         /* (max_seqs) of a block's rows among its sequences */
};

static void worker_release(struct worker *w)
{
    pass_close(w->pass);
    free(w->seqs);
    free(w->nll);
    free(w->gates);
    free(w->index);
    free(w->place);
}

static int worker_init(struct worker *w, const struct job *j, struct artel_error *err)
{
    const size_t block = j->longest > BLOCK_ROWS ? j->longest : BLOCK_ROWS;
    const struct pass_options o = {.routing = j->routed ? ROUTE_ROUTER : ROUTE_GIVEN,
                                   .continued = j->after != NULL,
                                   .max_rows = block,
                                   .max_seqs = j->max_seqs};

    *w = (struct worker){0};
    w->seqs = calloc(j->max_seqs, sizeof(*w->seqs));
    w->nll = calloc(j->max_seqs, sizeof(*w->nll));
    w->index = calloc(j->max_seqs, sizeof(*w->index));
    w->place = calloc(j->max_seqs, sizeof(*w->place));
    if (j->by_token)
        w->gates = calloc(j->m->mixture->n_routers * j->m->mixture->n_experts,
                          sizeof(*w->gates));
    if ((j->by_token && !w->gates) || !w->seqs || !w->nll || !w->index || !w->place)
        return error_nomem(err, j->max_seqs * sizeof(*w->seqs));
    return pass_open(&w->pass, j->m->model, j->m->mixture, &o, err);
}

/* Row I, of the block that begins with row FROM, as the next sequence. */
static void add(struct worker *w, struct block *b, const struct job *j, size_t from,
                size_t i, int expert)
{
    const struct example *const e = j->rows[i];
    const size_t after = j->after ? j->after[i] : 0;

    w->place[i - from] = b->n_seqs;
    w->seqs[b->n_seqs++] =
        (struct sequence){.ids = e->ids,
                          .n = e->n,
                          .loss = e->loss,
                          .pool_first = e->pool_first,
                          .pool_n = e->pool_n,
                          .loss_scale = 1,
                          .expert = expert,
                          .after = after ? w->place[after - 1 - from] + 1 : 0};
    b->n_rows += e->n;
}

/* Where tokens decide: the expert that weighs most on average over the scored tokens; of
 * rows that share a beginning, over the last one. */
static int heaviest(struct worker *w, const struct job *j, size_t seq,
                    const struct example *e)
{
    const struct mixture *m = j->m->mixture;

    memset(w->gates, 0, m->n_routers * m->n_experts * sizeof(*w->gates));
    pass_add_gates(w->pass, seq, j->after ? NULL : e->loss, w->gates);
    return mixture_heaviest(m, w->gates);
}

/* The rows of W->index once more, each under the expert that was chosen for it. What
 * continues a row chose as that row did, so both are there. */
static void run_again(struct worker *w, const struct job *j, size_t from, size_t n)
{
    struct block block = {.seqs = w->seqs};
    struct block_loss loss;

    for (size_t k = 0; k < n; k++)
        add(w, &block, j, from, w->index[k], j->out[w->index[k]].expert);
    pass_set_routing(w->pass, ROUTE_GIVEN);
    decoder_forward(w->pass, &block);
    decoder_loss(w->pass, &loss, w->nll);
    for (size_t k = 0; k < n; k++)
        j->out[w->index[k]].nll = w->nll[k];
}

static void run_block(struct worker *w, const struct job *j, size_t b)
{
    const size_t from = j->first[b], to = j->first[b + 1];
    const int given = j->routed ? -1 : j->o->expert;
    struct block block = {.seqs = w->seqs};
    struct block_loss loss;
    size_t n_again = 0;

    for (size_t i = from; i < to; i++)
        add(w, &block, j, from, i, given);
    pass_set_routing(w->pass, j->routed ? ROUTE_ROUTER : ROUTE_GIVEN);
    decoder_forward(w->pass, &block);
    if (!j->routed || j->m->mixture->rule.place != ROUTER_BASE)
        decoder_loss(w->pass, &loss, w->nll);
    if (j->sums)
        gate_sums_add((struct gate_sums *)(void *)(j->sums + b * j->sums_bytes),
                      w->pass);
    for (size_t i = from; i < to; i++) {
        struct artel_score_row *const row = &j->out[i];
        size_t agreeing = 0;

        row->nll = w->nll[i - from];
        row->expert = given;
        if (!j->routed)
            continue;
        if (j->by_token) {
            row->expert = heaviest(w, j, i - from, j->rows[i]);
            continue;
        }
        row->expert = pass_select(w->pass, i - from, &agreeing);
        if (j->m->mixture->rule.fix_expert && agreeing < j->m->mixture->n_routers)
            w->index[n_again++] = i;
    }
    if (n_again)
        run_again(w, j, from, n_again);
}

/* Tokens of row I and of the rows after it that continue it; *NEXT is the row behind. */
static size_t group_tokens(const struct job *j, size_t i, size_t *next)
{
    size_t n = j->rows[i]->n;

    for (*next = i + 1; j->after && *next < j->n && j->after[*next]; ++*next)
        n += j->rows[*next]->n;
    return n;
}

/* Rows in order, as many to a block as BLOCK_ROWS tokens hold, at least one with all that
 * continue it. */
static int cut_blocks(struct job *j, struct artel_error *err)
{
    size_t tokens = 0, next;

    j->first = calloc(j->n + 1, sizeof(*j->first));
    if (!j->first)
        return error_nomem(err, (j->n + 1) * sizeof(*j->first));
    for (size_t i = 0; i < j->n; i = next) {
        const size_t n = group_tokens(j, i, &next);

        if (i && tokens + n > BLOCK_ROWS) {
            j->first[++j->n_blocks] = i;
            tokens = 0;
        }
        tokens += n;
        if (n > j->longest)
            j->longest = n;
        if (next - j->first[j->n_blocks] > j->max_seqs)
            j->max_seqs = next - j->first[j->n_blocks];
    }
    j->first[++j->n_blocks] = j->n;
    return 0;
}

static void failed(struct job *j, int rc, const struct artel_error *err)
{
    if (j->rc == 0) {
        j->rc = rc;
        j->err = *err;
    }
}

static void work(struct job *j)
{
    struct artel_error err = {0};
    struct worker w;
    const int rc = worker_init(&w, j, &err);

    if (rc < 0) {
#pragma omp critical(artel_score)
        failed(j, rc, &err);
    }
#pragma omp for schedule(dynamic, 1)
    for (size_t b = 0; b < j->n_blocks; b++) {
        const size_t n = j->first[b + 1] - j->first[b];
        int stop;

#pragma omp atomic read
        stop = j->rc;
        if (stop || rc < 0)
            continue;
        run_block(&w, j, b);
#pragma omp critical(artel_score)
        {
            j->n_done += n;
            if (j->o->on_rows)
                j->o->on_rows(j->o->user, j->n_done, j->n);
            if (j->o->stopped && *j->o->stopped) {
                error_set(&err, ARTEL_ESTOPPED, "STOP", NULL,
                          "asked to stop after %zu of %zu rows", j->n_done, j->n);
                failed(j, ARTEL_ESTOPPED, &err);
            }
        }
    }
    worker_release(&w);
}

static int check_finite(const struct artel_score_row *rows, size_t n,
                        struct artel_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(rows[i].nll)) {
            char where[32];

            snprintf(where, sizeof(where), "%zu:1", rows[i].line);
            return error_set(err, ARTEL_ENONFINITE, "NUM02", where,
                             "the loss of this row is not finite");
        }
    return 0;
}

static int run(struct job *j, struct gate_sums *sums, struct artel_error *err)
{
    const struct mixture *const m = j->m->mixture;
    int rc = cut_blocks(j, err);

    if (rc == 0 && sums && j->routed) {
        j->sums_bytes = gate_sums_bytes(m->n_routers, m->n_experts);
        j->sums = calloc(j->n_blocks, j->sums_bytes);
        if (!j->sums)
            rc = error_nomem(err, j->n_blocks * j->sums_bytes);
    }
    if (rc < 0)
        return rc;
    if (j->n_blocks > 1) {
#pragma omp parallel
        work(j);
    } else {
        work(j);
    }
    if (j->rc < 0) {
        if (err)
            *err = j->err;
        return j->rc;
    }
    for (size_t b = 0; j->sums && b < j->n_blocks; b++)
        gate_sums_join(sums, (struct gate_sums *)(void *)(j->sums + b * j->sums_bytes),
                       m->n_routers, m->n_experts);
    return check_finite(j->out, j->n, err);
}

int score_rows(struct artel_score_row *out, const struct artel_mixture *m,
               const struct example *const *rows, size_t n, const size_t *after,
               struct gate_sums *sums, const struct artel_score_options *o,
               struct artel_error *err)
{
    struct job j = {.out = out, .m = m, .rows = rows, .o = o, .n = n, .after = after};
    int rc;

    if (!n)
        return 0;
    j.routed = o->expert == ARTEL_AUTO && m->mixture && m->mixture->n_routers;
    j.by_token = j.routed && m->mixture->rule.decides == DECIDE_TOKEN;
    if (!j.routed && o->expert == ARTEL_AUTO)
        return error_set(err, ARTEL_EUSAGE, "USE09", "expert",
                         "there is no router: name an expert, or base");
    for (size_t i = 0; i < n; i++)
        out[i] = (struct artel_score_row){.line = rows[i]->row,
                                          .prompt_tokens = rows[i]->n_prompt,
                                          .answer_tokens = rows[i]->n_loss};
    rc = run(&j, sums, err);
    free(j.first);
    free(j.sums);
    return rc;
}

int score_examples(struct artel_score_row *out, const struct artel_mixture *m,
                   const struct example *const *rows, size_t n,
                   const struct artel_score_options *o, struct artel_error *err)
{
    return score_rows(out, m, rows, n, NULL, NULL, o, err);
}

void artel_score_options_default(struct artel_score_options *o)
{
    *o = (struct artel_score_options){.expert = ARTEL_AUTO};
}

size_t score_cutoff(const struct artel_mixture *m, size_t asked)
{
    const size_t room = m->model->n_positions;

    return asked && asked < room ? asked : room;
}

static int open_corpus(struct corpus **c, const struct artel_mixture *m,
                       const char *path, const struct artel_score_options *o,
                       struct artel_error *err)
{
    const struct corpus_options co = {.max_rows = o->max_rows,
                                      .cutoff_len = score_cutoff(m, o->cutoff_len),
                                      .skip_bad = o->skip_bad};
    const int rc = corpus_open(c, path, m->model->tokenizer, m->model->chat, &co, err);

    return rc < 0 ? error_in(err, rc, path) : 0;
}

int artel_score(struct artel_score *out, const struct artel_mixture *m,
                const char *path, const struct artel_score_options *o,
                struct artel_error *err)
{
    const struct example **rows = NULL, *silent;
    struct corpus *corpus = NULL;
    double start;
    int rc;

    *out = (struct artel_score){0};
    rc = open_corpus(&corpus, m, path, o, err);
    if (rc < 0)
        return rc;
    out->n_rows = corpus_count(corpus);
    out->n_dropped = corpus_stats(corpus)->rows - out->n_rows;
    out->rows = calloc(out->n_rows ? out->n_rows : 1, sizeof(*out->rows));
    rows = calloc(out->n_rows ? out->n_rows : 1, sizeof(*rows));
    if (!rows || !out->rows) {
        rc = error_nomem(err, out->n_rows * sizeof(*out->rows));
        goto done;
    }
    for (size_t i = 0; i < out->n_rows; i++)
        rows[i] = corpus_at(corpus, i);
    start = clock_seconds();
    silent = corpus_without_loss(corpus);
    if (silent)
        rc = error_set(err, ARTEL_EFORMAT, "EVL02", "row",
                       "row %zu has no answer to be scored: multiple choice is for "
                       "artel eval",
                       silent->row);
    else
        rc = score_examples(out->rows, m, rows, out->n_rows, o, err);
    out->seconds = clock_seconds() - start;
    if (rc < 0) {
        error_in(err, rc, path);
        goto done;
    }
    for (size_t i = 0; i < out->n_rows; i++) {
        out->answer_tokens += out->rows[i].answer_tokens;
        out->nll += out->rows[i].nll;
    }
    out->perplexity =
        out->answer_tokens ? exp(out->nll / (double)out->answer_tokens) : (double)NAN;

done:
    free(rows);
    corpus_close(corpus);
    if (rc < 0)
        artel_score_release(out);
    return rc;
}

void artel_score_release(struct artel_score *s)
{
    free(s->rows);
    *s = (struct artel_score){0};
}
