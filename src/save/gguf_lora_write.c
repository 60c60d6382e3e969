/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format has one alpha for all linears, and scale = alpha / rank. A linear whose
 * scale asks for another alpha (alpha_pattern, rsLoRA of unequal ranks, joined experts)
 * has the rest of it multiplied into B, in float; where the rest is a power of two no
 * bit of B is lost. The commonest alpha is stored, so that most linears keep their B.
 */
#include "save/gguf_lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/gguf_write.h"
#include "math/quantise.h"
#include "save/gguf_lora_parts.h"
#include "save/peft_config.h"

/* Tensors on their way out: A and B of a linear in turn. */
struct outgoing {
    const struct expert *e;
    const struct model_config *c;
    struct tensor *tensors;        /* (n); owned */
    char (*names)[GGUF_LORA_NAME]; /* (n); owned */
    float *factor;                 /* (L * N_SITES) of B; owned */
    size_t *of;                    /* (n) linear of a tensor; owned */
    float *row;                    /* (longest row); owned */
    size_t n;
};

static void outgoing_release(struct outgoing *o)
{
    free(o->tensors);
    free(o->names);
    free(o->factor);
    free(o->of);
    free(o->row);
}

/* The commonest alpha, 1 where that is none: readers take 0 for "no alpha". */
static float common_alpha(const struct expert *e)
{
    const size_t n = e->n_layers * N_SITES;
    float best = 1.0f;
    size_t best_count = 0;

    for (size_t i = 0; i < n; i++) {
        const struct lora *l = &e->lora[i];
        const float alpha = l->rank ? lora_alpha_for(l->scale, l->rank, false) : 0.0f;
        size_t count = 0;

        for (size_t k = 0; alpha != 0.0f && k < n; k++)
            count += e->lora[k].rank &&
                     lora_alpha_for(e->lora[k].scale, e->lora[k].rank, false) == alpha;
        if (count > best_count) {
            best_count = count;
            best = alpha;
        }
    }
    return best;
}

static void list(struct outgoing *o, size_t linear, char half, size_t n_rows,
                 size_t n_cols, enum dtype type)
{
    const enum place place = (enum place)(linear % N_SITES);
    char base[GGUF_LORA_NAME - 8];

    place_name(base, sizeof(base), config_architecture(o->c)->gguf[place],
               linear / N_SITES);
    snprintf(o->names[o->n], GGUF_LORA_NAME, "%s.lora_%c", base, half);
    o->tensors[o->n] =
        (struct tensor){.name = o->names[o->n],
                        .dtype = type,
                        .n_dims = 2,
                        .shape = {n_rows, n_cols},
                        .bytes = n_rows * n_cols * dtype_block_bytes(type)};
    o->of[o->n++] = linear;
}

static int outgoing_init(struct outgoing *o, struct gguf_lora_result *r,
                         enum dtype type, struct artel_error *err)
{
    const size_t n = o->e->n_layers * N_SITES;
    size_t longest = 0;

    o->tensors = calloc(2 * n, sizeof(*o->tensors));
    o->names = calloc(2 * n, sizeof(*o->names));
    o->factor = calloc(n, sizeof(*o->factor));
    o->of = calloc(2 * n, sizeof(*o->of));
    if (!o->tensors || !o->names || !o->factor || !o->of)
        return error_nomem(err, 2 * n * sizeof(*o->tensors));
    r->exact = type == DTYPE_F32;
    for (size_t i = 0; i < n; i++) {
        const struct lora *l = &o->e->lora[i];
        int exponent;

        if (!l->rank)
            continue;
        o->factor[i] =
            l->scale == lora_scale(r->alpha, l->rank, false)
                ? 1.0f
                : (float)((double)l->scale * (double)l->rank / (double)r->alpha);
        r->n_linears++;
        r->n_folded += o->factor[i] != 1.0f;
        r->exact = r->exact && fabsf(frexpf(o->factor[i], &exponent)) == 0.5f;
        longest = l->n_in > longest ? l->n_in : longest;
        longest = l->rank > longest ? l->rank : longest;
        list(o, i, 'a', l->rank, l->n_in, type);
        list(o, i, 'b', l->n_out, l->rank, type);
    }
    o->row = malloc((longest + 1) * sizeof(*o->row));
    return o->row ? 0 : error_nomem(err, longest * sizeof(*o->row));
}

