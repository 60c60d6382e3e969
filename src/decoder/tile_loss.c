/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final norm, head and cross entropy on tiles, for the rows that carry loss.
 */
#include <string.h>

#include "decoder/tile_parts.h"

/* Rows with loss behind one another, normed, padded with zeros. */
static void gather(struct decoder_pass *p, const struct loss_row *rows, size_t n)
{
    const struct model_config *c = &p->model->weights->config;
    struct tile_pass *t = p->tiles;
    const size_t row = t->pitch * sizeof(float);

    for (size_t i = 0; i < n; i++) {
        memcpy(t->head_in + i * t->pitch, t->x + rows[i].row * t->pitch, row);
        t->head_target[i] = rows[i].target;
        t->head_scale[i] = p->block->seqs[rows[i].seq].loss_scale;
    }
    memset(t->head_in + n * t->pitch, 0, (tile_round(n) - n) * row);
    tile_set()->norm(t->head_x, t->head_inv, t->head_in, t->model->final_gain,
                     c->norm_eps, c->dim, t->pitch / 32, 0, tile_round(n));
}

/* Slopes of the head's input back through the norm to the rows they came from. */
static void scatter(struct decoder_pass *p, const struct loss_row *rows, size_t n)
{
    struct tile_pass *t = p->tiles;
    const struct tiles none = {0};

    memset(t->head_dx, 0, tile_round(n) * t->pitch * sizeof(float));
    tile_set()->norm_backward(none, t->head_dx, t->head_d, t->head_x, t->head_inv,
                              t->model->final_gain, t->model->shape.dim, t->pitch / 32,
                              0, tile_round(n));
    for (size_t i = 0; i < n; i++)
        memcpy(t->d_x + rows[i].row * t->pitch, t->head_dx + i * t->pitch,
               t->pitch * sizeof(float));
}

static void chunk_loss(struct decoder_pass *p, struct block_loss *out, double *nll,
                       const struct loss_row *rows, size_t n)
{
    struct tile_pass *t = p->tiles;
    const bool backward = p->options.backward;
    const struct tile_loss loss = {.x = t->head_x,
                                   .rows = n,
                                   .target = t->head_target,
                                   .scale = t->head_scale,
                                   .nll = t->head_nll,
                                   .d_x = backward ? t->head_d : NULL,
                                   .scratch = t->head_scratch};

    gather(p, rows, n);
    tile_set()->head_loss(&t->model->head, &loss);
    for (size_t i = 0; i < n; i++) {
        out->nll += t->head_nll[i];
        out->scaled += (double)t->head_scale[i] * t->head_nll[i];
        if (nll)
            nll[rows[i].seq] += t->head_nll[i];
    }
    out->n_tokens += n;
    if (backward)
        scatter(p, rows, n);
}

void tile_loss(struct decoder_pass *p, struct block_loss *out, double *nll, size_t n)
{
    struct tile_pass *t = p->tiles;

    if (p->options.backward)
        memset(t->d_x, 0, t->rows * t->pitch * sizeof(float));
    for (size_t i = 0; i < n; i += t->chunk)
        chunk_loss(p, out, nll, p->loss_rows + i, n - i < t->chunk ? n - i : t->chunk);
}
