/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One token more for several sequences at once: weights are read once for all of them,
 * from the disk's form, with float activations.
 *
 * The threads divide the outputs of every product (and the keys of attention)
 * between them and meet after each: five times a layer. What a sequence gets does not
 * depend on its company or on the number of threads, to the bit.
 *
 *   T sequences, one row each   L layers   D width   E experts
 *   H query heads, G key-value heads of d   F width of the FFN   V vocabulary
 */
#ifndef ARTEL_DECODER_DECODE_H
#define ARTEL_DECODER_DECODE_H

#include "decoder/frozen.h"
#include "decoder/kv_cache.h"
#include "experts/router.h"

#define DECODE_ROWS 32 /* most sequences of a step */

/* What attention over a chunk of one sequence's keys leaves for the sum of all. */
struct attended {
    float *mixed;      /* (chunks, H, d) sum of exp(score - most) v */
    float *most, *sum; /* (chunks, H) of the scores, of the exponentials */
};

/* One sequence. */
struct decode_row {
    struct kv_cache *kv; /* gets the token's keys and values; n is left alone */
    struct attended attended;
    int32_t id;
    int expert;  /* that serves it everywhere; -1: none, unless routed */
    bool routed; /* the routers decide: */
    const float
        *held; /* (n_routers, E) gates found at the prefill, or NULL: every row's own */
    const float *yield; /* (n_routers) found at the prefill, or NULL: 0 */
    double *gate_sum;   /* (n_routers, E) the token's gates are added; or NULL */
    float *logits;      /* (V) overwritten */
};

/* One thread's own part of the room. */
struct decode_desk {
    float *x;              /* (T, max(D, H d)) input of products */
    float *q, *scores;     /* heads of a group after rope; a chunk of scores */
    struct gates gates[3]; /* of up to three linears that share an input */
};

struct decode_room {
    size_t n_threads; /* desks */
    float *x;         /* (T, D) the residual stream */
    float *q, *k, *v; /* (T, H d), (T, G d) before rope */
    float *out;       /* (T, D) on its way to the residual */
    float *gate, *up; /* (T, F) gate becomes the SwiGLU */
    float *h;         /* (T, h_width) inner sides of LoRAs */
    size_t h_width;
    /* Where experts make whole FFNs: a row for every row that one of them serves, expert
     * after expert; gate becomes the SwiGLU. (T * E, F), else NULL */
    float *own_gate, *own_up;
    uint32_t *row_self;        /* (T) 0, 1, 2 ... */
    struct gates given;        /* experts told from outside */
    struct decode_desk *desks; /* (n_threads) */
};

void attended_carve(struct attended *out, struct arena *a, const struct model_config *c,
                    size_t n_context);
/* Room for DECODE_ROWS sequences and the threads there are now. MIXTURE may be NULL. */
void decode_room_carve(struct decode_room *r, struct arena *a,
                       const struct artel_model *model, const struct mixture *mixture);

/* N (1 .. DECODE_ROWS) different sequences. Rows of one expert side by side cost least. */
void decode_step(struct decode_room *room, const struct artel_model *model,
                 const struct mixture *mixture, const struct decode_row *rows,
                 size_t n);

#endif
