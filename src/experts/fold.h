/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts of modula-res in the form that all experts are computed in.
 *
 *     phi(A h) = phi(A s_* B_* A_* x) = phi(A' x),     A' = s_* A B_* A_*
 *
 * So an expert that reads the universal LoRA's output h is a LoRA with A' (R, N) for its
 * A and phi between its products. Nobody else has to know of h: forward, backward, tiles
 * and decoding take A' (lora.down), and a backward finds the gradient G of A'. Since A' is
 * linear in each of its parts, one more product takes G to the parameters:
 *
 *     dA   += s_* (G A_*^T) B_*^T
 *     dB_* += s_* A^T (G A_*^T)      dA_* += s_* (A B_*)^T G
 *
 *   R rank, R_* that of the universal expert   N inputs, M outputs   A (R, M)
 *
 * The universal expert is the first of its mixture.
 */
#ifndef ARTEL_EXPERTS_FOLD_H
#define ARTEL_EXPERTS_FOLD_H

#include "experts/mixture.h"

/* A' of every such expert, after parameters have moved. CHANGED (E): of those alone, or of
 * all where the universal expert has; NULL: of all. */
void mixture_fold(struct mixture *m, const bool *changed);

/*
 * FOLDED (n_grads) as backwards leave it for EXPERT into D_OWN (n_params), which is added
 * to, and into D_UNIVERSAL (n_params of the universal expert); either may be NULL.
 */
void mixture_unfold(float *d_own, float *d_universal, const struct mixture *m,
                    size_t expert, const float *folded);

#endif
