/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The toy base under SLIM as docs/METHODS.md writes it, sequence by sequence and row by row
 * with plain loops in double: nothing of the engine but its numbers and which places a mask
 * drew.
 *
 *     yield        y = max(d / d_run - 1, 0), d between what a question showed and clusters
 *     logits       r + beta y of identities, r - beta y of LoRAs
 *     gates        softmax, the two largest kept and renormalised, identities among them
 *     gate, up, down   W0 x + sum over kept LoRAs of w s B' A' x
 *
 *   E experts   D width   M outputs, N inputs of a linear   R rank
 */
#ifndef ARTEL_TESTS_SLIM_PLAIN_H
#define ARTEL_TESTS_SLIM_PLAIN_H

#include "slim_case.h"
#include "support/plain_clusters.h"

#define PLAIN_TOKENS  16 /* of a sequence at most */
#define PLAIN_SEQS    ROWS
#define PLAIN_EXPERTS 8

struct plain {
    const struct artel_model *model;
    const struct mixture *mixture; /* shapes, scales, kinds and clusters */
    double *learnt[PLAIN_EXPERTS]; /* every A and B as in an expert's params, */
    double
        *factor[PLAIN_EXPERTS]; /* and what a mask makes of each: 0, 1 or its weight */
    double *routers;            /* as in router_params */
    bool training;              /* d_run counts a distance before that is used */
    bool held;                  /* yields stay as they are */
    double yield[TOY_LAYERS][PLAIN_SEQS];
    int kept[TOY_LAYERS][PLAIN_SEQS][PLAIN_TOKENS][2]; /* the two experts of each row */
};

/* y = W x. */
static inline void plain_product(double *y, const struct tensor *w, const double *x)
{
    const float *a = w->data;
    const size_t M = w->shape[0], N = w->shape[1];

    for (size_t i = 0; i < M; i++) {
        y[i] = 0.0;
        for (size_t j = 0; j < N; j++)
            y[i] += (double)a[i * N + j] * x[j];
    }
}

static inline void plain_norm(double *y, const double *x, const struct tensor *gain)
{
    const float *by = gain->data;
    double squares = 0.0;

    for (size_t j = 0; j < TOY_DIM; j++)
        squares += x[j] * x[j];
    for (size_t j = 0; j < TOY_DIM; j++)
        y[j] = x[j] * (double)by[j] / sqrt(squares / TOY_DIM + (double)1e-5f);
}

/* Rope of N heads at position POS: pairs (i, i + d / 2). */
static inline void plain_turn(double *x, size_t n, size_t pos)
{
    const size_t half = TOY_HEAD / 2;

    for (size_t h = 0; h < n; h++)
        for (size_t i = 0; i < half; i++) {
            const double by =
                (double)pos * pow(10000.0, -2.0 * (double)i / (double)TOY_HEAD);
            double *a = &x[h * TOY_HEAD + i], *b = a + half;
            const double was = *a;

            *a = was * cos(by) - *b * sin(by);
            *b = was * sin(by) + *b * cos(by);
        }
}

/* Attention of one head over rows 0 .. T: OUT (d). */
static inline void plain_head(double *out, const double *q, double k[][TOY_DIM],
                              double v[][TOY_DIM], size_t T, size_t at)
{
    double score[PLAIN_TOKENS], sum = 0.0, top = -HUGE_VAL;

    for (size_t t = 0; t <= T; t++) {
        score[t] = 0.0;
        for (size_t j = 0; j < TOY_HEAD; j++)
            score[t] += q[j] * k[t][at + j] / sqrt((double)TOY_HEAD);
        top = fmax(top, score[t]);
    }
    for (size_t t = 0; t <= T; t++)
        sum += score[t] = exp(score[t] - top);
    for (size_t j = 0; j < TOY_HEAD; j++) {
        out[j] = 0.0;
        for (size_t t = 0; t <= T; t++)
            out[j] += score[t] / sum * v[t][at + j];
    }
}

