/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final norm, head and cross entropy on tiles.
 */
#include <string.h>

#include "decoder/tile_pass.h"

/* Slopes of the head's input back through the norm. */
static void loss_backward(struct decoder_pass *p, size_t n)
{
    struct tile_pass *t = p->tiles;
    const struct tiles none = {0};

    memset(p->head_d, 0, n * p->pitch * sizeof(float));
    tile_set()->norm_backward(none, p->head_d, t->head_d_xn, t->head_xn, t->head_inv,
                              t->model->final_gain, t->model->shape.dim,
                              p->pitch / TILE_COLS, 0, n);
}

void tile_loss(struct decoder_pass *p, const struct loss_row *rows, size_t n)
{
    const struct model_config *c = &p->model->weights->config;
    const bool backward = p->options.backward;
    const size_t padded = tile_round(n);
    struct tile_pass *t = p->tiles;
    const struct tile_loss loss = {.x = t->head_xn,
                                   .rows = n,
                                   .target = t->head_target,
                                   .scale = t->head_scale,
                                   .nll = p->head_nll,
                                   .d_x = backward ? t->head_d_xn : NULL,
                                   .scratch = t->head_scratch};

    for (size_t i = 0; i < n; i++) {
        t->head_target[i] = rows[i].target;
        t->head_scale[i] = p->block->seqs[rows[i].seq].loss_scale;
    }
    tile_set()->norm(t->head_xn, t->head_inv, p->head_x, t->model->final_gain,
                     c->norm_eps, c->dim, p->pitch / TILE_COLS, 0, padded);
    tile_set()->head_loss(&t->model->head, &loss);
    if (backward)
        loss_backward(p, padded);
}
