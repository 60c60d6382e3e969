/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiple choice without generating: every choice is put behind the question, and
 * the likeliest is the model's.
 *
 *     acc        argmax log p(choice | question)
 *     acc_norm   argmax log p(choice | question) / characters of the choice
 *
 * The first of equals wins. What the choices of a row have in common is computed
 * once: the question is a row of its own that the choices continue. Where the
 * tokeniser joins letters across the seam, question and choice are one row each, and
 * the tokens behind the question's own number count, as the harness has it. So they are
 * where both are more than the model reaches: the question's beginning goes then, as
 * there, and a choice that leaves no room for any of it is refused.
 */
#include "eval/choices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/corpus.h"
#include "eval/question.h"
#include "eval/score.h"
#include "text/tokenizer.h"

struct trials {
    struct example *at; /* (n) ids and loss owned */
    size_t *after;      /* (n) as score_rows() takes it */
    size_t n;
    size_t *of_choice; /* the trial of each choice, rows behind one another */
    size_t n_choices;
};

static void trials_release(struct trials *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free((void *)(uintptr_t)t->at[i].ids);
        free((void *)(uintptr_t)t->at[i].loss);
    }
    free(t->at);
    free(t->after);
    free(t->of_choice);
}

/* A trial of IDS (N), of which those from FIRST on count; POOL is what routers read. */
static int push(struct trials *t, const struct example *pool, const int32_t *ids,
                size_t n, size_t first, size_t after, struct artel_error *err)
{
    int32_t *const copy = malloc((n + 1) * sizeof(*copy));
    unsigned char *const loss = calloc(n + 1, 1);

    if (!copy || !loss) {
        free(copy);
        free(loss);
        return error_nomem(err, n * sizeof(*copy));
    }
    if (n)
        memcpy(copy, ids, n * sizeof(*copy));
    memset(loss + first, 1, n - first);
    t->after[t->n] = after;
    t->at[t->n++] = (struct example){.ids = copy,
                                     .n = n,
                                     .n_prompt = first,
                                     .loss = loss,
                                     .pool_first = pool->pool_first,
                                     .pool_n = pool->pool_n,
                                     .n_loss = n - first,
                                     .row = pool->row};
    return 0;
}

/* Tokens of the question as a user turn, and with CHOICE as its answer. */
static int encode_chat(struct ids *given, struct ids *both, const struct tokenizer *tok,
                       const struct example *question, const char *choice,
                       struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < question->n_prompt; i++) {
        rc = ids_push(given, question->ids[i], err);
        if (rc == 0)
            rc = ids_push(both, question->ids[i], err);
    }
    return rc < 0 ? rc
                  : tokenizer_encode(tok, both, choice, strlen(choice), false, err);
}

/* Tokens of choice K's question, and of both texts together. */
static int encode_plain(struct ids *given, struct ids *both,
                        const struct tokenizer *tok, enum question_style style,
                        const struct choice_row *row, size_t k, struct artel_error *err)
{
    char *text = NULL, *rest = NULL, *more;
    int rc = question_texts(&text, &rest, style, row, k, err);

    if (rc < 0)
        return rc;
    rc = tokenizer_encode(tok, given, text, strlen(text), false, err);
    more = realloc(text, strlen(text) + strlen(rest) + 1);
    if (!more) {
        rc = error_nomem(err, strlen(rest));
    } else {
        text = strcat(more, rest);
        if (rc == 0)
            rc = tokenizer_encode(tok, both, text, strlen(text), false, err);
    }
    free(text);
    free(rest);
    return rc;
}

static bool begins(const struct ids *ids, const struct ids *with)
{
    return with->n <= ids->n && !memcmp(ids->at, with->at, with->n * sizeof(*with->at));
}

/* Tokens of one row's questions and of questions with choices. */
struct encoded {
    struct ids *given, *both; /* (n) owned */
    size_t n;
};

static void encoded_release(struct encoded *e)
{
    for (size_t k = 0; k < e->n; k++) {
        ids_release(&e->given[k]);
        ids_release(&e->both[k]);
    }
    free(e->given);
    free(e->both);
}

/* Can the question be computed once, in ROOM tokens? */
static bool shares(const struct encoded *e, size_t room)
{
    for (size_t k = 0; k < e->n; k++)
        if (e->both[k].n > room || !begins(&e->both[k], &e->given[k]) ||
            e->given[k].n != e->given[0].n || !begins(&e->given[0], &e->given[k]))
            return false;
    return true;
}

