/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts come and go; the routers' rows follow. Router parameters are one
 * flat array, laid out anew when the number of experts changes.
 */
#include "experts/mixture.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "experts/fold.h"
#include "experts/stack.h"
#include "base/rng.h"

static size_t count_routers(const struct gate_rule *rule, size_t n_layers)
{
    switch (rule->place) {
    case ROUTER_LAYER:
    case ROUTER_FFN:
        return n_layers;
    case ROUTER_LINEAR:
        return n_layers * N_SITES;
    case ROUTER_BASE:
    case ROUTER_TEXT:
        return 1;
    default:
        return 0;
    }
}

size_t mixture_router_dim(const struct gate_rule *rule, const struct model_config *c,
                          size_t router_idx)
{
    size_t n_out, n_in;

    if (rule->place == ROUTER_BASE)
        return c->dim * rule->n_reads;
    if (rule->place == ROUTER_TEXT)
        return rule->ngrams.buckets;
    if (rule->place != ROUTER_LINEAR)
        return c->dim;
    site_shape(c, (enum site)(router_idx % N_SITES), &n_out, &n_in);
    return n_in;
}

/* Lay the routers out for N_EXPERTS rows, taking over old ones: row e of the new router is
 * FROM[e] of the old one, or zero where FROM[e] is negative. */
static int lay_routers(struct mixture *m, size_t n_experts, const int *from,
                       struct artel_error *err)
{
    const size_t per_row = m->rule.bias ? 1 : 0;
    size_t n_params = 0;
    float *params, *next;

    for (size_t i = 0; i < m->n_routers; i++)
        n_params += n_experts * (m->routers[i].dim + per_row);
    params = calloc(n_params ? n_params : 1, sizeof(*params));
    if (!params)
        return error_nomem(err, n_params * sizeof(*params));
    next = params;
    for (size_t i = 0; i < m->n_routers; i++) {
        struct router *r = &m->routers[i];
        float *w = next, *b = per_row ? next + n_experts * r->dim : NULL;

        for (size_t e = 0; e < n_experts; e++) {
            if (from[e] < 0)
                continue;
            memcpy(w + e * r->dim, r->w + (size_t)from[e] * r->dim,
                   r->dim * sizeof(*w));
            if (b)
                b[e] = r->b[from[e]];
        }
        next += n_experts * (r->dim + per_row);
        r->w = w;
        r->b = b;
        r->n_experts = n_experts;
    }
    free(m->router_params);
    m->router_params = params;
    m->n_router_params = n_params;
    return 0;
}

/* What was computed with the experts that there were is not found for those that there
 * are. */
static void stamp(struct mixture *m)
{
    static atomic_uint_fast64_t given;

    m->stamp = atomic_fetch_add(&given, 1) + 1;
}

int mixture_init(struct mixture *m, const char *method, const struct model_config *c,
                 const struct gate_rule *rule, struct artel_error *err)
{
    size_t n_floats;

    *m = (struct mixture){.rule = *rule, .n_layers = c->n_layers};
    stamp(m);
    snprintf(m->method, sizeof(m->method), "%s", method);
    m->n_routers = count_routers(rule, c->n_layers);
    for (size_t i = 0; i < rule->n_reads; i++)
        if (rule->reads[i] > c->n_layers)
            return error_set(err, ARTEL_EFORMAT, "MIX05", "reads",
                             "layer %u of a base of %zu cannot be read", rule->reads[i],
                             c->n_layers);
    if (!m->n_routers)
        return 0;
    m->routers = calloc(m->n_routers, sizeof(*m->routers));
    if (!m->routers)
        return error_nomem(err, m->n_routers * sizeof(*m->routers));
    for (size_t i = 0; i < m->n_routers; i++)
        m->routers[i] = (struct router){.dim = mixture_router_dim(rule, c, i),
                                        .absolute = rule->absolute,
                                        .temperature = rule->temperature};
    if (!rule->n_clusters)
        return 0;
    assert(rule->place == ROUTER_LAYER || rule->place == ROUTER_FFN);
    assert(rule->decides == DECIDE_TOKEN && rule->n_clusters <= CLUSTERS_MOST);
    n_floats = m->n_routers * clusters_floats(rule->n_clusters, c->dim);
    m->cluster_state = calloc(n_floats, sizeof(*m->cluster_state));
    if (!m->cluster_state) {
        mixture_release(m);
        return error_nomem(err, n_floats * sizeof(*m->cluster_state));
    }
    return 0;
}

