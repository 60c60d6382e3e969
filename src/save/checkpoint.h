/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint-N folders of a training stage: state.safetensors (parameters and
 * moments), state.json (step, place in the data, digests of all that must be
 * the same on resume). Complete or absent: written under a temporary name,
 * synced, renamed.
 */
#ifndef ARTEL_SAVE_CHECKPOINT_H
#define ARTEL_SAVE_CHECKPOINT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;
struct tensor;
struct safetensors;

/* STATE (borrowed) goes into state.json beside our own fields. Keeps the newest KEEP. */
int checkpoint_write(const char *stage_folder, uint64_t step,
                     const struct tensor *tensors, size_t n_tensors,
                     const json_t *state, size_t keep, struct artel_error *err);

struct checkpoint {
    uint64_t step;
    char *path;               /* owned */
    json_t *state;            /* owned */
    struct safetensors *file; /* owned */
};

/*
 * The newest one that is whole. Damaged ones are passed over, each with a warning that
 * names the reason; where all are damaged: ARTEL_EFORMAT. 1: found, 0: there is none.
 */
int checkpoint_newest(struct checkpoint *c, const char *stage_folder,
                      struct artel_error *err);
/* The one of STEP, where it is there and whole. 1: found, 0: not, with a warning where it
 * is damaged. */
int checkpoint_at(struct checkpoint *c, const char *stage_folder, uint64_t step,
                  struct artel_error *err);
void checkpoint_release(struct checkpoint *c);

#endif
