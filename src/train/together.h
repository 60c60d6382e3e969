/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several experts trained in one pass over the base, each as if it were alone.
 *
 * A lane is a trainer of one expert of a mixture: its own step, schedule, loss limit,
 * moments and state. Lanes share passes, and a step runs the blocks of several lanes'
 * batches side by side: the frozen products are shared, the low-rank ones are each
 * expert's. Loss, norm, clipping and update are a lane's own.
 *
 * In fp32 and without dropout every lane ends in the bits that it would alone: blocks
 * are cut for each lane as they would be alone, a block of the step takes one of each lane
 * at most and each lane's in their order, and a row's result does not depend on the rows
 * beside it.
 */
#ifndef ARTEL_TRAIN_TOGETHER_H
#define ARTEL_TRAIN_TOGETHER_H

#include "base/error.h"
#include "train/trainer.h"

struct together;

/* Lane e trains expert e of MIXTURE (no routers) and follows SCHEDULES[e]; O holds for all.
 * ARTEL_EUSAGE: dropout, or a base that was prepared for bf16. */
int together_open(struct together **out, const struct artel_model *model,
                  struct mixture *mixture, const struct schedule *schedules,
                  const struct train_options *o, struct artel_error *err);
void together_close(struct together *t);
/* Bytes that it would take beside the prepared model. */
size_t together_bytes(const struct artel_model *model, const struct mixture *mixture,
                      const struct train_options *o);
/* For all that a trainer can do but step and close; borrowed. */
struct artel_trainer *together_lane(const struct together *t, size_t e);

struct lane_step {
    size_t lane;
    const struct batch *micro; /* (n_micro) as of trainer_step */
    size_t n_micro;
    struct step_report report; /* its seconds: the lane's share, by tokens */
    int rc;                    /* as of trainer_step */
    struct artel_error error;
};

/* A step of each of N different lanes. What goes wrong in one lane is that lane's RC. */
void together_step(struct together *t, struct lane_step *steps, size_t n);

#endif
