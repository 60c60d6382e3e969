/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One growing sequence and its KV cache: prefill a prompt, then token by token.
 *
 * A session belongs to one thread at a time. Used from inside a parallel region
 * it computes on that thread alone; outside, all threads share its products.
 */
#ifndef ARTEL_DECODER_SESSION_H
#define ARTEL_DECODER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decoder/merge_cost.h"

struct artel_error;
struct artel_model;
struct kv_pool;
struct mixture;
struct artel_session;

enum { EXPERT_AUTO = -2, EXPERT_BASE = -1 }; /* or the index of an expert */

/* Room for N_CONTEXT tokens. MIXTURE may be NULL: the base alone. */
int session_open(struct artel_session **out, const struct artel_model *model,
                 const struct mixture *mixture, size_t n_context,
                 struct artel_error *err);
/* Memory that one takes, without what a long prompt that routes itself adds. */
size_t session_bytes(const struct artel_model *model, const struct mixture *mixture,
                     size_t n_context);
/*
 * The same with its cache in blocks of POOL (decoder/kv_pool.h), which must outlive it;
 * sequences that begin alike share the blocks of what they share.
 */
int session_open_pooled(struct artel_session **out, const struct artel_model *model,
                        const struct mixture *mixture, size_t n_context,
                        struct kv_pool *pool, struct artel_error *err);
void session_close(struct artel_session *s);
void session_reset(struct artel_session *s); /* forget everything */

/*
 * Of sequences from the next prefill on: may the experts be added into the weights, where
 * gates are fixed for a sequence? Those it computes with then are the session's own, in
 * float, formed when a prefill knows the gates and kept for as long as they stay. Auto:
 * where merge_choose() says so, for the prompt and N_STEPS steps, and where it fits; always:
 * or a prefill is refused, ARTEL_EUSAGE MRG01 where there are no such weights, ARTEL_ELIMIT
 * MRG02 where they do not fit into MOST_BYTES (0: what the machine has left). Not of a
 * pooled session, whose base is shared. The mixture must stay as it is.
 */
enum merge_mode { MERGE_NEVER, MERGE_AUTO, MERGE_ALWAYS };
int session_set_merge(struct artel_session *s, enum merge_mode mode, size_t n_steps,
                      size_t most_bytes, struct artel_error *err);
/* What the sequence at hand computes with merged weights. */
enum merge_extent session_merged(const struct artel_session *s);

/*
 * Make the sequence IDS (N): what agrees with the cache under the same expert is kept, the
 * rest is computed. EXPERT_AUTO routes on rows POOL_FIRST .. + POOL_N (the last user turn)
 * and fixes one expert as the mixture's rule says. ARTEL_ELIMIT when N exceeds the room. A
 * pooled session is promised all the room that it was opened for.
 */
int session_prefill(struct artel_session *s, const int32_t *ids, size_t n, int expert,
                    size_t pool_first, size_t pool_n, struct artel_error *err);
/*
 * The same in pieces, between which other sessions may step. N_ROOM (at least N): tokens that
 * the sequence may come to; a pooled session that cannot be promised blocks for them is
 * ARTEL_ELIMIT KV01 and unchanged. WATCH (may be NULL) must live until the prefill is done.
 */
struct prefill_watch {
    /* Logits (V) of position AT, for AT 0 .. N - 1 in order. Nothing is reused then. */
    void (*on_logits)(void *user, size_t at, const float *logits);
    float
        *hidden_mean; /* (D) gets the mean of the last layer's normed output, or NULL */
    void *user;
};
int session_prefill_begin(struct artel_session *s, const int32_t *ids, size_t n,
                          size_t n_room, int expert, size_t pool_first, size_t pool_n,
                          const struct prefill_watch *watch, struct artel_error *err);
/* The next piece: about the work of ROWS tokens through all layers. 1: the prompt is done;
 * 0: there is more. */
int session_prefill_some(struct artel_session *s, size_t rows, struct artel_error *err);
/* After a prefill: a pooled session may come to N_ROOM tokens, more or fewer than before.
 * ARTEL_ELIMIT KV01, and nothing has changed, where so many cannot be promised. */
int session_promise(struct artel_session *s, size_t n_room, struct artel_error *err);
/* Tokens of the last prefill that were there already. */
size_t session_cached(const struct artel_session *s);
/* Append one token. */
int session_step(struct artel_session *s, int32_t id, struct artel_error *err);
/*
 * Append a token to each of N sessions of one model and mixture, all different, whatever
 * experts or gates they have. Weights are read once for up to 32 of them. Each ends as if it
 * had stepped alone, to the bit. On ARTEL_ELIMIT none has moved.
 */
int sessions_step(struct artel_session *const *s, const int32_t *ids, size_t n,
                  struct artel_error *err);
/* (V) of the last token; valid until the next call. */
const float *session_logits(const struct artel_session *s);

size_t session_length(const struct artel_session *s);
size_t session_room(const struct artel_session *s); /* tokens it was opened for */
/* The expert in use (EXPERT_BASE: none; where tokens decide the one that has weighed most
 * since the prefill), and what the routers said of the last auto prefill. */
int session_expert(const struct artel_session *s);
/* Every token of the last auto prefill and since was routed on its own: gates averaged over
 * the tokens that were predicted, into MEAN (n_routers, E). False: it was not. */
bool session_gates(const struct artel_session *s, float *mean);
const float *session_probs(const struct artel_session *s,
                           size_t router); /* (E), or NULL */
size_t
session_layers_agreeing(const struct artel_session *s); /* routers whose argmax is it */

#endif
