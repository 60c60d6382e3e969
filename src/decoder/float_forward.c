/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's operations forward in float, over rows as they are written down. A part is
 * the whole block: products share themselves out where no thread has the block alone.
 */
#include <string.h>

#include "decoder/float_pass.h"
#include "math/kernels.h"
#include "math/rmsnorm.h"
#include "math/rope.h"

void float_norm(struct decoder_pass *p, const struct step_part *part, size_t layer,
                enum step_branch branch)
{
    const struct model_config *c = &p->model->weights->config;
    const struct frozen_layer *w = &p->model->layers[layer];
    const struct float_acts *a = float_acts_of(p, layer);
    const bool attention = branch == BRANCH_ATTENTION;

    (void)part;
    rmsnorm_forward(p->floats->xn, attention ? a->inv_rms_attn : a->inv_rms_ffn,
                    attention ? p->x[layer] : a->x_mid,
                    attention ? w->attn_norm : w->ffn_norm, c->norm_eps, p->T, c->dim);
}

/* By the kernels that suit the number of rows. */
void float_frozen(struct decoder_pass *p, float *y, float beta, const float *x,
                  const struct matrix *w)
{
    const struct kernels *k = kernels();
    float *few = p->floats->few;

    if (!p->options.few && (p->model->use & MATRIX_FORWARD)) {
        matrix_forward(y, beta, x, w, p->T);
        return;
    }
    for (size_t t = 0; t < p->T; t += PASS_FEW_ROWS) {
        const size_t n = p->T - t < PASS_FEW_ROWS ? p->T - t : PASS_FEW_ROWS;
        float *to = y + t * w->n_out;

        matrix_decode(beta == 0.0f ? to : few, x + t * w->n_in, w, n);
        if (beta != 0.0f)
            k->axpy(to, 1.0f, few, n * w->n_out);
    }
}

static void linear_forward(struct decoder_pass *p, float *y, float beta, const float *x,
                           size_t layer, enum site s)
{
    const struct apply_place at = float_place(p, layer, s);

    float_frozen(p, y, beta, x, &p->model->layers[layer].site[s]);
    experts_forward(y, &at, x, &p->floats->apply);
}

/* A session's cache goes on in one piece: keys and values are made where they stay. */
static bool in_place(const struct decoder_pass *p)
{
    return p->kv && kv_run(p->kv, p->kv->n, p->T) == p->T;
}

static void keep_in_cache(const struct decoder_pass *p, const float *k, const float *v,
                          size_t layer)
{
    const struct kv_cache *c = p->kv;

    for (size_t at = 0, run; at < p->T; at += run) {
        const size_t from = at * c->width;
        size_t bytes;

        run = kv_run(c, c->n + at, p->T - at);
        bytes = run * c->width * sizeof(*k);
        memcpy(kv_keys(c, layer, c->n + at), k + from, bytes);
        memcpy(kv_values(c, layer, c->n + at), v + from, bytes);
    }
}

void float_qkv(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);
    const bool there = in_place(p);
    float *k = there ? kv_keys(p->kv, layer, p->kv->n) : a->k;
    float *v = there ? kv_values(p->kv, layer, p->kv->n) : a->v;

    (void)part;
    linear_forward(p, a->q, 0.0f, f->xn, layer, SITE_Q);
    linear_forward(p, k, 0.0f, f->xn, layer, SITE_K);
    linear_forward(p, v, 0.0f, f->xn, layer, SITE_V);
    rope_forward(&p->model->rope, a->q, p->pos, p->T, f->heads.n_heads);
    rope_forward(&p->model->rope, k, p->pos, p->T, f->heads.n_kv_heads);
    if (p->kv && !there)
        keep_in_cache(p, k, v, layer);
}

void float_attend(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);
    const struct attention_shape *h = &f->heads;
    const size_t heads = h->n_heads * h->head_dim, groups = h->n_kv_heads * h->head_dim;
    size_t row = 0;

    (void)part;
    if (p->kv) {
        float *k, *v;

        kv_gather(&k, &v, p->kv, layer, p->kv->n + p->T);
        attention_forward(a->attn, NULL, a->q, k, v, p->T, p->kv->n + p->T, h,
                          f->attention);
        return;
    }
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const size_t n = p->block->seqs[s].n;
        const bool after = p->block->seqs[s].after;
        const size_t keys = after ? pass_join(p, s, a->k, a->v) : n;

        attention_forward(a->attn + row * heads, a->lse + row * h->n_heads,
                          a->q + row * heads, after ? p->joined.k : a->k + row * groups,
                          after ? p->joined.v : a->v + row * groups, n, keys, h,
                          f->attention);
        row += n;
    }
}

void float_output(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct float_acts *a = float_acts_of(p, layer);

    (void)part;
    memcpy(a->x_mid, p->x[layer], p->T * p->pitch * sizeof(float));
    linear_forward(p, a->x_mid, 1.0f, a->attn, layer, SITE_O);
}

void float_gate_up(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct float_pass *f = p->floats;
    const struct float_acts *a = float_acts_of(p, layer);

    (void)part;
    if (float_whole_ffn(p)) {
        float_ffn_forward(p, layer);
        return;
    }
    linear_forward(p, a->gate, 0.0f, f->xn, layer, SITE_GATE);
    linear_forward(p, a->up, 0.0f, f->xn, layer, SITE_UP);
    if (!p->again)
        kernels()->swiglu(f->act, a->gate, a->up,
                          p->T * p->model->weights->config.ffn_dim);
}

void float_down(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct float_pass *f = p->floats;
    float *out = p->x[layer + 1];

    (void)part;
    memcpy(out, float_acts_of(p, layer)->x_mid, p->T * p->pitch * sizeof(float));
    if (float_whole_ffn(p)) {
        float_frozen(p, out, 1.0f, f->act, &p->model->layers[layer].site[SITE_DOWN]);
        kernels()->axpy(out, 1.0f, f->ffn_out, p->T * p->pitch);
        return;
    }
    linear_forward(p, out, 1.0f, f->act, layer, SITE_DOWN);
}

static const float *input_of(const struct decoder_pass *p, size_t layer,
                             enum step_group g)
{
    if (g == GROUP_O)
        return float_acts_of(p, layer)->attn;
    return g == GROUP_DOWN ? p->floats->act : p->floats->xn;
}

void float_read_routers(struct decoder_pass *p, const struct step_routers *rs,
                        size_t layer, enum step_group g)
{
    const float *x = input_of(p, layer, g);

    for (size_t i = 0; i < rs->n; i++)
        gates_read(rs->gates[i], rs->router[i], p->mixture->rule.pool, p->pools, x);
}

void float_read_pools(struct decoder_pass *p, float *mean, size_t dim, size_t layer,
                      enum step_group g)
{
    for (size_t s = 0; s < p->block->n_seqs; s++)
        pool_read(mean + s * dim, input_of(p, layer, g), &p->pools[s], dim, POOL_MEAN);
}
