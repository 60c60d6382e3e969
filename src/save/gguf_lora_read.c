/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a GGUF LoRA file into an expert. The container has been checked by its
 * parser; here every tensor must be half of a linear of the base, in its shape, and
 * every number finite. What llama.cpp would pass over (trained norms) is refused: the
 * expert would not be what was trained.
 */
#include "save/gguf_lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/gguf.h"
#include "math/kernels.h"
#include "save/gguf_lora_parts.h"

/* A file being read. */
struct source {
    const struct gguf *g;
    const struct model_config *c;
    const struct tensor **found; /* (L * N_SITES, 2) A and B; owned */
    uint16_t *rank;              /* (L * N_SITES); owned */
    float *scale;                /* (L * N_SITES); owned */
};

static bool is_text(const struct gguf *g, const char *key, const char *text)
{
    const struct gguf_value v = gguf_get(g, key);

    return v.kind == GGUF_STRING && v.length == strlen(text) &&
           !memcmp(v.text, text, v.length);
}

bool gguf_lora_is(const struct gguf *g)
{
    return is_text(g, "general.type", "adapter");
}

bool gguf_lora_name(char *out, const struct gguf *g)
{
    const struct gguf_value v = gguf_get(g, "general.name");

    if (v.kind != GGUF_STRING || v.length > EXPERT_NAME_MAX)
        return false;
    memcpy(out, v.text, v.length);
    out[v.length] = '\0';
    return expert_name_valid(out);
}

int gguf_lora_check(const struct gguf *g, struct artel_error *err)
{
    if (!gguf_lora_is(g) || !is_text(g, "adapter.type", "lora"))
        return error_set(err, ARTEL_EFORMAT, "GLA01", "adapter.type",
                         "not a LoRA: general.type must be 'adapter' and adapter.type "
                         "'lora'");
    if (gguf_get(g, "adapter.alora.invocation_tokens").kind != GGUF_ABSENT)
        return error_set(err, ARTEL_EFORMAT, "ADP12", "adapter.alora.invocation_tokens",
                         "an adapter that works from a certain token on is not "
                         "supported");
    return 0;
}

/* The text of KEY is OWN, or is told beside it as of another WHAT. */
static int check_text(const struct gguf *g, const char *key, const char *own,
                      const char *what, struct artel_error *err)
{
    const struct gguf_value v = gguf_get(g, key);
    char shown[160] = "none";

    if (is_text(g, key, own))
        return 0;
    if (v.kind == GGUF_STRING)
        escape_text(shown, sizeof(shown), v.text, v.length < 64 ? v.length : 64);
    return error_set(err, ARTEL_EFORMAT, "GLA02", key,
                     "made for another %s: %s, here %s", what, shown, own);
}

/* BASE_DIGEST NULL, or not in the file: any. */
static int check_base(const struct source *s, const char *base_digest,
                      struct artel_error *err)
{
    static const char key[] = "artel.base_digest";
    int rc = check_text(s->g, "general.architecture", config_architecture(s->c)->name,
                        "architecture", err);

    if (rc == 0 && base_digest && gguf_get(s->g, key).kind == GGUF_STRING)
        rc = check_text(s->g, key, base_digest, "base model", err);
    return rc;
}

ptrdiff_t gguf_lora_slot(const struct architecture *a, size_t n_layers,
                         const struct tensor *t)
{
    const size_t n = strlen(t->name);
    char name[GGUF_LORA_NAME];
    size_t layer = 0;

    if (n < 8 || n >= sizeof(name) ||
        (strcmp(t->name + n - 7, ".lora_a") != 0 &&
         strcmp(t->name + n - 7, ".lora_b") != 0) ||
        sscanf(t->name, "blk.%5zu.", &layer) != 1 || layer >= n_layers)
        return -1;
    for (int i = 0; i < N_SITES; i++) {
        place_name(name, sizeof(name), a->gguf[i], layer);
        if (strlen(name) == n - 7 && !memcmp(name, t->name, n - 7))
            return (ptrdiff_t)(2 * (layer * N_SITES + (size_t)i) +
                               (t->name[n - 1] == 'b'));
    }
    return -1;
}

static int sort_tensors(struct source *s, struct artel_error *err)
{
    char shown[160];

    for (size_t i = 0; i < gguf_count(s->g); i++) {
        const struct tensor *t = gguf_at(s->g, i);
        const ptrdiff_t slot =
            gguf_lora_slot(config_architecture(s->c), s->c->n_layers, t);

        if (slot < 0)
            return error_set(
                err, ARTEL_EFORMAT, "GLA03",
                escape_text(shown, sizeof(shown), t->name, strlen(t->name)),
                "is not half of a LoRA of a linear of this base");
        s->found[slot] = t;
    }
    if (!gguf_count(s->g))
        return error_set(err, ARTEL_EFORMAT, "GLA03", NULL, "holds no tensor");
    return 0;
}

