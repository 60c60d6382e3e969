/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An expert added into the weights of its base for good:
 *
 *     W' = W + s B A, then rounded to the format that is stored
 *
 * Tensors pass through a buffer of some rows, whatever the size of the model. What the
 * rounding does is measured on the way.
 *
 *     CNV06 what the output cannot say     CNV07 a number that does not fit its format
 */
#ifndef ARTEL_SAVE_MERGE_H
#define ARTEL_SAVE_MERGE_H

#include "experts/expert.h"
#include "files/tensor_out.h"
#include "model/weights.h"

struct artel_error;
struct artel_model;

/* What became of the tensors of one kind. Sums of squares over all their numbers. */
struct merge_kind {
    const char *name; /* "q_proj"; "other" for what no expert adapts */
    enum dtype from, to;
    size_t n_tensors;
    double weight; /* W + s B A, before rounding */
    double update; /* s B A */
    double error;  /* stored - (W + s B A) */
    double along;  /* error times update, summed: -update where nothing of it is left */
};

#define MERGE_KINDS 64
#define MERGE_NONE  SIZE_MAX /* no linear */

/* One tensor of the output. */
struct merge_entry {
    const struct tensor *from;
    size_t linear; /* layer * N_SITES + site, or MERGE_NONE */
    size_t kind;   /* index into kinds; only where it is computed, not copied */
    bool copied;
};

struct merge {
    const struct artel_model *model; /* borrowed */
    const struct expert *expert;     /* borrowed, or NULL: formats alone change */
    bool to_hf;                      /* rows of q and k go to Hugging Face's order */
    struct tensor *tensors;          /* (n) as they are written, without data; owned */
    struct merge_entry *entries;     /* (n); owned */
    char *names;                     /* of the output's tensors where others; owned */
    size_t n;
    struct merge_kind kinds[MERGE_KINDS];
    size_t n_kinds;
    size_t n_substituted; /* tensors whose own format cannot be written */
    char *missing;        /* what the output lacks, a line each, or NULL; owned */
};

void merge_release(struct merge *m);

/* TYPE of the linears that the expert adapts (of all weights where there is no expert);
 * N_DTYPES: each keeps its own where that can be written, else it gets Q8_0. */
int merge_to_gguf(struct merge *m, const char *path, const struct artel_model *model,
                  const struct expert *expert, enum dtype type,
                  struct artel_error *err);

/* A Hugging Face folder, which exists. TYPE: F32, F16 or BF16 of all weights; N_DTYPES:
 * as the source has them, F16 where that is GGUF. */
int merge_to_folder(struct merge *m, const char *folder,
                    const struct artel_model *model, const struct expert *expert,
                    enum dtype type, struct artel_error *err);

/* Shared by the two: room for N tensors, one of them, and the maker of their rows. */
int merge_init(struct merge *m, const struct artel_model *model,
               const struct expert *expert, size_t n, struct artel_error *err);
int merge_add(struct merge *m, const char *name, const struct tensor *from,
              enum dtype to, struct artel_error *err);
/* Linear of the base that T is, or MERGE_NONE. */
size_t merge_linear(const struct weights *w, const struct tensor *t);
int merge_rows(void *merge, void *out, const struct tensor *t, size_t first, size_t n,
               struct artel_error *err);

/* hf_files.c: config.json, tokenizer and generation settings beside the weights. */
int hf_files_copy(const char *folder, const struct weights *w, enum dtype type,
                  struct artel_error *err);
int hf_files_make(struct merge *m, const char *folder, enum dtype type,
                  struct artel_error *err);

#endif
