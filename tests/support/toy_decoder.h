/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small random llama in memory, without files, tokenizer or template, for
 * tests of the decoder and of training: sizes differ from each other so that
 * a swapped dimension shows.
 */
#ifndef ARTEL_TESTS_TOY_DECODER_H
#define ARTEL_TESTS_TOY_DECODER_H

#include <stdlib.h>

#include "artel.h"
#include "base/rng.h"
#include "check.h"
#include "decoder/decoder.h"

#ifndef TOY_LAYERS /* a test may want more */
#define TOY_LAYERS 2
#endif
#define TOY_DIM   32
#define TOY_HEADS 4
#define TOY_KV    2
#define TOY_HEAD  8
#define TOY_FFN   48
#ifndef TOY_VOCAB
#define TOY_VOCAB 50
#endif
#ifndef TOY_CONTEXT
#define TOY_CONTEXT 64
#endif

static inline float *toy_numbers(struct rng *r, size_t n, float mean, float spread)
{
    float *x = malloc(n * sizeof(*x));

    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = mean + spread * rng_normal(r);
    return x;
}

static inline struct tensor toy_tensor(struct rng *r, size_t n_out, size_t n_in,
                                       float mean, float spread)
{
    const size_t n = n_out * n_in;
    struct tensor t = {.name = "toy",
                       .dtype = DTYPE_F32,
                       .n_dims = n_out > 1 ? 2 : 1,
                       .bytes = n * sizeof(float)};

    t.shape[0] = n_out > 1 ? n_out : n_in;
    t.shape[1] = n_in;
    t.data = toy_numbers(r, n, mean, spread);
    return t;
}

static inline struct artel_model *toy_open(uint64_t seed)
{
    struct artel_model *m = calloc(1, sizeof(*m));
    struct weights *w = calloc(1, sizeof(*w));
    struct model_config *c = &w->config;
    struct artel_error err;
    struct rng r;

    rng_init(&r, seed, 0);
    *c = (struct model_config){.architecture = "llama",
                               .n_layers = TOY_LAYERS,
                               .dim = TOY_DIM,
                               .n_heads = TOY_HEADS,
                               .n_kv_heads = TOY_KV,
                               .head_dim = TOY_HEAD,
                               .ffn_dim = TOY_FFN,
                               .n_vocab = TOY_VOCAB,
                               .context = TOY_CONTEXT,
                               .norm_eps = 1e-5f,
                               .rope_theta = 10000.0f};
    for (size_t i = 0; i < TOY_HEAD / 2; i++)
        c->rope_divisor[i] = 1.0f;
    w->layers = calloc(TOY_LAYERS, sizeof(*w->layers));
    for (size_t l = 0; l < TOY_LAYERS; l++) {
        w->layers[l].attn_norm = toy_tensor(&r, 1, TOY_DIM, 1.0f, 0.1f);
        w->layers[l].ffn_norm = toy_tensor(&r, 1, TOY_DIM, 1.0f, 0.1f);
        for (int s = 0; s < N_SITES; s++) {
            size_t n_out, n_in;

            site_shape(c, (enum site)s, &n_out, &n_in);
            w->layers[l].site[s] =
                toy_tensor(&r, n_out, n_in, 0.0f, 0.7f / sqrtf((float)n_in));
        }
    }
    w->embed = toy_tensor(&r, TOY_VOCAB, TOY_DIM, 0.0f, 1.0f);
    w->head = toy_tensor(&r, TOY_VOCAB, TOY_DIM, 0.0f, 0.3f);
    w->final_norm = toy_tensor(&r, 1, TOY_DIM, 1.0f, 0.1f);
    m->weights = w;
    assert_int_equal(model_prepare(m, PRECISION_FP32,
                                   MATRIX_DECODE | MATRIX_FORWARD | MATRIX_BACKWARD,
                                   TOY_CONTEXT, &err),
                     0);
    return m;
}

static inline void toy_free(const struct tensor *t)
{
    free((void *)(size_t)t->data);
}

static inline void toy_close(struct artel_model *m)
{
    struct weights *w = m->weights;

    for (size_t l = 0; l < TOY_LAYERS; l++) {
        toy_free(&w->layers[l].attn_norm);
        toy_free(&w->layers[l].ffn_norm);
        for (int s = 0; s < N_SITES; s++)
            toy_free(&w->layers[l].site[s]);
    }
    toy_free(&w->embed);
    toy_free(&w->head);
    toy_free(&w->final_norm);
    free(w->layers);
    free(w);
    arena_release(&m->arena);
    free(m);
}