/* Row of our B that is row J of GGUF's. Heads are short: looking for it costs little. */
static size_t own_row(const struct model_config *c, enum site s, size_t j)
{
    const size_t first = j - j % c->head_dim;

    if (s != SITE_Q && s != SITE_K)
        return j;
    for (size_t i = first; i < first + c->head_dim; i++)
        if (gguf_row(c, s, i) == j)
            return i;
    return j;
}

static int make_rows(void *user, void *out, const struct tensor *t, size_t first,
                     size_t n, struct artel_error *err)
{
    const struct outgoing *o = user;
    const size_t at = (size_t)(t - o->tensors), linear = o->of[at];
    const struct lora *l = &o->e->lora[linear];
    const size_t width = t->shape[1], row_bytes = width * dtype_block_bytes(t->dtype);
    const bool is_b = at % 2 == 1;

    for (size_t i = 0; i < n; i++) {
        const size_t j = first + i;
        const float *from =
            is_b ? l->b + own_row(o->c, (enum site)(linear % N_SITES), j) * width
                 : l->a + j * width;

        for (size_t k = 0; k < width; k++)
            o->row[k] = is_b ? from[k] * o->factor[linear] : from[k];
        if (!quantise((char *)out + i * row_bytes, t->dtype, o->row, width))
            return error_set(err, ARTEL_EFORMAT, "GLA06", t->name,
                             "a number of row %zu does not fit %s", j,
                             dtype_name(t->dtype));
    }
    return 0;
}

static int make_keys(struct gguf_keys **out, const struct model_config *c,
                     enum dtype type, float alpha, const struct gguf_lora_notes *notes,
                     struct artel_error *err)
{
    const int rc = gguf_keys_open(out, err);

    if (rc < 0)
        return rc;
    gguf_keys_text(*out, "general.architecture", config_architecture(c)->name);
    gguf_keys_text(*out, "general.type", "adapter");
    gguf_keys_text(*out, "general.name", notes->name);
    gguf_keys_u32(*out, "general.file_type",
                  type == DTYPE_F32   ? 0
                  : type == DTYPE_F16 ? 1
                                      : 32);
    gguf_keys_text(*out, "adapter.type", "lora");
    gguf_keys_f32(*out, "adapter.lora.alpha", alpha);
    if (notes->base_digest)
        gguf_keys_text(*out, "artel.base_digest", notes->base_digest);
    return 0;
}

int gguf_lora_write(struct gguf_lora_result *out, const char *path,
                    const struct expert *e, const struct model_config *c,
                    enum dtype type, const struct gguf_lora_notes *notes,
                    struct artel_error *err)
{
    struct outgoing o = {.e = e, .c = c};
    const struct tensor_maker maker = {.rows = make_rows, .user = &o};
    struct gguf_keys *keys = NULL;
    int rc;

    *out = (struct gguf_lora_result){.alpha = 0};
    if (e->kind != EXPERT_LORA || expert_first_layer(e) == e->n_layers)
        return error_set(err, ARTEL_EUSAGE, "ADP06", e->name,
                         "an expert that adapts no linear cannot be an adapter");
    out->alpha = common_alpha(e);
    rc = outgoing_init(&o, out, type, err);
    if (rc == 0)
        rc = make_keys(&keys, c, type, out->alpha, notes, err);
    if (rc == 0)
        rc = gguf_write(path, keys, o.tensors, o.n, &maker, err);
    gguf_keys_close(keys);
    outgoing_release(&o);
    return rc < 0 ? error_in(err, rc, path) : 0;
}
