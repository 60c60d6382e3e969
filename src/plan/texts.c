/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that are dropped or cut are never silent: each file has its line.
 */
#include "plan/texts.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "decoder/frozen.h"

#define SPLIT_STREAM 0x76616c /* of the random numbers that choose validation rows */

static void say(const struct texts_options *o, enum run_event event, const char *fmt,
                ...) __attribute__((format(printf, 3, 4)));

static void say(const struct texts_options *o, enum run_event event, const char *fmt,
                ...)
{
    char message[640];
    va_list args;

    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    run_tell(o->run, event, message);
}

static void tell_stats(const struct texts_options *o, const char *name,
                       const char *part, const struct corpus_stats *s)
{
    say(o, RUN_NOTE,
        "%s %s: %zu of %zu rows (%s), %zu tokens, %zu of answers; dropped %zu too "
        "long, "
        "%zu without answer; %zu cut",
        name, part, s->kept, s->rows, s->format, s->n_tokens, s->n_answer_tokens,
        s->dropped_too_long, s->dropped_empty, s->truncated);
    if (s->skipped_bad)
        say(o, RUN_WARNING, "%s %s: %zu malformed rows were skipped", name, part,
            s->skipped_bad);
    if (s->special_text_rows)
        say(o, RUN_WARNING,
            "%s %s: %zu rows spell control tokens in their text; taken as plain text",
            name, part, s->special_text_rows);
}

static int open_one(struct corpus **out, const char *path, uint32_t domain,
                    size_t max_rows, const struct artel_model *model,
                    const struct recipe_train *train, struct artel_error *err)
{
    const struct corpus_options o = {.max_rows = max_rows,
                                     .cutoff_len = train->cutoff_len,
                                     .skip_bad = train->skip_bad,
                                     .domain = domain};
    struct corpus_options capped = o;
    const size_t context = model->weights->config.context;
    const struct example *silent;
    int rc;

    if (context && capped.cutoff_len > context)
        capped.cutoff_len = context;
    rc = corpus_open(out, path, model->tokenizer, model->chat, &capped, err);
    silent = rc == 0 ? corpus_without_loss(*out) : NULL;
    if (silent)
        rc = error_set(err, ARTEL_EFORMAT, "DATA13", "row",
                       "row %zu has no answer to learn: multiple choice is for artel "
                       "eval alone",
                       silent->row);
    return rc < 0 ? error_in(err, rc, path) : 0;
}

static int open_domain(struct texts *t, size_t i, const struct artel_model *model,
                       const struct texts_options *o, struct artel_error *err)
{
    struct text *text = &t->of[i];
    size_t overlap;
    int rc;

    rc = open_one(&text->train, text->train_path, (uint32_t)i, text->max_rows, model,
                  o->train, err);
    if (rc < 0)
        return rc;
    t->trains[i] = text->train;
    tell_stats(o, text->name, "train", corpus_stats(text->train));
    if (!text->valid_path)
        return 0;
    rc = open_one(&text->valid, text->valid_path, (uint32_t)i, 0, model, o->train, err);
    if (rc < 0)
        return rc;
    tell_stats(o, text->name, "valid", corpus_stats(text->valid));
    overlap = corpus_overlap(text->valid, text->train);
    if (overlap)
        say(o, RUN_WARNING, "%s: %zu of %zu validation rows are also training rows",
            text->name, overlap, corpus_count(text->valid));
    return 0;
}

/* How many rows of N val_size takes. */
static size_t split_size(double val_size, size_t n)
{
    const double rows = val_size < 1 ? rint(val_size * (double)n) : floor(val_size);

    return rows < (double)n ? (size_t)rows : n;
}

/* Rows of domain I that are held out: a choice of the seed and the name alone. */
static int hold_out(struct texts *t, size_t i, const struct recipe_train *train,
                    struct artel_error *err)
{
    const struct corpus *c = t->of[i].train;
    const size_t n = corpus_count(c), k = split_size(train->val_size, n);
    uint64_t stream = SPLIT_STREAM;
    uint32_t *pick;
    struct rng rng;