/* X (N, D) += o of the heads over its norm. */
static inline void plain_attention(double x[][TOY_DIM], const struct layer_weights *w,
                                   size_t n)
{
    double q[PLAIN_TOKENS][TOY_DIM], k[PLAIN_TOKENS][TOY_DIM], v[PLAIN_TOKENS][TOY_DIM];

    for (size_t t = 0; t < n; t++) {
        double u[TOY_DIM];

        plain_norm(u, x[t], &w->attn_norm);
        plain_product(q[t], &w->site[SITE_Q], u);
        plain_product(k[t], &w->site[SITE_K], u);
        plain_product(v[t], &w->site[SITE_V], u);
        plain_turn(q[t], TOY_HEADS, t);
        plain_turn(k[t], TOY_KV, t);
    }
    for (size_t t = 0; t < n; t++) {
        double heads[TOY_DIM], out[TOY_DIM];

        for (size_t h = 0; h < TOY_HEADS; h++)
            plain_head(heads + h * TOY_HEAD, q[t] + h * TOY_HEAD, k, v, t,
                       h / (TOY_HEADS / TOY_KV) * TOY_HEAD);
        plain_product(out, &w->site[SITE_O], heads);
        for (size_t j = 0; j < TOY_DIM; j++)
            x[t][j] += out[j];
    }
}

/* By how much a sequence yields whose question showed SEEN (D) to the router of LAYER. */
static inline double plain_yield(const struct plain *p, size_t layer,
                                 const double *seen)
{
    struct clusters c;
    double d, run;

    mixture_clusters(&c, p->mixture, layer);
    if (c.counts[1] < 64.0f)
        return 0.0;
    d = plain_distance(c.center, c.variance, (size_t)c.counts[0], TOY_DIM, seen,
                       p->mixture->rule.clusters.distance == DISTANCE_MAX);
    run = (double)c.counts[2];
    run = p->training ? 0.99 * run + 0.01 * d : run;
    return fmax(d / run - 1.0, 0.0);
}

/* GATE (E) of a row that reads U and yields by Y; which two are kept. */
static inline void plain_gates(double *gate, int kept[2], const struct plain *p,
                               size_t layer, const double *u, double y)
{
    const struct mixture *m = p->mixture;
    const size_t E = m->n_experts;
    const double beta = (double)m->rule.clusters.beta;
    const double *w = p->routers + (m->routers[layer].w - m->router_params);
    double prob[PLAIN_EXPERTS], sum = 0.0;

    for (size_t e = 0; e < E; e++) {
        double r = m->experts[e].kind == EXPERT_IDENTITY ? beta * y : -beta * y;

        for (size_t j = 0; j < TOY_DIM; j++)
            r += w[e * TOY_DIM + j] * u[j];
        sum += prob[e] = exp(r);
        gate[e] = 0.0;
    }
    kept[0] = kept[1] = -1;
    for (int k = 0; k < 2; k++)
        for (int e = 0; e < (int)E; e++)
            if (e != kept[0] && (kept[k] < 0 || prob[e] > prob[kept[k]]))
                kept[k] = e;
    for (int k = 0; k < 2; k++)
        gate[kept[k]] =
            (prob[kept[k]] / sum) / (prob[kept[0]] / sum + prob[kept[1]] / sum);
}

/* y = W0 x + sum of w s B' A' x at one linear. */
static inline void plain_linear(double *y, const struct plain *p, size_t layer,
                                enum site s, const double *x, const double *gate)
{
    const struct mixture *m = p->mixture;

    plain_product(y, &p->model->weights->layers[layer].site[s], x);
    for (size_t e = 0; e < m->n_experts; e++) {
        const struct expert *expert = &m->experts[e];
        const struct lora *l = expert_lora(expert, layer, s);
        const size_t a = l->rank ? (size_t)(l->a - expert->params) : 0;
        const size_t b = l->rank ? (size_t)(l->b - expert->params) : 0;
        const double *of = p->learnt[e], *by = p->factor[e];

        for (size_t r = 0; r < l->rank && gate[e] > 0.0; r++) {
            double h = 0.0;

            for (size_t j = 0; j < l->n_in; j++) {
                const size_t at = a + r * l->n_in + j;

                h += of[at] * by[at] * x[j];
            }
            for (size_t i = 0; i < l->n_out; i++) {
                const size_t at = b + i * l->rank + r;

                y[i] += gate[e] * (double)l->scale * of[at] * by[at] * h;
            }
        }
    }
}

