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
#define LOOP_RECENT 32 /* steps that a spike is told by */

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
    bool had_gradient; /* a step of this process had one; not in state.json */
    bool has_best;
    double best_measure, best_loss, valid_loss;
    uint64_t best_step, worse_evals, evaluated; /* evaluated: position, or UINT64_MAX */
    bool early_stopped;
    double recent[LOOP_RECENT]; /* a ring of losses, of steps left out too */
    uint64_t n_recent, spikes;  /* losses so far; steps left out for theirs */
    char isa[16];
};

void loop_state_init(struct loop_state *s);
void loop_state_count(struct loop_state *s, const struct step_report *r,
                      double max_grad_norm);
/* Has the run diverged? N_VOCAB: a loss no better than a guess counts as dead. */
int loop_state_check_diverged(struct loop_state *s, const struct step_report *r,
                              size_t n_vocab, struct artel_error *err);

/*
 * A spike is a loss more than Z robust deviations above what recent ones say: above
 * median + Z max(1.4826 MAD, median / 100). INFINITY where Z is 0 or there are fewer
 * than half of LOOP_RECENT. A loss that is left out is noted too, so that a level that
 * stays becomes the new one.
 */
double loop_state_spike_limit(const struct loop_state *s, double z);
void loop_state_note_loss(struct loop_state *s, double loss); /* finite, or ignored */
double loop_state_last_loss(const struct loop_state *s);
json_t *real_or_null(double value);
/* INPUTS (borrowed) goes along. NULL: no memory. */
json_t *loop_state_json(const struct loop_state *s, const json_t *inputs);
int loop_state_read(struct loop_state *s, const json_t *state, const char *path,
                    struct artel_error *err);

#endif
