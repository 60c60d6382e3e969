/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixture: experts, the routers that weigh them, and the rule that makes
 * gates of router logits. A mixture is data; a method is a preset that fills
 * it (methods.c). All methods share one forward and one backward (apply.h).
 *
 *     y_t = W0 x_t + sum_e g_e(t) s_e B_e phi_e(A_e x_t)
 *
 *   E experts, identities included   L layers   D width
 */
#ifndef ARTEL_EXPERTS_MIXTURE_H
#define ARTEL_EXPERTS_MIXTURE_H

#include <stdatomic.h>

#include "experts/clusters.h"
#include "experts/masks.h"
#include "experts/ngrams.h"
#include "experts/ridge.h"

/* Which places share one router, and what it reads there. */
enum router_place {
    ROUTER_NONE,  /* gates are given from outside (one expert, or fixed weights) */
    ROUTER_LAYER, /* one a layer; reads the layer's input after its norm */
    ROUTER_FFN, /* one a layer for gate, up and down; reads the FFN's input after its norm */
    ROUTER_LINEAR, /* one a linear; reads that linear's input */
    ROUTER_BASE, /* one of all; reads what the base alone makes of the user turn, and has
                  * decided before an expert is asked */
    ROUTER_TEXT, /* one of all; reads the characters of the user turn, and has decided
                  * before anything is computed */
};

enum router_decides {
    DECIDE_SEQUENCE,
    DECIDE_TOKEN
};                                         /* sequence: mean over the pool rows */
enum router_pool { POOL_MEAN, POOL_LAST }; /* of the last user turn */
enum gate_kind {
    GATE_ONE_HOT,
    GATE_SOFTMAX,
    GATE_TOP_K, /* the k largest, renormalised over the kept */
    GATE_TOP_P  /* as many of the largest as reach a share together, the same */
};
enum selector { SELECT_LAST, SELECT_VOTE }; /* docs/METHODS.md */

#define ROUTER_READS 8 /* most layers that ROUTER_BASE reads */

struct gate_rule {
    enum router_place place;
    enum router_decides decides;
    enum router_pool pool;
    enum gate_kind kind;
    size_t top_k; /* GATE_TOP_K */
    float top_p;  /* GATE_TOP_P: that share */
    bool bias;    /* router logits have one */
    bool
        fix_expert; /* at inference one expert serves the whole generation (SELECTOR) */
    enum selector selector;
    size_t
        n_fixed; /* the first so many experts have gate 1: routers have no row for them */
    bool
        silent; /* their gate is 0: others read what they would add, the output has none */
    bool whole_ffn; /* experts that are not fixed stand in the FFN alone, and each makes
                       one of its own there (whole_ffn.h); fixed ones stand elsewhere */
    size_t n_reads; /* ROUTER_BASE: layers whose output is read, */
    uint16_t reads[ROUTER_READS]; /* 1 .. L, ascending */
    struct ngram_options ngrams;  /* ROUTER_TEXT: what it reads of them */
    bool absolute;                /* a logit counts without its sign */
    float temperature;            /* that logits are divided by; 0: 1 */
    /* Identities take weight from LoRAs where an input lies far from what was seen in
     * training; 0 clusters: nothing yields. For rows that decide. */
    size_t n_clusters;
    struct cluster_options clusters;
    struct mask_rule masks; /* of the LoRAs */
};

/* One router: logits = W z + b. */
struct router {
    size_t n_experts, dim; /* K, D: of the experts that are not fixed */
    float *w;              /* (K, D) */
    float *b;              /* (K), or NULL */
    bool absolute;         /* as the rule says */
    float temperature;
};

struct expert_stack;

struct mixture {
    char method[32]; /* "moa" */
    struct gate_rule rule;
    size_t n_layers;        /* L */
    size_t n_experts;       /* E */
    struct expert *experts; /* (E); owned */
    size_t n_routers;       /* L, L, L * N_SITES or 0 */
    struct router *routers; /* (n_routers); owned */
    float *router_params;   /* (n_router_params) every W and b in order; owned */
    size_t n_router_params;
    bool *identity;       /* (E) which experts are; owned */
    float *cluster_state; /* (n_routers) blocks for clusters_view, NULL: nothing yields;
                             owned */
    float **bare; /* (E) params as they are learnt and written, while the experts' own
                     are masked (mixture_wear); NULL: those are they; owned */
    void *mask_room;
    struct ridge_sums sums; /* that the router was solved from; dim 0: none */
    struct expert_stack
        *stack;            /* the experts for the bf16 step (stack.h), or NULL; owned */
    atomic_size_t n_users; /* sessions and trainers laid out for these experts */
    uint64_t
        stamp; /* another whenever an expert comes or goes; no two mixtures have the same */
};