void mixture_release(struct mixture *m)
{
    mixture_unstack(m);
    mixture_bare(m);
    for (size_t i = 0; i < m->n_experts; i++)
        expert_release(&m->experts[i]);
    free(m->experts);
    free(m->routers);
    free(m->router_params);
    free(m->identity);
    free(m->cluster_state);
    ridge_release(&m->sums);
    *m = (struct mixture){0};
}

int mixture_find(const struct mixture *m, const char *name)
{
    for (size_t i = 0; i < m->n_experts; i++)
        if (!strcmp(m->experts[i].name, name))
            return (int)i;
    return -1;
}

/* A counter beside the experts, not a part of what they are. */
static atomic_size_t *users_of(const struct mixture *m)
{
    return &((struct mixture *)(uintptr_t)m)->n_users;
}

void mixture_hold(const struct mixture *m)
{
    atomic_fetch_add(users_of(m), 1);
}

void mixture_let_go(const struct mixture *m)
{
    atomic_fetch_sub(users_of(m), 1);
}

static int check_free(const struct mixture *m, struct artel_error *err)
{
    const size_t n = atomic_load(users_of(m));

    return n ? error_set(err, ARTEL_ECONFLICT, "MIX10", m->method,
                         "%zu sessions or trainers use the mixture: close them before "
                         "its experts change",
                         n)
             : 0;
}

/* An expert of modula-res reads the first expert's output wherever it stands. */
static int check_reads(const struct mixture *m, const struct expert *e,
                       struct artel_error *err)
{
    if (!m->rule.n_fixed || !m->n_experts || m->experts[0].kind != EXPERT_LORA)
        return error_set(err, ARTEL_EFORMAT, "MIX13", e->name,
                         "this expert acts on what a universal expert adds, and the "
                         "mixture has none before it");
    if (e->instead != m->rule.silent)
        return error_set(err, ARTEL_EFORMAT, "MIX17", e->name,
                         "this expert was trained %s what the universal expert adds "
                         "(modula.residual), and the mixture %s",
                         e->instead ? "in place of" : "beside",
                         m->rule.silent ? "leaves that out" : "adds it");
    for (size_t i = 0; i < e->n_layers * N_SITES; i++)
        if (e->lora[i].rank && !m->experts[0].lora[i].rank)
            return error_set(err, ARTEL_EFORMAT, "MIX13", e->name,
                             "layer %zu %s: the universal expert '%s' adds nothing "
                             "there that it could act on",
                             i / N_SITES, site_name((enum site)(i % N_SITES)),
                             m->experts[0].name);
    return 0;
}

/* An expert whose FFN is its own serves beside others of its kind alone, and beside them
 * what is fixed keeps out of the FFN. */
static int check_whole_ffn(const struct mixture *m, const struct expert *e,
                           struct artel_error *err)
{
    const bool fixed = m->n_experts < m->rule.n_fixed;

