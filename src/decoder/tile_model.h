/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frozen base laid out for the bf16 step: every group of linears that share an input
 * packed as one product for each direction, the head, and tables in the places of
 * tiles/tile_shape.h.
 */
#ifndef ARTEL_DECODER_TILE_MODEL_H
#define ARTEL_DECODER_TILE_MODEL_H

#include "base/arena.h"
#include "math/rope.h"
#include "tiles/tiles.h"
#include "model/weights.h"

struct artel_error;

struct tile_layer {
    uint16_t *forward[N_TILE_GROUPS];  /* [out panel][in block][PACK_ELEMS] */
    uint16_t *backward[N_TILE_GROUPS]; /* [in panel][out block][PACK_ELEMS], or NULL */
    float *attn_gain, *ffn_gain;       /* (blocks of D * 32), without zeros */
};

struct tile_model {
    struct tile_shape shape;
    struct tile_layer *layers; /* (L); where staged, every second has the same place */
    float *final_gain;         /* as attn_gain */
    struct tile_head head;
    struct tile_rope rope; /* POS is not set */
    /* Places of a head's keys and values in a session's float rows. */
    int32_t *k_index, *v_index;
};

/* Laid in ARENA, or measured, for USE, an OR of enum matrix_use. */
void tile_model_carve(struct tile_model *m, struct arena *arena,
                      const struct model_config *c, size_t n_positions, int use);
/* Fill what was laid out, on all threads, staged layers aside; ROPE reaches as far as the
 * carved tables. ARTEL_ELIMIT where scratch is missing. */
int tile_model_fill(struct tile_model *m, const struct weights *w,
                    const struct rope *rope, int use, struct artel_error *err);
/* The panels of a layer, and one of them for the directions of USE. */
size_t tile_model_panels(const struct tile_model *m);
void tile_model_fill_panel(const struct tile_model *m, const struct weights *w,
                           size_t layer, size_t panel, int use, float *room);
/* Floats of ROOM. */
size_t tile_model_room(const struct model_config *c);

#endif
