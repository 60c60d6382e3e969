/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside a trainer: what its files share.
 */
#ifndef ARTEL_TRAIN_TRAINER_PARTS_H
#define ARTEL_TRAIN_TRAINER_PARTS_H

#include "base/arena.h"
#include "base/index.h"
#include "base/relay.h"
#include "train/adamw.h"
#include "train/trainer.h"

/* Router inputs of rows already seen, by the row's address (router_cache.c). */
struct router_cache {
    size_t room, used;          /* rows */
    size_t row_floats;          /* L * D */
    struct index places;        /* of rows among them, by their address */
    const struct example **row; /* (room) whose inputs they are */
    size_t written;             /* inputs that were handed on to the disk */
    float *z;                   /* (room, n_routers, D) */
};

#define WAVE_BLOCKS 64 /* of a wave at most */

struct artel_trainer {
    const struct artel_model *model; /* borrowed */
    struct mixture *mixture;         /* borrowed */
    struct train_options options;
    bool train_routers;
    bool is_lane; /* of several that share all but lists, step and group (together.c) */
    uint64_t step;
    double loss_limit;
    size_t n_threads;

    struct adamw adamw;
    struct adamw_group *groups; /* (n_groups): trained experts in order, then routers */
    size_t n_groups;
    float *adam_steps;        /* (n_groups) */
    struct mixture_grads sum; /* of the whole step; what the groups read */
    bool unclean;             /* SUM is not zero: the last step made no update */
    float **own; /* (E) or, where an expert is folded (experts/fold.h), read here */
    struct mixture_grads *part; /* (n_threads) of the block at hand */
    bool relayed;               /* blocks add to SUM itself; only routers have parts */
    struct relay relay;
    struct decoder_pass **pass; /* (n_threads) */
    struct pass_options pass_options;
    struct arena arena;

    /* Where the base is unpacked layer by layer (wave.c): */
    bool staged;
    struct arena wave; /* the states of the blocks under way */
    struct pass_state *states[WAVE_BLOCKS];
    void **stage_room; /* (n_threads) */

    /* Lists over the rows of a step, grown where a step has more than any before. */
    size_t room_rows;
    struct sequence *seqs;    /* (room_rows) */
    struct block *blocks;     /* (room_rows) */
    struct relay_item *items; /* (room_rows) of the blocks */
    size_t room_inputs;
    const struct example *
        *fresh;        /* (room_inputs) rows whose router inputs are not kept */
    const float **z;   /* (room_inputs) router inputs of all rows, */
    float **fresh_z;   /* and of the fresh ones */
    size_t n_computed; /* rows that went through the decoder for their inputs' sake */
    float *spill;      /* (room_inputs, L * D) inputs that the cache has no room for */
    char (*state_names)[EXPERT_NAME_MAX + 24]; /* (3 * n_groups) names in checkpoints */
    struct router_cache cache;

    /* Where routers have clusters (seen.c): */
    bool learns_clusters;
    size_t room_seen, n_seen; /* rows of the step */
    float *seen; /* (room_seen, n_routers, D) what routers saw of each, and */
    bool *saw;   /* (room_seen) whether they saw anything */
};

/* Floats of SEEN a row. */
size_t seen_floats(const struct artel_trainer *t);
/* Keep what a forward over BLOCK, one of T's, let the routers see. */
void trainer_see(struct artel_trainer *t, const struct decoder_pass *p,
                 const struct block *block);
/* Behind a step: clusters learn from its rows. */
void trainer_learn_seen(struct artel_trainer *t);
/* Experts put on the masks of STEP (mixture_wear); where there are none, nothing. */
void trainer_wear(struct artel_trainer *t, uint64_t step);
/* What is computed with, from numbers that were CHANGED (E; NULL: all): folded experts, the
 * step's masks, the bf16 step's operands. */
void trainer_renew(struct artel_trainer *t, const bool *changed);
/* Slopes of masked numbers become those of what lies beneath. */
void trainer_unmask_slopes(struct artel_trainer *t);
/* Adds the L1 term's slopes; returns the term. */
float trainer_add_l1(struct artel_trainer *t);

/* Room for N_ROWS in the lists of a step, and in those of router inputs. */
int trainer_room(struct artel_trainer *t, size_t n_rows, struct artel_error *err);
int trainer_input_room(struct artel_trainer *t, size_t n_rows, struct artel_error *err);
/* Cut ROWS into *N_BLOCKS blocks of whole rows. */
int trainer_lay_blocks(struct artel_trainer *t, size_t *n_blocks,
                       const struct example *const *rows, size_t n_rows,
                       float loss_scale, struct artel_error *err);

uint64_t trainer_block_seed(const struct artel_trainer *t, size_t micro, size_t block);
void trainer_add_loss(struct block_loss *total, const struct block_loss *one);
/* Where blocks take turns: N of them begin; what was touched on the way. */
void trainer_begin_relay(struct artel_trainer *t, size_t n);
void trainer_end_relay(struct artel_trainer *t);

/* Forward and backward of the blocks laid out, gradients into SUM. Returns the first block
 * whose loss is not finite, or N_BLOCKS. */
size_t trainer_run_blocks(struct artel_trainer *t, size_t n_blocks, size_t micro,
                          struct block_loss *total, size_t *bad_layer);
/* What a step that failed or was left out has left in SUM of what T trains; AdamW leaves
 * zeros. */
void trainer_zero_sums(struct artel_trainer *t);
/* SUM made ready for the update, and the L2 norm of what T trains there. */
double trainer_norm(struct artel_trainer *t, struct step_report *out);
/* The update from SUM, whose norm is NORM, and the rest of OUT. */
void trainer_update(struct artel_trainer *t, const struct block_loss *total,
                    double norm, struct step_report *out);

/* Bytes for the states of a wave's blocks, the largest block there may be at least. */
size_t wave_bytes(const struct artel_model *model, const struct mixture *mixture,
                  const struct pass_options *o, const struct train_options *train);
/* Forward and backward of the blocks, gradients into SUM. Returns the first block whose
 * loss is not finite, or N_BLOCKS. */
size_t wave_grads(struct artel_trainer *t, size_t n_blocks, size_t micro,
                  struct block_loss *total, size_t *bad_layer);
void wave_eval(struct artel_trainer *t, size_t n_blocks, struct block_loss *total);
/* What the routers of each sequence read, into its Z. */
void wave_read_inputs(struct artel_trainer *t, size_t n_blocks, float *const *z);

/* Router-only training: gradients from router inputs, which are computed once a row. WEIGHT
 * is that of one row's cross entropy at one router. */
void cache_carve(struct router_cache *c, struct arena *a, size_t n_routers, size_t dim,
                 size_t room);
/* Router inputs (n_routers, D) of a row, or NULL. */
float *cache_find(const struct router_cache *c, const struct example *row);
/* Room for a new row's, or NULL when full. */
float *cache_put(struct router_cache *c, const struct example *row);
int router_only_step(struct artel_trainer *t, const struct example *const *rows,
                     size_t n_rows, float weight, struct block_loss *total,
                     struct artel_error *err);

#endif
