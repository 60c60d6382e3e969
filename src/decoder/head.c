/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss, only for the rows that predict a token with loss: they are gathered from the
 * residual stream behind the last layer some at a time, and their slopes put back.
 */
#include "decoder/pass.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "math/rmsnorm.h"

static size_t find_loss_rows(struct decoder_pass *p)
{
    size_t n = 0, row = 0;

    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const struct sequence *q = &p->block->seqs[s];

        if (q->after && q->loss && q->loss[0])
            p->loss_rows[n++] = (struct loss_row){
                (uint32_t)(pass_first_row(p, q->after) - 1), (uint32_t)s, q->ids[0]};
        for (size_t i = 1; q->loss && i < q->n; i++)
            if (q->loss[i])
                p->loss_rows[n++] =
                    (struct loss_row){(uint32_t)(row + i - 1), (uint32_t)s, q->ids[i]};
        row += q->n;
    }
    return n;
}

static void chunk_loss(struct decoder_pass *p, struct block_loss *out, double *nll,
                       const struct loss_row *rows, size_t n)
{
    const size_t P = p->pitch, bytes = P * sizeof(float);

    for (size_t i = 0; i < n; i++)
        memcpy(p->head_x + i * P, pass_hidden(p, rows[i].row), bytes);
    memset(p->head_x + n * P, 0, (pass_round(p->ops, n) - n) * bytes);
    p->ops->loss(p, rows, n);
    for (size_t i = 0; i < n; i++) {
        const double loss = p->head_nll[i];

        out->nll += loss;
        out->scaled += (double)p->block->seqs[rows[i].seq].loss_scale * loss;
        if (nll)
            nll[rows[i].seq] += loss;
        if (p->block->by_expert)
            p->block->by_expert[p->block->seqs[rows[i].seq].expert] += loss;
    }
    out->n_tokens += n;
    for (size_t i = 0; i < n && p->options.backward; i++)
        memcpy(p->d_x + rows[i].row * P, p->head_d + i * P, bytes);
}

static void count_routing(const struct decoder_pass *p, struct block_loss *out)
{
    const struct mixture *m = p->mixture;

    for (size_t r = 0; p->options.balance > 0.0f && r < m->n_routers; r++)
        out->balance += gates_balance(&p->gates[r]);
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
    if (p->options.backward)
        memset(p->d_x, 0, p->rows * p->pitch * sizeof(float));
    for (size_t i = 0; i < n; i += p->chunk)
        chunk_loss(p, out, nll, p->loss_rows + i, n - i < p->chunk ? n - i : p->chunk);
    count_routing(p, out);
}

static void normed(const struct decoder_pass *p, float *x, size_t row)
{
    const struct model_config *c = &p->model->weights->config;

    rmsnorm_forward(x, NULL, pass_hidden(p, row), p->model->final_norm, c->norm_eps, 1,
                    c->dim);
}

const float *pass_normed(struct decoder_pass *p, size_t row)
{
    normed(p, p->logits_x, row);
    return p->logits_x;
}

void pass_logits_rows(struct decoder_pass *p, float *logits, size_t row, size_t n)
{
    const size_t D = p->model->weights->config.dim;
    const struct matrix *head = &p->model->head;
    const bool in_float = head->f32 || head->forward;

    assert(n <= PASS_FEW_ROWS);
    for (size_t i = 0; i < n; i++)
        normed(p, p->logits_x + i * D, row + i);
    if (p->model->use & MATRIX_DECODE || !in_float)
        matrix_decode(logits, p->logits_x, head, n);
    else
        matrix_forward(logits, 0.0f, p->logits_x, head, n);
}

void pass_logits(struct decoder_pass *p, float *logits, size_t row)
{
    pass_logits_rows(p, logits, row, 1);
}
