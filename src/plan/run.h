/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe carried out: every stage that is not up to date, in order.
 *
 *     expert-NAME   stage 1, one a domain without adapter (single, moa)
 *     mixed         one expert on all domains (mixed)
 *     moa-router    stage 2, routers and experts jointly, or routers only (moa)
 *
 * A stage has a folder OUTPUT/train/STAGE with checkpoints, log.jsonl and a
 * stamp of everything it was made from. Results go to OUTPUT/experts/NAME and
 * OUTPUT/METHOD. Killed at any moment, the same call continues from the newest
 * whole checkpoint and ends in the same bytes.
 */
#ifndef ARTEL_PLAN_RUN_H
#define ARTEL_PLAN_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;
struct recipe;

enum run_event {
    RUN_STAGE,   /* a stage begins; MESSAGE tells how ("continues at step 40") */
    RUN_SKIPPED, /* a stage is up to date */
    RUN_STEP,    /* one optimizer step is done */
    RUN_EVAL,    /* LOSS is the validation loss */
    RUN_SAVED,   /* MESSAGE is the path of a checkpoint */
    RUN_NOTE,    /* MESSAGE, such as rows dropped */
    RUN_WARNING, /* MESSAGE */
    RUN_DONE     /* a stage is complete; MESSAGE is the path of its result */
};

struct run_progress {
    enum run_event event;
    const char *stage; /* "expert-math"; "" outside of stages */
    size_t stage_idx, n_stages;
    uint64_t step, n_steps;
    double epoch;
    double loss, router_loss,
        router_accuracy; /* router_*: 0 where there is no router */
    double learning_rate, grad_norm;
    double tokens_per_second;
    double seconds_left; /* of this stage; below 0: not known yet */
    const char *message; /* or NULL */
};

/* What to do where a stage was made from something else than the recipe now says. */
enum run_changes {
    CHANGES_REFUSE,  /* ARTEL_ECONFLICT lists each difference */
    CHANGES_SAFE,    /* settings that keep data order and shapes may change on resume */
    CHANGES_RETRAIN, /* the stage's old work is removed and it is trained anew */
};

struct run_options {
    void (*progress)(void *user, const struct run_progress *p); /* may be NULL */
    void *user;
    const volatile sig_atomic_t *stop; /* may be NULL; not 0: stop at the next step */
    size_t memory_bytes;               /* may be used; 0: what the machine has free */
    enum run_changes changes;
    bool must_resume; /* ARTEL_ECONFLICT where there is nothing to continue */
    bool force;       /* adapters of another base are read */
    bool nonfinite;   /* a base with weights that are NaN or infinite is used */
    const char *only; /* a single stage ("expert-math"), or NULL: all */
};

/* MESSAGE of no stage, to whom O says; O may be NULL. */
void run_tell(const struct run_options *o, enum run_event event, const char *message);

/* ARTEL_ESTOPPED: asked to stop, and everything is saved. */
int run_recipe(const struct recipe *r, const struct run_options *o,
               struct artel_error *err);

#endif