/* X (D) += the FFN over its norm U. */
static inline void plain_ffn(double *x, const struct plain *p, size_t layer,
                             const double *u, const double *gate)
{
    double open[TOY_FFN], up[TOY_FFN], out[TOY_DIM];

    plain_linear(open, p, layer, SITE_GATE, u, gate);
    plain_linear(up, p, layer, SITE_UP, u, gate);
    for (size_t i = 0; i < TOY_FFN; i++)
        up[i] *= open[i] / (1.0 + exp(-open[i]));
    plain_linear(out, p, layer, SITE_DOWN, up, gate);
    for (size_t j = 0; j < TOY_DIM; j++)
        x[j] += out[j];
}

/* X (n, D) through one layer; Q is sequence S. */
static inline void plain_layer(double x[][TOY_DIM], struct plain *p, size_t layer,
                               const struct sequence *q, size_t s)
{
    const struct layer_weights *w = &p->model->weights->layers[layer];
    double u[PLAIN_TOKENS][TOY_DIM], seen[TOY_DIM] = {0.0};

    plain_attention(x, w, q->n);
    for (size_t t = 0; t < q->n; t++)
        plain_norm(u[t], x[t], &w->ffn_norm);
    for (size_t t = q->pool_first; t < q->pool_first + q->pool_n; t++)
        for (size_t j = 0; j < TOY_DIM; j++)
            seen[j] += u[t][j] / (double)q->pool_n;
    if (!p->held)
        p->yield[layer][s] =
            p->mixture->cluster_state ? plain_yield(p, layer, seen) : 0.0;
    for (size_t t = 0; t < q->n; t++) {
        double gate[PLAIN_EXPERTS];

        plain_gates(gate, p->kept[layer][s][t], p, layer, u[t], p->yield[layer][s]);
        plain_ffn(x[t], p, layer, u[t], gate);
    }
}

/* LOGITS (n, V) of sequence Q, which is number S. */
static inline void plain_logits(double logits[][TOY_VOCAB], struct plain *p,
                                const struct sequence *q, size_t s)
{
    const struct weights *w = p->model->weights;
    const float *embed = w->embed.data;
    double x[PLAIN_TOKENS][TOY_DIM];

    assert_true(q->n <= PLAIN_TOKENS && s < PLAIN_SEQS && q->pool_n > 0);
    for (size_t t = 0; t < q->n; t++)
        for (size_t j = 0; j < TOY_DIM; j++)
            x[t][j] = (double)embed[(size_t)q->ids[t] * TOY_DIM + j];
    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        plain_layer(x, p, layer, q, s);
    for (size_t t = 0; t < q->n; t++) {
        double u[TOY_DIM];

        plain_norm(u, x[t], &w->final_norm);
        plain_product(logits[t], &w->head, u);
    }
}

/* Mean over the tokens with loss of N sequences. */
static inline double plain_loss(struct plain *p, const struct sequence *seqs, size_t n)
{
    double total = 0.0;
    size_t n_loss = 0;

    for (size_t s = 0; s < n; s++) {
        double logits[PLAIN_TOKENS][TOY_VOCAB];

        plain_logits(logits, p, &seqs[s], s);
        for (size_t t = 1; t < seqs[s].n; t++) {
            double sum = 0.0;

            for (size_t v = 0; v < TOY_VOCAB; v++)
                sum += exp(logits[t - 1][v]);
            if (!seqs[s].loss[t])
                continue;
            total += log(sum) - logits[t - 1][seqs[s].ids[t]];
            n_loss++;
        }
    }
    return total / (double)n_loss;
}

/* What the masks of STEP make of expert E: whole columns of A and rows of B, as many as the
 * root says, one draw for each linear. */