    if (!k)
        return 0;
    if (k >= n)
        return error_set(err, ARTEL_EUSAGE, "RCP03", "val_size",
                         "takes all %zu rows of '%s', none is left to train on", n,
                         t->of[i].name);
    pick = malloc(n * sizeof(*pick));
    if (!pick)
        return error_nomem(err, n * sizeof(*pick));
    for (size_t r = 0; r < n; r++)
        pick[r] = (uint32_t)r;
    for (const char *s = t->of[i].name; *s; s++)
        stream = stream * 31 + (unsigned char)*s;
    rng_init(&rng, train->seed, stream);
    rng_shuffle(&rng, pick, n);
    for (size_t r = 0; r < k; r++) {
        const struct example *row = corpus_at(c, pick[r]);

        t->held[t->n_held++] = row;
        t->valid[t->valid_first[i + 1]++] = row;
    }
    free(pick);
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t) * (const struct example *const *)a;
    const uintptr_t y = (uintptr_t) * (const struct example *const *)b;

    return (x > y) - (x < y);
}

bool texts_holds_out(const struct texts *t, const struct example *row)
{
    return t->n_held && bsearch(&row, t->held, t->n_held, sizeof(*t->held), by_address);
}

static int gather_valid(struct texts *t, const struct recipe_train *train,
                        struct artel_error *err)
{
    size_t room = 1;
    int rc = 0;

    for (size_t i = 0; i < t->n; i++) {
        if (t->of[i].valid)
            room += corpus_count(t->of[i].valid);
        else if (t->of[i].train)
            room += corpus_count(t->of[i].train);
    }
    t->valid = malloc(room * sizeof(*t->valid));
    t->held = malloc(room * sizeof(*t->held));
    if (!t->valid || !t->held)
        return error_nomem(err, 2 * room * sizeof(*t->valid));
    for (size_t i = 0; rc == 0 && i < t->n; i++) {
        const struct corpus *c = t->of[i].valid;

        t->valid_first[i + 1] = t->valid_first[i];
        for (size_t r = 0; c && r < corpus_count(c); r++)
            t->valid[t->valid_first[i + 1]++] = corpus_at(c, r);
        if (!c && t->of[i].train && train->val_size > 0)
            rc = hold_out(t, i, train, err);
    }
    qsort(t->held, t->n_held, sizeof(*t->held), by_address);
    return rc;
}

static void find_longest(struct texts *t)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct corpus *both[] = {t->of[i].train, t->of[i].valid};

        for (size_t k = 0; k < 2; k++)
            for (size_t r = 0; both[k] && r < corpus_count(both[k]); r++)
                if (corpus_at(both[k], r)->n > t->longest)
                    t->longest = corpus_at(both[k], r)->n;
    }
}

int texts_open(struct texts *t, const struct text *of, size_t n,
               const struct artel_model *model, const struct texts_options *o,
               struct artel_error *err)
{
    const size_t context = model->weights->config.context;
    int rc = 0;

    *t = (struct texts){.n = n};
    t->of = calloc(n + 1, sizeof(*t->of));
    t->trains = calloc(n + 1, sizeof(*t->trains));
    t->valid_first = calloc(n + 1, sizeof(*t->valid_first));
    if (!t->of || !t->trains || !t->valid_first) {
        rc = error_nomem(err, n * sizeof(*t->of));
        goto fail;
    }
    if (context && o->train->cutoff_len > context)
        say(o, RUN_NOTE, "cutoff_len %zu is above the model's context: %zu is used",
            o->train->cutoff_len, context);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        t->of[i] = of[i];
        t->of[i].train = t->of[i].valid = NULL;
        if (of[i].train_path)
            rc = open_domain(t, i, model, o, err);
    }
    if (rc == 0)
        rc = gather_valid(t, o->train, err);
    if (rc < 0)
        goto fail;
    find_longest(t);
    return 0;
fail:
    texts_close(t);
    return rc;
}

void texts_close(struct texts *t)
{
    for (size_t i = 0; t->of && i < t->n; i++) {
        corpus_close(t->of[i].train);
        corpus_close(t->of[i].valid);
    }
    free(t->of);
    free(t->trains);
    free(t->held);
    free(t->valid);
    free(t->valid_first);
    *t = (struct texts){0};
}

json_t *texts_summary(const struct texts *t, size_t i)
{
    const struct corpus_stats *s;

    if (!t->of[i].train)
        return json_object();
    s = corpus_stats(t->of[i].train);
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "format", s->format, "rows",
        (json_int_t)s->rows, "kept", (json_int_t)s->kept, "tokens",
        (json_int_t)s->n_tokens, "answer_tokens", (json_int_t)s->n_answer_tokens,
        "dropped_too_long", (json_int_t)s->dropped_too_long, "dropped_empty",
        (json_int_t)s->dropped_empty, "truncated", (json_int_t)s->truncated,
        "valid_rows", (json_int_t)(t->valid_first[i + 1] - t->valid_first[i]));
}
