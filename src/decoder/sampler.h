/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next token from logits.
 *
 * In this order: repetition penalty on every token seen, temperature, the top_k
 * likeliest, of those the fewest that hold top_p of the probability, of those the
 * ones with at least min_p of the likeliest's. Equal logits rank by id, lowest
 * first. NaN is never picked. The same seed, stream and logits give the same ids.
 */
#ifndef ARTEL_DECODER_SAMPLER_H
#define ARTEL_DECODER_SAMPLER_H

#include "base/rng.h"

struct artel_error;

struct sampler_options {
    float temperature;        /* 0: greedy */
    size_t top_k;             /* 0: all */
    float top_p;              /* 1: all */
    float min_p;              /* 0: all */
    float repetition_penalty; /* 1: none */
    uint64_t seed;
};

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    struct sampler_options o;
    struct rng rng;
    size_t n_vocab;         /* V */
    struct candidate *heap; /* (V); owned */
    unsigned char *seen;    /* (V) 1: the penalty holds; owned */
};

/* STREAM separates answers that share a seed. */
int sampler_init(struct sampler *s, const struct sampler_options *o, size_t n_vocab,
                 uint64_t stream, struct artel_error *err);
void sampler_release(struct sampler *s);
void sampler_see(struct sampler *s,
                 int32_t id); /* a token of the prompt or the answer */
/* An id, or -1 where no logit is a number. LOGITS (V) are left alone. */
int32_t sampler_pick(struct sampler *s, const float *logits);

#endif