    if (e->kind == EXPERT_FFN && (!m->rule.whole_ffn || fixed))
        return error_set(err, ARTEL_EFORMAT, "MIX15", e->name,
                         "this expert replaces a whole FFN, which only the experts of "
                         "mixlora do");
    if (!m->rule.whole_ffn || e->kind == EXPERT_IDENTITY)
        return 0;
    if (!fixed && e->kind != EXPERT_FFN)
        return error_set(err, ARTEL_EFORMAT, "MIX15", e->name,
                         "the experts of this mixture replace whole FFNs, and this is "
                         "a %s",
                         expert_kind_name(e->kind));
    for (size_t i = 0; i < e->n_layers * N_SITES; i++)
        if (e->lora[i].rank && fixed != (i % N_SITES < SITE_GATE))
            return error_set(err, ARTEL_EFORMAT, "MIX15", e->name,
                             "layer %zu %s: where experts replace whole FFNs they "
                             "stand there alone, and what they share stands in "
                             "attention",
                             i / N_SITES, site_name((enum site)(i % N_SITES)));
    return 0;
}

static int check_kind(const struct mixture *m, const struct expert *e,
                      struct artel_error *err)
{
    const int rc = check_whole_ffn(m, e, err);

    return rc == 0 && e->kind == EXPERT_RES ? check_reads(m, e, err) : rc;
}

static int check_fits(const struct mixture *m, const struct expert *e,
                      const struct model_config *c, struct artel_error *err)
{
    if (e->n_layers != m->n_layers)
        return error_set(err, ARTEL_EFORMAT, "MIX01", e->name,
                         "the expert has %zu layers, the base %zu", e->n_layers,
                         m->n_layers);
    for (size_t i = 0; i < m->n_experts; i++)
        if (!strcasecmp(m->experts[i].name, e->name))
            return error_set(err, ARTEL_EFORMAT, "MIX02", e->name,
                             "the mixture already has an expert of this name ('%s')",
                             m->experts[i].name);
    for (size_t i = 0; e->kind != EXPERT_IDENTITY && i < e->n_layers * N_SITES; i++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)(i % N_SITES), &n_out, &n_in);
        if (e->lora[i].rank && (e->lora[i].n_out != n_out || e->lora[i].n_in != n_in))
            return error_set(err, ARTEL_EFORMAT, "MIX01", e->name,
                             "layer %zu %s is %zu x %zu, the base's %zu x %zu",
                             i / N_SITES, site_name((enum site)(i % N_SITES)),
                             e->lora[i].n_out, e->lora[i].n_in, n_out, n_in);
    }
    return check_kind(m, e, err);
}

/* Rows that routers have for N experts. */
static size_t rows_for(const struct mixture *m, size_t n)
{
    return n > m->rule.n_fixed ? n - m->rule.n_fixed : 0;
}

int mixture_add(struct mixture *m, struct expert *e, const struct model_config *c,
                struct artel_error *err)
{
    const size_t n = m->n_experts, rows = rows_for(m, n);
    struct expert *experts;
    bool *identity;
    int *from;
    int rc;

    rc = check_free(m, err);
    if (rc == 0)
        rc = check_fits(m, e, c, err);
    if (rc < 0)
        return rc;
    mixture_unstack(m);
    mixture_bare(m);
    experts = realloc(m->experts, (n + 1) * sizeof(*experts));
    if (!experts)
        return error_nomem(err, (n + 1) * sizeof(*experts));
    m->experts = experts;
    identity = realloc(m->identity, (n + 1) * sizeof(*identity));
    if (!identity)
        return error_nomem(err, (n + 1) * sizeof(*identity));
    m->identity = identity;
    from = malloc((rows + 1) * sizeof(*from));
    if (!from)
        return error_nomem(err, (rows + 1) * sizeof(*from));
    for (size_t i = 0; i < rows; i++)
        from[i] = (int)i;
    from[rows] = -1;
    rc = lay_routers(m, rows_for(m, n + 1), from, err);
    free(from);
    if (rc < 0)
        return rc;
    experts[n] = *e;
    identity[n] = e->kind == EXPERT_IDENTITY;
    *e = (struct expert){0};
    m->n_experts = n + 1;
    stamp(m);
    if (experts[n].kind == EXPERT_RES)
        mixture_fold(m, NULL);
    return 0;
}

