/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A state lends its places to the pass that works for it; all else in a pass is scratch.
 */
#include "decoder/staged.h"

#include <assert.h>

#include "decoder/pass.h"

struct pass_state {
    const struct block *block;
    uint64_t dropout_seed;
    int32_t *ids, *pos;   /* (T) */
    uint32_t *seq_of_row; /* (T) */
    struct pool *pools;   /* (S) */
    int *labels;          /* (S) */
    struct gates given, *gates;
    float **x, *d_x; /* the residual stream and its gradient */
};

/* ---- weights ---- */

size_t stage_pieces(const struct artel_model *m)
{
    size_t n = 0;

    if (m->has_tiles)
        return tile_model_panels(&m->tiles);
    for (int s = 0; s < N_SITES; s++)
        n += matrix_panels(&m->layers[0].site[s]);
    return n;
}

size_t stage_room(const struct artel_model *m)
{
    return m->has_tiles ? tile_model_room(&m->weights->config) * sizeof(float) : 0;
}

/* Nobody runs down's product forward again. */
static int again(int use, bool is_down)
{
    return is_down && use & MATRIX_BACKWARD ? MATRIX_BACKWARD : use;
}

void stage_fill(const struct artel_model *m, size_t layer, size_t piece, int use,
                void *room)
{
    int s = 0;

    assert(m->use & MATRIX_STAGED);
    if (m->has_tiles) {
        const size_t before_down =
            stage_pieces(m) - m->tiles.shape.out[TILE_DOWN].blocks;

        tile_model_fill_panel(&m->tiles, m->weights, layer, piece,
                              again(use, piece >= before_down), room);
        return;
    }
    for (; piece >= matrix_panels(&m->layers[layer].site[s]); s++)
        piece -= matrix_panels(&m->layers[layer].site[s]);
    matrix_pack_panel(&m->layers[layer].site[s], piece, again(use, s == SITE_DOWN));
}

/* ---- states ---- */

struct pass_state *pass_state_carve(struct arena *a, const struct artel_model *model,
                                    const struct mixture *mixture,
                                    const struct pass_options *o, size_t n_rows,
                                    size_t n_seqs)
{
    struct pass_state *s = arena_take(a, sizeof(*s)), laid = {0};

    laid.ids = arena_take(a, n_rows * sizeof(*laid.ids));
    laid.pos =
        arena_take(a, pass_round(pass_ops(model, o), n_rows) * sizeof(*laid.pos));
    laid.seq_of_row = arena_take(a, n_rows * sizeof(*laid.seq_of_row));
    laid.pools = arena_take(a, n_seqs * sizeof(*laid.pools));
    laid.labels = arena_take(a, n_seqs * sizeof(*laid.labels));
    laid.gates = pass_gates_carve(&laid.given, a, mixture, n_rows, n_seqs, o->backward);
    laid.x = pass_stream_carve(a, model, o, n_rows);
    if (o->backward)
        laid.d_x = pass_d_stream_carve(a, model, o, n_rows);
    if (s)
        *s = laid;
    return s;
}

void staged_enter(struct decoder_pass *p, const struct pass_state *s)
{
    assert(p->options.staged);
    p->block = s->block;
    p->T = s->block->n_rows;
    p->rows = pass_round(p->ops, p->T);
    p->options.dropout_seed = s->dropout_seed;
    p->ids = s->ids;
    p->pos = s->pos;
    p->seq_of_row = s->seq_of_row;
    p->pools = s->pools;
    p->labels = s->labels;
    p->given = s->given;
    p->gates = s->gates;
    p->x = s->x;
    p->d_x = s->d_x;
}

void staged_begin(struct decoder_pass *p, struct pass_state *s,
                  const struct block *block, uint64_t dropout_seed)
{
    s->block = block;
    s->dropout_seed = dropout_seed;
    staged_enter(p, s);
    decoder_begin(p, block);
    s->given = p->given;
}

void staged_forward(struct decoder_pass *p, struct pass_state *s, size_t layer)
{
    staged_enter(p, s);
    layer_forward(p, layer);
}

void staged_backward(struct decoder_pass *p, struct pass_state *s, size_t layer,
                     struct mixture_grads *grads)
{
    staged_enter(p, s);
    layer_backward(p, layer, grads);
}
