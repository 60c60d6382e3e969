/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with weights held in bf16, sums in float.
 *
 *     C (m, n) = beta C + bf16(A) (m, k)  B (k, n)
 *
 * B is packed once, A is rounded on the way. An element of C takes its products in
 * pairs along ascending k, whatever m is: a row depends on its row of A alone.
 */
#ifndef ARTEL_MATH_BF16_H
#define ARTEL_MATH_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF16_PIECE 256

struct bf16_set {
    const char *name;
    /* Bytes of a packed (k, n). */
    size_t (*bytes)(size_t n, size_t k);
    /*
     * A piece of W (n_out, n_in): up to 32 rows from I and BF16_PIECE columns from J,
     * which are multiples of these; rows of PIECE are BF16_PIECE floats. It goes to its
     * places in FORWARD (B = W^T) and BACKWARD (B = W), each of which may be NULL.
     */
    void (*pack)(void *forward, void *backward, const float *piece, size_t i, size_t j,
                 size_t n_out, size_t n_in);
    /* Inside a parallel region by the calling thread alone, outside shared by all. The
     * first call of a thread takes 1 MiB of scratch, kept until the thread ends. */
    void (*product)(float *c, float beta, const float *a, const void *packed, size_t m,
                    size_t n, size_t k);
};

const struct bf16_set *bf16_amx(void); /* NULL when not built in */

/* The set that cpu_isa() allows; NULL where bf16 is not native. */
const struct bf16_set *bf16_set(void);

#endif
