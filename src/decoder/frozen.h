/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frozen base, ready to compute with: its tokenizer and chat template, its
 * norms in float, its linears in the forms that the work needs. Never changes
 * once open; any number of threads may read it.
 */
#ifndef ARTEL_DECODER_FROZEN_H
#define ARTEL_DECODER_FROZEN_H

#include "base/arena.h"
#include "decoder/tile_model.h"
#include "math/matrix.h"
#include "math/rope.h"
#include "model/weights.h"

struct artel_error;
struct tokenizer;
struct chat_template;

/* What a training step holds in memory. The bits are the same in every mode. */
enum memory_mode {
    MEMORY_AUTO,      /* whoever asks chooses by the memory at hand */
    MEMORY_KEEP,      /* all activations of a row block */
    MEMORY_RECOMPUTE, /* the input of each layer; the rest is computed anew */
    MEMORY_QUANTISED, /* that, and linears as they lie on disk, unpacked layer by layer */
    N_MEMORY_MODES
};

/* "auto", "keep", "recompute", "quantised" */
const char *memory_mode_name(enum memory_mode m);
/* What training in a mode asks of model_prepare(): an OR of enum matrix_use. */
int memory_mode_use(enum memory_mode m);
/* -1 where unknown. */
int memory_mode_find(enum memory_mode *out, const char *name);

struct frozen_layer {
    float *attn_norm, *ffn_norm; /* (D) */
    struct matrix site[N_SITES];
};

struct artel_model {
    struct weights *weights;
    struct tokenizer *tokenizer;
    struct chat_template *chat; /* NULL where the model has none */
    char base_digest[DIGEST_SIZE], tokenizer_digest[DIGEST_SIZE],
        chat_digest[DIGEST_SIZE];

    bool is_finite; /* model_check_finite() found it so */

    /* Filled by model_prepare(). */
    int use; /* OR of enum matrix_use; 0: not prepared */
    enum precision precision;
    size_t n_positions; /* rope tables reach this far */
    struct arena arena;
    struct frozen_layer *layers; /* (L); in the arena */
    float *final_norm;           /* (D) */
    struct matrix embed, head;   /* (V, D) */
    struct rope rope;
    bool has_tiles; /* bf16: linears and head are in TILES, not in their matrices */
    struct tile_model tiles;
};

/* Opens weights, tokenizer and template; computes the digests. Cheap: no weight is read
 * but for the samples. */
int model_open(struct artel_model **out, const char *path, struct artel_error *err);
/* Refuse a base with weights that are NaN or infinite; its bytes are read once. */
int model_check_finite(struct artel_model *m, struct artel_error *err);
/* Makes the weights ready for USE, for sequences up to N_POSITIONS tokens. Asked again with
 * more, it lays out anew. ARTEL_ELIMIT tells needed and available bytes. */
int model_prepare(struct artel_model *m, enum precision precision, int use,
                  size_t n_positions, struct artel_error *err);
void model_close(struct artel_model *m);
/* Bytes that model_prepare() would take. */
size_t model_prepared_bytes(const struct artel_model *m, enum precision precision,
                            int use, size_t n_positions);
/* OUT is M as model_prepare() would leave it, for measuring what works on it: nothing in
 * it may be computed with. */
int model_plan(struct artel_model *out, const struct artel_model *m,
               enum precision precision, int use, size_t n_positions,
               struct artel_error *err);
void model_plan_release(struct artel_model *planned);

#endif
