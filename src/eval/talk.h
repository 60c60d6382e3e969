/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From logits to an answer's text, and when it ends; and who answered. What one answer has
 * in common with one of many: generate.c and the server's engine are both made of it.
 */
#ifndef ARTEL_EVAL_TALK_H
#define ARTEL_EVAL_TALK_H

#include "decoder/sampler.h"
#include "eval/stream.h"
#include "text/tokenizer.h"

struct artel_session;
struct mixture;

struct talk_options {
    struct sampler_options sampling;
    uint64_t stream;         /* of the sampler */
    const char *const *stop; /* (n_stop) borrowed as long as the talk lasts */
    size_t n_stop;
    size_t max_tokens;
    size_t room; /* tokens that the sequence may come to, the prompt's among them */
};

struct talk {
    const struct tokenizer *tok; /* borrowed */
    struct sampler sampler;
    struct stream stream;
    struct ids ids; /* picked so far, the end token included */
    size_t max_tokens, room;
    const char *finish_reason; /* "stop", "length"; NULL: it goes on */
};

/* T may be released whatever this returns. */
int talk_init(struct talk *t, const struct tokenizer *tok, size_t n_vocab,
              const struct talk_options *o, const struct ids *prompt,
              struct artel_error *err);
void talk_release(struct talk *t);
/* The token *ID that follows the LENGTH tokens so far, by their last LOGITS; its text goes
 * into the stream. ARTEL_ENONFINITE where no logit is a number. */
int talk_pick(struct talk *t, int32_t *id, const float *logits, size_t length,
              struct artel_error *err);

struct route {
    int expert;  /* EXPERT_BASE: none */
    bool routed; /* routers were asked; else all that follows is 0 */
    bool per_token;
    bool from_base;
    size_t n_routers, n_experts, layers_agreeing;
    float *probabilities; /* (n_routers, n_experts), in the caller's room */
};

/* Of the session's last prefill, or of all tokens so far where tokens decide. ROOM for the
 * mixture's (n_routers, n_experts); routers of linears without an expert are left out where
 * tokens decide. MIXTURE may be NULL. */
void route_read(struct route *out, float *room, const struct artel_session *s,
                const struct mixture *mixture);

#endif
