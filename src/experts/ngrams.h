/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text as hashed character n-grams, what a classifier can read without asking the base.
 *
 *   characters   a byte C2 to F4 with as many bytes 80 to BF behind it as it asks for; any
 *                other byte is one by itself
 *   blanks       runs of space, \t, \n, \v, \f, \r are one space, and one stands before
 *                the first other character and one behind the last
 *   case         A to Z become a to z, where asked for; no other letter is changed
 *   n-grams      every MIN to MAX characters in a row, as bytes
 *   bucket       (h ^ h >> 32) mod BUCKETS, h their 64-bit FNV-1a
 *   z            v / |v|, v = 1 + ln(how many n-grams fell into the bucket), 0 for none
 *
 * Bytes may come in pieces. A text of blanks alone has no n-gram.
 */
#ifndef ARTEL_EXPERTS_NGRAMS_H
#define ARTEL_EXPERTS_NGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

struct tokenizer;

#define NGRAM_MOST          8 /* characters */
#define NGRAM_BUCKETS_LEAST 64
#define NGRAM_BUCKETS_MOST  ((size_t)1 << 20)

struct ngram_options {
    size_t min, max; /* characters, 1 to NGRAM_MOST */
    size_t buckets;
    bool lowercase;
};

struct ngrams {
    struct ngram_options o;
    uint32_t *count; /* (buckets) of the text under way; 0 between texts */
    /* The text that has ended: */
    size_t n;
    uint32_t *at; /* (buckets) in the order in which they were first met */
    float *value; /* (buckets) z there */
    /* The last characters, the newest at the end, and bytes that may begin one: */
    unsigned char last[NGRAM_MOST][4], part[4];
    unsigned char length[NGRAM_MOST];
    size_t n_last, n_part, part_wants;
    bool blank; /* a blank was met since the last character */
};

/* Lay out room, or measure. */
void ngrams_carve(struct ngrams *g, struct arena *a, const struct ngram_options *o);
/* A text: begin, bytes in any pieces, end. */
void ngrams_begin(struct ngrams *g);
void ngrams_add(struct ngrams *g, const char *bytes, size_t n);
void ngrams_end(struct ngrams *g);
/* The bytes that IDS (N) stand for; control tokens are the template's and are left out. */
void ngrams_of_ids(struct ngrams *g, const struct tokenizer *t, const int32_t *ids,
                   size_t n);
/* LOGITS (E) = W z, W (E, buckets). */
void ngrams_product(float *logits, const struct ngrams *g, const float *w, size_t E);

#endif
