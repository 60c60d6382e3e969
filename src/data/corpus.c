/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Examples in two growing blocks, one of ids and one of marks.
 */
#include "data/corpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/corpus_parts.h"

#define TEXT_POOL 64 /* tokens of a plain text that a router looks at */

void kept_text_release(struct kept_text *k)
{
    free(k->prompt);
    free(k->answer);
    json_decref(k->messages);
    free((void *)(size_t)k->choices.question);
    for (size_t i = 0; i < k->choices.n_choices; i++)
        free((void *)(size_t)k->choices.choices[i]);
    free((void *)(size_t)k->choices.choices);
    free((void *)(size_t)k->choices.domain);
    *k = (struct kept_text){0};
}

static int grow_rows(struct corpus *c, bool texts, struct artel_error *err)
{
    const size_t room = 2 * c->room + 64;
    struct example *rows;
    size_t *first;
    struct kept_text *kept;

    if (c->n < c->room)
        return 0;
    rows = realloc(c->rows, room * sizeof(*rows));
    if (!rows)
        return error_nomem(err, room * sizeof(*rows));
    c->rows = rows;
    first = realloc(c->first, room * sizeof(*first));
    if (!first)
        return error_nomem(err, room * sizeof(*first));
    c->first = first;
    if (texts) {
        kept = realloc(c->kept, room * sizeof(*kept));
        if (!kept)
            return error_nomem(err, room * sizeof(*kept));
        c->kept = kept;
    }
    c->room = room;
    return 0;
}

static int grow_ids(struct corpus *c, size_t n, struct artel_error *err)
{
    const size_t room = 2 * c->ids_room + n + 1024;
    int32_t *ids;
    unsigned char *loss;

    if (n <= c->ids_room - c->n_ids)
        return 0;
    ids = realloc(c->ids, room * sizeof(*ids));
    if (!ids)
        return error_nomem(err, room * sizeof(*ids));
    c->ids = ids;
    loss = realloc(c->loss, room);
    if (!loss)
        return error_nomem(err, room);
    c->loss = loss;
    c->ids_room = room;
    return 0;
}

/* How many of the first N tokens of T carry loss; the row's first never does. */
static size_t count_loss(const struct turns *t, size_t n)
{
    size_t count = 0;

    for (size_t i = 1; i < n; i++)
        count += t->loss[i];
    return count;
}

/* N_PROMPT and the pool of E, from the last of the answers that E still holds. */
static void find_answer(struct example *e, const struct turns *t)
{
    const struct turn *last = NULL;

    for (size_t i = 0; i < t->n; i++) {
        const size_t start = t->turn[i].start;

        if (start < e->n && t->loss[start])
            last = &t->turn[i];
    }
    if (!last && !e->n_loss && t->n)
        last = &t->turn[t->n - 1]; /* a prompt alone */
    e->n_prompt = last ? last->start : 0;
    if (e->n_prompt > e->n)
        e->n_prompt = e->n;
    e->pool_first = last ? last->pool_first : 0;
    e->pool_n = last ? last->pool_n : e->n < TEXT_POOL ? e->n : TEXT_POOL;
    if (e->pool_first >= e->n)
        e->pool_first = e->n - 1;
    if (e->pool_n > e->n - e->pool_first)
        e->pool_n = e->n - e->pool_first;
}

int corpus_append(struct corpus *c, const struct turns *t, size_t cutoff,
                  bool keep_prompt, uint32_t domain, size_t row, struct kept_text *text,
                  struct artel_error *err)
{
    struct example e = {.n = t->ids.n, .domain = domain, .row = row};
    const size_t whole = count_loss(t, t->ids.n);
    int rc;