/* An expert whose B is not zero, so that every gradient is alive. */
static inline void toy_expert_of(struct mixture *m, const struct artel_model *model,
                                 enum expert_kind kind, const char *name, size_t rank,
                                 const char *targets, uint64_t seed)
{
    struct lora_options o = {.rank = rank, .alpha = 1.5f * (float)rank, .kind = kind};
    struct artel_error err;
    struct expert e;
    struct rng r;

    for (int s = 0; s < N_SITES; s++)
        o.targets[s] = !targets || strchr(targets, '0' + s);
    assert_int_equal(expert_init_uniform(&e, name, &model->weights->config, &o, &err),
                     0);
    rng_init(&r, seed, 1);
    for (size_t i = 0; i < e.n_params; i++)
        e.params[i] = 0.15f * rng_normal(&r);
    e.instead = kind == EXPERT_RES && m->rule.silent;
    assert_int_equal(mixture_add(m, &e, &model->weights->config, &err), 0);
}

static inline void toy_expert(struct mixture *m, const struct artel_model *model,
                              const char *name, size_t rank, const char *targets,
                              uint64_t seed)
{
    toy_expert_of(m, model, EXPERT_LORA, name, rank, targets, seed);
}

static inline void toy_identity(struct mixture *m, const struct artel_model *model,
                                const char *name)
{
    struct artel_error err;
    struct expert e;

    assert_int_equal(expert_init_identity(&e, name, TOY_LAYERS, &err), 0);
    assert_int_equal(mixture_add(m, &e, &model->weights->config, &err), 0);
}

/* Sequences of 5, 9 and 12 tokens with loss on their second halves. */
#define TOY_SEQS 3

struct toy_data {
    int32_t ids[32];
    unsigned char loss[32];
    struct sequence seqs[TOY_SEQS];
    struct block block;
};

static inline void toy_fill(struct toy_data *d, uint64_t seed)
{
    static const size_t length[TOY_SEQS] = {5, 9, 12};
    struct rng r;
    size_t at = 0;

    rng_init(&r, seed, 2);
    for (size_t i = 0; i < 32; i++)
        d->ids[i] = (int32_t)rng_below(&r, TOY_VOCAB);
    for (size_t s = 0; s < TOY_SEQS; s++) {
        const size_t n = length[s];

        for (size_t i = 0; i < n; i++)
            d->loss[at + i] = i >= n / 2;
        d->seqs[s] = (struct sequence){.ids = d->ids + at,
                                       .n = n,
                                       .loss = d->loss + at,
                                       .pool_first = 1,
                                       .pool_n = n / 2 - 1,
                                       .loss_scale = 1.0f / 14.0f,
                                       .expert = (int)s};
        at += n;
    }
    d->block = (struct block){.seqs = d->seqs, .n_seqs = TOY_SEQS, .n_rows = at};
}

/* Gradient buffers for all of a mixture; free with toy_grads_free. */
static inline struct mixture_grads toy_grads(const struct mixture *m)
{
    struct mixture_grads g = {.n_experts = m->n_experts};

    g.expert = calloc(m->n_experts, sizeof(*g.expert));
    g.touched = calloc(m->n_experts, sizeof(*g.touched));
    for (size_t e = 0; e < m->n_experts; e++)
        g.expert[e] = calloc(m->experts[e].n_grads + 1, sizeof(float));
    g.routers = calloc(m->n_router_params + 1, sizeof(float));
    return g;
}

static inline void toy_grads_free(struct mixture_grads *g)
{
    for (size_t e = 0; e < g->n_experts; e++)
        free(g->expert[e]);
    free(g->expert);
    free(g->touched);
    free(g->routers);
}

/* Logits of every row of toy_fill(5) under M (NULL: the base), each of EXPERT or routed
 * (-2); free them. */
static inline float *toy_logits(const struct artel_model *model,
                                const struct mixture *m, int expert)
{
    const struct pass_options o = {.routing = expert == -2 ? ROUTE_ROUTER : ROUTE_GIVEN,
                                   .max_rows = 32,
                                   .max_seqs = 4};
    float *logits = malloc(32 * TOY_VOCAB * sizeof(*logits));
    struct decoder_pass *p;
    struct artel_error err;
    struct toy_data d;

    toy_fill(&d, 5);
    for (size_t s = 0; s < TOY_SEQS; s++)
        d.seqs[s].expert = expert;
    assert_int_equal(pass_open(&p, model, m, &o, &err), 0);
    decoder_forward(p, &d.block);
    for (size_t t = 0; t < d.block.n_rows; t++)
        pass_logits(p, logits + t * TOY_VOCAB, t);
    pass_close(p);
    return logits;
}

#endif
