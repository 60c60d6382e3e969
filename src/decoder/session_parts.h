/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a session share: session.c opens it and steps, prefill.c makes a
 * prompt its sequence, session_merge.c chooses the weights.
 */
#ifndef ARTEL_DECODER_SESSION_PARTS_H
#define ARTEL_DECODER_SESSION_PARTS_H

#include "decoder/decode.h"
#include "decoder/merged.h"
#include "decoder/pass.h"
#include "decoder/session.h"

/* Rows of a chunk. */
#define CHUNK_ROWS 256

enum prefill_stage {
    PREFILL_NONE,
    PREFILL_LAYERS, /* all rows at once, some layers a piece; routers decide */
    PREFILL_TELL,   /* those rows to who watches */
    PREFILL_CHUNKS  /* some rows through all layers a piece */
};

/* A prefill under way. */
struct prefill {
    enum prefill_stage stage;
    int32_t *ids; /* (n_context) */
    size_t n, pool_first, pool_n;
    const struct prefill_watch *watch; /* borrowed; or NULL */
    struct decoder_pass *pass;         /* that the layers are run by */
    size_t next;                       /* layer, or row to tell */
    int guess;  /* the expert under which rows before the layers' were found, or -1 */
    int expert; /* of chunks, or KV_BY_TOKEN */
    size_t origin; /* where the first chunk begins */
};

struct artel_session {
    const struct artel_model *model;
    const struct mixture *mixture;
    struct kv_pool *pool; /* borrowed; NULL: the cache has room of its own */
    struct kv_cache kv;
    size_t n_room; /* tokens that it may come to */
    struct arena arena;
    struct decoder_pass *pass; /* CHUNK_ROWS rows */
    struct decoder_pass *few; /* PASS_FEW_ROWS rows, as a step of decoding reads them */
    struct decoder_pass
        *wide; /* for longer prompts that route themselves; made when needed */
    struct sequence seq; /* of the last piece: its pass is asked what routers said */
    struct block block;
    struct decode_room room; /* of steps in which this session comes first */
    struct attended attended;
    float *held;   /* (n_routers, E) gates of a routed prompt */
    int32_t *ids;  /* (n_context) what the cache holds */
    float *logits; /* (V) */
    float *told;   /* (PASS_FEW_ROWS, V) on their way to who watches */
    float *probs;  /* (n_routers, E) of the last routing */
    int expert;
    size_t agreeing;
    bool routed; /* probs are of this sequence */
    bool
        by_router; /* no fixed expert: the routers' gates, as they decided at the prefill */
    bool by_token;    /* or as they decide for every token: */
    float *yield;     /* (n_routers) found at the prefill, where routers yield */
    double *gate_sum; /* (n_routers, E) over the rows that predicted a token */
    size_t n_summed;
    struct prefill prefill;
    size_t cached;
    enum merge_mode merge; /* as asked for, and for so many steps in so many bytes */
    size_t merge_steps, merge_most;
    struct merged *merged;    /* made when first asked for; or NULL */
    enum merge_extent extent; /* of it in this sequence */
};

/* A pass over N_ROWS rows at most that keeps its keys and values in S. */
int session_open_pass(struct decoder_pass **out, struct artel_session *s, size_t n_rows,
                      bool few, struct artel_error *err);
/* The gates of a sequence are known, and N_ROWS of its prompt are to be computed under them:
 * form merged weights, if so it shall be. */
int session_merge(struct artel_session *s, size_t n_rows, struct artel_error *err);
/* What P reads, of the rows in whole chunks or of the few behind them. */
void session_set_weights(const struct artel_session *s, struct decoder_pass *p);

#endif
