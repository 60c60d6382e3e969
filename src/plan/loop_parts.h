/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside a loop: what its files share.
 */
#ifndef ARTEL_PLAN_LOOP_PARTS_H
#define ARTEL_PLAN_LOOP_PARTS_H

#include "base/error.h"
#include "plan/loop.h"
#include "plan/loop_state.h"
#include "plan/steplog.h"

struct loop {
    const struct loop_input *in;
    struct artel_trainer *trainer;
    struct order order;
    struct steplog log;
    struct loop_state s;
    uint64_t last_saved; /* position of the newest checkpoint, or UINT64_MAX */
    double began;        /* monotonic, of this process */
    double lent;         /* seconds since then that went into other loops */
    double seconds_before;
    uint64_t began_at; /* position */
    double speed;      /* tokens a second, smoothed */
    double limit;      /* on the loss of the step under way */
    double checked;    /* when files were looked at */
    bool save_failed;
    struct artel_error save_error;
};

/* P at L's place, told to the listener. */
void loop_tell_at(const struct loop *l, enum run_event event, const char *message);

/* The folder is still ours and the data still what it was. */
int loop_check_world(struct loop *l, struct artel_error *err);
/* A save that fails for want of room is said loudly and tried again at the next one; the
 * checkpoint before it stands. The world having moved ends the run. */
int loop_save(struct loop *l, struct artel_error *err);
int loop_last_save(struct loop *l, struct artel_error *err);
/* The best weights so far, and back to them where they are not the last ones. */
int loop_save_best(struct loop *l, struct artel_error *err);
int loop_take_best(struct loop *l, struct artel_error *err);
/* From the newest checkpoint, where there is one. */
int loop_resume(struct loop *l, struct artel_error *err);

/* In this order: the batches and where they end, then, when it has a trainer, what earlier
 * processes left, then turns until it is done, then the end of it; close always. */
int loop_lay_out(struct loop *l, const struct loop_input *in, struct artel_error *err);
void loop_fill_schedule(const struct loop *l, struct schedule *out);
int loop_start(struct loop *l, struct artel_error *err);
bool loop_is_done(const struct loop *l);
bool loop_asked_to_stop(const struct loop *l);
int loop_next(struct loop *l, const struct batch **micro, size_t *n_micro,
              struct artel_error *err);
/* RC and OWN of the trainer's step. */
int loop_stepped(struct loop *l, int rc, const struct step_report *r,
                 struct artel_error *own);
/* Evaluation and saving, where one is due. */
int loop_look_round(struct loop *l, struct artel_error *err);
int loop_stop(struct loop *l, struct artel_error *err);
int loop_finish(struct loop *l, struct loop_result *out, struct artel_error *err);
void loop_close(struct loop *l);

#endif
