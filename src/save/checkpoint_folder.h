/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folders of a training stage: which checkpoints there are, and how one
 * takes its place or goes without ever being half there.
 *
 *   checkpoint-N                         complete
 *   .checkpoint-N.artel-tmp.PID          being written or removed by process PID
 */
#ifndef ARTEL_SAVE_CHECKPOINT_FOLDER_H
#define ARTEL_SAVE_CHECKPOINT_FOLDER_H

#include <stddef.h>
#include <stdint.h>

struct artel_error;

#define CHECKPOINT_STATE   "state.json"
#define CHECKPOINT_TENSORS "state.safetensors"

/* STAGE_FOLDER/checkpoint-STEP in new memory, NULL: none. */
char *checkpoint_path(const char *stage_folder, uint64_t step);
/* The same for a hidden name; TAG tells several of one process apart. */
char *checkpoint_hidden_path(const char *stage_folder, uint64_t step, const char *tag);

/* Steps of the checkpoints, the largest first. No such folder: none. Caller frees *STEPS. */
int checkpoint_list(uint64_t **steps, size_t *n, const char *stage_folder,
                    struct artel_error *err);

/* ARTEL_ECONFLICT (CKP05) where PATH is a link or a file. 1: a folder is there, 0: nothing. */
int checkpoint_check_place(const char *path, struct artel_error *err);
/* The finished TEMPORARY becomes PATH; a folder that is there goes to ASIDE. */
int checkpoint_place(const char *temporary, const char *path, const char *aside,
                     struct artel_error *err);

/* Removes a folder and the files in it, or a link, which is not followed. 0 or -1, errno. */
int checkpoint_remove(const char *path);
/* Hides it first, so that a kill leaves no half checkpoint under its name. */
int checkpoint_retire(const char *stage_folder, uint64_t step);
/* Removes what dead processes left behind. */
void checkpoint_sweep(const char *stage_folder);

#endif