int mixture_remove(struct mixture *m, size_t index, struct artel_error *err)
{
    const size_t n = m->n_experts, fixed = m->rule.n_fixed;
    int *from;
    int rc = check_free(m, err);

    assert(index < n && index >= fixed); /* others may act on a fixed one */
    if (rc < 0)
        return rc;
    from = malloc(n * sizeof(*from));
    if (!from)
        return error_nomem(err, n * sizeof(*from));
    for (size_t i = 0; fixed + i + 1 < n; i++)
        from[i] = (int)(fixed + i < index ? i : i + 1);
    mixture_unstack(m);
    mixture_bare(m);
    rc = lay_routers(m, rows_for(m, n - 1), from, err);
    free(from);
    if (rc < 0)
        return rc;
    memmove(m->identity + index, m->identity + index + 1,
            (n - 1 - index) * sizeof(*m->identity));
    if (index - fixed < m->sums.n_domains)
        ridge_drop(&m->sums, index - fixed);
    expert_release(&m->experts[index]);
    memmove(&m->experts[index], &m->experts[index + 1],
            (n - 1 - index) * sizeof(*m->experts));
    m->n_experts = n - 1;
    stamp(m);
    return 0;
}

int rule_check_tiles(const struct gate_rule *rule, const char *method,
                     struct artel_error *err)
{
    if (!rule->whole_ffn)
        return 0;
    return error_set(err, ARTEL_ELIMIT, "MIX16", "precision",
                     "the experts of %s make whole FFNs, which are computed in fp32 "
                     "alone",
                     method);
}

void mixture_draw_routers(struct mixture *m, float std, uint64_t seed)
{
    struct rng rng;

    rng_init(&rng, seed, 0x726f75746572); /* "router": a stream of its own */
    for (size_t i = 0; i < m->n_routers; i++) {
        struct router *r = &m->routers[i];

        for (size_t k = 0; k < r->n_experts * r->dim; k++)
            r->w[k] = std > 0.0f ? std * rng_normal(&rng) : 0.0f;
        for (size_t k = 0; r->b && k < r->n_experts; k++)
            r->b[k] = 0.0f;
    }
}

size_t mixture_cluster_floats(const struct mixture *m, size_t router_idx)
{
    return clusters_floats(m->rule.n_clusters, m->routers[router_idx].dim);
}

float *mixture_cluster_block(const struct mixture *m, size_t router_idx)
{
    return m->cluster_state + router_idx * mixture_cluster_floats(m, router_idx);
}

void mixture_clusters(struct clusters *c, const struct mixture *m, size_t router_idx)
{
    clusters_view(c, mixture_cluster_block(m, router_idx), m->rule.n_clusters,
                  m->routers[router_idx].dim);
}

int mixture_router_of(const struct mixture *m, size_t layer, enum site s)
{
    switch (m->rule.place) {
    case ROUTER_LAYER:
        return (int)layer;
    case ROUTER_FFN:
        return s >= SITE_GATE ? (int)layer : -1;
    case ROUTER_LINEAR:
        return (int)(layer * N_SITES + s);
    case ROUTER_TEXT:
        return 0;
    default:
        return -1;
    }
}

bool mixture_router_used(const struct mixture *m, size_t router_idx)
{
    const bool linear = m->rule.place == ROUTER_LINEAR;
    const size_t first = linear ? router_idx : router_idx * N_SITES;

    if (m->rule.place == ROUTER_BASE || m->rule.place == ROUTER_TEXT)
        return m->n_experts > 0;
    for (size_t i = first; i < first + (linear ? 1 : N_SITES); i++)
        for (size_t e = 0; e < m->n_experts; e++)
            if (m->experts[e].kind == EXPERT_IDENTITY || m->experts[e].lora[i].rank)
                return true;
    return false;
}
