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

/* Place table and numbers in A; run once to measure, once to place. */
static void carve(struct expert *e, struct arena *a, const struct model_config *c,
                  const uint16_t *rank, const float *scale)
{
    const size_t n_lora = c->n_layers * N_SITES;
    float *next;

    e->lora = arena_take(a, n_lora * sizeof(*e->lora));
    e->n_params = 0;
    for (size_t i = 0; i < n_lora; i++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)(i % N_SITES), &n_out, &n_in);
        e->n_params += rank[i] * (n_in + n_out);
    }
    e->params = next = arena_f32(a, e->n_params);
    if (!next)
        return;
    for (size_t i = 0; i < n_lora; i++) {
        struct lora *lora = &e->lora[i];

        site_shape(c, (enum site)(i % N_SITES), &lora->n_out, &lora->n_in);
        lora->rank = rank[i];
        lora->scale = rank[i] ? scale[i] : 0.0f;
        lora->a = next;
        next += lora->rank * lora->n_in;
        lora->b = next;
        next += lora->rank * lora->n_out;
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

int expert_init(struct expert *e, const char *name, const struct model_config *c,
                const uint16_t *rank, const float *scale, struct artel_error *err)
{
    struct arena measure = {0};
    int rc;

    *e = (struct expert){.kind = EXPERT_LORA, .n_layers = c->n_layers};
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
    rc = expert_init(e, name, c, rank, scale, err);
    e->dropout = o->dropout;
    arena_release(&shape);
    return rc;
}

int expert_init_identity(struct expert *e, const char *name, size_t n_layers,
                         struct artel_error *err)
{
    int rc;

    *e = (struct expert){.kind = EXPERT_IDENTITY, .n_layers = n_layers};
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
        to->lora[i].a = to->params + (from->lora[i].a - from->params);
        to->lora[i].b = to->params + (from->lora[i].b - from->params);
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
        const float bound = lora->rank ? 1.0f / sqrtf((float)lora->n_in) : 0.0f;

        for (size_t k = 0; k < lora->rank * lora->n_in; k++)
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
        const uint64_t shape[3] = {lora->rank, lora->n_in, lora->n_out};

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
