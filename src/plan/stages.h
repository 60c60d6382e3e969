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
    STAGE_EXPERT,  /* one expert is trained, and becomes a PEFT folder */
    STAGE_ADAPTER, /* one expert from a PEFT folder, nothing trained */
    STAGE_BUNDLE,  /* a mixture of experts that are there, nothing trained */
    STAGE_SOLVED,  /* a mixture of such experts, whose router is solved from text */
    STAGE_MIXTURE  /* a mixture is trained */
};

/* What is trained on. */
enum stage_text {
    TEXT_OWN,       /* one domain's: there is such a stage for each */
    TEXT_UNIVERSAL, /* that of no domain */
    TEXT_DOMAINS,   /* all domains' */
    TEXT_ALL        /* all domains' and, where there is one, the universal */
};

/* Where the experts of the stage's mixture come from; a universal one is read besides. */
enum stage_start {
    START_OWN,   /* one, drawn: the domain's, or the universal */
    START_READ,  /* one a domain, as earlier stages left them in ROW's folder */
    START_INIT,  /* the same, or drawn: router.init */
    START_MIXED, /* one for all domains, drawn */
    START_POOL   /* router.experts of them, of no domain, drawn */
};

/* What moves. */
enum stage_moves {
    MOVES_EXPERTS, /* all but the universal one, where that is another stage's */
    MOVES_ROUTERS,
    MOVES_BOTH,
    MOVES_AS_ASKED /* both, or routers alone: router.router_only */
};

/* What routers are taught by; experts always learn from the answers' loss. */
enum stage_lesson {
    LESSON_ANSWERS, /* the same loss, through gates that the routers themselves decide */
    LESSON_LABELS, /* the domains' labels (router.eta), rows run through their own expert */
    LESSON_NONE,      /* nothing: they are made of the experts (experts/arrow.h) */
    LESSON_RIDGE,     /* the domains' labels, by least squares (experts/ridge.h) */
    LESSON_CLASSIFIER /* the same, by logistic regression (experts/logistic.h) */
};

/*
 * One kind of stage, as data (stage_table.c). A method is a list of rows; a row that
 * several methods of a recipe have is carried out once, so rows are shared by address.
 */
struct stage_row {
    const char *name; /* of the stage; the domain's follows with TEXT_OWN */
    enum stage_kind
        kind; /* STAGE_EXPERT becomes STAGE_ADAPTER where a domain brings one */
    const char *method; /* whose mixture results, and whose rule is in force; NULL: an
                             expert alone */
    enum stage_text text;
    enum stage_start start;
    const char
        *experts; /* folder beneath OUTPUT: where an expert goes, where a mixture's
                            domain experts are read; NULL: neither */
    enum expert_kind
        domain_kind; /* of experts that are neither universal nor shared by all */
    bool
        universal; /* the universal expert is the first of the mixture, and stays; beside
                       one domain's expert alone both have gate 1 */
    enum stage_moves moves;
    enum stage_lesson lesson;
    enum batch_mix mix;
};

#define METHOD_ROWS 4 /* most of a method */

/* Row I of METHOD for recipe R, in the order they run; NULL after the last. */
const struct stage_row *method_row(const char *method, const struct recipe *r,
                                   size_t i);
/* What FROM's stage makes is read by TO's. */
bool row_feeds(const struct stage_row *from, const struct stage_row *to);

struct stage {
    const struct stage_row *row;
    enum stage_kind kind;            /* as the row's, or STAGE_ADAPTER */
    char name[EXPERT_NAME_MAX + 16]; /* "expert-math" */
    size_t domain; /* of the expert it makes; n_domains: the universal one */
    char *folder;  /* OUTPUT/train/NAME; owned */
    bool pending;
    bool done; /* in this run */
};

/* A mixture that grows: its domains come first in the recipe, the new one last. */
struct growth {
    const char *path; /* of the mixture's folder; borrowed */
    size_t domain;    /* the new one */
    bool joint;       /* old experts move too */
    char **folder; /* (n_domains) where old experts lie, NULL for the new one; owned */
    char *universal; /* where that expert lies, or NULL; owned */
    const char *run; /* folder of the mixture's run, or NULL: of none; borrowed */
    char digest[DIGEST_SIZE]; /* of the routers before */
};

/* Everything that the stages of one run share. */
struct job {
    const struct recipe *r;
    const struct run_options *o;
    struct artel_model *model;
    enum precision precision;
    enum memory_mode memory; /* MEMORY_AUTO until the room is known */
    /* (n_domains + 1) the universal text's last; "" where there is no text; owned */
    char (*train_digest)[DIGEST_SIZE];
    char (*valid_digest)[DIGEST_SIZE];
    struct texts texts;
    const struct growth *grow; /* NULL: a recipe is carried out */
    size_t n_positions;        /* prepare the base for rows of this length at least */
    struct run_lock lock;
    struct watch watch;
    size_t n_stages;
    struct stage *stages; /* owned */
};

/* What S is computed in: the job's, unless its method is done in fp32 alone. */
enum precision stage_precision(const struct job *job, const struct stage *s);
/* Make the base ready for training in P; quick where it is. */
int job_prepare(const struct job *job, enum precision p, struct artel_error *err);
/* The same for answering and scoring rows. ARTEL_ELIMIT where it is trained over as it lies
 * on disk and does not fit unpacked. */
