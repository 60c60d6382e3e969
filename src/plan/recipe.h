/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe: what to train, from what, and how. YAML in the words that PEFT,
 * LLaMA-Factory and the HF Trainer taught users; every key, its aliases and its
 * range stand in one table (recipe_keys.c).
 *
 * Opening a recipe reads no data and no model: what it refuses, it refuses at
 * once, with file:line:column and the nearest known name.
 */
#ifndef ARTEL_PLAN_RECIPE_H
#define ARTEL_PLAN_RECIPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decoder/frozen.h"
#include "experts/mixture.h"
#include "train/schedule.h"

struct artel_error;

#define UNIVERSAL_NAME "universal" /* of that expert */

/* Where text comes from. Paths are absolute; NULL where not given. */
struct recipe_domain {
    char name[EXPERT_NAME_MAX + 1];
    char *train, *valid, *test; /* owned */
    char *score;                /* "exact", ...; owned */
    char *adapter;              /* a PEFT folder instead of stage 1; owned */
    size_t max_rows;            /* of train; 0: all */
    size_t line;                /* in the recipe */
};

/* Text of no domain, and the expert that learns it (methods with a universal expert). */
struct recipe_universal {
    struct recipe_domain text; /* named "universal" */
    size_t rank;               /* 16 */
    float alpha;               /* 0: the rank, so that the scale is 1 */
    bool keep; /* domain experts are trained beside it where they need not be, false */
};

struct recipe_general {
    char name[EXPERT_NAME_MAX + 1];
    char *path; /* owned */
};

enum recipe_precision { RECIPE_AUTO, RECIPE_FP32, RECIPE_BF16 };

#define TOGETHER_ALL 4096 /* experts: as many as there are */

struct recipe_train {
    double learning_rate;                   /* 2e-4 */
    double epochs;                          /* 1; a fraction ends inside an epoch */
    uint64_t max_steps;                     /* 0: as epochs say */
    size_t batch_tokens;                    /* 2048, unless batch_size is given */
    size_t batch_size;                      /* rows a step; 0: by tokens */
    size_t accumulation;                    /* batches a step, 1 */
    size_t cutoff_len;                      /* tokens a row, 1024 */
    enum schedule_kind schedule;            /* cosine */
    double warmup_ratio;                    /* 0.03 */
    uint64_t warmup_steps;                  /* wins over the ratio where not 0 */
    double weight_decay, beta1, beta2, eps; /* 0, 0.9, 0.999, 1e-8 */
    double max_grad_norm;                   /* 1; 0: no clipping */
    uint64_t seed;                          /* 1 */
    uint64_t save_steps;                    /* 200; 0: at the end only */
    size_t save_total_limit;                /* 2 checkpoints kept */
    uint64_t eval_steps;                    /* 0: no evaluation during training */
    size_t patience;                        /* early_stopping_patience; 0: off */
    bool load_best;  /* load_best_model_at_end; true where eval_steps is given */
    double val_size; /* below 1: share of train, else rows; 0: none */
    bool shuffle;    /* true */
    bool packing;    /* true; how rows lie in memory, never a result */
    enum recipe_precision precision;
    enum memory_mode memory; /* auto: what fits; never a result */
    size_t skip_bad;         /* malformed rows tolerated a file, 0 */
    size_t nan_steps;        /* steps that may be skipped for values not finite, 0 */
    double spike_z;  /* deviations above which a step's loss leaves it out, 0: off */
    size_t together; /* experts that one pass trains; 0: auto, 1: one after the other */
    uint64_t logging_steps; /* 1: every step has its line in log.jsonl */
    bool tensorboard;       /* true: and in an event file beside it */
};

enum router_label { LABEL_DOMAIN, LABEL_ARGMAX }; /* an ablation, docs/METHODS.md */
enum classifier_input { CLASSIFY_HIDDEN, CLASSIFY_NGRAMS }; /* what it reads */
enum router_init { INIT_STAGE1, INIT_FRESH };

/* Layers of the base, from 1 on, ascending; none: the last. */
struct layer_list {
    size_t n;
    uint16_t at[ROUTER_READS];
};

