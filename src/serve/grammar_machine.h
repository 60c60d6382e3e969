/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a net over bytes: all its states that a text may stand in, at once.
 *
 * A place is a state, its counter, and the calls that stand around it; a set of places
 * is what a prefix of a text leads to. Calls are shared, sets and their ways over bytes
 * are kept as they are met, in room of a fixed size: when it is used up all is forgotten
 * but the sets that are held. More places than MACHINE_PLACES are left out of a set:
 * this forbids texts, and never allows one, for from each place there is an end.
 */
#ifndef ARTEL_SERVE_GRAMMAR_MACHINE_H
#define ARTEL_SERVE_GRAMMAR_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/grammar_net.h"

struct artel_error;

#define MACHINE_PLACES 256
#define MACHINE_HELD   65 /* sets at most that outlive forgetting */
#define MACHINE_SETS   4096
#define MACHINE_DEAD   0 /* the set without a place */

struct place {
    uint32_t state, count, call;
};

struct call {
    uint32_t ret, count, parent, depth; /* 0: none, the outermost value */
};

struct place_set {
    uint32_t first, n; /* places */
    uint32_t hash;
    bool complete; /* the text may end here */
};

struct machine {
    const struct net *net;   /* borrowed */
    struct call *calls;      /* (CALLS) 0 is none */
    struct place *places;    /* (PLACES) of all sets */
    struct place_set *sets;  /* (MACHINE_SETS) 0 is dead */
    uint32_t *ways;          /* (MACHINE_SETS, n_classes) a set, or UNKNOWN */
    uint32_t *call_slots;    /* hash tables: an index, 0: free */
    uint32_t *set_slots;     /* as above */
    uint32_t *seen;          /* (SEEN) places of the set in making, by mark */
    struct place *seen_at;   /* (SEEN) */
    struct place *work;      /* (SEEN) places to go on from */
    struct place *kept;      /* (MACHINE_HELD, MACHINE_PLACES) while forgetting */
    struct call *kept_calls; /* (CALLS) */
    uint32_t *moved;         /* (CALLS) while forgetting */
    uint32_t n_calls, n_places, n_sets, mark, n_seen;
    uint64_t forgotten; /* times */
    struct place making[MACHINE_PLACES];
    uint32_t n_making;
    bool complete;
};

int machine_init(struct machine *m, const struct net *net, struct artel_error *err);
void machine_release(struct machine *m);
/* The set of an empty text. Forgets all others. */
uint32_t machine_start(struct machine *m, uint32_t state);
/* Where SET goes by a byte of CLASS, HELD (N, SET among them) may move to other
 * indices: *AT is that of SET. */
uint32_t machine_step(struct machine *m, uint32_t *held, size_t n, size_t at,
                      unsigned class);

#define MACHINE_UNKNOWN UINT32_MAX

#endif
