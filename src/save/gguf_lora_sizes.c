/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a GGUF LoRA file tells of itself: which linears it adapts and by what ranks, from
 * names and shapes alone. Whether these are the base's shapes only the base can say.
 */
#include "save/gguf_lora.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/gguf.h"
#include "save/gguf_lora_parts.h"

/* A and B of T's linear: the same name, which ends in the other's letter. */
static int find_pair(const struct tensor **a, const struct tensor **b,
                     const struct gguf *g, const struct tensor *t,
                     struct artel_error *err)
{
    const size_t last = strlen(t->name) - 1;
    char name[GGUF_LORA_NAME];

    snprintf(name, sizeof(name), "%s", t->name);
    name[last] = 'a';
    *a = gguf_find(g, name);
    name[last] = 'b';
    *b = gguf_find(g, name);
    if (!*a || !*b)
        return error_set(err, ARTEL_EFORMAT, "GLA04", t->name,
                         "lora_%c without lora_%c", *a ? 'a' : 'b', *a ? 'b' : 'a');
    if ((*a)->n_dims != 2 || (*b)->n_dims != 2 || (*b)->shape[1] != (*a)->shape[0] ||
        !(*a)->shape[0] || (*a)->shape[0] > EXPERT_MAX_RANK)
        return error_set(
            err, ARTEL_EFORMAT, "GLA05", t->name,
            "lora_a and lora_b are no (R, N) and (M, R) with R from 1 to %d",
            EXPERT_MAX_RANK);
    return 0;
}

static int add(struct gguf_lora_sizes *s, bool *seen, const struct architecture *arch,
               const struct gguf *g, const struct tensor *t, struct artel_error *err)
{
    const ptrdiff_t slot = gguf_lora_slot(arch, GGUF_LORA_LAYERS, t);
    const struct tensor *a, *b;
    size_t layer, rank;
    char shown[160];
    int rc;

    if (slot < 0)
        return error_set(err, ARTEL_EFORMAT, "GLA03",
                         escape_text(shown, sizeof(shown), t->name, strlen(t->name)),
                         "is not half of a LoRA of a linear");
    rc = find_pair(&a, &b, g, t, err);
    if (rc < 0 || t != a)
        return rc;
    layer = (size_t)slot / 2 / N_SITES;
    rank = a->shape[0];
    s->n_layers += !seen[layer];
    seen[layer] = true;
    s->sites[(size_t)slot / 2 % N_SITES] = true;
    s->n_params += rank * (a->shape[1] + b->shape[0]);
    if (!s->smallest_rank || rank < s->smallest_rank)
        s->smallest_rank = rank;
    if (rank > s->largest_rank)
        s->largest_rank = rank;
    return 0;
}

int gguf_lora_sizes(struct gguf_lora_sizes *out, const struct gguf *g,
                    struct artel_error *err)
{
    const struct gguf_value own = gguf_get(g, "general.architecture");
    const struct architecture *arch =
        own.kind == GGUF_STRING ? architecture_find(own.text, own.length) : NULL;
    bool *seen = calloc(GGUF_LORA_LAYERS, sizeof(*seen));
    int rc = seen ? gguf_lora_check(g, err) : error_nomem(err, GGUF_LORA_LAYERS);

    *out = (struct gguf_lora_sizes){0};
    if (rc == 0 && !arch)
        rc = error_set(err, ARTEL_EFORMAT, "GLA02", "general.architecture",
                       "its base is none of the architectures read here: %s",
                       architecture_list());
    if (rc == 0 && !gguf_count(g))
        rc = error_set(err, ARTEL_EFORMAT, "GLA03", NULL, "holds no tensor");
    for (size_t i = 0; rc == 0 && i < gguf_count(g); i++)
        rc = add(out, seen, arch, g, gguf_at(g, i), err);
    free(seen);
    return rc < 0 ? error_in(err, rc, gguf_path(g)) : 0;
}
