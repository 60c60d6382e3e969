/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a tensor that lies in memory, or is made piece by piece.
 */
#include "files/tensor_out.h"

#include <assert.h>
#include <stdlib.h>

#include "base/error.h"

#define PIECE_BYTES ((size_t)4 << 20)

int tensor_out(FILE *to, const struct tensor *t, const struct tensor_maker *maker,
               struct artel_error *err)
{
    size_t n_rows = 1, row_bytes, at_once;
    void *piece;
    int rc = 0;

    if (!t->bytes)
        return 0;
    if (t->data) {
        (void)fwrite(t->data, 1, t->bytes, to);
        return 0;
    }
    assert(maker);
    for (size_t i = 0; i + 1 < t->n_dims; i++)
        n_rows *= t->shape[i];
    row_bytes = t->bytes / n_rows;
    at_once = PIECE_BYTES / row_bytes + 1;
    if (at_once > n_rows)
        at_once = n_rows;
    piece = malloc(at_once * row_bytes);
    if (!piece)
        return error_nomem(err, at_once * row_bytes);
    for (size_t i = 0; rc == 0 && i < n_rows && !ferror(to); i += at_once) {
        const size_t n = n_rows - i < at_once ? n_rows - i : at_once;

        rc = maker->rows(maker->user, piece, t, i, n, err);
        if (rc == 0)
            (void)fwrite(piece, row_bytes, n, to);
    }
    free(piece);
    return rc;
}
