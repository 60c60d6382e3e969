/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Final norm, head and cross entropy in float. The vocabulary is walked once, some
 * columns at a time, as attention walks keys that are also its values: E being the rows
 * of the head, x the normed hidden state, m the largest logit so far,
 *
 *     l = x E^T       s = sum exp(l - m)       o = sum exp(l - m) E
 *     nll = m + log s - l[target]       d_x = scale (o / s - E[target])
 *
 * where a larger m scales s and o down. Logits never leave the cache.
 */
#include <math.h>
#include <string.h>

#include "decoder/float_pass.h"
#include "math/kernels.h"
#include "math/rmsnorm.h"

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

/* Softmax over the vocabulary for N rows of HEAD_XN; with a backward, O into HEAD_MIX. */
static void walk_vocabulary(struct decoder_pass *p, const struct loss_row *rows,
                            size_t n)
{
    const struct float_pass *f = p->floats;
    const struct matrix *head = &p->model->head;
    const size_t D = p->pitch, V = p->model->weights->config.n_vocab;
    const bool backward = p->options.backward;

    for (size_t i = 0; i < n; i++)
        f->head_rows[i] = (struct head_row){.max = -INFINITY};
    for (size_t j = 0; j < V; j += FLOAT_HEAD_COLS) {
        const size_t wide = V - j < FLOAT_HEAD_COLS ? V - j : FLOAT_HEAD_COLS;

        matrix_forward_part(f->logits, 0.0f, f->head_xn, head, n, j, wide);
        for (size_t i = 0; i < n; i++)
            row_add(&f->head_rows[i], f->logits + i * wide,
                    backward ? f->head_mix + i * D : NULL, D, rows[i].target, j, wide);
        if (backward)
            matrix_backward_part(f->head_mix, j ? 1.0f : 0.0f, f->logits, head, n, j,
                                 wide);
    }
}

/* From O of each row to the gradient of the last hidden state. */
static void loss_backward(struct decoder_pass *p, const struct loss_row *rows, size_t n)
{
    const struct kernels *k = kernels();
    const struct float_pass *f = p->floats;
    const size_t D = p->pitch;

    for (size_t i = 0; i < n; i++) {
        const float scale = p->block->seqs[rows[i].seq].loss_scale;
        float *d = f->head_mix + i * D, *at_target = f->head_xn + i * D;

        k->scale(d, (float)((double)scale / f->head_rows[i].sum), D);
        matrix_rows(at_target, &p->model->head, &rows[i].target, 1);
        k->axpy(d, -scale, at_target, D);
    }
    memset(p->head_d, 0, n * D * sizeof(float));
    rmsnorm_backward(p->head_d, f->head_mix, p->head_x, p->model->final_norm,
                     f->head_inv, n, D);
}

void float_loss(struct decoder_pass *p, const struct loss_row *rows, size_t n)
{
    const struct model_config *c = &p->model->weights->config;
    const struct float_pass *f = p->floats;

    rmsnorm_forward(f->head_xn, f->head_inv, p->head_x, p->model->final_norm,
                    c->norm_eps, n, c->dim);
    walk_vocabulary(p, rows, n);
    for (size_t i = 0; i < n; i++) {
        const struct head_row *h = &f->head_rows[i];

        p->head_nll[i] = (double)h->max + log(h->sum) - (double)h->at_target;
    }
    if (p->options.backward)
        loss_backward(p, rows, n);
}
