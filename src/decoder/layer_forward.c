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
 * where every linear is the frozen product plus what the experts add.
 */
#include "decoder/pass.h"

#include <assert.h>
#include <string.h>

#include "math/kernels.h"
#include "math/rmsnorm.h"
#include "math/rope.h"

void pass_route_begin(struct decoder_pass *p, size_t router)
{
    const struct gate_rule *rule = &p->mixture->rule;
    struct gates *g = &p->gates[router];
    const bool by_sequence = rule->decides == DECIDE_SEQUENCE;

    g->n_rows = p->T;
    g->n_units = by_sequence ? p->block->n_seqs : p->T;
    g->unit_of_row = by_sequence ? p->seq_of_row : p->row_self;
}

void pass_route(struct decoder_pass *p, size_t router, const float *src)
{
    const struct gate_rule *rule = &p->mixture->rule;
    struct gates *g = &p->gates[router];

    pass_route_begin(p, router);
    gates_read(g, &p->mixture->routers[router], rule->pool, p->pools, src);
    if (p->options.routing == ROUTE_ROUTER)
        gates_decide(g, rule);
}

static void route_at(struct decoder_pass *p, enum router_place place, size_t layer,
                     enum site s, const float *src)
{
    if (pass_routes(p) && p->mixture->rule.place == place && !p->again)
        pass_route(p, (size_t)mixture_router_of(p->mixture, layer, s), src);
}

/* Y = beta Y + X W^T, by the kernels that suit the number of rows. */
static void frozen_forward(struct decoder_pass *p, float *y, float beta, const float *x,
                           const struct matrix *w)
{
    const struct kernels *k = kernels();
    const bool few = p->kv && p->T <= PASS_DECODE_ROWS;

    if (!few && (p->model->use & MATRIX_FORWARD)) {
        matrix_forward(y, beta, x, w, p->T);
        return;
    }
    for (size_t t = 0; t < p->T; t += PASS_DECODE_ROWS) {
        const size_t n = p->T - t < PASS_DECODE_ROWS ? p->T - t : PASS_DECODE_ROWS;
        float *to = y + t * w->n_out;

        matrix_decode(beta == 0.0f ? to : p->step, x + t * w->n_in, w, n);
        if (beta != 0.0f)
            k->axpy(to, 1.0f, p->step, n * w->n_out);
    }
}

static void linear_forward(struct decoder_pass *p, float *y, float beta, const float *x,
                           size_t layer, enum site s)
{
    const struct apply_place at = {.mixture = p->mixture,
                                   .layer = layer,
                                   .site = s,
                                   .gates = pass_gates(p, layer, s),
                                   .dropout = p->options.dropout,
                                   .dropout_seed = p->options.dropout_seed,
                                   .kept = p->acts[layer].h[s]};

    frozen_forward(p, y, beta, x, &p->model->layers[layer].site[s]);
    route_at(p, ROUTER_LINEAR, layer, s, x);
    experts_forward(y, &at, x, &p->apply);
}

static void attend(struct decoder_pass *p, struct layer_acts *a, size_t layer)
{
    const size_t heads = p->heads.n_heads * p->heads.head_dim;
    const size_t groups = p->heads.n_kv_heads * p->heads.head_dim;
    size_t row = 0;

    if (p->kv) {
        attention_forward(a->attn, NULL, a->q, kv_keys(p->kv, layer),
                          kv_values(p->kv, layer), p->T, p->kv->n + p->T, &p->heads,
                          p->attention);
        return;
    }
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const size_t n = p->block->seqs[s].n;

        attention_forward(a->attn + row * heads, a->lse + row * p->heads.n_heads,
                          a->q + row * heads, a->k + row * groups, a->v + row * groups,
                          n, n, &p->heads, p->attention);
        row += n;
    }
}

void layer_forward(struct decoder_pass *p, size_t layer)
{
    const struct model_config *c = &p->model->weights->config;
    const struct frozen_layer *w = &p->model->layers[layer];
    struct layer_acts *a = &p->acts[layer];
    float *out = p->acts[layer + 1].x_in;
    const size_t T = p->T, D = c->dim, F = c->ffn_dim;

    if (p->kv) {
        a->k = kv_keys(p->kv, layer) + p->kv->n * p->kv->width;
        a->v = kv_values(p->kv, layer) + p->kv->n * p->kv->width;
    }
    rmsnorm_forward(p->xn, a->inv_rms_attn, a->x_in, w->attn_norm, c->norm_eps, T, D);
    route_at(p, ROUTER_LAYER, layer, SITE_Q, p->xn);
    linear_forward(p, a->q, 0.0f, p->xn, layer, SITE_Q);
    linear_forward(p, a->k, 0.0f, p->xn, layer, SITE_K);
    linear_forward(p, a->v, 0.0f, p->xn, layer, SITE_V);
    rope_forward(&p->model->rope, a->q, p->pos, T, c->n_heads);
    rope_forward(&p->model->rope, a->k, p->pos, T, c->n_kv_heads);
    attend(p, a, layer);
    memcpy(a->x_mid, a->x_in, T * D * sizeof(float));
    linear_forward(p, a->x_mid, 1.0f, a->attn, layer, SITE_O);

    rmsnorm_forward(p->xn, a->inv_rms_ffn, a->x_mid, w->ffn_norm, c->norm_eps, T, D);
    route_at(p, ROUTER_FFN, layer, SITE_GATE, p->xn);
    linear_forward(p, a->gate, 0.0f, p->xn, layer, SITE_GATE);
    linear_forward(p, a->up, 0.0f, p->xn, layer, SITE_UP);
    if (p->again)
        return; /* the backward needs no more */
    kernels()->swiglu(p->act, a->gate, a->up, T * F);
    memcpy(out, a->x_mid, T * D * sizeof(float));
    linear_forward(p, out, 1.0f, p->act, layer, SITE_DOWN);
}

/* Spread the block's sequences over its rows. */
static void lay_rows(struct decoder_pass *p, const struct block *block)
{
    size_t row = 0;

    assert(block->n_rows <= p->options.max_rows &&
           block->n_seqs <= p->options.max_seqs);
    p->block = block;
    p->T = block->n_rows;
    for (size_t s = 0; s < block->n_seqs; s++) {
        const struct sequence *q = &block->seqs[s];
        const size_t past = p->kv ? p->kv->n : 0;

        p->pools[s] =
            (struct pool){(uint32_t)(row + q->pool_first), (uint32_t)q->pool_n};
        p->labels[s] = q->expert;
        for (size_t i = 0; i < q->n; i++, row++) {
            p->ids[row] = q->ids[i];
            p->pos[row] = (int32_t)(past + i);
            p->seq_of_row[row] = (uint32_t)s;
        }
    }
    assert(row == block->n_rows);
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
    }
    p->in_tiles = p->tiles && !(p->kv && p->T <= PASS_DECODE_ROWS);
    if (p->in_tiles)
        tile_begin(p);
    else
        matrix_rows(p->acts[0].x_in, &p->model->embed, p->ids, p->T);
}

void decoder_forward(struct decoder_pass *p, const struct block *block)
{
    const size_t L = p->model->weights->config.n_layers;

    decoder_begin(p, block);
    if (p->in_tiles) {
        tile_forward(p);
        return;
    }
    for (size_t l = 0; l < L; l++)
        layer_forward(p, l);
}
