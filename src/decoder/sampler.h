/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next token from logits.
 *
 * In this order: only what is allowed, biases, repetition penalty on every token seen,
 * frequency and presence penalty on those of the answer, temperature, the top_k
 * likeliest, of those the fewest that hold top_p of the probability, of those the
 * ones with at least min_p of the likeliest's. Equal logits rank by id, lowest
 * first. NaN is never picked. The same seed, stream and logits give the same ids.
 */
#ifndef ARTEL_DECODER_SAMPLER_H
#define ARTEL_DECODER_SAMPLER_H

#include "base/rng.h"

struct artel_error;

struct token_bias {
    int32_t id;
    float bias; /* added to its logit */
};

struct sampler_options {
    float temperature;        /* 0: greedy */
    size_t top_k;             /* 0: all */
    float top_p;              /* 1: all */
    float min_p;              /* 0: all */
    float repetition_penalty; /* 1: none */
    uint64_t seed;
    float frequency_penalty; /* taken off a logit for each time it came; 0: none */
    float presence_penalty;  /* taken off once where it came at all; 0: none */
    const struct token_bias
        *bias; /* (n_bias) ids below V; read by sampler_init alone */
    size_t n_bias;
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
    unsigned char *seen;    /* (V) 1: the repetition penalty holds; owned */
    float *bias;            /* (V), NULL: none; owned */
    uint32_t *count;        /* (V) times in the answer, NULL: nobody asks; owned */
    /* 1 bit a token, lowest first: the others are not picked. Borrowed by each pick; NULL:
     * all are. */
    const unsigned char *allowed;
};

/* STREAM separates answers that share a seed. */
int sampler_init(struct sampler *s, const struct sampler_options *o, size_t n_vocab,
                 uint64_t stream, struct artel_error *err);
void sampler_release(struct sampler *s);
void sampler_see(struct sampler *s, int32_t id);   /* a token of the prompt */
void sampler_wrote(struct sampler *s, int32_t id); /* a token of the answer */
/* An id, or -1 where no logit is a number. LOGITS (V) are left alone. */
int32_t sampler_pick(struct sampler *s, const float *logits);

#endif
