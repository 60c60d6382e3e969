/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences that continue another: attention gets keys and values of both behind one
 * another, everything else takes rows as they come. An attention row depends on its
 * query and its keys alone, so no bit tells that the beginning was computed once.
 */
#include <string.h>

#include "decoder/pass.h"

static size_t width(const struct decoder_pass *p)
{
    const struct model_config *c = &p->model->weights->config;

    return c->n_kv_heads * c->head_dim;
}

void joined_carve(struct decoder_pass *p, struct arena *a)
{
    const size_t n = p->options.max_rows * width(p);

    if (!p->options.continued)
        return;
    p->joined.k = arena_f32(a, n);
    p->joined.v = arena_f32(a, n);
    p->joined.all_k = arena_f32(a, n);
    p->joined.all_v = arena_f32(a, n);
}

size_t pass_first_row(const struct decoder_pass *p, size_t seq)
{
    size_t row = 0;

    for (size_t s = 0; s < seq; s++)
        row += p->block->seqs[s].n;
    return row;
}

size_t pass_join(struct decoder_pass *p, size_t seq, const float *k, const float *v)
{
    const size_t before = p->block->seqs[seq].after - 1, n = p->block->seqs[seq].n;
    const size_t from = pass_first_row(p, before), m = p->block->seqs[before].n;
    const size_t row = pass_first_row(p, seq), W = width(p), bytes = W * sizeof(float);

    memcpy(p->joined.k, k + from * W, m * bytes);
    memcpy(p->joined.v, v + from * W, m * bytes);
    memcpy(p->joined.k + m * W, k + row * W, n * bytes);
    memcpy(p->joined.v + m * W, v + row * W, n * bytes);
    return m + n;
}
