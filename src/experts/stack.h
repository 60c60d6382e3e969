/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The experts of a mixture as operands of the bf16 step: for every layer and group of
 * linears, the ranks of all experts stand side by side in blocks of 32 places.
 *
 *     y += h B^T     h = gate scale (x A^T)     with h one more block along K
 *
 * A segment is some ranks of one expert at one linear. It begins at an even place and
 * stays inside a block; ranks beyond 32 go on in the next one. Places between segments
 * are zero, so that what an expert adds does not depend on its neighbours, to the bit.
 * What is active together stands together:
 *
 *     one expert a sequence    an expert's q, k and v share a block
 *     several experts a row    all q, then all k, then all v
 *
 * (The slope of the input is a sum over q, k and v: its last bit depends on whether they
 * share a block.)
 */
#ifndef ARTEL_EXPERTS_STACK_H
#define ARTEL_EXPERTS_STACK_H

#include "experts/mixture.h"
#include "tiles/tile_ranks.h"

#define STACK_RANGES 4 /* runs of panels with the same sites: q, k, v */

struct stack_segment {
    uint32_t expert;
    uint32_t from; /* first of its ranks here */
    enum site site;
    uint8_t first, n; /* places */
};

struct stack_block {
    const struct stack_segment *segments;
    size_t n_segments;      /* RANK_PARTS at most */
    unsigned sites;         /* a bit each */
    size_t panel, n_panels; /* of the outputs of its sites */
    uint16_t *up_turned;    /* (n_panels, PACK_ELEMS) K: outputs; NULL: no training */
};

/* The stacked experts of one group of linears in one layer. */
struct stack_group {
    size_t n_blocks;
    struct stack_block *blocks;
    uint16_t *down;        /* [block][in block][PACK_ELEMS] K: inputs */
    uint16_t *up;          /* [out panel][block][PACK_ELEMS] K: ranks */
    uint16_t *down_turned; /* [in panel][block][PACK_ELEMS] K: ranks; or NULL */
};

/* Panels up to END have outputs of these sites. */
struct stack_range {
    size_t end;
    unsigned sites;
};

struct expert_stack {
    const struct mixture *mixture;  /* borrowed */
    const struct tile_shape *shape; /* borrowed */
    const struct tile_rank_set *set;
    bool training;
    size_t most_blocks; /* of any group */
    struct stack_range ranges[N_TILE_GROUPS][STACK_RANGES];
    struct stack_group *groups; /* (L, N_TILE_GROUPS) */
};

/* Laid in ARENA, zeroed memory, or measured; nothing is packed yet. TRAINING: with what
 * the backward needs. The experts' ranks must not change afterwards. */
void expert_stack_init(struct expert_stack *s, struct arena *arena,
                       const struct mixture *m, const struct tile_shape *shape,
                       bool training);
size_t expert_stack_bytes(const struct mixture *m, const struct tile_shape *shape,
                          bool training);

/* Parameters to operands, on all threads. CHANGED (E): only of these; NULL: of all. */
void expert_stack_pack(struct expert_stack *s, const bool *changed);

/* M's own stack, packed. One before keeps its address, for passes that have it, and stays
 * as it is on failure. Adding or removing an expert drops it. */
int mixture_stack(struct mixture *m, const struct tile_shape *shape, bool training,
                  struct artel_error *err);
void mixture_unstack(struct mixture *m);

static inline const struct stack_group *
expert_stack_group(const struct expert_stack *s, size_t layer, enum tile_group group)
{
    return &s->groups[layer * N_TILE_GROUPS + group];
}

static inline const struct lora *
segment_lora(const struct expert_stack *s, size_t layer, const struct stack_segment *g)
{
    return expert_lora(&s->mixture->experts[g->expert], layer, g->site);
}

#endif