/* Empty, for a base of config C. ROUTER_NONE until mixture_set_rule. */
int mixture_init(struct mixture *m, const char *method, const struct model_config *c,
                 const struct gate_rule *rule, struct artel_error *err);
void mixture_release(struct mixture *m);

/* Who is laid out for the experts that there are holds them: none comes or goes until all
 * have let go. M is otherwise left as it is. */
void mixture_hold(const struct mixture *m);
void mixture_let_go(const struct mixture *m);

/* Takes over E (zeroed afterwards); every router gets a zero row, unless E is fixed.
 * ARTEL_EFORMAT where the name is taken, its shape is of another base, or it reads a
 * universal expert that is not there; ARTEL_ECONFLICT where M is held. */
int mixture_add(struct mixture *m, struct expert *e, const struct model_config *c,
                struct artel_error *err);
/* Leaves the other experts and rows as they are. ARTEL_ECONFLICT where M is held. */
int mixture_remove(struct mixture *m, size_t index, struct artel_error *err);
/* Index of NAME, or -1. */
int mixture_find(const struct mixture *m, const char *name);
/* Router weights N(0, std); std 0 leaves zeros. */
void mixture_draw_routers(struct mixture *m, float std, uint64_t seed);
/* What router ROUTER_IDX has seen, as one block of so many floats and as views of it; only
 * where the rule yields. */
size_t mixture_cluster_floats(const struct mixture *m, size_t router_idx);
float *mixture_cluster_block(const struct mixture *m, size_t router_idx);
void mixture_clusters(struct clusters *c, const struct mixture *m, size_t router_idx);
/*
 * The experts' params become those masked for training step STEP, or by the rule for use
 * (MASK_INFERENCE); what was learnt waits in BARE. Only the first call may fail, for want
 * of memory. Does nothing where the rule has no masks. A stack is to be packed anew.
 */
int mixture_wear(struct mixture *m, const struct model_config *c, uint64_t step,
                 struct artel_error *err);
/* OUT: expert INDEX as it was learnt, whatever it wears; borrowed but for OUT->lora, which
 * the caller frees. */
int mixture_learnt(struct expert *out, const struct mixture *m, size_t index,
                   struct artel_error *err);
/* Undoes it: params are what was learnt. */
void mixture_bare(struct mixture *m);
/* Can the bf16 step compute what METHOD's rule says? ARTEL_ELIMIT (MIX16) with the reason
 * where it cannot. */
int rule_check_tiles(const struct gate_rule *rule, const char *method,
                     struct artel_error *err);
/* Router of a linear: index into routers, or -1. */
int mixture_router_of(const struct mixture *m, size_t layer, enum site s);
/* Some expert stands where that router is asked. */
bool mixture_router_used(const struct mixture *m, size_t router_idx);
/* Width of what that router reads. */
size_t mixture_router_dim(const struct gate_rule *rule, const struct model_config *c,
                          size_t router_idx);

/* Presets by name, such as "moa". -1 where unknown. */
int method_rule(struct gate_rule *rule, const char *method);

/* What a method asks of a recipe, and of a mixture that grows. */
struct method_traits {
    bool needs_text;  /* of every domain, for it teaches more than an expert a domain */
    bool labelled;    /* its routers are taught by the domains' labels */
    bool universal;   /* its first expert is of no domain */
    bool own_experts; /* its domain experts are no LoRAs that others could use */
    bool ffn_only;    /* its experts stand at gate, up and down alone */
    bool identities;  /* some of its experts add nothing */
    bool scale_one;   /* alpha is the rank unless the recipe says otherwise */
    bool grows;       /* takes a domain more while the other experts stay as they are */
    bool
        made; /* its routers are computed, not trained: a domain more needs no text of the
                * others */
};
const struct method_traits *method_traits(const char *method); /* of a known one */
/* NULL after the last. */
const char *method_name(size_t i);
const char *method_summary(const char *method); /* one line for help and inspect */

#endif
