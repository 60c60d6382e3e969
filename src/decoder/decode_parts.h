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

/* A thread at work on it. */
struct worker {
    const struct step *step;
    struct member *member;
    struct decode_desk *desk;
    const struct gates *gates[3]; /* of the linears at hand */
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
/* Floats of h a row. */
size_t decode_h_width(const struct mixture *m);

/* Chunks of keys: some of the items (row, chunk, group). */
void decode_attend(struct worker *w, size_t layer);
/* Their sum into OUT (T, H d), by every thread for itself. */
void decode_attended(const struct step *s, float *out);
/* Keys of a chunk. */
#define CHUNK_KEYS 128

#endif
