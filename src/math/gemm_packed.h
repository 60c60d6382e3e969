/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Float products with a B that is packed once and used for ever: a frozen weight.
 *
 *     C (m, n) = beta C + A (m, k) B (k, n)
 *
 * B lies in panels of a tile's columns, each K deep. The bits are those of
 * matmul.h. While a piece of B is multiplied the next one is fetched, so that
 * weights may come from memory at no cost.
 */
#ifndef ARTEL_MATH_GEMM_PACKED_H
#define ARTEL_MATH_GEMM_PACKED_H

#include <stdbool.h>
#include <stddef.h>

/* Floats that B (k, n) takes. */
size_t packed_floats(size_t n, size_t k);
/* Columns of a panel; pieces of columns begin at multiples of it. */
size_t packed_cols(void);

/*
 * A piece of W (n_out, n_in), N_ROWS rows from I and N columns from J with ROW floats a
 * row, to its place in B = W^T (k = n_in) resp. in B = W (k = n_out). I resp. J is a
 * multiple of packed_cols(); so is N_ROWS resp. N, but for the last.
 */
void packed_transpose(float *b, const float *piece, size_t row, size_t i, size_t j,
                      size_t n_rows, size_t n, size_t n_in);
void packed_copy(float *b, const float *piece, size_t row, size_t i, size_t j,
                 size_t n_rows, size_t n, size_t n_out);

struct packed_product {
    float *c;
    const float *a, *b;  /* B packed */
    size_t m, n, k;      /* of what is multiplied */
    size_t c_row, a_row; /* floats from one row to the next */
    size_t b_n, b_k;     /* the whole B */
    size_t j0, k0;       /* where in B the product begins; J0 begins a panel */
    bool fresh;          /* beta is 0 */
};

/* Inside a parallel region by the calling thread alone, outside shared by all. */
void packed_multiply(const struct packed_product *p);

#endif
