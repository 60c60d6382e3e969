/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decoder layer forward, over a row block:
 *
 *     xn = norm(x)                 [router of the layer reads xn]
 *     q, k, v = linears of xn      q, k turned by rope
 *     x += o(attention(q, k, v))
 *     xn = norm(x)                 [router of the FFN reads xn]
 *     x += down(silu(gate(xn)) * up(xn))
 *
 * where every linear is the frozen product plus what the experts add; routers read the
 * input of a linear before it. Where one router reads the base alone (ROUTER_BASE), no
 * expert adds anything and it reads what layers put out; one that reads the text
 * (ROUTER_TEXT) has decided before the first. In a shared forward each thread takes a part of the rows
 * through the layers, and all meet where one reads what another computed.
 */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include "decoder/pass.h"

/* All threads of the forward meet. */
static void meet(const struct step_part *part)
{
    if (part->n > 1) {
#pragma omp barrier
    }
}

/* Let routers read the input of group G; one thread for all. */
static void route(struct decoder_pass *p, const struct step_part *part, size_t layer,
                  enum step_group g)
{
    struct step_routers rs;

    if (p->again)
        return;
    routers_find(&rs, p, layer, g, NULL);
    if (!rs.n)
        return;
    meet(part);
    if (part->thread == 0)
        routers_run(p, &rs, layer, g);
    meet(part);
}

static void part_forward(struct decoder_pass *p, const struct step_part *part,
                         size_t layer)
{
    const struct step_ops *ops = p->ops;

    ops->norm(p, part, layer, BRANCH_ATTENTION);
    route(p, part, layer, GROUP_QKV);
    ops->qkv(p, part, layer);
    meet(part);
    ops->attend(p, part, layer);
    meet(part);
    route(p, part, layer, GROUP_O);
    ops->output(p, part, layer);

    ops->norm(p, part, layer, BRANCH_FFN);
    route(p, part, layer, GROUP_GATE_UP);
    ops->gate_up(p, part, layer);
    if (p->again)
        return; /* the backward needs no more */
    route(p, part, layer, GROUP_DOWN);
    ops->down(p, part, layer);
    if (base_router_reads(p, layer)) {
        meet(part);
        if (part->thread == 0)
            base_router_read(p, layer);
        meet(part);
    }
}

void layer_forward(struct decoder_pass *p, size_t layer)
{
    const struct step_part whole = {0, 1, 0, p->rows};

    part_forward(p, &whole, layer);
}

/* Spread the block's sequences over its rows. */
static void lay_rows(struct decoder_pass *p, const struct block *block)
{
    size_t row = 0;

    assert(block->n_rows <= p->options.max_rows &&
           block->n_seqs <= p->options.max_seqs);
    p->block = block;
    p->T = block->n_rows;
    p->rows = pass_round(p->ops, p->T);
    for (size_t s = 0; s < block->n_seqs; s++) {
        const struct sequence *q = &block->seqs[s];
        const size_t start = q->after ? pass_first_row(p, q->after - 1) : row;
        const size_t past = q->after ? block->seqs[q->after - 1].n
                            : p->kv  ? p->kv->n
                                     : 0;

        assert(!q->after || (p->options.continued && q->after <= s &&
                             !block->seqs[q->after - 1].after));
        p->pools[s] =
            (struct pool){(uint32_t)(start + q->pool_first), (uint32_t)q->pool_n};
        p->labels[s] = q->expert;
        for (size_t i = 0; i < q->n; i++, row++) {
            p->ids[row] = q->ids[i];
            p->pos[row] = (int32_t)(past + i);
            p->seq_of_row[row] = (uint32_t)s;
        }
    }
    assert(row == block->n_rows);
    for (; row < p->rows; row++)
        p->pos[row] = 0;
}

void decoder_embed(struct decoder_pass *p)
{
    const size_t D = p->model->weights->config.dim;
    float *x = p->x[0];

    for (size_t r = 0; r < p->T; r++, x += p->pitch) {
        matrix_rows(x, &p->model->embed, p->ids + r, 1);
        memset(x + D, 0, (p->pitch - D) * sizeof(float));
    }
    memset(x, 0, (p->rows - p->T) * p->pitch * sizeof(float));
}

void decoder_begin(struct decoder_pass *p, const struct block *block)
{
    lay_rows(p, block);
    if (p->mixture) {
        p->given.n_rows = p->T;
        p->given.n_units = block->n_seqs;
        p->given.unit_of_row = p->seq_of_row;
        if (p->options.routing == ROUTE_GIVEN)
            gates_give(&p->given, p->labels);
        else if (p->mixture->rule.place == ROUTER_TEXT)
            text_router_read(p);
        else
            gates_give_fixed(&p->given);
    }
    decoder_embed(p);
}

void decoder_route_first(struct decoder_pass *p, const struct block *block)
{
    struct step_part whole = {0, 1, 0, 0};

    decoder_begin(p, block);
    whole.rows = p->rows;
    p->ops->norm(p, &whole, 0, BRANCH_ATTENTION);
    route(p, &whole, 0, GROUP_QKV);
}

static void some_layers(struct decoder_pass *p, const struct step_part *part,
                        size_t first, size_t end)
{
    for (size_t l = first; l < end; l++)
        part_forward(p, part, l);
}

void decoder_layers(struct decoder_pass *p, size_t first, size_t end)
{
    const size_t steps = p->rows / p->ops->row_step;
    const size_t n = steps < p->n_threads ? steps : p->n_threads;

    if (n == 1 || omp_in_parallel()) {
        const struct step_part whole = {0, 1, 0, p->rows};

        some_layers(p, &whole, first, end);
        return;
    }
#pragma omp parallel num_threads((int)n)
    {
        const size_t i = (size_t)omp_get_thread_num(),
                     team = (size_t)omp_get_num_threads(), step = p->ops->row_step;
        const size_t from = steps * i / team, to = steps * (i + 1) / team;
        const struct step_part part = {i, team, from * step, (to - from) * step};

        some_layers(p, &part, first, end);
    }
}

void decoder_forward(struct decoder_pass *p, const struct block *block)
{
    decoder_begin(p, block);
    decoder_layers(p, 0, p->model->weights->config.n_layers);
}
