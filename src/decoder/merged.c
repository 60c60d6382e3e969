/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows are computed apart, each by one thread: the bits do not depend on how many there
 * are. As in save/merge.h the update of a row is summed first and then added.
 */
#include "decoder/merged.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "math/kernels.h"

static size_t n_linears(const struct merged *m)
{
    return m->mixture->n_layers * N_SITES;
}

static size_t gates_bytes(const struct merged *m)
{
    return n_linears(m) * m->mixture->n_experts * sizeof(float);
}

int merged_open(struct merged **out, const struct artel_model *base,
                const struct mixture *mixture, struct artel_error *err)
{
    struct merged *m = calloc(1, sizeof(*m));
    size_t bytes;

    *out = NULL;
    if (!m)
        return error_nomem(err, sizeof(*m));
    m->base = base;
    m->mixture = mixture;
    bytes = gates_bytes(m);
    m->layers = calloc(mixture->n_layers, sizeof(*m->layers));
    m->gates = calloc(1, bytes);
    m->wanted = calloc(1, bytes);
    if (!m->layers || !m->gates || !m->wanted) {
        merged_close(m);
        return error_nomem(err, bytes);
    }
    *out = m;
    return 0;
}

void merged_close(struct merged *m)
{
    if (!m)
        return;
    arena_release(&m->arena);
    free(m->layers);
    free(m->gates);
    free(m->wanted);
    free(m);
}

void merged_want(struct merged *m, int expert, const float *held)
{
    const struct mixture *x = m->mixture;
    const size_t E = x->n_experts;
    struct gates given = {.n_experts = E,
                          .n_fixed = x->rule.n_fixed,
                          .silent = x->rule.silent,
                          .gate = m->wanted};

    for (size_t i = 0; i < n_linears(m); i++, given.gate += E) {
        const int router =
            held ? mixture_router_of(x, i / N_SITES, (enum site)(i % N_SITES)) : -1;

        if (router >= 0)
            memcpy(given.gate, held + (size_t)router * E, E * sizeof(float));
        else if (held) /* where no router is asked */
            gates_give_unit(&given, 0, gates_always(&given));
        else
            gates_give_unit(&given, 0, expert);
    }
}

/* What expert E adds to linear I of what is wanted, or NULL; its gate in *GATE. */
static const struct lora *part(float *gate, const struct merged *m, size_t i, size_t e)
{
    const struct lora *l = &m->mixture->experts[e].lora[i];

    *gate = m->wanted[i * m->mixture->n_experts + e];
    return m->mixture->identity[e] || *gate == 0.0f || !l->rank ? NULL : l;
}

/* A whole FFN of its own is a LoRA's where it is one, with gate 1. */
static bool is_linear(const struct merged *m, size_t i)
{
    const struct mixture *x = m->mixture;
    const bool whole = x->rule.whole_ffn && i % N_SITES >= SITE_GATE;
    const float *gates = m->wanted + i * x->n_experts;
    size_t n_ffns = 0;
    float gate;

    for (size_t e = 0; e < x->n_experts; e++)
        if (part(&gate, m, i, e) && x->experts[e].slope != 1.0f)
            return false;
    for (size_t e = x->rule.n_fixed; whole && e < x->n_experts; e++) {
        n_ffns += gates[e] != 0.0f;
        if (gates[e] != 0.0f && gates[e] != 1.0f)
            return false;
    }
    return n_ffns <= 1;
}

int merged_check(const struct merged *m, struct artel_error *err)
{
    for (size_t i = 0; i < n_linears(m); i++)
        if (!is_linear(m, i))
            return error_set(err, ARTEL_EUSAGE, "MRG01", "merge",
                             "what the experts of this %s mixture add is no fixed "
                             "change of the weights",
                             m->mixture->method);
    return 0;
}

/* Does any expert add to linear I? */
static bool changes(const struct merged *m, size_t i)
{
    float gate;

    for (size_t e = 0; e < m->mixture->n_experts; e++)
        if (part(&gate, m, i, e))
            return true;
    return false;
}

static const struct matrix *base_of(const struct merged *m, size_t i)
{
    return &m->base->layers[i / N_SITES].site[i % N_SITES];
}

