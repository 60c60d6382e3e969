/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining is exact but for one rounding of each number of B.
 */
#include "save/joined.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Does a part add anything to linear I? */
static bool adds(const struct gated *p, size_t i)
{
    return p->gate != 0.0f && p->expert->kind != EXPERT_IDENTITY &&
           p->expert->lora[i].rank;
}

static void copy_part(struct lora *to, size_t at, const struct lora *from, float factor)
{
    memcpy(to->a + at * to->n_in, from->a, from->rank * from->n_in * sizeof(*to->a));
    for (size_t j = 0; j < to->n_out; j++)
        for (size_t r = 0; r < from->rank; r++)
            to->b[j * to->rank + at + r] = factor * from->b[j * from->rank + r];
}

static void fill(struct expert *out, const struct gated *parts, size_t n)
{
    for (size_t i = 0; i < out->n_layers * N_SITES; i++) {
        struct lora *to = &out->lora[i];
        size_t at = 0;

        for (size_t p = 0; p < n; p++) {
            const struct lora *from = &parts[p].expert->lora[i];

            if (!adds(&parts[p], i))
                continue;
            if (from->rank == to->rank) { /* alone here: B as it is */
                memcpy(to->a, from->a, to->rank * to->n_in * sizeof(*to->a));
                memcpy(to->b, from->b, to->rank * to->n_out * sizeof(*to->b));
                to->scale = parts[p].gate * from->scale;
                break;
            }
            copy_part(to, at, from, parts[p].gate * from->scale);
            at += from->rank;
        }
    }
}

/* Only what stands beside its linear and multiplies has a place in a sum of weights. */
static int check_kinds(const struct gated *parts, size_t n, struct artel_error *err)
{
    size_t n_ffns = 0;

    for (size_t p = 0; p < n; p++) {
        const struct expert *e = parts[p].expert;

        if (parts[p].gate == 0.0f)
            continue;
        if (e->kind == EXPERT_RES)
            return error_set(err, ARTEL_EUSAGE, "CNV04", e->name,
                             "this expert is no LoRA beside its linears: what it adds "
                             "is no fixed change of their weights; of its mixture the "
                             "universal expert can be converted, all of it served as "
                             "it is (artel serve)");
        n_ffns += e->kind == EXPERT_FFN;
        if (e->kind == EXPERT_FFN && (n_ffns > 1 || parts[p].gate != 1.0f))
            return error_set(err, ARTEL_EUSAGE, "CNV04", e->name,
                             "this expert makes a whole FFN, with SwiGLU between its "
                             "linears: one such expert with gate 1 is a LoRA, more or "
                             "less is none; convert one alone (--expert), or serve the "
                             "mixture as it is (artel serve)");
    }
    return 0;
}

int experts_join(struct expert *out, const char *name, const struct model_config *c,
                 const struct gated *parts, size_t n, struct artel_error *err)
{
    const size_t n_linears = c->n_layers * N_SITES;
    uint16_t *rank = calloc(n_linears, sizeof(*rank));
    float *scale = calloc(n_linears, sizeof(*scale));
    size_t largest = 0, sum = 0;
    int rc = rank && scale ? check_kinds(parts, n, err)
                           : error_nomem(err, n_linears * sizeof(*scale));

    *out = (struct expert){0};
    for (size_t i = 0; rc == 0 && i < n_linears; i++) {
        size_t r = 0;

        for (size_t p = 0; p < n; p++)
            r += adds(&parts[p], i) ? parts[p].expert->lora[i].rank : 0;
        largest = r > largest ? r : largest;
        sum += r;
        rank[i] = (uint16_t)(r <= EXPERT_MAX_RANK ? r : 0);
        scale[i] = 1.0f;
    }
    if (rc == 0 && largest > EXPERT_MAX_RANK)
        rc = error_set(err, ARTEL_EUSAGE, "CNV03", "gates",
                       "the ranks add up to %zu, %d is the limit: give fewer experts",
                       largest, EXPERT_MAX_RANK);
    else if (rc == 0 && !sum)
        rc =
            error_set(err, ARTEL_EUSAGE, "CNV03", "gates",
                      "nothing is left: every gate is 0 or of an identity, which adds "
                      "nothing; choose a LoRA (artel inspect lists them), or serve the "
                      "mixture as it is (artel serve)");
    if (rc == 0)
        rc = expert_init(out, name, c, rank, scale, err);
    if (rc == 0)
        fill(out, parts, n);
    free(rank);
    free(scale);
    return rc;
}