int job_prepare_to_measure(const struct job *job, struct artel_error *err);
/* Length of rows that the base is made ready for. */
size_t job_positions(const struct job *job);
/* In the order they run; the stages are part of JOB. */
int stages_list(struct job *job, struct artel_error *err);
/* A flat object, new. With EXPERTS the digests of the experts that the stage starts from. */
int stage_inputs(json_t **out, const struct job *job, const struct stage *s,
                 bool experts, struct artel_error *err);
/* What the stage makes is on disk. */
bool stage_result_there(const struct job *job, const struct stage *s);
/* OUTPUT/PART or OUTPUT/PART/REST in new memory. */
char *output_path(const struct job *job, const char *part, const char *rest);
/* Where the expert of DOMAIN (n_domains: the universal) lies that rows with EXPERTS read. */
char *expert_folder(const struct job *job, const char *experts, size_t domain);
/* Texts of the recipe: the domains', then the universal one where it has it. */
size_t text_count(const struct recipe *r);
const struct recipe_domain *text_at(const struct recipe *r, size_t i);
/* Rows of text I to read at most. */
size_t text_max_rows(const struct recipe *r, size_t i);
/* Texts FIRST to END - 1 are what S trains on; none where it trains nothing. */
void stage_texts(const struct job *job, const struct stage *s, size_t *first,
                 size_t *end);
/* texts_summary() of each of them, by name; a new reference. */
json_t *stage_texts_summary(const struct job *job, const struct stage *s);
/* A loop runs. */
static inline bool stage_trains(const struct stage *s)
{
    return s->kind == STAGE_EXPERT || s->kind == STAGE_MIXTURE;
}
/* The base is asked. */
static inline bool stage_computes(const struct stage *s)
{
    return stage_trains(s) || s->kind == STAGE_SOLVED;
}
/* Its result is an expert, not a mixture. */
static inline bool stage_makes_expert(const struct stage *s)
{
    return s->kind == STAGE_EXPERT || s->kind == STAGE_ADAPTER;
}
/* Experts of a method that has them of no domain. */
size_t pool_size(const struct recipe *r);
/* Its result holds experts of its own. */
bool stage_moves_experts(const struct job *job, const struct stage *s);
/* What a drawn expert of S is made of. */
struct lora_options stage_lora(const struct job *job, const struct stage *s);
/* Tell the listener outside of any loop. */
void job_tell(const struct job *job, const struct stage *s, enum run_event event,
              const char *message);

/* The mixture that stage S trains. READ: experts come from stage 1's results where the
 * recipe says so; else they are drawn (also to measure before those exist). */
int stage_mixture(struct mixture *out, const struct job *job, const struct stage *s,
                  bool read, struct artel_error *err);
/* An expert of S acts on the universal one: refuse while that is missing or says nothing. */
int stage_check_universal(const struct job *job, const struct stage *s,
                          struct artel_error *err);
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

/* What a reader of results wants to know of a training; new. */
json_t *stage_summary(const struct job *job, const struct loop_input *in,
                      const struct loop_result *l);
/* Stages that are trained in one pass over the base. */
struct stage_group {
    size_t n;
    struct stage **of;  /* (n) owned; of JOB */
    json_t **inputs;    /* (n) owned */
    json_t **summaries; /* (n) owned */
};
/* How many experts a pass trains at most; 1: each has its own. */
size_t together_limit(const struct job *job);
/* ARTEL_EUSAGE where the recipe asks for what cannot be. */
int together_check(const struct job *job, struct artel_error *err);
/* S and those behind it that may be trained with it; N is 1 where it has a pass of its own. */
int group_open(struct stage_group *g, const struct job *job, struct stage *s,
               struct artel_error *err);
void group_release(struct stage_group *g);
/* Train all of the group, whose INPUTS are known, write the results and summarise. */
int group_carry_out(struct stage_group *g, struct job *job, struct artel_error *err);
/* Bytes of memory that the group takes beside the prepared model. */
int group_memory(size_t *bytes, const struct stage_group *g, const struct job *job,
                 struct artel_error *err);

/* Router inputs of S over M on disk: those that are there, and room for more. *OUT is NULL
 * where none are kept. M's experts stay as they are while it is open. */
int stage_kept_inputs(struct kept_inputs **out, const struct job *job,
                      const struct stage *s, const struct mixture *m,
                      struct artel_error *err);
/* How many rows that has spared S. */
void tell_inputs(const struct job *job, const struct stage *s, size_t found,
                 size_t computed);

/* The loop of stage S over M; *SUMMARY is new. */
int stage_train(json_t **summary, struct job *job, const struct stage *s,
                struct mixture *m, const json_t *inputs, struct artel_error *err);
/* The router of M from the text of S: of all its experts or, while M grows, of the last one
 * beside what is known of the others. *SUMMARY is new. */
int stage_solve(json_t **summary, struct job *job, const struct stage *s,
                struct mixture *m, struct artel_error *err);
/* The same of a router that reads the text alone. */
int stage_solve_text(json_t **summary, const struct job *job, const struct stage *s,
                     struct mixture *m, struct artel_error *err);
size_t stage_solve_text_bytes(const struct job *job, const struct mixture *m);
/* What that takes beside the prepared model. */
size_t stage_solve_bytes(const struct job *job, const struct mixture *m);
/* Do the stage's work and write its result; *SUMMARY is new. */
int stage_carry_out(json_t **summary, struct job *job, const struct stage *s,
                    const json_t *inputs, struct artel_error *err);

#endif
