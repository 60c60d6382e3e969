/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An expert's numbers lie in one arena: the table of its linears first, then
 * every A and B, layer by layer, site by site.
 */
#include "experts/expert.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "math/kernels.h"

static const char *const kinds[] = {"lora", "identity", "res", "ffn"};

const char *expert_kind_name(enum expert_kind kind)
{
    return kinds[kind];
}

int expert_kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(kinds[i], name))
            return (int)i;
    return -1;
}

void lora_options_default(struct lora_options *o)
{
    *o = (struct lora_options){.rank = 8, .alpha = 16.0f};
    for (int s = 0; s < N_SITES; s++)
        o->targets[s] = true;
}

float lora_scale(float alpha, size_t rank, bool use_rslora)
{
    return use_rslora ? alpha / sqrtf((float)rank) : alpha / (float)rank;
}

bool expert_name_valid(const char *name)
{
    const size_t n = strlen(name);

    if (n < 1 || n > EXPERT_NAME_MAX || name[0] == '.' || name[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)name[i];

        if (c >= 0x80 || !(isalnum(c) || c == '.' || c == '-' || c == '_'))
            return false;
    }
    return true;
}

/* Columns of A at linear I: what the expert reads there. */
static size_t columns(const struct expert *e, const struct model_config *c, size_t i)
{
    size_t n_out, n_in;

    site_shape(c, (enum site)(i % N_SITES), &n_out, &n_in);
    return e->kind == EXPERT_RES ? n_out : n_in;
}

/* Every A and B in order, as parameters and as gradients. */
static void place_params(struct expert *e, const struct model_config *c,
                         const uint16_t *rank, const float *scale)
{
    float *next = e->params;
    size_t at = 0;

    for (size_t i = 0; i < c->n_layers * N_SITES; i++) {
        struct lora *lora = &e->lora[i];

        site_shape(c, (enum site)(i % N_SITES), &lora->n_out, &lora->n_in);
        lora->n_a = columns(e, c, i);
        lora->rank = rank[i];
        lora->scale = rank[i] ? scale[i] : 0.0f;
        lora->a = lora->down = next;
        next += lora->rank * lora->n_a;
        lora->b = next;
        next += lora->rank * lora->n_out;
        lora->d_a = at;
        at += lora->rank * lora->n_in;
        lora->d_b = at;
        at += lora->rank * lora->n_out;
    }
    e->n_grads = at;
}

/* Place table and numbers in A; run once to measure, once to place. */
static void carve(struct expert *e, struct arena *a, const struct model_config *c,
                  const uint16_t *rank, const float *scale)
{
    const size_t n_lora = c->n_layers * N_SITES;
    size_t n_down = 0;
    float *down;

    e->lora = arena_take(a, n_lora * sizeof(*e->lora));
    e->n_params = 0;
    for (size_t i = 0; i < n_lora; i++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)(i % N_SITES), &n_out, &n_in);
        e->n_params += rank[i] * (columns(e, c, i) + n_out);
        n_down += e->kind == EXPERT_RES ? rank[i] * n_in : 0;
    }
    e->params = arena_f32(a, e->n_params);
    down = arena_f32(a, n_down);
    if (!e->params)
        return;
    place_params(e, c, rank, scale);
    for (size_t i = 0; e->kind == EXPERT_RES && i < n_lora; i++) {
        e->lora[i].down = down;
        down += e->lora[i].rank * e->lora[i].n_in;
    }
}

static int name_expert(struct expert *e, const char *name, struct artel_error *err)
{
    char text[160];

    if (!expert_name_valid(name))
        return error_set(
            err, ARTEL_EFORMAT, "EXP01", "name",
            "'%s' is no name for an expert: 1 to 64 letters, digits, dots, "
            "dashes or underscores, not starting with a dot or dash",
            escape_text(text, sizeof(text), name, strlen(name)));
    snprintf(e->name, sizeof(e->name), "%s", name);
    return 0;
}

int expert_init_kind(struct expert *e, const char *name, enum expert_kind kind,
                     const struct model_config *c, const uint16_t *rank,
                     const float *scale, struct artel_error *err)
{
    struct arena measure = {0};
    int rc;

    *e = (struct expert){.kind = kind,
                         .n_layers = c->n_layers,
                         .slope = kind == EXPERT_RES ? RES_SLOPE : 1.0f};
    rc = name_expert(e, name, err);
    if (rc < 0)
        return rc;
    carve(e, &measure, c, rank, scale);
    rc = arena_init(&e->arena, measure.used, err);
    if (rc < 0)
        return rc;
    carve(e, &e->arena, c, rank, scale);
    return 0;
}

int expert_init(struct expert *e, const char *name, const struct model_config *c,
                const uint16_t *rank, const float *scale, struct artel_error *err)
{
    return expert_init_kind(e, name, EXPERT_LORA, c, rank, scale, err);
}

int expert_init_uniform(struct expert *e, const char *name,
                        const struct model_config *c, const struct lora_options *o,
                        struct artel_error *err)
{
    const size_t n_lora = c->n_layers * N_SITES;
    struct arena shape = {0};
    uint16_t *rank;
    float *scale;
    int rc;

