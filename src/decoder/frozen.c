/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a base maps its files; preparing it lays norms and packed weights in
 * one arena, measured first and placed second.
 */
#include "decoder/frozen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "math/gemm_packed.h"
#include "math/kernels.h"
#include "text/chat.h"
#include "text/tokenizer.h"

/* Floats are packed for each direction where all of it fits in here: a model of up to
 * 256 million parameters in training, of 512 where there are only forwards. */
#define PACKED_MAX ((size_t)2 << 30)

static const char *const mode_names[N_MEMORY_MODES] = {"auto", "keep", "recompute",
                                                       "quantised"};

const char *memory_mode_name(enum memory_mode m)
{
    return mode_names[m];
}

int memory_mode_use(enum memory_mode m)
{
    const int staged = m == MEMORY_QUANTISED ? MATRIX_STAGED : 0;

    return MATRIX_FORWARD | MATRIX_BACKWARD | staged;
}

int memory_mode_find(enum memory_mode *out, const char *name)
{
    for (int i = 0; i < N_MEMORY_MODES; i++)
        if (!strcmp(name, mode_names[i])) {
            *out = (enum memory_mode)i;
            return 0;
        }
    return -1;
}

int model_open(struct artel_model **out, const char *path, struct artel_error *err)
{
    struct artel_model *m;
    int rc;

    *out = NULL;
    m = calloc(1, sizeof(*m));
    if (!m)
        return error_nomem(err, sizeof(*m));
    rc = weights_open(&m->weights, path, err);
    if (rc == 0)
        rc = tokenizer_open(&m->tokenizer, m->weights, err);
    if (rc == 0)
        rc = chat_open(&m->chat, m->weights, err);
    if (rc == 0)
        rc = weights_digest(m->base_digest, m->weights, false, err);
    if (rc < 0) {
        error_in(err, rc, path);
        model_close(m);
        return rc;
    }
    tokenizer_digest(m->tokenizer, m->tokenizer_digest);
    chat_digest(m->chat, m->chat_digest);
    *out = m;
    return 0;
}

void model_close(struct artel_model *m)
{
    if (!m)
        return;
    arena_release(&m->arena);
    chat_close(m->chat);
    tokenizer_close(m->tokenizer);
    weights_close(m->weights);
    free(m);
}

int model_check_finite(struct artel_model *m, struct artel_error *err)
{
    const int rc = m->is_finite ? 0 : weights_check_finite(m->weights, err);

    m->is_finite = rc == 0;
    return rc;
}

static float *norm_carve(struct arena *a, const struct tensor *t, size_t n)
{
    float *out = arena_f32(a, n);

    if (out)
        kernels()->dequant[t->dtype](out, t->data, n);
    return out;
}

/* Should floats be kept in one form for both directions? The bits are the same. */
static bool is_lean(const struct weights *w, int use)
{
    const size_t forms = !!(use & MATRIX_FORWARD) + !!(use & MATRIX_BACKWARD);
    size_t n = w->head.shape[0] * w->head.shape[1];

    for (size_t l = 0; l < w->config.n_layers; l++)
        for (int s = 0; s < N_SITES; s++)
            n += w->layers[l].site[s].shape[0] * w->layers[l].site[s].shape[1];
    return forms * n > PACKED_MAX / sizeof(float);
}

/* Where the float linears of a layer are packed, in turn with those of others. */
static void stage_carve(struct matrix *stage, struct arena *a, const struct weights *w,
                        int use)
{
    for (int s = 0; s < N_SITES; s++) {
        const size_t n_out = w->layers[0].site[s].shape[0],
                     n_in = w->layers[0].site[s].shape[1];

        stage[s].forward = arena_f32(a, packed_floats(n_out, n_in));
        if (use & MATRIX_BACKWARD)
            stage[s].backward = arena_f32(a, packed_floats(n_in, n_out));
    }
}

