/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen weights. Each direction has its own packed form; lean floats lie in the
 * natural form, which serves both. A product of a few rows unpacks the disk's blocks on
 * its way.
 *
 *   T rows   M outputs   N inputs
 */
#include "math/matrix.h"

#include <assert.h>

#include "base/arena.h"
#include "math/gemm_packed.h"
#include "math/kernels.h"
#include "math/matmul.h"

#define MAX_ROWS 32 /* of x at a time */

#define F32_ROWS  48  /* most columns of a panel in any set */
#define F32_PIECE 768 /* a multiple of every set's columns and every format's block */

static size_t row_bytes(const struct matrix *w)
{
    return w->n_in / dtype_block_elems(w->raw.dtype) * dtype_block_bytes(w->raw.dtype);
}

static const char *raw_row(const struct matrix *w, size_t i)
{
    return (const char *)w->raw.data + i * row_bytes(w);
}

/* A plain, aligned F32 tensor is used where it lies. */
static void init_lean(struct matrix *w, struct arena *arena)
{
    const struct kernels *k = kernels();
    const enum dtype type = w->raw.dtype;

    if (type == DTYPE_F32 && (uintptr_t)w->raw.data % sizeof(float) == 0) {
        w->f32 = (float *)(uintptr_t)w->raw.data; /* only read */
        return;
    }
    w->f32 = arena_f32(arena, w->n_out * w->n_in);
    if (!w->f32)
        return;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < w->n_out; i++)
        k->dequant[type](w->f32 + i * w->n_in, raw_row(w, i), w->n_in);
}

/* Rows from I, a panel's number, and columns from J for the directions of USE. */
static void pack_piece_f32(const struct matrix *w, size_t i, size_t j, int use)
{
    const enum dtype type = w->raw.dtype;
    const size_t skip = j / dtype_block_elems(type) * dtype_block_bytes(type);
    const size_t n = w->n_in - j < F32_PIECE ? w->n_in - j : F32_PIECE;
    const size_t tall = packed_cols(), left = w->n_out - i;
    const size_t n_rows = left < tall ? left : tall;
    float piece[F32_ROWS * F32_PIECE];

    for (size_t r = 0; r < n_rows; r++)
        kernels()->dequant[type](piece + r * F32_PIECE, raw_row(w, i + r) + skip, n);
    if (use & MATRIX_FORWARD)
        packed_transpose(w->forward, piece, F32_PIECE, i, j, n_rows, n, w->n_in);
    if (use & MATRIX_BACKWARD)
        packed_copy(w->backward, piece, F32_PIECE, i, j, n_rows, n, w->n_out);
}

static void init_f32(struct matrix *w, struct arena *arena, int use)
{
    if (use & MATRIX_FORWARD)
        w->forward = arena_f32(arena, packed_floats(w->n_out, w->n_in));
    if (use & MATRIX_BACKWARD)
        w->backward = arena_f32(arena, packed_floats(w->n_in, w->n_out));
    if (!w->forward && !w->backward)
        return;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < matrix_panels(w); i++)
        matrix_pack_panel(w, i, use);
}

size_t matrix_panels(const struct matrix *w)
{
    return (w->n_out + packed_cols() - 1) / packed_cols();
}

void matrix_pack_panel(const struct matrix *w, size_t panel, int use)
{
    const size_t tall = packed_cols();

    assert(tall <= F32_ROWS && F32_PIECE % tall == 0);
    for (size_t j = 0; j < w->n_in; j += F32_PIECE)
        pack_piece_f32(w, panel * tall, j, use);
}

void matrix_init(struct matrix *w, struct arena *arena, const struct tensor *raw,
                 int use)
{
    assert(raw->n_dims == 2 && dtype_is_weight(raw->dtype));
    *w = (struct matrix){.n_out = raw->shape[0], .n_in = raw->shape[1], .raw = *raw};
    if (!(use & (MATRIX_FORWARD | MATRIX_BACKWARD)))
        return;
    if (use & MATRIX_LEAN)
        init_lean(w, arena);
    else
        init_f32(w, arena, use);
}

void matrix_forward_part(float *y, float beta, const float *x, const struct matrix *w,
                         size_t T, size_t i0, size_t n)
{
    const size_t N = w->n_in;
    const struct packed_product p = {.c = y,
                                     .a = x,
                                     .b = w->forward,
                                     .m = T,
                                     .n = n,
                                     .k = N,
                                     .c_row = n,
                                     .a_row = N,
                                     .b_n = w->n_out,
                                     .b_k = N,
                                     .j0 = i0,
                                     .fresh = beta == 0.0f};

    assert(i0 % MATRIX_PART == 0);
    assert(w->f32 || w->forward);
    if (w->f32)
        gemm_nt(y, beta, x, w->f32 + i0 * N, T, n, N);
    else
        packed_multiply(&p);
}

void matrix_backward_part(float *d_x, float beta, const float *d_y,
                          const struct matrix *w, size_t T, size_t i0, size_t n)
{
    const size_t N = w->n_in;
    const struct packed_product p = {.c = d_x,
                                     .a = d_y,
                                     .b = w->backward,
                                     .m = T,
                                     .n = N,
                                     .k = n,
                                     .c_row = N,
                                     .a_row = n,
                                     .b_n = N,
                                     .b_k = w->n_out,
                                     .k0 = i0,
                                     .fresh = beta == 0.0f};

    assert(w->f32 || w->backward);
    if (w->f32)
        gemm_nn(d_x, beta, d_y, w->f32 + i0 * N, T, N, n);
    else
        packed_multiply(&p);
}

void matrix_forward(float *y, float beta, const float *x, const struct matrix *w,
                    size_t T)
{
    assert(beta == 0.0f || beta == 1.0f);
    matrix_forward_part(y, beta, x, w, T, 0, w->n_out);
}

void matrix_backward(float *d_x, float beta, const float *d_y, const struct matrix *w,
                     size_t T)
{
    assert(beta == 0.0f || beta == 1.0f);
    matrix_backward_part(d_x, beta, d_y, w, T, 0, w->n_out);
}

void matrix_decode_rows(float *const *y, const float *x, const struct matrix *w,
                        size_t first, size_t n, size_t T)
{
    assert(first + n <= w->n_out);
    kernels()->matvec[w->raw.dtype](y, x, T, raw_row(w, first), n, w->n_in);
}

void matrix_decode(float *y, const float *x, const struct matrix *w, size_t T)
{
    const size_t chunk = 16, M = w->n_out;

#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < M; i += chunk) {
        float *to[MAX_ROWS];

        for (size_t t = 0; t < T; t += MAX_ROWS) {
            const size_t rows = T - t < MAX_ROWS ? T - t : MAX_ROWS;

            for (size_t r = 0; r < rows; r++)
                to[r] = y + (t + r) * M + i;
            matrix_decode_rows(to, x + t * w->n_in, w, i, M - i < chunk ? M - i : chunk,
                               rows);
        }
    }
}

void matrix_rows(float *out, const struct matrix *w, const int32_t *ids, size_t T)
{
    const struct kernels *k = kernels();

    for (size_t t = 0; t < T; t++) {
        assert(ids[t] >= 0 && (size_t)ids[t] < w->n_out);
        k->dequant[w->raw.dtype](out + t * w->n_in, raw_row(w, (size_t)ids[t]),
                                 w->n_in);
    }
}