    *e = (struct expert){0};
    if (o->rank < 1 || o->rank > EXPERT_MAX_RANK)
        return error_set(err, ARTEL_EUSAGE, "EXP02", "rank",
                         "rank %zu is out of range, expected 1 to %d", o->rank,
                         EXPERT_MAX_RANK);
    rc = arena_init(&shape, n_lora * (sizeof(*rank) + sizeof(*scale)) + 2 * ARENA_ALIGN,
                    err);
    if (rc < 0)
        return rc;
    rank = arena_take(&shape, n_lora * sizeof(*rank));
    scale = arena_f32(&shape, n_lora);
    for (size_t i = 0; i < n_lora; i++) {
        if (!o->targets[i % N_SITES])
            continue;
        rank[i] = (uint16_t)o->rank;
        scale[i] = lora_scale(o->alpha, o->rank, o->use_rslora);
    }
    rc = expert_init_kind(e, name, o->kind, c, rank, scale, err);
    e->dropout = o->dropout;
    arena_release(&shape);
    return rc;
}

int expert_init_identity(struct expert *e, const char *name, size_t n_layers,
                         struct artel_error *err)
{
    int rc;

    *e = (struct expert){.kind = EXPERT_IDENTITY, .n_layers = n_layers, .slope = 1.0f};
    rc = name_expert(e, name, err);
    if (rc < 0)
        return rc;
    rc = arena_init(&e->arena, n_layers * N_SITES * sizeof(*e->lora), err);
    if (rc < 0)
        return rc;
    e->lora = arena_take(&e->arena, n_layers * N_SITES * sizeof(*e->lora));
    return 0;
}

int expert_copy(struct expert *to, const struct expert *from, struct artel_error *err)
{
    const size_t n_lora = from->n_layers * N_SITES;
    int rc;

    *to = *from;
    to->arena = (struct arena){0};
    rc = arena_init(&to->arena, from->arena.used, err);
    if (rc < 0) {
        *to = (struct expert){0};
        return rc;
    }
    to->lora = arena_take(&to->arena, n_lora * sizeof(*to->lora));
    memcpy(to->lora, from->lora, n_lora * sizeof(*to->lora));
    if (from->kind == EXPERT_IDENTITY)
        return 0;
    to->params = arena_f32(&to->arena, from->n_params);
    memcpy(to->params, from->params, from->n_params * sizeof(float));
    for (size_t i = 0; i < n_lora; i++) {
        struct lora *l = &to->lora[i];

        l->a = to->params + (from->lora[i].a - from->params);
        l->b = to->params + (from->lora[i].b - from->params);
        l->down = l->a;
        if (from->kind != EXPERT_RES)
            continue;
        l->down = arena_f32(&to->arena, l->rank * l->n_in);
        memcpy(l->down, from->lora[i].down, l->rank * l->n_in * sizeof(float));
    }
    return 0;
}

void expert_release(struct expert *e)
{
    arena_release(&e->arena);
    *e = (struct expert){0};
}

void expert_draw(struct expert *e, uint64_t seed, uint64_t stream)
{
    struct rng rng;

    rng_init(&rng, seed, stream);
    for (size_t i = 0; e->params && i < e->n_layers * N_SITES; i++) {
        struct lora *lora = &e->lora[i];
        const float bound = lora->rank ? 1.0f / sqrtf((float)lora->n_a) : 0.0f;

        for (size_t k = 0; k < lora->rank * lora->n_a; k++)
            lora->a[k] = (2.0f * rng_uniform(&rng) - 1.0f) * bound;
        memset(lora->b, 0, lora->rank * lora->n_out * sizeof(float));
    }
}

void expert_digest(const struct expert *e, char out[DIGEST_SIZE])
{
    struct digest *d = digest_new();

    assert(d);
    for (size_t i = 0; i < e->n_layers * N_SITES; i++) {
        const struct lora *lora = &e->lora[i];
        const uint64_t shape[3] = {lora->rank, lora->n_a, lora->n_out};

        digest_add(d, shape, sizeof(shape));
        digest_add(d, &lora->scale, sizeof(lora->scale));
    }
    digest_add(d, e->params, e->n_params * sizeof(float));
    digest_finish(d, out);
}

size_t expert_first_layer(const struct expert *e)
{
    for (size_t i = 0; i < e->n_layers * N_SITES; i++)
        if (e->lora[i].rank)
            return i / N_SITES;
    return e->n_layers;
}

static bool all_zero(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] != 0.0f)
            return false;
    return true;
}

bool expert_is_zero(const struct expert *e)
{
    for (size_t i = 0; i < e->n_layers * N_SITES; i++) {
        const struct lora *l = &e->lora[i];

        if (!all_zero(l->a, l->rank * l->n_a) && !all_zero(l->b, l->rank * l->n_out))
            return false;
    }
    return true;
}

void lora_add_row(float *update, const struct lora *l, float gate, size_t row)
{
    const float *b = l->b + row * l->rank, scale = gate * l->scale;
    float by[EXPERT_MAX_RANK];

    for (size_t r = 0; r < l->rank; r++)
        by[r] = scale * b[r];
    kernels()->mix(update, true, by, l->down, l->n_in, l->rank, l->n_in);
}