/* In bf16 products of many rows run on tiles; a matrix keeps the disk's form alone. */
static void carve(struct artel_model *m, struct arena *a, enum precision precision,
                  int use, size_t n_positions)
{
    const struct weights *w = m->weights;
    const struct model_config *c = &w->config;
    const int asked = use, many = use & (MATRIX_FORWARD | MATRIX_BACKWARD);
    const bool staged = use & MATRIX_STAGED;
    struct matrix stage[2][N_SITES] = {0};

    m->has_tiles = precision == PRECISION_BF16 && many;
    if (m->has_tiles)
        use &= ~many;
    else if (staged || is_lean(w, use))
        use |= MATRIX_LEAN;

    for (size_t i = 0; staged && !m->has_tiles && i < 2; i++)
        stage_carve(stage[i], a, w, use);
    m->layers = arena_take(a, c->n_layers * sizeof(*m->layers));
    for (size_t l = 0; l < c->n_layers; l++) {
        struct frozen_layer layer = {0};

        layer.attn_norm = norm_carve(a, &w->layers[l].attn_norm, c->dim);
        layer.ffn_norm = norm_carve(a, &w->layers[l].ffn_norm, c->dim);
        for (int s = 0; s < N_SITES; s++) {
            matrix_init(&layer.site[s], a, &w->layers[l].site[s],
                        staged ? use & MATRIX_DECODE : use);
            if (staged) {
                layer.site[s].forward = stage[l % 2][s].forward;
                layer.site[s].backward = stage[l % 2][s].backward;
            }
        }
        if (m->layers)
            m->layers[l] = layer;
    }
    m->final_norm = norm_carve(a, &w->final_norm, c->dim);
    matrix_init(&m->embed, a, &w->embed, MATRIX_DECODE);
    matrix_init(&m->head, a, &w->head, use);
    rope_init(&m->rope, a, c->head_dim, c->rope_interleaved, c->rope_theta,
              c->rope_divisor, n_positions);
    if (m->has_tiles)
        tile_model_carve(&m->tiles, a, c, n_positions, asked);
}

size_t model_prepared_bytes(const struct artel_model *m, enum precision precision,
                            int use, size_t n_positions)
{
    struct artel_model measured = *m;
    struct arena measure = {0};

    carve(&measured, &measure, precision, use, n_positions);
    return measure.used;
}

int model_plan(struct artel_model *out, const struct artel_model *m,
               enum precision precision, int use, size_t n_positions,
               struct artel_error *err)
{
    struct arena measure = {0};
    struct tile_shape shape;
    int rc = 0;

    *out = *m;
    out->arena = (struct arena){0};
    carve(out, &measure, precision, use, n_positions);
    out->use = use;
    out->precision = precision;
    out->n_positions = n_positions;
    if (!out->has_tiles)
        return 0;
    /* The places of vectors are asked for their sites. */
    measure.used = 0;
    tile_shape_init(&shape, &measure, &m->weights->config);
    rc = arena_init(&out->arena, measure.used, err);
    if (rc == 0)
        tile_shape_init(&out->tiles.shape, &out->arena, &m->weights->config);
    return rc;
}

void model_plan_release(struct artel_model *planned)
{
    arena_release(&planned->arena);
}

int model_prepare(struct artel_model *m, enum precision precision, int use,
                  size_t n_positions, struct artel_error *err)
{
    struct arena fresh;
    bool same;
    int rc;

    if (n_positions > m->weights->config.context)
        return error_set(err, ARTEL_ELIMIT, "CTX01", "context",
                         "%zu tokens asked for, the model reaches %zu", n_positions,
                         m->weights->config.context);
    same =
        m->arena.base && m->precision == precision && !((m->use ^ use) & MATRIX_STAGED);
    if (same && !(use & ~(m->use | MATRIX_DECODE)) && m->n_positions >= n_positions) {
        m->use |= use; /* decoding needs no form of its own */
        return 0;
    }
    if (same)
        use |= m->use;
    rc = arena_init(&fresh, model_prepared_bytes(m, precision, use, n_positions), err);
    if (rc < 0)
        return error_in(err, rc, m->weights->path);
    arena_release(&m->arena);
    m->arena = fresh;
    carve(m, &m->arena, precision, use, n_positions);
    if (m->has_tiles) {
        rc = tile_model_fill(&m->tiles, m->weights, &m->rope, use, err);
        if (rc < 0) {
            m->use = 0;
            return rc;
        }
    }
    m->use = use;
    m->precision = precision;
    m->n_positions = n_positions;
    return 0;
}
