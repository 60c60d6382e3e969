/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage.json: what a stage is made from, as a flat JSON object of settings and
 * digests, and whether it is complete. Two runs of a stage with equal inputs
 * give equal weights; with unequal ones, the differences are told by name.
 */
#ifndef ARTEL_PLAN_STAMP_H
#define ARTEL_PLAN_STAMP_H

#include <jansson.h>
#include <stdbool.h>

#include "plan/run.h"

struct artel_error;

struct stamp {
    bool there; /* stage.json exists */
    bool complete;
    bool safe; /* every difference is in a setting that may change on resume */
    size_t n_differences;
    char (*differences)[320]; /* "train.seed was 1, is 2"; owned */
    char *changed_data;       /* the first "data." key that differs, or NULL; owned */
    char was[80], is[80];     /* its digests */
    json_t *summary;          /* of a complete stage, or NULL; owned */
};

/* Compare the stamp in FOLDER with INPUTS; keys that begin with IGNORE (or NULL) are left
 * out. ARTEL_EFORMAT: stage.json is damaged; ARTEL_ECONFLICT: checkpoints without one. */
int stamp_read(struct stamp *s, const char *folder, const json_t *inputs,
               const char *ignore, struct artel_error *err);
/* The same of two such objects; S is zeroed or released. */
int stamp_compare(struct stamp *s, const json_t *was, const json_t *is,
                  const char *ignore, struct artel_error *err);
void stamp_release(struct stamp *s);
int stamp_write(const char *folder, const char *stage, const json_t *inputs,
                bool complete, const json_t *summary, struct artel_error *err);
/* The refusal that lists the differences, or names changed data. */
int stamp_refuse(const struct stamp *s, const char *stage, const char *folder,
                 const char *data_path, struct artel_error *err);

/* Everything in a stage's folder, its stamp last. Links are removed, not followed. */
int stage_folder_clear(const char *folder, struct artel_error *err);
/* FOLDER and everything in it. */
int remove_tree(const char *folder, struct artel_error *err);

#endif
