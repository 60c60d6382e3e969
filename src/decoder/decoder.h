/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward and backward of the frozen decoder with a mixture in its linears,
 * over one row block: whole sequences laid one after another.
 *
 * A thread takes a block through all layers and back alone, unless it asks for SHARED;
 * nothing in here is shared but the frozen base and the mixture, which are only read.
 *
 *   T rows of the block   L layers   D width   E experts
 */
#ifndef ARTEL_DECODER_DECODER_H
#define ARTEL_DECODER_DECODER_H

#include "decoder/frozen.h"
#include "experts/apply.h"
#include "experts/mixture.h"

/* One sequence of a block. */
struct sequence {
    const int32_t *ids; /* (n); borrowed */
    size_t n;
    const unsigned char
        *loss; /* (n) 1: this token is predicted with loss; may be NULL */
    size_t pool_first, pool_n; /* rows that its routers read, inside the sequence */
    float loss_scale;          /* 1 / loss tokens of the whole optimizer step */
    int expert;                /* the labelled or forced expert; -1: none */
    /* K + 1: these tokens continue sequence K, which stands before it in the block, is
     * its own beginning and is computed once for all that continue it; its pool counts
     * from there, and LOSS[0] is of the token after it. 0: a sequence of its own. */
    size_t after;
};

struct block {
    const struct sequence *seqs;
    size_t n_seqs;
    size_t n_rows;     /* T, sum of n */
    double *by_expert; /* (E) or NULL: gets the nll of each expert's sequences on top */
};

/* What the forward does with gates. */
enum routing_mode {
    ROUTE_GIVEN,  /* each sequence's own expert; -1 is the base alone */
    ROUTE_ROUTER, /* the routers decide, by the mixture's rule */
};

struct pass_options {
    enum routing_mode routing;
    bool backward;      /* keep what the backward needs */
    bool recompute;     /* of each layer its input alone; the rest is computed anew */
    bool staged;        /* RECOMPUTE, layer by layer for several blocks (staged.h) */
    bool straight;      /* ROUTE_ROUTER with one-hot gates: gradient of p / stop(p) */
    bool detach_router; /* routers send no gradient into the decoder */
    float router_ce; /* weight of the router's cross entropy, per sequence and router */
    float balance;   /* weight of the balance loss, per row and router */
    bool dropout;    /* on, with DROPOUT_SEED */
    uint64_t dropout_seed;
    size_t first_layer; /* lowest layer that needs a gradient */
    bool
        want_probs; /* ROUTE_GIVEN: run the routers all the same, for their probabilities */
    size_t max_rows, max_seqs; /* what the pass is laid out for */
    bool few; /* a session's few rows (PASS_FEW_ROWS), read from the disk's form */
    bool continued; /* sequences may continue others; neither backward nor SHARED */
    bool shared;    /* outside a parallel region all threads may share its forwards */
};

struct decoder_pass; /* one thread's activations, scratch and gates */

/* Laid out for MAX_ROWS rows once; used for any number of blocks. */
int pass_open(struct decoder_pass **out, const struct artel_model *model,
              const struct mixture *mixture, const struct pass_options *o,
              struct artel_error *err);
void pass_close(struct decoder_pass *p);
size_t pass_bytes(const struct artel_model *model, const struct mixture *mixture,
                  const struct pass_options *o);
void pass_set_dropout_seed(struct decoder_pass *p, uint64_t seed);
void pass_set_router_ce(struct decoder_pass *p, float weight);
void pass_set_balance(struct decoder_pass *p, float weight);
void pass_set_routing(struct decoder_pass *p, enum routing_mode routing);
/* Off: forwards of a pass laid out for training leave out what only a backward needs. */
void pass_set_training(struct decoder_pass *p, bool on);

/* Runs all layers over BLOCK (borrowed until the backward is done). */
void decoder_forward(struct decoder_pass *p, const struct block *block);

struct block_loss {
    double nll;          /* sum over tokens with loss */
    size_t n_tokens;     /* with loss */
    double scaled;       /* sum of loss_scale * nll */
    double router_ce;    /* sum over sequences and routers, not scaled */
    double balance;      /* sum of gates_balance over routers, not scaled */
    size_t router_right; /* sequences whose last router's argmax is their expert */
    size_t n_routed;     /* sequences with a label */
};

/*
 * Head and cross entropy, for rows with loss only, in chunks; where the pass keeps for a
 * backward, leaves the gradient of the last layer's output. NLL (n_seqs), if not NULL,
 * gets each sequence's own sum.
 */
void decoder_loss(struct decoder_pass *p, struct block_loss *out, double *nll);

/* The same without head and tokens: only what the routers did. */
void decoder_routing(const struct decoder_pass *p, struct block_loss *out);
/* First layer whose output the last forward left non-finite; n_layers: none. Of a pass
 * with room for a backward, before that is run; where one is named, what the forward left
 * may be gone. */
size_t pass_nonfinite_layer(struct decoder_pass *p);

/* From decoder_loss back through the layers; adds into GRADS. */
void decoder_backward(struct decoder_pass *p, struct mixture_grads *grads);

/* After a forward with ROUTE_ROUTER or labels: router probabilities. */
const float *pass_router_probs(const struct decoder_pass *p, size_t router,
                               size_t seq); /* (E) */
/*
 * The one expert that serves sequence SEQ by the mixture's selector, and how many routers
 * chose it; 0 with a router of the base, under which the forward used no expert. -1 where
 * the mixture has no router.
 */
int pass_select(const struct decoder_pass *p, size_t seq, size_t *agreeing);
/*
 * Where rows decide: adds each router's gates into SUM (n_routers, E) over the rows of
 * sequence SEQ that predict a token of LOSS (n), or over its last row where LOSS is NULL.
 * Returns how many rows.
 */
size_t pass_add_gates(const struct decoder_pass *p, size_t seq,
                      const unsigned char *loss, double *sum);
/* The expert, none of the fixed, with the largest of such sums over all routers that have something to weigh;
 * the lower index on ties. */
int mixture_heaviest(const struct mixture *m, const double *sum);
/* Pooled router inputs of a sequence-deciding router: (D of the router). */
const float *pass_router_input(const struct decoder_pass *p, size_t router, size_t seq);
/* Mean router input over the pool of a sequence, where routers yield: (D of the router). */
const float *pass_router_seen(const struct decoder_pass *p, size_t router, size_t seq);
/* Output of the last layer before the final norm, row T. */
const float *pass_hidden(const struct decoder_pass *p, size_t row);
/* The same behind the final norm; valid until the next such question. */
const float *pass_normed(struct decoder_pass *p, size_t row);
/* Logits (V) of one row of the last forward. */
void pass_logits(struct decoder_pass *p, float *logits, size_t row);

#endif
