/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The base with experts added into its linears, for a sequence whose gates are fixed:
 *
 *     W' = W0 + sum_e g_e s_e B_e A_e        in float, whatever form W0 has
 *
 * What it is computed with is a model like any other, without experts beside it. Float,
 * because rounding back to the base's own form would be another model.
 */
#ifndef ARTEL_DECODER_MERGED_H
#define ARTEL_DECODER_MERGED_H

#include "decoder/frozen.h"
#include "decoder/merge_cost.h"
#include "experts/router.h"

struct merged {
    struct artel_model model; /* the base's but for its linears; valid once formed */
    const struct artel_model *base; /* borrowed */
    const struct mixture *mixture;  /* borrowed */
    struct frozen_layer *layers;    /* (L) of MODEL */
    float *gates;                   /* (L, N_SITES, E) that they were formed for */
    float *wanted;                  /* likewise, of the sequence at hand */
    struct arena arena;             /* the linears that differ from the base's */
    bool formed;
};

int merged_open(struct merged **out, const struct artel_model *base,
                const struct mixture *mixture, struct artel_error *err);
void merged_close(struct merged *m);

/* The sequence at hand has EXPERT (-1: none), or the gates HELD (n_routers, E) unless
 * NULL. */
void merged_want(struct merged *m, int expert, const float *held);
/* ARTEL_EUSAGE (MRG01) where what an expert adds is no fixed change of the weights. */
int merged_check(const struct merged *m, struct artel_error *err);
/* Of what is wanted. W is 0 where no expert adds anything. */
void merged_count(struct merge_count *out, const struct merged *m);
/* Memory that forming it takes beyond what M holds already. */
size_t merged_bytes(const struct merged *m);
/* Form it, unless it is there: one reading of the weights, by all threads. */
int merged_form(struct merged *m, struct artel_error *err);

#endif