    if (cutoff && e.n > cutoff && !keep_prompt)
        e.n = cutoff;
    e.n_loss = count_loss(t, e.n);
    if (!keep_prompt) /* tokens behind the last that is learnt teach nothing */
        while (e.n > 1 && !t->loss[e.n - 1])
            e.n--;
    if (!e.n || (!e.n_loss && !keep_prompt)) {
        *(whole ? &c->stats.dropped_too_long : &c->stats.dropped_empty) += 1;
        if (text)
            kept_text_release(text);
        return 0;
    }
    rc = grow_rows(c, text != NULL, err);
    if (rc == 0)
        rc = grow_ids(c, e.n, err);
    if (rc < 0)
        return rc;
    find_answer(&e, t);
    c->stats.truncated += e.n_loss < whole;
    c->stats.n_tokens += e.n;
    c->stats.n_answer_tokens += e.n_loss;
    memcpy(c->ids + c->n_ids, t->ids.at, e.n * sizeof(*c->ids));
    memcpy(c->loss + c->n_ids, t->loss, e.n);
    c->loss[c->n_ids] = 0;
    if (text) {
        c->kept[c->n] = *text;
        *text = (struct kept_text){0};
    }
    c->first[c->n] = c->n_ids;
    c->rows[c->n++] = e;
    c->n_ids += e.n;
    return 0;
}

void corpus_settle(struct corpus *c)
{
    for (size_t i = 0; i < c->n; i++) {
        c->rows[i].ids = c->ids + c->first[i];
        c->rows[i].loss = c->loss + c->first[i];
    }
    c->stats.kept = c->n;
}

int corpus_open(struct corpus **out, const char *path, const struct tokenizer *tok,
                const struct chat_template *chat, const struct corpus_options *o,
                struct artel_error *err)
{
    struct corpus *c = calloc(1, sizeof(*c));
    int rc;

    *out = NULL;
    if (!c)
        return error_nomem(err, sizeof(*c));
    rc = corpus_read(c, path, tok, chat, o, err);
    if (rc < 0) {
        error_in(err, rc, path);
        corpus_close(c);
        return rc;
    }
    corpus_settle(c);
    *out = c;
    return 0;
}

void corpus_close(struct corpus *c)
{
    if (!c)
        return;
    for (size_t i = 0; c->kept && i < c->n; i++)
        kept_text_release(&c->kept[i]);
    free(c->kept);
    free(c->rows);
    free(c->first);
    free(c->ids);
    free(c->loss);
    free(c);
}

size_t corpus_count(const struct corpus *c)
{
    return c->n;
}

const struct example *corpus_at(const struct corpus *c, size_t i)
{
    return &c->rows[i];
}

const struct example *corpus_without_loss(const struct corpus *c)
{
    for (size_t i = 0; i < corpus_count(c); i++)
        if (!corpus_at(c, i)->n_loss)
            return corpus_at(c, i);
    return NULL;
}

const struct corpus_stats *corpus_stats(const struct corpus *c)
{
    return &c->stats;
}

const char *corpus_prompt_text(const struct corpus *c, size_t i)
{
    return c->kept ? c->kept[i].prompt : NULL;
}

const char *corpus_answer_text(const struct corpus *c, size_t i)
{
    return c->kept ? c->kept[i].answer : NULL;
}

const json_t *corpus_messages(const struct corpus *c, size_t i)
{
    return c->kept ? c->kept[i].messages : NULL;
}

const struct choice_row *corpus_choices(const struct corpus *c, size_t i)
{
    return c->kept && c->kept[i].choices.n_choices ? &c->kept[i].choices : NULL;
}

static uint64_t row_hash(const struct example *e)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < e->n; i++)
        h = (h ^ (uint32_t)e->ids[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

size_t corpus_overlap(const struct corpus *a, const struct corpus *b)
{
    uint64_t *seen = malloc((b->n + 1) * sizeof(*seen));
    size_t count = 0;

    if (!seen)
        return 0;
    for (size_t i = 0; i < b->n; i++)
        seen[i] = row_hash(&b->rows[i]);
    qsort(seen, b->n, sizeof(*seen), by_value);
    for (size_t i = 0; i < a->n; i++) {
        const uint64_t h = row_hash(&a->rows[i]);

        count += bsearch(&h, seen, b->n, sizeof(*seen), by_value) != NULL;
    }
    free(seen);
    return count;
}
