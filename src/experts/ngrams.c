/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes become characters, and each character ends an n-gram of every size, so no text is
 * kept: the last few characters are enough.
 */
#include "experts/ngrams.h"

#include <math.h>
#include <string.h>

#include "text/tokenizer.h"

#define FNV_OFFSET 0xcbf29ce484222325ull
#define FNV_PRIME  0x100000001b3ull

void ngrams_carve(struct ngrams *g, struct arena *a, const struct ngram_options *o)
{
    g->o = *o;
    g->count = arena_take(a, o->buckets * sizeof(*g->count));
    g->at = arena_take(a, o->buckets * sizeof(*g->at));
    g->value = arena_f32(a, o->buckets);
}

void ngrams_begin(struct ngrams *g)
{
    for (size_t i = 0; i < g->n; i++) /* of a text that was given up */
        g->count[g->at[i]] = 0;
    g->n = g->n_last = g->n_part = 0;
    g->blank = true;
}

static void count(struct ngrams *g, uint64_t h)
{
    const size_t bucket = (size_t)((h ^ h >> 32) % g->o.buckets);

    if (!g->count[bucket]++)
        g->at[g->n++] = (uint32_t)bucket;
}

/* One character more, and the n-grams that it ends. */
static void push(struct ngrams *g, const unsigned char *bytes, size_t n)
{
    const size_t newest = NGRAM_MOST - 1;

    memmove(g->last, g->last[1], newest * sizeof(g->last[0]));
    memmove(g->length, g->length + 1, newest);
    memcpy(g->last[newest], bytes, n);
    g->length[newest] = (unsigned char)n;
    g->n_last += g->n_last < NGRAM_MOST;
    for (size_t size = g->o.min; size <= g->o.max && size <= g->n_last; size++) {
        uint64_t h = FNV_OFFSET;

        for (size_t i = NGRAM_MOST - size; i < NGRAM_MOST; i++)
            for (size_t k = 0; k < g->length[i]; k++)
                h = (h ^ g->last[i][k]) * FNV_PRIME;
        count(g, h);
    }
}

static void take_character(struct ngrams *g, const unsigned char *bytes, size_t n)
{
    static const unsigned char space[] = {' '};
    unsigned char c = bytes[0];

    if (n == 1 && (c == ' ' || (c >= '\t' && c <= '\r'))) {
        g->blank = true;
        return;
    }
    if (g->blank)
        push(g, space, 1);
    g->blank = false;
    if (n > 1) {
        push(g, bytes, n);
        return;
    }
    if (g->o.lowercase && c >= 'A' && c <= 'Z')
        c = (unsigned char)(c - 'A' + 'a');
    push(g, &c, 1);
}

/* What began a character and did not become one: each byte by itself. */
static void give_up_part(struct ngrams *g)
{
    const size_t n = g->n_part;

    g->n_part = 0;
    for (size_t i = 0; i < n; i++)
        take_character(g, g->part + i, 1);
}

static size_t wanted(unsigned char lead)
{
    return lead < 0xC2 || lead > 0xF4 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

void ngrams_add(struct ngrams *g, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)bytes[i];

        if (g->n_part && (c & 0xC0) != 0x80)
            give_up_part(g);
        if (!g->n_part)
            g->part_wants = wanted(c);
        g->part[g->n_part++] = c;
        if (g->n_part == g->part_wants) {
            g->n_part = 0;
            take_character(g, g->part, g->part_wants);
        }
    }
}

void ngrams_end(struct ngrams *g)
{
    static const unsigned char space[] = {' '};
    double sum = 0.0, length;

    give_up_part(g);
    if (g->n_last)
        push(g, space, 1);
    for (size_t i = 0; i < g->n; i++) {
        const double v = 1.0 + log((double)g->count[g->at[i]]);

        sum += v * v;
    }
    length = sqrt(sum);
    for (size_t i = 0; i < g->n; i++) {
        g->value[i] = (float)((1.0 + log((double)g->count[g->at[i]])) / length);
        g->count[g->at[i]] = 0;
    }
}

void ngrams_of_ids(struct ngrams *g, const struct tokenizer *t, const int32_t *ids,
                   size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t length;

        if ((size_t)ids[i] >= tokenizer_size(t) || tokenizer_is_control(t, ids[i]))
            continue;
        bytes = tokenizer_piece(t, ids[i], &length);
        ngrams_add(g, bytes, length);
    }
}

void ngrams_product(float *logits, const struct ngrams *g, const float *w, size_t E)
{
    for (size_t e = 0; e < E; e++) {
        const float *row = w + e * g->o.buckets;
        double sum = 0.0;

        for (size_t i = 0; i < g->n; i++)
            sum += (double)row[g->at[i]] * (double)g->value[i];
        logits[e] = (float)sum;
    }
}
