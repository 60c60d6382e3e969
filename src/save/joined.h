/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several experts under fixed gates as one expert of the sum of their ranks:
 *
 *     sum_e g_e s_e B_e A_e  =  [g_1 s_1 B_1, g_2 s_2 B_2, ...] [A_1; A_2; ...]
 */
#ifndef ARTEL_SAVE_JOINED_H
#define ARTEL_SAVE_JOINED_H

#include "experts/expert.h"

struct artel_error;

struct gated {
    const struct expert *expert; /* borrowed */
    float gate;
};

/* One expert keeps its A and B; its gate goes into the scale. Identities and gates of 0
 * add nothing. Of experts that make whole FFNs there may be one, with gate 1. ARTEL_EUSAGE
 * where nothing is left or a rank becomes too large (CNV03), or no LoRA does the same
 * (CNV04). */
int experts_join(struct expert *out, const char *name, const struct model_config *c,
                 const struct gated *parts, size_t n, struct artel_error *err);

#endif