/* What routers read of N tokens without the first CUT: QUESTION's pool, or all. */
static struct example pool_of(const struct example *question, size_t n, size_t cut)
{
    const size_t first = question->pool_first;
    const size_t end = question->pool_n ? first + question->pool_n : n;
    struct example pool = {.row = question->row};

    pool.pool_first = first > cut ? first - cut : 0;
    pool.pool_n = end > cut ? end - cut - pool.pool_first : n - cut;
    return pool;
}

/* Trials of one row; QUESTION has its line and pool, none where all is read. */
static int push_encoded(struct trials *t, const struct encoded *e,
                        const struct example *question, size_t room,
                        struct artel_error *err)
{
    const bool shared = shares(e, room);
    const size_t leader = t->n;
    int rc = 0;

    for (size_t k = 0; rc == 0 && k < e->n; k++) {
        const size_t n = e->given[k].n, n_both = e->both[k].n;
        const size_t cut = n_both > room ? n_both - room : 0; /* the beginning goes */
        const struct example pool = pool_of(question, n, cut);

        if (shared && k == 0)
            rc = push(t, &pool, e->given[0].at, n, n, 0, err);
        t->of_choice[t->n_choices++] = t->n;
        if (rc == 0 && shared)
            rc = push(t, &pool, e->both[k].at + n, n_both - n, 0, leader + 1, err);
        else if (rc == 0)
            rc = push(t, &pool, e->both[k].at + cut, n_both - cut, n - cut, 0, err);
    }
    return rc;
}

/* Does choice K leave something to be predicted, and something that it follows? */
static int check_lengths(const struct encoded *e, size_t k, size_t room,
                         struct artel_error *err)
{
    const size_t n = e->given[k].n, n_both = e->both[k].n;

    if (!n || n >= n_both)
        return error_set(err, ARTEL_EFORMAT, "EVL05", NULL,
                         "a choice leaves nothing to be predicted");
    if (n_both - n >= room)
        return error_set(err, ARTEL_EFORMAT, "EVL07", NULL,
                         "a choice of %zu tokens, and the model reaches %zu",
                         n_both - n, room);
    return 0;
}

/* The row whose question is QUESTION as a user turn. */
static int add_row(struct trials *t, const struct artel_mixture *m,
                   const struct example *question, const struct choice_row *row,
                   struct artel_error *err)
{
    const struct tokenizer *const tok = m->model->tokenizer;
    const enum question_style style = question_style(row->domain);
    struct encoded e = {calloc(row->n_choices, sizeof(struct ids)),
                        calloc(row->n_choices, sizeof(struct ids)), 0};
    const struct example plain = {.row = question->row};
    int rc = e.given && e.both ? 0 : error_nomem(err, row->n_choices);

    while (rc == 0 && e.n < row->n_choices) {
        const size_t k = e.n++;

        if (style == QUESTION_CHAT)
            rc = encode_chat(&e.given[k], &e.both[k], tok, question, row->choices[k],
                             err);
        else
            rc = encode_plain(&e.given[k], &e.both[k], tok, style, row, k, err);
        if (rc == 0)
            rc = check_lengths(&e, k, m->model->n_positions, err);
    }
    if (rc == 0)
        rc = push_encoded(t, &e, style == QUESTION_CHAT ? question : &plain,
                          m->model->n_positions, err);
    encoded_release(&e);
    return rc;
}

/* Trials of all rows of C. */
static int build(struct trials *t, const struct artel_mixture *m,
                 const struct corpus *c, struct artel_error *err)
{
    const size_t n = corpus_count(c);
    size_t total = 0;
    int rc = 0;

    for (size_t i = 0; i < n; i++) {
        if (!corpus_choices(c, i))
            return error_set(err, ARTEL_EFORMAT, "EVL01", NULL,
                             "row %zu has no choices, the rows before it have",
                             corpus_at(c, i)->row);
        total += corpus_choices(c, i)->n_choices;
    }
    t->at = calloc(total + n, sizeof(*t->at));
    t->after = calloc(total + n, sizeof(*t->after));
    t->of_choice = calloc(total + 1, sizeof(*t->of_choice));
    if (!t->at || !t->after || !t->of_choice)
        return error_nomem(err, total * sizeof(*t->at));
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = add_row(t, m, corpus_at(c, i), corpus_choices(c, i), err);
        if (rc < 0 && err && !*err->where)
            snprintf(err->where, sizeof(err->where), "row %zu", corpus_at(c, i)->row);
    }
    return rc;
}

