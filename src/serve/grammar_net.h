/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a schema is compiled to: states over bytes, which may call each other.
 *
 * An edge takes one byte of a range, or none, or calls a state and goes on where the
 * edge leads once the called part has been accepted. Every call has a counter, of
 * characters or items, that edges may raise and ask; how many calls stand within each
 * other is how deep values are nested.
 *
 * From each state the fewest nested calls to an end are known: a path is taken only
 * where that many are left, and so no path is without an end.
 */
#ifndef ARTEL_SERVE_GRAMMAR_NET_H
#define ARTEL_SERVE_GRAMMAR_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct artel_error;

#define NET_DEPTH    64      /* values within each other */
#define NET_STATES   400000  /* at most */
#define NET_EDGES    1500000 /* at most */
#define NET_FREE     4096    /* at most, edges that take no byte */
#define NET_NO_LIMIT UINT32_MAX
#define NET_NEVER    255

enum net_kind { NET_BYTES, NET_EMPTY, NET_CALL };
enum net_flags {
    NET_COUNTS = 1, /* raises the counter, which must be below its maximum */
    NET_ENOUGH = 2, /* the counter must have reached its minimum */
    NET_MORE = 4    /* the counter must be below its maximum */
};

struct net_edge {
    uint8_t kind;   /* enum net_kind */
    uint8_t lo, hi; /* bytes that it takes */
    uint8_t flags;  /* enum net_flags */
    uint32_t to;
    uint32_t callee; /* of a call */
    uint32_t limits; /* index, where flags are not 0 */
};

struct net_limits {
    uint32_t min, max; /* max may be NET_NO_LIMIT */
};

struct net {
    struct net_edge *edges; /* (first[n_states]) those of a state together */
    uint32_t *first;        /* (n_states + 1) */
    uint8_t *need;          /* (n_states) nested calls to an end */
    bool *accepts;          /* (n_states) */
    uint32_t n_states;
    struct net_limits *limits; /* (n_limits) */
    uint32_t n_limits;
    unsigned char class_of[256]; /* bytes that no edge tells apart; 0: never taken */
    unsigned char byte_of[256];  /* (n_classes) one of each */
    uint32_t n_classes;
};
void net_release(struct net *n);

/* A net while it grows. A failure is kept in RC and *ERR, and ends all growth. */
struct net_build {
    struct net_edge *edges; /* (n_edges) callee, limits as above */
    uint32_t *next;         /* (n_edges) of the same state, 0 ends; edge 0 is none */
    uint32_t *last;         /* (n_states) */
    uint32_t *head;         /* (n_states) first edge, 0: none */
    bool *accepts;          /* (n_states) */
    struct net_limits *limits;
    size_t n_edges, room_edges, n_states, room_states, n_limits, room_limits, n_empty;
    struct artel_error *err;
    int rc;
};
int net_build_init(struct net_build *b, struct artel_error *err);
void net_build_release(struct net_build *b);

uint32_t net_state(struct net_build *b);
uint32_t net_limits(struct net_build *b, uint32_t min, uint32_t max);
void net_accept(struct net_build *b, uint32_t state);
void net_bytes(struct net_build *b, uint32_t from, unsigned lo, unsigned hi,
               uint32_t to);
void net_empty(struct net_build *b, uint32_t from, uint32_t to);
void net_edge(struct net_build *b, uint32_t from, const struct net_edge *e);
uint32_t net_text(struct net_build *b, uint32_t from, const char *text, size_t n);

/*
 * The net of B, whose byte edges take only bytes that HAS (256) a token of its own. B
 * stays as it is. Where a state of STARTS (n) has no end within NET_DEPTH values,
 * *ENDLESS is the index of the last, else n.
 */
int net_finish(struct net *out, const struct net_build *b, const bool *has,
               const uint32_t *starts, size_t n, size_t *endless,
               struct artel_error *err);

#endif
