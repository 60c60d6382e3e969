/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frozen weights. In float the natural form serves both directions, since the
 * product packs what it needs for 2 to 4 % of its time, and half the memory; in bf16
 * each direction has its own packed form. A product of a few rows unpacks the disk's
 * blocks on its way.
 *
 *   T rows   M outputs   N inputs
 */
#include "math/matrix.h"

#include <assert.h>

#include "base/arena.h"
#include "math/bf16.h"
#include "math/kernels.h"
#include "math/matmul.h"

#define MAX_ROWS 32 /* of x at a time */

bool precision_native_bf16(void)
{
    return bf16_set() != NULL;
}

static size_t row_bytes(const struct matrix *w)
{
    return w->n_in / dtype_block_elems(w->raw.dtype) * dtype_block_bytes(w->raw.dtype);
}

static const char *raw_row(const struct matrix *w, size_t i)
{
    return (const char *)w->raw.data + i * row_bytes(w);
}

/* A plain, aligned F32 tensor is used where it lies. */
static void init_f32(struct matrix *w, struct arena *arena)
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

/* Rows from I and columns from J, unpacked and packed again for both directions. */
static void pack_piece(struct matrix *w, size_t i, size_t j)
{
    const enum dtype type = w->raw.dtype;
    const size_t skip = j / dtype_block_elems(type) * dtype_block_bytes(type);
    const size_t n = w->n_in - j < BF16_PIECE ? w->n_in - j : BF16_PIECE;
    float piece[32 * BF16_PIECE];

    for (size_t r = 0; r < 32 && i + r < w->n_out; r++)
        kernels()->dequant[type](piece + r * BF16_PIECE, raw_row(w, i + r) + skip, n);
    bf16_set()->pack(w->forward, w->backward, piece, i, j, w->n_out, w->n_in);
}

static void init_bf16(struct matrix *w, struct arena *arena, int use)
{
    const struct bf16_set *s = bf16_set();

    assert(s);
    if (use & MATRIX_FORWARD)
        w->forward = arena_take(arena, s->bytes(w->n_out, w->n_in));
    if (use & MATRIX_BACKWARD)
        w->backward = arena_take(arena, s->bytes(w->n_in, w->n_out));
    if (!w->forward && !w->backward)
        return;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < w->n_out; i += 32)
        for (size_t j = 0; j < w->n_in; j += BF16_PIECE)
            pack_piece(w, i, j);
}

void matrix_init(struct matrix *w, struct arena *arena, const struct tensor *raw,
                 enum precision precision, int use)
{
    assert(raw->n_dims == 2 && dtype_is_weight(raw->dtype));
    *w = (struct matrix){.n_out = raw->shape[0],
                         .n_in = raw->shape[1],
                         .raw = *raw,
                         .precision = precision};
    if (precision == PRECISION_BF16)
        init_bf16(w, arena, use);
    else if (use & (MATRIX_FORWARD | MATRIX_BACKWARD))
        init_f32(w, arena);
}

void matrix_forward(float *y, float beta, const float *x, const struct matrix *w,
                    size_t T)
{
    if (w->precision == PRECISION_BF16) {
        assert(w->forward);
        bf16_set()->product(y, beta, x, w->forward, T, w->n_out, w->n_in);
    } else {
        assert(w->f32);
        gemm_nt(y, beta, x, w->f32, T, w->n_out, w->n_in);
    }
}

void matrix_backward(float *d_x, float beta, const float *d_y, const struct matrix *w,
                     size_t T)
{
    if (w->precision == PRECISION_BF16) {
        assert(w->backward);
        bf16_set()->product(d_x, beta, d_y, w->backward, T, w->n_in, w->n_out);
    } else {
        assert(w->f32);
        gemm_nn(d_x, beta, d_y, w->f32, T, w->n_in, w->n_out);
    }
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
