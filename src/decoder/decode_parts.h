/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a decode step share.
 */
#ifndef ARTEL_DECODER_DECODE_PARTS_H
#define ARTEL_DECODER_DECODE_PARTS_H

#include "base/team.h"
#include "decoder/decode.h"

/* A step, the same for all threads. */
struct step {
    const struct artel_model *model;
    const struct mixture *mixture; /* NULL: the base alone */
    const struct decode_row *rows;
    struct decode_room *room;
    size_t T;
    bool routed, reading; /* some row is; some router has to read */
};

/* Which rows a product of experts reads and writes. Where experts make whole FFNs those
 * between gate and down are the experts' own (decode_ffn.c). */
enum decode_rows {
    ROWS_SHARED,
    ROWS_TO_OWN,  /* gate and up, not weighed */
    ROWS_FROM_OWN /* down */
};

/* A thread at work on it. */
struct worker {
    const struct step *step;
    struct member *member;
    struct decode_desk *desk;
    const struct gates *gates[3]; /* of the linears at hand */
    enum decode_rows rows;        /* likewise */
    size_t router
        [3]; /* whose decisions lie in desk->gates: index plus one, 0 for none's */
};

/* Part of N outputs that is this thread's. */
static inline void decode_part(const struct worker *w, size_t n, size_t *first,
                               size_t *end)
{
    team_share(w->member, n, 16, first, end);
}

/*
 * The experts' part of N linears of a layer, from FIRST on, which share the input X (T, N):
 * h = s gate A x for this thread's part of all inner sides, then y += B h for its part of the
 * outputs Y[i] (T, M). Between them the team has to meet. DOWN returns whether there is any.
 */
bool decode_lora_down(struct worker *w, const float *x, size_t layer, enum site first,
                      size_t n);
void decode_lora_up(struct worker *w, float *const *y, size_t layer, enum site first,
                    size_t n);
/* The FFN where experts make whole ones (decode_ffn.c). SPREAD: this thread's part of what
 * the frozen gate and up gave to the experts' own rows; SWIGLU: own_gate becomes each one's
 * SwiGLU, and the room's gate their sum under the gates. */
bool decode_whole_ffn(const struct worker *w);
void decode_spread(const struct worker *w);
void decode_own_swiglu(const struct worker *w);
/* Where the I-th row served of G lies among the experts' own. */
static inline size_t decode_own_row(const struct gates *g, uint32_t i)
{
    return i - g->first[g->n_fixed];
}

/* Floats of h a row. */
size_t decode_h_width(const struct mixture *m);

/* Chunks of keys: some of the items (row, chunk, group). */
void decode_attend(struct worker *w, size_t layer);
/* Their sum into OUT (T, H d), by every thread for itself. */
void decode_attended(const struct step *s, float *out);
/* Keys of a chunk. */
#define CHUNK_KEYS 128

#endif