struct recipe_router {
    double eta;           /* 0.1 */
    double learning_rate; /* 1e-2 */
    enum selector selector;
    enum router_pool pool;
    bool router_only;         /* experts stay as stage 1 made them */
    bool detach_router_input; /* no gradient from routers into the decoder */
    enum router_label label;  /* which expert a row runs through in stage 2 */
    enum router_init init;    /* experts at the start of stage 2 */
    bool freeze_old;          /* add: old experts do not move, true */
    double epochs;            /* of stage 2; 0: as train.epochs */
    double refresh_rate;      /* its learning rate; 0: learning_rate */
    double refresh;     /* epochs of the routers alone after a joint stage 2; 0: none */
    uint64_t max_steps; /* of stage 2; 0: as train.max_steps */
    /* Of routers that are taught by the answers' loss alone: */
    double init_std;   /* of their weights at first, 0.02 */
    double token_rate; /* their learning rate; 0: train.learning_rate */
    size_t experts;    /* of methods whose experts are of no domain; 0: one a domain */
    /* Of routers that are made of the experts: */
    size_t top_k;       /* experts kept for a token; 0: as the method has it, 3 */
    double temperature; /* that scores are divided by, 1 */
    /* Of routers that read the base alone: */
    struct layer_list ridge_layers;
    double ridge_lambda;      /* 1e-2 */
    double classifier_lambda; /* 1e-3 */
    enum classifier_input classifier;
    struct ngram_options ngrams; /* 2 to 4 characters, 16384 buckets, lowercase */
    size_t cache_mib; /* of router inputs on disk at most, 1024; 0: none are kept */
};

/* SLIM's own settings. */
struct recipe_slim {
    size_t identities;           /* experts that add nothing, 2 */
    size_t top_k;                /* 2 */
    size_t clusters;             /* a router, 8 */
    double momentum;             /* of clusters and of the mean distance, 0.99 */
    enum distance_kind distance; /* mean */
    double beta;                 /* how strongly routers yield, 1; 0: not at all */
    double drop;                 /* share of B A that masks drop, 0.5; 0: no masks */
    bool rescale;        /* what masks keep is weighed by 1 / (1 - drop), false */
    enum mask_kind mask; /* at inference, fixed */
    double l1;           /* 1e-4 */
};

/* MixLoRA's own settings. */
struct recipe_mixlora {
    size_t top_k;   /* experts a token, 2 */
    double top_p;   /* > 0: as many as reach this share of probability instead; 0 */
    double balance; /* weight of the balance loss, 1e-2 */
};

/* MoDULA's own settings. */
struct recipe_modula {
    bool residual; /* modula-res adds what its universal expert adds, true */
};

struct recipe {
    char *path;   /* of the file, absolute; owned */
    char *model;  /* absolute; owned */
    char *output; /* absolute; owned */
    size_t n_methods;
    char (*methods)[32]; /* in the order given; owned */
    struct lora_options lora;
    size_t n_domains;
    struct recipe_domain *domains;      /* owned */
    struct recipe_universal *universal; /* NULL where none; owned */
    size_t n_general;
    struct recipe_general *general; /* owned */
    struct recipe_train train;
    struct recipe_router router;
    struct recipe_slim slim;
    struct recipe_mixlora mixlora;
    struct recipe_modula modula;
    size_t general_rows; /* of each general set; 0: all */
    size_t max_rows;     /* of domains that do not give their own; 0: all */
    size_t store_sample; /* rows a domain kept beside a mixture for add, 200; 0: none */
    bool eval_given, best_given; /* eval_steps, load_best_model_at_end were written */
};

/*
 * Read PATH and apply OVERRIDES ("train.seed=2"). Relative paths are relative to the
 * recipe's folder, those in overrides too. ARTEL_EUSAGE: a mistake in it, with
 * WHERE = line:column and the key; ARTEL_EIO: cannot be read.
 */
int recipe_open(struct recipe **out, const char *path, const char *const *overrides,
                size_t n_overrides, struct artel_error *err);
/* The same from memory; FOLDER is what relative paths are relative to. */
int recipe_parse(struct recipe **out, const char *text, size_t n, const char *name,
                 const char *folder, const char *const *overrides, size_t n_overrides,
                 struct artel_error *err);
void recipe_close(struct recipe *r);

/* Every setting as used, defaults included, paths absolute, as YAML. Caller frees *OUT. */
int recipe_print(char **out, const struct recipe *r, struct artel_error *err);
/* The same as a JSON object in the recipe's own words; recipe_parse() reads it back. NULL
 * when there is no memory. */
json_t *recipe_json(const struct recipe *r);
/* One section of it: "lora", "train", "router", "slim", "mixlora", "modula" or,
 * where there is one, "universal". */
json_t *recipe_section(const struct recipe *r, const char *section);

#endif
