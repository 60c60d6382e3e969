/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Perplexity of a plain text, in windows as lm-evaluation-harness rolls them: W
 * tokens are predicted at a time, each window given the one token before it (the
 * first: the token that begins a text), so that every token is predicted once.
 *
 *     perplexity       exp(nll / tokens)
 *     word_perplexity  exp(nll / words)     words: runs of what is not blank
 *     byte_perplexity  exp(nll / bytes)     bits_per_byte: nll / (bytes ln 2)
 *
 * The text is taken as it lies in the file, whole, with nothing rewritten. Routers
 * read the first 64 tokens of a window, as they do of plain text in training.
 */
#include "eval/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/map.h"
#include "data/example.h"
#include "eval/score.h"
#include "text/tokenizer.h"

#define WINDOW      ((size_t)1024)
#define POOL_TOKENS 64

struct text {
    struct ids ids;      /* the token before the text, then the text's */
    unsigned char *loss; /* (window + 1) 0, then 1 */
    size_t window;       /* tokens predicted at a time */
};

static void text_release(struct text *t)
{
    ids_release(&t->ids);
    free(t->loss);
}

static int text_read(struct text *t, const struct artel_mixture *m, const char *path,
                     size_t cutoff, struct artel_error *err)
{
    const struct tokenizer *const tok = m->model->tokenizer;
    const size_t room = m->model->n_positions - 1;
    const int32_t bos = tokenizer_bos(tok), eos = tokenizer_eos(tok);
    struct map map;
    int rc = map_open(&map, path, err);

    if (rc < 0)
        return rc;
    t->window = cutoff && cutoff < WINDOW ? cutoff : WINDOW;
    if (t->window > room)
        t->window = room;
    rc = ids_push(&t->ids, bos >= 0 ? bos : eos >= 0 ? eos : 0, err);
    if (rc == 0 && map.size)
        rc = tokenizer_encode(tok, &t->ids, (const char *)map.data, map.size, false,
                              err);
    map_release(&map);
    if (rc == 0 && !(t->loss = malloc(t->window + 1)))
        rc = error_nomem(err, t->window);
    if (rc == 0) {
        memset(t->loss, 1, t->window + 1);
        t->loss[0] = 0;
    }
    return rc;
}

/* Words that begin and bytes in the tokens of window E. *IN_WORD goes on from one window
 * to the next. */
static void count_text(struct measured *out, const struct tokenizer *tok,
                       const struct example *e, bool *in_word)
{
    for (size_t i = 1; i < e->n; i++) {
        size_t n;
        const char *const piece = tokenizer_piece(tok, e->ids[i], &n);

        out->n_bytes += (double)n;
        for (size_t k = 0; k < n; k++) {
            const bool blank =
                piece[k] == ' ' || (piece[k] >= '\t' && piece[k] <= '\r');

            out->n_words += !blank && !*in_word;
            *in_word = !blank;
        }
    }
}

static int score_windows(struct measured *out, const struct artel_mixture *m,
                         const struct text *t, const struct measure_options *o,
                         struct artel_error *err)
{
    const struct artel_score_options so = measure_score_options(o);
    const size_t n = out->n_rows;
    struct artel_score_row *const rows = calloc(n + 1, sizeof(*rows));
    struct example *const windows = calloc(n + 1, sizeof(*windows));
    const struct example **const examples = calloc(n + 1, sizeof(*examples));
    bool in_word = false;
    int rc = rows && windows && examples ? 0 : error_nomem(err, n * sizeof(*rows));

    for (size_t i = 0; rc == 0 && i < n; i++) {
        const size_t from = i * t->window, left = t->ids.n - 1 - from;
        const size_t size = left < t->window ? left : t->window;
        const size_t pool = size + 1 < POOL_TOKENS ? size + 1 : POOL_TOKENS;

        windows[i] = (struct example){.ids = t->ids.at + from,
                                      .n = size + 1,
                                      .loss = t->loss,
                                      .pool_n = pool,
                                      .n_loss = size,
                                      .row = i + 1};
        examples[i] = &windows[i];
        count_text(out, m->model->tokenizer, &windows[i], &in_word);
    }
    if (rc == 0)
        rc = score_rows(rows, m, examples, n, NULL, out->sums, &so, err);
    if (rc == 0)
        measured_rows(out, rows, n, o);
    if (rc == 0)
        out->perplexity = exp(out->nll / (double)out->answer_tokens);
    free(rows);
    free(windows);
    free(examples);
    return rc;
}

int measure_windows(struct measured *out, const struct artel_mixture *m,
                    const char *path, const struct measure_options *o,
                    struct artel_error *err)
{
    struct text t = {0};
    int rc = text_read(&t, m, path, o->cutoff_len, err);

    if (rc == 0 && t.ids.n < 2)
        rc = error_set(err, ARTEL_EFORMAT, "EVL06", NULL, "there is no text in it");
    if (rc == 0) {
        out->windows = true;
        out->n_rows = (t.ids.n - 2) / t.window + 1;
        if (o->max_rows && o->max_rows < out->n_rows)
            out->n_rows = o->max_rows;
        out->value = calloc(out->n_rows, sizeof(*out->value));
        out->weight = calloc(out->n_rows, sizeof(*out->weight));
        if (!out->value || !out->weight)
            rc = error_nomem(err, out->n_rows * sizeof(*out->value));
    }
    if (rc == 0)
        rc = score_windows(out, m, &t, o, err);
    text_release(&t);
    return rc;
}
