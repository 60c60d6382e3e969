/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One expert: a LoRA beside some of the frozen linears, an identity that adds
 * nothing but takes its share of a gate, an expert of modula-res, which reads what the
 * universal LoRA of its mixture adds to the same linear, or a LoRA whose gate, up and
 * down make an FFN of their own (whole_ffn.h):
 *
 *     y += gate * s * (x A^T) B^T                                   LoRA
 *     y += gate * s * phi(h A^T) B^T,   h = s_* (x A_*^T) B_*^T     res
 *
 *   phi(a) = a, or SLOPE a where a < 0
 *   R rank   N inputs, M outputs of the frozen linear   s = alpha / R, or
 *   alpha / sqrt(R) with rsLoRA   L layers
 *
 * All A and B of an expert lie in one block, so that an optimizer, a checkpoint
 * or a digest walks one flat array. A fresh expert has B = 0: it changes nothing.
 */
#ifndef ARTEL_EXPERTS_EXPERT_H
#define ARTEL_EXPERTS_EXPERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "model/weights.h"

struct artel_error;

#define EXPERT_NAME_MAX 64
#define EXPERT_MAX_RANK 4096

struct lora {
    size_t rank, n_in, n_out; /* R, N, M; R = 0: this linear is not adapted */
    size_t n_a;               /* columns of A: N, or M of an expert of modula-res */
    float scale;              /* s */
    float *a;                 /* (R, n_a) */
    float *b;                 /* (M, R) */
    float *down;              /* (R, N) what x meets: A, or A folded (fold.h) */
    size_t d_a,
        d_b; /* where their gradients, (R, N) and (M, R), lie among the expert's */
};

enum expert_kind { EXPERT_LORA, EXPERT_IDENTITY, EXPERT_RES, EXPERT_FFN };

#define RES_SLOPE 0.01f

/* "lora", "identity", "res" or "ffn"; the kind of such a name, or -1. */
const char *expert_kind_name(enum expert_kind kind);
int expert_kind_find(const char *name);

struct expert {
    char name[EXPERT_NAME_MAX + 1];
    enum expert_kind kind;
    size_t n_layers;   /* L */
    struct lora *lora; /* (L, N_SITES); owned */
    float *params; /* (n_params) every A and B, layer by layer, site by site, A first */
    size_t n_params;
    size_t n_grads; /* of what passes find: n_params, unless DOWN is not A */
    float slope;    /* of phi below 0; 1: phi(a) = a */
    float dropout;  /* of the input of A, in training */
    bool instead;   /* of modula-res: stands in place of what it reads, not beside it */
    struct arena arena;
};

/* What a new LoRA is made of. */
struct lora_options {
    size_t rank;
    float alpha;
    float dropout;
    bool use_rslora;
    bool targets[N_SITES];
    enum expert_kind kind; /* any but EXPERT_IDENTITY */
};

void lora_options_default(struct lora_options *o); /* rank 8, alpha 16, all linears */
float lora_scale(float alpha, size_t rank, bool use_rslora);

/* letters, digits, dot, dash, underscore; 1 to 64 bytes; first not dot or dash */
bool expert_name_valid(const char *name);

/* An expert with RANK[l * N_SITES + site] and SCALE of the same shape; params zero. */
int expert_init(struct expert *e, const char *name, const struct model_config *c,
                const uint16_t *rank, const float *scale, struct artel_error *err);
/* The same of any KIND but EXPERT_IDENTITY. */
int expert_init_kind(struct expert *e, const char *name, enum expert_kind kind,
                     const struct model_config *c, const uint16_t *rank,
                     const float *scale, struct artel_error *err);
/* The same rank and alpha at all targets. */
int expert_init_uniform(struct expert *e, const char *name,
                        const struct model_config *c, const struct lora_options *o,
                        struct artel_error *err);
int expert_init_identity(struct expert *e, const char *name, size_t n_layers,
                         struct artel_error *err);
int expert_copy(struct expert *to, const struct expert *from, struct artel_error *err);
void expert_release(struct expert *e);

/* As PEFT draws it: A uniform in +-1/sqrt(N), B zero. SEED and the name's own stream. */
void expert_draw(struct expert *e, uint64_t seed, uint64_t stream);
/* SHA-256 over the shapes, scales and numbers. */
void expert_digest(const struct expert *e, char out[DIGEST_SIZE]);
/* First layer with an adapted linear; n_layers where there is none. */
size_t expert_first_layer(const struct expert *e);
/* It adds nothing anywhere: at every linear A or B is zero. */
bool expert_is_zero(const struct expert *e);

/* UPDATE (N) += g s B A, of that row ROW, with GATE for g: what L adds to the weights of its
 * linear. Only where phi is the identity. */
void lora_add_row(float *update, const struct lora *l, float gate, size_t row);

static inline struct lora *expert_lora(const struct expert *e, size_t layer,
                                       enum site s)
{
    return &e->lora[layer * N_SITES + s];
}

#endif
