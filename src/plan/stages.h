/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stages of a recipe and what each is made from; shared by the files that
 * carry a run out (run.c, train_stage.c, results.c, grow.c).
 */
#ifndef ARTEL_PLAN_STAGES_H
#define ARTEL_PLAN_STAGES_H

#include <jansson.h>

#include "decoder/frozen.h"
#include "plan/lock.h"
#include "plan/loop.h"
#include "plan/recipe.h"
#include "plan/run.h"
#include "plan/stamp.h"
#include "plan/texts.h"
#include "plan/watch.h"

enum stage_kind {
    STAGE_EXPERT,  /* one expert on its domain */
    STAGE_ADAPTER, /* one expert from a PEFT folder */
    STAGE_BUNDLE,  /* a mixture of the stage 1 experts, nothing trained */
    STAGE_MIXED,   /* one expert on all domains */
    STAGE_ROUTER   /* routers, and experts where jointly */
};

struct stage {
    enum stage_kind kind;
    char name[EXPERT_NAME_MAX + 16]; /* "expert-math" */
    const char *method;              /* whose mixture it makes; borrowed, or NULL */
    size_t domain;                   /* STAGE_EXPERT, STAGE_ADAPTER */
    char *folder;                    /* OUTPUT/train/NAME; owned */
    bool pending;
};

/* A mixture that grows: its domains come first in the recipe, the new one last. */
struct growth {
    const char *path; /* of the mixture's folder; borrowed */
    size_t domain;    /* the new one */
    bool joint;       /* old experts move too */
    char **folder; /* (n_domains) where old experts lie, NULL for the new one; owned */
    char digest[DIGEST_SIZE]; /* of the routers before */
};

/* Everything that the stages of one run share. */
struct job {
    const struct recipe *r;
    const struct run_options *o;
    struct artel_model *model;
    enum precision precision;
    enum memory_mode memory; /* MEMORY_AUTO until the room is known */
    char (
        *train_digest)[DIGEST_SIZE]; /* (n_domains) "" where there is no text; owned */
    char (*valid_digest)[DIGEST_SIZE];
    struct texts texts;
    const struct growth *grow; /* NULL: a recipe is carried out */
    size_t n_positions;        /* prepare the base for rows of this length at least */
    struct run_lock lock;
    struct watch watch;
    size_t n_stages;
    struct stage *stages; /* owned */
};

/* Make the base ready for training; quick where it is. */
int job_prepare(const struct job *job, struct artel_error *err);
/* In the order they run; the stages are part of JOB. */
int stages_list(struct job *job, struct artel_error *err);
/* A flat object, new. With EXPERTS the digests of the experts that the stage starts from. */
int stage_inputs(json_t **out, const struct job *job, const struct stage *s,
                 bool experts, struct artel_error *err);
/* What the stage makes is on disk. */
bool stage_result_there(const struct job *job, const struct stage *s);
/* OUTPUT/PART or OUTPUT/PART/REST in new memory. */
char *output_path(const struct job *job, const char *part, const char *rest);
char *expert_folder(const struct job *job, size_t domain);
/* Rows of domain I to read at most. */
size_t domain_max_rows(const struct recipe *r, size_t i);
/* Tell the listener outside of any loop. */
void job_tell(const struct job *job, const struct stage *s, enum run_event event,
              const char *message);

/* The mixture that stage S trains. READ: experts come from stage 1's results where the
 * recipe says so; else they are drawn (also to measure before those exist). */
int stage_mixture(struct mixture *out, const struct job *job, const struct stage *s,
                  bool read, struct artel_error *err);
/* The mixture of the one expert that S takes over from a PEFT folder. */
int stage_adapter(struct mixture *m, const struct job *job, const struct stage *s,
                  struct artel_error *err);
/* The loop's input for S over M. TRAINED must have room for m->n_experts. */
void stage_loop_input(struct loop_input *out, const struct job *job,
                      const struct stage *s, struct mixture *m, bool *trained);
/*
 * Routers alone over the experts that a joint stage has made. What the routers learnt
 * early in that stage they learnt from experts that have moved since. NONE has room for a
 * bool an expert.
 */
bool stage_refreshes(const struct job *job, const struct stage *s);
void stage_refresh_input(struct loop_input *out, const struct job *job,
                         const struct loop_input *joint, bool *none);
/* A stream of random numbers of one's own for NAME. */
uint64_t name_stream(const char *name);

/* The loop of stage S over M; *SUMMARY is new. */
int stage_train(json_t **summary, struct job *job, const struct stage *s,
                struct mixture *m, const json_t *inputs, struct artel_error *err);
/* Do the stage's work and write its result; *SUMMARY is new. */
int stage_carry_out(json_t **summary, struct job *job, const struct stage *s,
                    const json_t *inputs, struct artel_error *err);

#endif