static inline void plain_mask(struct plain *p, size_t e, uint64_t step)
{
    const struct mask_rule *rule = &p->mixture->rule.masks;
    const struct expert *x = &p->mixture->experts[e];
    const struct mask m = {rule->drop, rule->rescale, rule->seed, step};
    const double share = 1.0 - (double)rule->drop;
    float *ones = malloc((x->n_params + 1) * sizeof(*ones));
    void *room = malloc(mask_scratch(&p->model->weights->config));

    for (size_t i = 0; i < x->n_params; i++)
        ones[i] = 1.0f;
    mask_params(ones, ones, x, e, &m, room);
    for (size_t i = 0; i < x->n_layers * N_SITES; i++) {
        const struct lora *l = &x->lora[i];
        const size_t a = l->rank ? (size_t)(l->a - x->params) : 0;
        const size_t b = l->rank ? (size_t)(l->b - x->params) : 0;
        size_t columns = 0, rows = 0;

        for (size_t j = 0; l->rank && j < l->n_in; j++) {
            columns += ones[a + j] != 0.0f;
            for (size_t r = 0; r < l->rank; r++)
                p->factor[e][a + r * l->n_in + j] = ones[a + j] != 0.0f;
        }
        for (size_t j = 0; l->rank && j < l->n_out; j++) {
            rows += ones[b + j * l->rank] != 0.0f;
            for (size_t r = 0; r < l->rank; r++)
                p->factor[e][b + j * l->rank + r] = ones[b + j * l->rank] == 0.0f ? 0.0
                                                    : rule->rescale ? 1.0 / share
                                                                    : 1.0;
        }
        assert_int_equal(columns,
                         l->rank ? (size_t)((double)l->n_in * sqrt(share) + 0.5) : 0);
        assert_int_equal(rows,
                         l->rank ? (size_t)((double)l->n_out * sqrt(share) + 0.5) : 0);
    }
    free(ones);
    free(room);
}

/* Every B weighed by BY. */
static inline void plain_expect(struct plain *p, size_t e, double by)
{
    const struct expert *x = &p->mixture->experts[e];

    for (size_t i = 0; i < x->n_layers * N_SITES; i++)
        for (size_t j = 0; j < x->lora[i].rank * x->lora[i].n_out; j++)
            p->factor[e][(size_t)(x->lora[i].b - x->params) + j] = by;
}

/* As F computes in STEP of training, or for use (MASK_INFERENCE). */
static inline void plain_open(struct plain *p, const struct fixture *f, uint64_t step)
{
    const struct mixture *m = &f->mixture;
    const struct mask_rule *rule = &m->rule.masks;
    const enum mask_kind kind = step == MASK_INFERENCE ? rule->kind : MASK_FIXED;

    *p = (struct plain){.model = f->model,
                        .mixture = m,
                        .training = step != MASK_INFERENCE,
                        .routers = malloc(m->n_router_params * sizeof(double))};
    assert_true(m->n_experts <= PLAIN_EXPERTS && m->n_routers == TOY_LAYERS);
    for (size_t i = 0; i < m->n_router_params; i++)
        p->routers[i] = (double)m->router_params[i];
    for (size_t e = 0; e < m->n_experts; e++) {
        const size_t n = m->experts[e].n_params;
        const float *params = m->bare ? m->bare[e] : m->experts[e].params;

        p->learnt[e] = malloc((n + 1) * sizeof(double));
        p->factor[e] = malloc((n + 1) * sizeof(double));
        for (size_t i = 0; i < n; i++) {
            p->learnt[e][i] = (double)params[i];
            p->factor[e][i] = 1.0;
        }
        if (rule->drop > 0.0f && kind == MASK_FIXED)
            plain_mask(p, e, step);
        else if (kind == MASK_EXPECTED)
            plain_expect(p, e, rule->rescale ? 1.0 : 1.0 - (double)rule->drop);
    }
}

static inline void plain_close(struct plain *p)
{
    for (size_t e = 0; e < p->mixture->n_experts; e++) {
        free(p->learnt[e]);
        free(p->factor[e]);
    }
    free(p->routers);
}

#endif