static int check_pair(struct source *s, size_t i, struct artel_error *err)
{
    const struct tensor *a = s->found[2 * i], *b = s->found[2 * i + 1];
    size_t n_out, n_in;

    if (!a != !b)
        return error_set(err, ARTEL_EFORMAT, "GLA04", (a ? a : b)->name,
                         "lora_%c without lora_%c", a ? 'a' : 'b', a ? 'b' : 'a');
    site_shape(s->c, (enum site)(i % N_SITES), &n_out, &n_in);
    for (int half = 0; a && half < 2; half++) {
        const struct tensor *t = half ? b : a;

        if (!dtype_is_weight(t->dtype))
            return error_set(err, ARTEL_EFORMAT, "GLA06", t->name,
                             "numbers of type %s, expected %s", dtype_name(t->dtype),
                             dtype_weight_list());
        if (t->n_dims != 2 || t->shape[half ? 0 : 1] != (half ? n_out : n_in) ||
            t->shape[half ? 1 : 0] != a->shape[0])
            return error_set(err, ARTEL_EFORMAT, "GLA05", t->name,
                             "%zu x %zu does not fit a linear of %zu x %zu with rank "
                             "%zu",
                             t->shape[0], t->n_dims > 1 ? t->shape[1] : 0, n_out, n_in,
                             a->shape[0]);
    }
    if (a &&
        (a->shape[0] > EXPERT_MAX_RANK || (a->shape[0] > n_out && a->shape[0] > n_in)))
        return error_set(err, ARTEL_EFORMAT, "ADP02", a->name,
                         "rank %zu is out of range, expected 1 to %d, within the "
                         "matrix",
                         a->shape[0], EXPERT_MAX_RANK);
    return 0;
}

static int make_plan(struct source *s, struct artel_error *err)
{
    double alpha = 0.0;
    int rc = gguf_want_float(s->g, "adapter.lora.alpha", &alpha, err);

    if (rc == 0 && !isfinite(alpha))
        rc = error_set(err, ARTEL_EFORMAT, "GLA07", "adapter.lora.alpha",
                       "is not a finite number");
    for (size_t i = 0; rc == 0 && i < s->c->n_layers * N_SITES; i++) {
        rc = check_pair(s, i, err);
        if (rc < 0 || !s->found[2 * i])
            continue;
        s->rank[i] = (uint16_t)s->found[2 * i]->shape[0];
        s->scale[i] = alpha == 0.0 ? 1.0f : lora_scale((float)alpha, s->rank[i], false);
    }
    return rc;
}

/* Row J of T into OUT. */
static int take_row(float *out, const struct tensor *t, size_t j,
                    struct artel_error *err)
{
    const size_t n = t->shape[1];
    const size_t bytes = t->bytes / t->shape[0];

    kernels_ref()->dequant[t->dtype](out, (const char *)t->data + j * bytes, n);
    for (size_t k = 0; k < n; k++)
        if (!isfinite(out[k]))
            return error_set(err, ARTEL_EFORMAT, "GLA06", t->name,
                             "element %zu is not a finite number", j * n + k);
    return 0;
}

static int fill(struct expert *e, const struct source *s, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < s->c->n_layers * N_SITES; i++) {
        const struct lora *l = &e->lora[i];

        for (size_t j = 0; rc == 0 && l->rank && j < l->rank; j++)
            rc = take_row(l->a + j * l->n_in, s->found[2 * i], j, err);
        for (size_t j = 0; rc == 0 && l->rank && j < l->n_out; j++)
            rc = take_row(l->b + j * l->rank, s->found[2 * i + 1],
                          gguf_row(s->c, (enum site)(i % N_SITES), j), err);
    }
    return rc;
}

int gguf_lora_read(struct expert *e, const char *name, const struct gguf *g,
                   const struct model_config *c, const char *base_digest,
                   struct artel_error *err)
{
    const size_t n = c->n_layers * N_SITES;
    struct source s = {.g = g,
                       .c = c,
                       .found = calloc(2 * n, sizeof(*s.found)),
                       .rank = calloc(n, sizeof(*s.rank)),
                       .scale = calloc(n, sizeof(*s.scale))};
    int rc = s.found && s.rank && s.scale ? 0 : error_nomem(err, n * 16);

    *e = (struct expert){0};
    if (rc == 0)
        rc = gguf_lora_check(g, err);
    if (rc == 0)
        rc = check_base(&s, base_digest, err);
    if (rc == 0)
        rc = sort_tensors(&s, err);
    if (rc == 0)
        rc = make_plan(&s, err);
    if (rc == 0)
        rc = expert_init(e, name, c, s.rank, s.scale, err);
    if (rc == 0)
        rc = fill(e, &s, err);
    if (rc < 0)
        expert_release(e);
    free(s.found);
    free(s.rank);
    free(s.scale);
    return rc < 0 ? error_in(err, rc, gguf_path(g)) : 0;
}
