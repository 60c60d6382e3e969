/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frozen weight matrix W (M outputs, N inputs), held in the forms that work
 * needs: as it lies on disk for products of a few rows, in float packed once for
 * products of many. In bf16 those of many run on tiles (tiles.h).
 */
#ifndef ARTEL_MATH_MATRIX_H
#define ARTEL_MATH_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files/dtype.h"

struct arena;
struct artel_error;

enum precision { PRECISION_FP32, PRECISION_BF16 };

enum matrix_use {
    MATRIX_DECODE = 1,   /* products of a few rows, from the disk's form */
    MATRIX_FORWARD = 2,  /* products of many rows */
    MATRIX_BACKWARD = 4, /* and their gradients by the input */
    MATRIX_LEAN = 8, /* float: one form for both directions, packed at each use, which
                        saves half the memory and costs a tenth of the speed */
    MATRIX_STAGED = 16, /* of a model: one layer's linears are packed at a time, when
                           they are needed (decoder/staged.h) */
};

/* matrix_forward_part() and matrix_backward_part() begin at multiples of this. */
#define MATRIX_PART 96

struct matrix {
    size_t n_out, n_in; /* M, N */
    struct tensor raw;  /* as on disk; borrowed */
    float *f32;         /* (M, N) dequantised, where lean; or NULL */
    void *forward;      /* packed for the forward product, or NULL */
    void *backward;     /* packed for the backward product, or NULL */
};

/*
 * Lay W out in ARENA for USE (an OR of enum matrix_use), or measure where the
 * arena only measures. Packing runs on all threads.
 */
void matrix_init(struct matrix *w, struct arena *arena, const struct tensor *raw,
                 int use);

/* For float forms that others hold: W has none of its own. Panels of W's rows, and one
 * of them to those of W->FORWARD and W->BACKWARD that USE names. */
size_t matrix_panels(const struct matrix *w);
void matrix_pack_panel(const struct matrix *w, size_t panel, int use);

/* Y (T, M) = beta * Y + X (T, N) W^T. A row of Y depends on its row of X alone. */
void matrix_forward(float *y, float beta, const float *x, const struct matrix *w,
                    size_t T);
/* D_X (T, N) = beta * D_X + D_Y (T, M) W */
void matrix_backward(float *d_x, float beta, const float *d_y, const struct matrix *w,
                     size_t T);
/* The same with rows I0 .. I0 + n of W alone, in float: Y (T, n) resp. D_Y (T, n). */
void matrix_forward_part(float *y, float beta, const float *x, const struct matrix *w,
                         size_t T, size_t i0, size_t n);
void matrix_backward_part(float *d_x, float beta, const float *d_y,
                          const struct matrix *w, size_t T, size_t i0, size_t n);
/* The same as matrix_forward for a few rows, straight from the disk's form, with
 * float activations. Outside a parallel region the rows of W are shared by all threads. */
void matrix_decode(float *y, const float *x, const struct matrix *w, size_t T);
/* Its part: rows FIRST .. + N of W, by this thread. Y[t] is where row t of X (T, N_IN) has
 * its first output; any T. */
void matrix_decode_rows(float *const *y, const float *x, const struct matrix *w,
                        size_t first, size_t n, size_t T);
/* Rows IDS (T) of W into OUT (T, N): the embedding. */
void matrix_rows(float *out, const struct matrix *w, const int32_t *ids, size_t T);

#endif
