/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tokens may come: a walk through the tree of pieces, with the machine one byte
 * further at each node. What was found for a set of places is kept while there is room.
 */
#include "serve/grammar.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_machine.h"
#include "serve/grammar_pieces.h"
#include "serve/grammar_schema.h"
#include "text/tokenizer.h"

#define MASKS 64 /* that are kept */

struct grammar {
    const struct grammar_pieces *pieces; /* borrowed */
    struct net net;
    struct machine machine;
    uint32_t set; /* what the text so far has led to */
    size_t mask_bytes;
    unsigned char *masks; /* (MASKS, mask_bytes) */
    uint32_t *mask_set;   /* (MASKS) whose mask it is, 0: nobody's */
    uint64_t forgotten;   /* the machine's, when MASK_SET was right */
    size_t next_mask;     /* which to write over next */
};

void grammar_close(struct grammar *g)
{
    if (!g)
        return;
    machine_release(&g->machine);
    net_release(&g->net);
    free(g->masks);
    free(g->mask_set);
    free(g);
}

static int start(struct grammar *g, const json_t *schema, struct artel_error *err)
{
    uint32_t first = 0;
    int rc = schema_compile(&g->net, &first, schema, g->pieces->has, err);

    if (rc == 0)
        rc = machine_init(&g->machine, &g->net, err);
    if (rc < 0)
        return rc;
    g->set = machine_start(&g->machine, first);
    g->forgotten = g->machine.forgotten;
    g->mask_bytes = (g->pieces->n_ids + 7) / 8;
    g->masks = malloc(MASKS * g->mask_bytes);
    g->mask_set = calloc(MASKS, sizeof(*g->mask_set));
    if (!g->masks || !g->mask_set)
        return error_nomem(err, MASKS * g->mask_bytes);
    return 0;
}

int grammar_open(struct grammar **out, const struct grammar_pieces *pieces,
                 const json_t *schema, struct artel_error *err)
{
    struct grammar *g = calloc(1, sizeof(*g));
    json_t *object =
        json_pack("{s:s, s:b}", "type", "object", "additionalProperties", 1);
    int rc = 0;

    *out = NULL;
    if (!g || !object) {
        rc = error_nomem(err, sizeof(*g));
    } else {
        g->pieces = pieces;
        rc = start(g, schema ? schema : object, err);
    }
    json_decref(object);
    if (rc < 0)
        grammar_close(g);
    else
        *out = g;
    return rc;
}

static void set_bit(unsigned char *mask, int32_t id)
{
    mask[id / 8] |= (unsigned char)(1u << id % 8);
}

/* HELD (PIECE_BYTES + 1): the sets along the way to a node, HELD[0] the one now. */
static void walk(struct grammar *g, unsigned char *mask, uint32_t *held)
{
    const struct grammar_pieces *p = g->pieces;
    struct machine *m = &g->machine;

    for (size_t i = 0; i < p->n_nodes;) {
        const struct piece_node *n = &p->nodes[i];
        const uint32_t to =
            machine_step(m, held, n->depth, n->depth - 1u, g->net.class_of[n->byte]);

        if (to == MACHINE_DEAD) {
            i = n->end;
            continue;
        }
        held[n->depth] = to;
        for (int32_t id = n->id; id >= 0; id = p->twins[id])
            set_bit(mask, id);
        i++;
    }
}

const unsigned char *grammar_allowed(struct grammar *g)
{
    uint32_t held[PIECE_BYTES + 1];
    unsigned char *mask;

    if (g->forgotten == g->machine.forgotten)
        for (size_t i = 0; i < MASKS; i++)
            if (g->mask_set[i] == g->set)
                return g->masks + i * g->mask_bytes;
    mask = g->masks + g->next_mask * g->mask_bytes;
    memset(mask, 0, g->mask_bytes);
    g->mask_set[g->next_mask] = 0;
    if (grammar_complete(g))
        for (size_t i = 0; i < g->pieces->n_ends; i++)
            set_bit(mask, g->pieces->ends[i]);
    held[0] = g->set;
    walk(g, mask, held);
    g->set = held[0];
    if (g->forgotten != g->machine.forgotten) {
        memset(g->mask_set, 0, MASKS * sizeof(*g->mask_set));
        g->forgotten = g->machine.forgotten;
    }
    g->mask_set[g->next_mask] = g->set;
    g->next_mask = (g->next_mask + 1) % MASKS;
    return mask;
}

static bool is_end(const struct grammar *g, int32_t id)
{
    for (size_t i = 0; i < g->pieces->n_ends; i++)
        if (g->pieces->ends[i] == id)
            return true;
    return false;
}

void grammar_accept(struct grammar *g, int32_t id)
{
    size_t n;
    const unsigned char *bytes;

    if (is_end(g, id))
        return;
    bytes = (const unsigned char *)tokenizer_piece(g->pieces->tok, id, &n);
    for (size_t i = 0; i < n; i++) {
        const uint32_t to =
            machine_step(&g->machine, &g->set, 1, 0, g->net.class_of[bytes[i]]);

        assert(to != MACHINE_DEAD); /* the token was not allowed */
        g->set = to;
    }
}

bool grammar_complete(const struct grammar *g)
{
    return g->machine.sets[g->set].complete;
}
