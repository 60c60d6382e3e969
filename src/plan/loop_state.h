/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's own numbers, as they stand in a checkpoint's state.json.
 */
#ifndef ARTEL_PLAN_LOOP_STATE_H
#define ARTEL_PLAN_LOOP_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "files/safetensors.h"
#include "save/checkpoint.h"
#include "train/trainer.h"

#define LOOP_WINDOW 10 /* steps in a mean of losses */

struct loop_state {
    uint64_t position;      /* steps of the data order that are behind us */
    uint64_t trainer_steps; /* updates made: position without the skipped ones */
    uint64_t skipped, clipped;
    uint64_t tokens, answer_tokens;
    double seconds;
    double start_loss; /* of the first step */
    double first_sum;  /* over the first n_first <= LOOP_WINDOW steps */
    uint64_t n_first;
    double last[LOOP_WINDOW]; /* a ring, by number of updates */
    uint64_t n_losses;
    uint64_t diverged; /* steps in a row above the bound */
    bool has_best;
    double best_measure, best_loss, valid_loss;
    uint64_t best_step, worse_evals, evaluated; /* evaluated: position, or UINT64_MAX */
    bool early_stopped;
    char isa[16];
};

void loop_state_init(struct loop_state *s);
void loop_state_count(struct loop_state *s, const struct step_report *r,
                      double max_grad_norm);
double loop_state_last_loss(const struct loop_state *s);
json_t *real_or_null(double value);
/* INPUTS (borrowed) goes along. NULL: no memory. */
json_t *loop_state_json(const struct loop_state *s, const json_t *inputs);
int loop_state_read(struct loop_state *s, const json_t *state, const char *path,
                    struct artel_error *err);

#endif