int choices_check(const struct artel_mixture *m, const struct corpus *c,
                  struct artel_error *err)
{
    struct trials t = {0};
    const int rc = build(&t, m, c, err);

    trials_release(&t);
    return rc;
}

int choices_score(struct choice_scores *out, const struct artel_mixture *m,
                  const struct corpus *c, struct gate_sums *sums,
                  const struct artel_score_options *o, struct artel_error *err)
{
    const struct example **rows = NULL;
    struct artel_score_row *scored = NULL;
    struct trials t = {0};
    int rc = build(&t, m, c, err);

    *out = (struct choice_scores){0};
    if (rc == 0) {
        rows = calloc(t.n + 1, sizeof(*rows));
        scored = calloc(t.n + 1, sizeof(*scored));
        out->nll = calloc(t.n_choices + 1, sizeof(*out->nll));
        out->expert = calloc(t.n_choices + 1, sizeof(*out->expert));
        if (!rows || !scored || !out->nll || !out->expert)
            rc = error_nomem(err, t.n * sizeof(*scored));
    }
    for (size_t i = 0; rc == 0 && i < t.n; i++)
        rows[i] = &t.at[i];
    if (rc == 0)
        rc = score_rows(scored, m, rows, t.n, t.after, sums, o, err);
    for (size_t k = 0; rc == 0 && k < t.n_choices; k++) {
        const size_t i = t.of_choice[k];

        out->nll[k] = scored[i].nll; /* its question's expert is its own */
        out->expert[k] = scored[t.after[i] ? t.after[i] - 1 : i].expert;
    }
    free(rows);
    free(scored);
    trials_release(&t);
    if (rc < 0)
        choice_scores_release(out);
    return rc;
}

void choice_scores_release(struct choice_scores *s)
{
    free(s->nll);
    free(s->expert);
    *s = (struct choice_scores){0};
}

/* Index of the smallest nll, divided by the choice's length where BY_LENGTH. */
static size_t likeliest(enum question_style style, const struct choice_row *row,
                        const double *nll, bool by_length)
{
    size_t best = 0;
    double least = 0;

    for (size_t k = 0; k < row->n_choices; k++) {
        const double v = nll[k] / (by_length ? question_length(style, row, k) : 1);

        if (k == 0 || v < least) {
            least = v;
            best = k;
        }
    }
    return best;
}

static void count(struct measured *out, const struct corpus *c,
                  const struct choice_scores *s)
{
    const double *nll = s->nll;

    out->choices = out->shares = true;
    out->by_length = question_by_length(question_style(corpus_choices(c, 0)->domain));
    for (size_t i = 0; i < out->n_rows; i++) {
        const struct choice_row *const row = corpus_choices(c, i);
        const enum question_style style = question_style(row->domain);
        const bool acc = likeliest(style, row, nll, false) == row->answer,
                   norm = likeliest(style, row, nll, true) == row->answer;

        out->value[i] = out->by_length ? norm : acc;
        out->weight[i] = 1;
        out->acc += acc;
        out->acc_norm += norm;
        nll += row->n_choices;
    }
    out->acc /= (double)out->n_rows;
    out->acc_norm /= (double)out->n_rows;
    out->score = out->by_length ? out->acc_norm : out->acc;
    out->n_judged = out->n_rows;
}

int measure_choices(struct measured *out, const struct artel_mixture *m,
                    const struct corpus *c, const struct measure_options *o,
                    struct artel_error *err)
{
    const struct artel_score_options so = measure_score_options(o);
    struct choice_scores s;
    size_t at = 0;
    int rc = choices_score(&s, m, c, out->sums, &so, err);

    if (rc < 0)
        return rc;
    count(out, c, &s);
    for (size_t i = 0; o->expert == ARTEL_AUTO && i < out->n_rows; i++) {
        measured_route(out, s.expert[at], o->expected);
        at += corpus_choices(c, i)->n_choices;
    }
    choice_scores_release(&s);
    return 0;
}
