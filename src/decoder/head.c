/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final norm, head and cross entropy, only for the rows that predict a token
 * with loss. The vocabulary is walked once, some columns at a time, as attention
 * walks keys that are also its values: E being the rows of the head, x the normed
 * hidden state, m the largest logit so far,
 *
 *     l = x E^T       s = sum exp(l - m)       o = sum exp(l - m) E
 *     nll = m + log s - l[target]       d_x = scale (o / s - E[target])
 *
 * where a larger m scales s and o down. Logits never leave the cache.
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

/* Take N logits of columns from J0 on into the row's sum; they become exp(l - m). */
static void row_add(struct head_row *h, float *logits, float *mixed, size_t D,
                    int32_t target, size_t j0, size_t n)
{
    const struct kernels *k = kernels();
    const float most = k->max(logits, n);

    if ((size_t)target - j0 < n)
        h->at_target = logits[(size_t)target - j0];
    if (most > h->max) {
        const float less = expf(h->max - most);

        h->max = most;
        h->sum *= (double)less;
        if (mixed && j0)
            k->scale(mixed, less, D);
    }
    h->sum += (double)k->exp_sum(logits, h->max, n);
}

/* Softmax over the vocabulary for N rows of HEAD_XN; with a backward, O into HEAD_D. */
static void walk_vocabulary(struct decoder_pass *p, const struct loss_row *rows,
                            size_t n)
{
    const struct model_config *c = &p->model->weights->config;
    const struct matrix *head = &p->model->head;
    const size_t D = c->dim, V = c->n_vocab;
    const bool backward = p->options.backward;

    for (size_t i = 0; i < n; i++)
        p->head_rows[i] = (struct head_row){.max = -INFINITY};
    for (size_t j = 0; j < V; j += PASS_HEAD_COLS) {
        const size_t wide = V - j < PASS_HEAD_COLS ? V - j : PASS_HEAD_COLS;

        matrix_forward_part(p->logits, 0.0f, p->head_xn, head, n, j, wide);
        for (size_t i = 0; i < n; i++)
            row_add(&p->head_rows[i], p->logits + i * wide,
                    backward ? p->head_d + i * D : NULL, D, rows[i].target, j, wide);
        if (backward)
            matrix_backward_part(p->head_d, j ? 1.0f : 0.0f, p->logits, head, n, j,
                                 wide);
    }
}

/* From O of each row to the gradient of the last hidden state. */
static void chunk_backward(struct decoder_pass *p, const struct loss_row *rows,
                           size_t n)
{
    const struct kernels *k = kernels();
    const size_t D = p->model->weights->config.dim;

    for (size_t i = 0; i < n; i++) {
        const float scale = p->block->seqs[rows[i].seq].loss_scale;
        float *d = p->head_d + i * D, *at_target = p->head_xn + i * D;

        k->scale(d, (float)((double)scale / p->head_rows[i].sum), D);
        matrix_rows(at_target, &p->model->head, &rows[i].target, 1);
        k->axpy(d, -scale, at_target, D);
    }
    memset(p->head_xn, 0, n * D * sizeof(float));
    rmsnorm_backward(p->head_xn, p->head_d, p->head_x, p->model->final_norm,
                     p->head_inv, n, D);
    for (size_t i = 0; i < n; i++)
        memcpy(p->d_x + rows[i].row * D, p->head_xn + i * D, D * sizeof(float));
}

static void chunk_loss(struct decoder_pass *p, struct block_loss *out, double *nll,
                       const struct loss_row *rows, size_t n)
{
    gather_chunk(p, rows, n);
    walk_vocabulary(p, rows, n);
    for (size_t i = 0; i < n; i++) {
        const struct head_row *h = &p->head_rows[i];
        const double loss = (double)h->max + log(h->sum) - (double)h->at_target;

        out->nll += loss;
        out->scaled += (double)p->block->seqs[rows[i].seq].loss_scale * loss;
        if (nll)
            nll[rows[i].seq] += loss;
    }
    out->n_tokens += n;
    if (p->options.backward)
        chunk_backward(p, rows, n);
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
