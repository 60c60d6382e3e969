/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final norm, head and cross entropy, only for the rows that predict a token
 * with loss, a chunk of rows at a time:
 *
 *     nll = log sum exp(logits) - logits[target]
 *     d_logits = scale * (softmax(logits) - onehot(target))
 */
#include "decoder/pass.h"

#include <math.h>
#include <string.h>

#include "math/kernels.h"
#include "math/rmsnorm.h"

static size_t find_loss_rows(struct decoder_pass *p)
{
    size_t n = 0, row = 0;

    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const struct sequence *q = &p->block->seqs[s];

        for (size_t i = 1; q->loss && i < q->n; i++)
            if (q->loss[i])
                p->loss_rows[n++] =
                    (struct loss_row){(uint32_t)(row + i - 1), (uint32_t)s, q->ids[i]};
        row += q->n;
    }
    return n;
}

/* Rows of the last hidden state, normed, into HEAD_XN. */
static void gather_chunk(struct decoder_pass *p, const struct loss_row *rows, size_t n)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t D = c->dim;

    for (size_t i = 0; i < n; i++)
        memcpy(p->head_x + i * D, pass_hidden(p, rows[i].row), D * sizeof(float));
    rmsnorm_forward(p->head_xn, p->head_inv, p->head_x, p->model->final_norm,
                    c->norm_eps, n, D);
}

/* Logits to their gradient, in place. Returns the row's negative log-likelihood. */
static double row_loss(float *logits, size_t V, int32_t target, float scale,
                       bool backward)
{
    const struct kernels *k = kernels();
    const float max = k->max(logits, V), at_target = logits[target];
    const float sum = k->exp_sum(logits, max, V);

    if (backward) {
        const float factor = scale / sum;

        for (size_t v = 0; v < V; v++)
            logits[v] *= factor;
        logits[target] -= scale;
    }
    return (double)max + log((double)sum) - (double)at_target;
}

static void chunk_loss(struct decoder_pass *p, struct block_loss *out, double *nll,
                       const struct loss_row *rows, size_t n)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t D = c->dim, V = c->n_vocab;

    gather_chunk(p, rows, n);
    matrix_forward(p->logits, 0.0f, p->head_xn, &p->model->head, n);
    for (size_t i = 0; i < n; i++) {
        const float scale = p->block->seqs[rows[i].seq].loss_scale;
        const double loss =
            row_loss(p->logits + i * V, V, rows[i].target, scale, p->options.backward);

        out->nll += loss;
        out->scaled += (double)scale * loss;
        if (nll)
            nll[rows[i].seq] += loss;
    }
    out->n_tokens += n;
    if (!p->options.backward)
        return;
    matrix_backward(p->head_d, 0.0f, p->logits, &p->model->head, n);
    memset(p->head_xn, 0, n * D * sizeof(float));
    rmsnorm_backward(p->head_xn, p->head_d, p->head_x, p->model->final_norm,
                     p->head_inv, n, D);
    for (size_t i = 0; i < n; i++)
        memcpy(p->d_x + rows[i].row * D, p->head_xn + i * D, D * sizeof(float));
}

static void count_routing(const struct decoder_pass *p, struct block_loss *out)
{
    const struct mixture *m = p->mixture;

    if (!pass_routes(p) || m->rule.decides != DECIDE_SEQUENCE)
        return;
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const int label = p->labels[s];

        if (label < 0)
            continue;
        out->n_routed++;
        out->router_right += (int)gates_argmax(&p->gates[m->n_routers - 1], s) == label;
        for (size_t r = 0; r < m->n_routers; r++) {
            const float q = p->gates[r].probs[s * m->n_experts + (size_t)label];

            out->router_ce -= log(fmax((double)q, 1e-30));
        }
    }
}

void decoder_routing(const struct decoder_pass *p, struct block_loss *out)
{
    *out = (struct block_loss){0};
    count_routing(p, out);
}

void decoder_loss(struct decoder_pass *p, struct block_loss *out, double *nll)
{
    const size_t n = find_loss_rows(p);

    *out = (struct block_loss){0};
    if (nll)
        memset(nll, 0, p->block->n_seqs * sizeof(*nll));
    if (p->in_tiles) {
        tile_loss(p, out, nll, n);
        count_routing(p, out);
        return;
    }
    if (p->options.backward)
        memset(p->d_x, 0, p->T * p->model->weights->config.dim * sizeof(float));
    for (size_t i = 0; i < n; i += p->chunk)
        chunk_loss(p, out, nll, p->loss_rows + i, n - i < p->chunk ? n - i : p->chunk);
    count_routing(p, out);
}

void pass_logits(struct decoder_pass *p, float *logits, size_t row)
{
    const struct loss_row at = {.row = (uint32_t)row};

    gather_chunk(p, &at, 1);
    if (p->model->use & MATRIX_DECODE || p->tiles)
        matrix_decode(logits, p->head_xn, &p->model->head, 1);
    else
        matrix_forward(logits, 0.0f, p->head_xn, &p->model->head, 1);
}