static bool is_there(const struct merged *m)
{
    return m->formed && !memcmp(m->gates, m->wanted, gates_bytes(m));
}

void merged_count(struct merge_count *out, const struct merged *m)
{
    *out = (struct merge_count){.formed = is_there(m),
                                .prompts = !m->base->has_tiles &&
                                           (m->base->use & MATRIX_FORWARD)};
    for (size_t i = 0; i < n_linears(m); i++) {
        const struct matrix *w = base_of(m, i);
        const struct lora *l;
        float gate;

        if (!changes(m, i))
            continue;
        out->weights += (double)w->n_out * (double)w->n_in;
        out->stored_bytes += (double)w->raw.bytes;
        out->lean |= w->f32 != NULL;
        for (size_t e = 0; e < m->mixture->n_experts; e++)
            if ((l = part(&gate, m, i, e))) {
                out->low_rank += (double)l->rank * (double)(l->n_out + l->n_in);
                out->updates += (double)l->rank * (double)l->n_out * (double)l->n_in;
            }
    }
}

/* A row of the linear I and its update, by one thread. */
static void form_row(const struct merged *m, float *to, float *update, size_t i,
                     size_t row)
{
    const struct tensor *raw = &base_of(m, i)->raw;
    const size_t n = raw->shape[1];
    const size_t row_bytes =
        n / dtype_block_elems(raw->dtype) * dtype_block_bytes(raw->dtype);

    kernels()->dequant[raw->dtype](to, (const char *)raw->data + row * row_bytes, n);
    memset(update, 0, n * sizeof(*update));
    for (size_t e = 0; e < m->mixture->n_experts; e++) {
        float gate;
        const struct lora *l = part(&gate, m, i, e);

        if (l)
            lora_add_row(update, l, gate, row);
    }
    kernels()->axpy(to, 1.0f, update, n);
}

/* Lay the linears out, or measure where A only measures. */
static void carve(struct merged *m, struct arena *a)
{
    const struct model_config *c = &m->base->weights->config;
    const size_t widest =
        c->ffn_dim > c->n_heads * c->head_dim ? c->ffn_dim : c->n_heads * c->head_dim;
    const size_t row = widest > c->dim ? widest : c->dim;
    float *updates = arena_f32(a, (size_t)omp_get_max_threads() * row);

    for (size_t i = 0; i < n_linears(m); i++) {
        struct tensor t = base_of(m, i)->raw;
        float *w;

        w = changes(m, i) ? arena_f32(a, t.shape[0] * t.shape[1]) : NULL;
        if (!w)
            continue;
        t.dtype = DTYPE_F32;
        t.bytes = t.shape[0] * t.shape[1] * sizeof(*w);
        t.data = w;
#pragma omp parallel for schedule(static)
        for (size_t r = 0; r < t.shape[0]; r++)
            form_row(m, w + r * t.shape[1],
                     updates + (size_t)omp_get_thread_num() * row, i, r);
        matrix_init(&m->layers[i / N_SITES].site[i % N_SITES], a, &t,
                    MATRIX_FORWARD | MATRIX_LEAN); /* where they lie, for both uses */
    }
}

static size_t total_bytes(const struct merged *m)
{
    struct merged measured = *m;
    struct arena measure = {0};

    carve(&measured, &measure);
    return measure.used;
}

size_t merged_bytes(const struct merged *m)
{
    const size_t all = is_there(m) ? 0 : total_bytes(m);

    return all > m->arena.size ? all - m->arena.size : 0;
}

int merged_form(struct merged *m, struct artel_error *err)
{
    int rc = 0;

    if (is_there(m))
        return 0;
    m->formed = false;
    if (merged_bytes(m)) {
        arena_release(&m->arena);
        rc = arena_init(&m->arena, total_bytes(m), err);
    }
    if (rc < 0)
        return rc;
    m->arena.used = 0;
    for (size_t l = 0; l < m->mixture->n_layers; l++)
        m->layers[l] = m->base->layers[l];
    carve(m, &m->arena);
    memcpy(m->gates, m->wanted, gates_bytes(m));
    m->model = *m->base;
    m->model.arena = (struct arena){0};
    m->model.layers = m->layers;
    m->formed = true;
    return 0;
}
