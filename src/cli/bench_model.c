/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of random weights in memory, without tokenizer or template, and the
 * mixtures that works put on a model.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cli/bench.h"
#include "cli/bench_random.h"

static char random_name[] = "random weights";

/* A tensor of ROWS by N (ROWS 0: a vector of ones), placed or measured. */
static void take(struct tensor *t, struct arena *a, enum dtype wanted, size_t rows,
                 size_t n, uint64_t stream)
{
    const enum dtype type = rows ? random_row_format(wanted, n) : DTYPE_F32;
    const size_t blocks = (rows ? rows : 1) * n / dtype_block_elems(type);
    void *const data = arena_take(a, blocks * dtype_block_bytes(type));

    *t = (struct tensor){.name = random_name,
                         .dtype = type,
                         .n_dims = rows ? 2 : 1,
                         .shape = {rows ? rows : n, rows ? n : 0},
                         .data = data,
                         .bytes = blocks * dtype_block_bytes(type)};
    if (data && rows)
        random_blocks(data, type, blocks, stream, 0);
    for (size_t i = 0; data && !rows && i < n; i++)
        ((float *)data)[i] = 1.0f;
}

static void carve(struct weights *w, struct arena *a, enum dtype type)
{
    const struct model_config *const c = &w->config;
    uint64_t stream = 0;

    take(&w->embed, a, type, c->n_vocab, c->dim, stream++);
    w->head = w->embed;
    take(&w->final_norm, a, type, 0, c->dim, 0);
    for (size_t l = 0; l < c->n_layers; l++) {
        take(&w->layers[l].attn_norm, a, type, 0, c->dim, 0);
        take(&w->layers[l].ffn_norm, a, type, 0, c->dim, 0);
        for (int s = 0; s < N_SITES; s++) {
            size_t n_out, n_in;

            site_shape(c, (enum site)s, &n_out, &n_in);
            take(&w->layers[l].site[s], a, type, n_out, n_in, stream++);
        }
    }
}

int bench_model_make(struct bench *b)
{
    struct arena measure = {0};
    struct weights *w;
    int rc;

    b->is_random = true;
    b->model = calloc(1, sizeof(*b->model));
    if (!b->model)
        return error_nomem(&b->err, sizeof(*b->model));
    w = b->model->weights = calloc(1, sizeof(*w));
    if (!w)
        return error_nomem(&b->err, sizeof(*w));
    (void)random_shape(&w->config, "135m");
    w->path = random_name;
    w->layers = calloc(w->config.n_layers, sizeof(*w->layers));
    if (!w->layers)
        return error_nomem(&b->err, w->config.n_layers * sizeof(*w->layers));
    carve(w, &measure, b->format);
    rc = arena_init(&b->numbers, measure.used, &b->err);
    if (rc < 0)
        return rc;
    carve(w, &b->numbers, b->format);
    w->file_bytes = measure.used;
    return 0;
}

void bench_model_rest(struct bench *b)
{
    arena_release(&b->model->arena);
    b->model->use = 0;
    b->model->n_positions = 0;
}

void bench_model_close(struct bench *b)
{
    if (!b->is_random) {
        model_close(b->model);
        return;
    }
    if (b->model) {
        arena_release(&b->model->arena);
        if (b->model->weights)
            free(b->model->weights->layers);
        free(b->model->weights);
    }
    free(b->model);
    arena_release(&b->numbers);
}

double bench_linear_weights(const struct model_config *c)
{
    double sum = 0;

    for (int s = 0; s < N_SITES; s++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)s, &n_out, &n_in);
        sum += (double)n_out * (double)n_in;
    }
    return sum * (double)c->n_layers;
}

double bench_head_weights(const struct model_config *c)
{
    return (double)c->n_vocab * (double)c->dim;
}

double bench_lora_weights(const struct model_config *c)
{
    double sum = 0;

    for (int s = 0; s < N_SITES; s++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)s, &n_out, &n_in);
        sum += BENCH_RANK * (double)(n_out + n_in);
    }
    return sum * (double)c->n_layers;
}

double bench_bytes_a_token(const struct weights *w)
{
    double sum = (double)w->head.bytes;

    for (size_t l = 0; l < w->config.n_layers; l++)
        for (int s = 0; s < N_SITES; s++)
            sum += (double)w->layers[l].site[s].bytes;
    return sum;
}

int bench_mixture(struct mixture *m, const struct work *w, struct bench *b)
{
    const struct model_config *const c = &b->model->weights->config;
    struct lora_options lora;
    int rc;

    *m = (struct mixture){0};
    if (!w->n_experts)
        return 0;
    lora_options_default(&lora);
    lora.rank = BENCH_RANK;
    rc = mixture_init(m, "bench", c, &w->rule, &b->err);
    for (size_t e = 0; rc == 0 && e < w->n_experts; e++) {
        struct expert expert = {0};
        char name[32];

        snprintf(name, sizeof(name), "expert%zu", e);
        rc = expert_init_uniform(&expert, name, c, &lora, &b->err);
        if (rc == 0) {
            expert_draw(&expert, 1, e);
            rc = mixture_add(m, &expert, c, &b->err);
        }
        expert_release(&expert);
    }
    if (rc == 0)
        mixture_draw_routers(m, 0.02f, 1);
    else
        mixture_release(m);
    return rc;
}
