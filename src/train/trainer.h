/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One optimizer step after another over the trained part of a mixture.
 *
 * Blocks of a batch are dealt to threads; each thread takes its block through
 * all layers and back; gradients are added in the order of the blocks, so that
 * the result is the same for any number of threads. Nothing is allocated in a step.
 */
#ifndef ARTEL_TRAIN_TRAINER_H
#define ARTEL_TRAIN_TRAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/batch.h"
#include "decoder/decoder.h"
#include "files/dtype.h"
#include "train/schedule.h"

struct artel_error;
struct artel_trainer;
struct kept_inputs;

struct train_options {
    float learning_rate;        /* of the experts, 2e-4 */
    float router_learning_rate; /* 1e-2 */
    float beta1, beta2, eps;    /* 0.9, 0.999, 1e-8 */
    float weight_decay;         /* of A, B and routers, 0 */
    float max_grad_norm;        /* over all that is trained; 0: no clipping; 1.0 */
    struct schedule schedule;
    uint64_t seed;             /* of dropout */
    enum routing_mode routing; /* ROUTE_GIVEN: domain label picks the expert */
    int forced_expert; /* >= 0: every row trains this expert; -1: expert = row's domain */
    bool unlabelled;   /* rows have no expert: the routers decide, by the loss alone */
    bool straight, detach_router;
    float l1;              /* weight of the L1 term of experts; 0: none */
    float eta;             /* weight of the router's cross entropy; 0: none */
    float balance;         /* weight of the balance loss; 0: none */
    bool lm_loss;          /* false: only the routers' cross entropy (experts frozen) */
    size_t max_row_tokens; /* longest row there will be */
    size_t block_rows;     /* rows a block has at most, a longer row aside; 0: 256 */
    enum memory_mode memory; /* MEMORY_AUTO: as MEMORY_KEEP; MEMORY_QUANTISED wants a
                                base that was prepared for it */
    size_t wave_rows;  /* MEMORY_QUANTISED: rows that go through the layers together, as
                         far as whole blocks do; 0: 2,048 */
    size_t cache_rows; /* !lm_loss: rows whose router inputs are kept, so that the
                                    decoder runs over each once; 0: none */
    struct kept_inputs
        *kept; /* and where they outlive the trainer, or NULL; borrowed */
};

void train_options_default(struct train_options *o);

/* TRAINED (n_experts of MIXTURE): which experts move. */
int trainer_open(struct artel_trainer **out, const struct artel_model *model,
                 struct mixture *mixture, const bool *trained, bool train_routers,
                 const struct train_options *o, struct artel_error *err);
/* A mixture with masks keeps them on, those for use: mixture_bare() before it is written. */
void trainer_close(struct artel_trainer *t);
/* Bytes that a trainer would take beside the prepared model. */
size_t trainer_bytes(const struct artel_model *model, const struct mixture *mixture,
                     const bool *trained, bool train_routers,
                     const struct train_options *o);

struct step_report {
    uint64_t step;         /* steps done, this one included */
    float loss;            /* mean over loss tokens, before the update */
    float router_loss;     /* mean cross entropy over routers and sequences, or 0 */
    float router_accuracy; /* of the last router, or 0 */
    float penalty;         /* the L1 term */
    float balance;         /* the balance loss, not weighed: 1 is even; or 0 */
    float grad_norm;       /* before clipping */
    float rate;            /* learning rate of the experts used */
    size_t n_tokens, n_loss;
    double seconds;
    bool left_out; /* the loss was above the limit: nothing was updated or counted */
};

/*
 * One update from N_MICRO batches (accumulation). ARTEL_ENONFINITE names step, layer and
 * expert where loss or a gradient is not finite; nothing has been updated then.
 */
int trainer_step(struct artel_trainer *t, const struct batch *micro, size_t n_micro,
                 struct step_report *out, struct artel_error *err);

/* Steps from here on change nothing where the loss (the routers', where they alone are
 * trained) is above LIMIT. */
void trainer_limit_loss(struct artel_trainer *t, double limit);

/* Mean answer loss over a corpus's examples, routed as in training. Threads share the rows. */
struct eval_report {
    double nll;
    size_t n_tokens, n_rows;
    double router_accuracy;
};
int trainer_eval(struct artel_trainer *t, const struct example *const *rows,
                 size_t n_rows, struct eval_report *out, struct artel_error *err);

/* Router inputs that were computed since go to disk, where the options say so: all, or,
 * unless LAST, once there are enough of them for a file. */
void trainer_keep_inputs(struct artel_trainer *t, bool last);
/* Rows that went through the decoder for their router inputs alone. */
size_t trainer_rows_computed(const struct artel_trainer *t);

/* What it was opened with. */
const struct artel_model *trainer_model(const struct artel_trainer *t);
const struct mixture *trainer_mixture(const struct artel_trainer *t);
uint64_t trainer_steps_done(const struct artel_trainer *t);

/*
 * Everything a resumed run needs beside the data order: parameters, AdamW moments, step.
 * Tensors are named "expert.NAME.params|m|v", "router.params|m|v" (all F32, flat) and borrow
 * the trainer's memory. Returns how many; OUT may be NULL to count.
 */
size_t trainer_state(const struct artel_trainer *t, struct tensor *out);
/* Copies them back in: every tensor of trainer_state must be among TENSORS with its size. */
int trainer_restore(struct artel_trainer *t, const struct tensor *tensors, size_t n,
                    uint64_t step, struct artel_error *err);

#endif
