/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop that trains, evaluates and saves one stage.
 *
 *     step -> (evaluate) -> (save) -> step ...
 *
 * Its whole state is the trainer's (parameters, moments, step) and a few numbers
 * in the checkpoint's state.json; the data order is a function of the step. So a
 * loop that continues from any checkpoint ends in the same bytes.
 */
#ifndef ARTEL_PLAN_LOOP_H
#define ARTEL_PLAN_LOOP_H

#include <jansson.h>

#include "plan/lock.h"
#include "plan/order.h"
#include "plan/recipe.h"
#include "plan/run.h"
#include "plan/watch.h"
#include "train/trainer.h"

struct loop_input {
    const char *stage;  /* "expert-math" */
    const char *folder; /* of the stage: checkpoints and log; exists */
    size_t stage_idx, n_stages;
    struct artel_model *model; /* prepared */
    struct mixture *mixture;
    const bool *trained; /* (n_experts) */
    bool train_routers;
    struct train_options train; /* the loop fills in the schedule */
    const struct recipe_train *settings;
    double epochs; /* of this stage */
    uint64_t max_steps;
    enum batch_mix mix;
    const struct corpus *const *corpora; /* (n_corpora) */
    size_t n_corpora;
    const struct example *const *valid; /* (n_valid) */
    size_t n_valid;
    const struct example *const *held; /* (n_held) sorted; of corpora, not trained on */
    size_t n_held;
    const json_t *inputs; /* what the stage is made from, kept in every checkpoint */
    struct watch *watch;
    const struct run_lock *lock; /* NULL: the folder is not watched */
    const struct run_options *run;
};

struct loop_result {
    uint64_t steps;                    /* done, skipped ones not counted */
    uint64_t skipped, spikes, clipped; /* skipped: not finite; spikes: left out too */
    uint64_t tokens, answer_tokens;
    double seconds; /* of training and evaluation, over all processes that had a part */
    double first_loss, last_loss; /* mean of the first and last ten steps */
    double valid_loss;  /* of the weights that are kept; 0 without validation */
    uint64_t best_step; /* 0: the last */
    bool early_stopped;
    size_t inputs_found, inputs_computed; /* rows, of this process; where routers alone
                                             are trained */
};

/*
 * Leaves the trained weights in the mixture. ARTEL_ESTOPPED: a checkpoint is written and
 * the stage is not done; ARTEL_ENONFINITE: training diverged, the last finite
 * checkpoint stands.
 */
int loop_run(const struct loop_input *in, struct loop_result *out,
             struct artel_error *err);

/* The same for N experts in one pass over the base: loop i trains expert i of MIXTURE, and
 * IN[i].mixture holds that one alone, borrowed from it. */
int loop_run_together(const struct loop_input *in, struct loop_result *out, size_t n,
                      struct mixture *mixture, struct artel_error *err);

/* Bytes of memory and of disk that the stage would take beside the prepared model. */
size_t loop_memory(const struct loop_input *in);
uint64_t loop_disk(const struct loop_input *in);

/* Tell RUN's listener; P's stage fields are filled in from IN. */
void loop_tell(const struct loop_input *in, enum run_event event, const char *message);

#endif
