/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which routers read the input of a group of linears, and what becomes of it.
 */
#include <string.h>

#include "decoder/pass.h"
#include "math/kernels.h"
#include "math/rmsnorm.h"

/* The linears of a group. */
static const struct {
    enum site first, last;
} groups[N_STEP_GROUPS] = {
    [GROUP_QKV] = {SITE_Q, SITE_V},
    [GROUP_O] = {SITE_O, SITE_O},
    [GROUP_GATE_UP] = {SITE_GATE, SITE_UP},
    [GROUP_DOWN] = {SITE_DOWN, SITE_DOWN},
};

/* Does the router of site S read the input of its group? */
static bool reads(enum router_place place, enum site s)
{
    return place == ROUTER_LINEAR || (place == ROUTER_LAYER && s == SITE_Q) ||
           (place == ROUTER_FFN && s == SITE_GATE);
}

static void add(struct step_routers *rs, const struct decoder_pass *p, size_t router,
                enum site after, struct mixture_grads *grads)
{
    const struct mixture *m = p->mixture;
    const struct router *r = &m->routers[router];
    float *d_params = grads ? grads->routers : NULL;
    const size_t i = rs->n++;

    rs->router[i] = r;
    rs->gates[i] = &p->gates[router];
    rs->after[i] = after;
    rs->d_w[i] = d_params ? d_params + (r->w - m->router_params) : NULL;
    rs->d_b[i] = d_params && r->b ? d_params + (r->b - m->router_params) : NULL;
}

void routers_find(struct step_routers *rs, const struct decoder_pass *p, size_t layer,
                  enum step_group g, struct mixture_grads *grads)
{
    rs->n = 0;
    if (!pass_routes(p))
        return;
    for (enum site s = groups[g].first; s <= groups[g].last; s++) {
        const enum router_place place = p->mixture->rule.place;

        if (reads(place, s))
            add(rs, p, (size_t)mixture_router_of(p->mixture, layer, s),
                place == ROUTER_LINEAR ? s : groups[g].last, grads);
    }
}

/* By how much each row yields: all rows of a sequence as its pool lies from what was seen
 * in training. */
static void find_yield(struct decoder_pass *p, struct gates *gates, size_t router,
                       size_t layer, enum step_group g)
{
    const struct mixture *m = p->mixture;
    const struct cluster_options *o = &m->rule.clusters;
    const size_t D = m->routers[router].dim;
    struct clusters c;
    size_t row = 0;

    mixture_clusters(&c, m, router);
    gates->identity = m->identity;
    p->ops->read_pools(p, gates->seen, D, layer, g);
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        const float d = p->pools[s].n
                            ? clusters_distance(&c, gates->seen + s * D, o->distance)
                            : 0.0f;
        const float by =
            o->beta * clusters_yield(&c, d, o->momentum, p->options.backward);

        for (size_t i = 0; i < p->block->seqs[s].n; i++)
            gates->yield[row++] = by;
    }
}

void routers_run(struct decoder_pass *p, const struct step_routers *rs, size_t layer,
                 enum step_group g)
{
    const struct gate_rule *rule = &p->mixture->rule;
    const bool by_sequence = rule->decides == DECIDE_SEQUENCE;

    for (size_t i = 0; i < rs->n; i++) {
        rs->gates[i]->n_rows = p->T;
        rs->gates[i]->n_units = by_sequence ? p->block->n_seqs : p->T;
        rs->gates[i]->unit_of_row = by_sequence ? p->seq_of_row : p->row_self;
    }
    for (size_t i = 0; i < rs->n && p->mixture->rule.n_clusters; i++)
        find_yield(p, rs->gates[i], (size_t)(rs->router[i] - p->mixture->routers),
                   layer, g);
    p->ops->read_routers(p, rs, layer, g);
    for (size_t i = 0; p->options.routing == ROUTE_ROUTER && i < rs->n; i++)
        gates_decide(rs->gates[i], rule);
}

bool base_router_reads(const struct decoder_pass *p, size_t layer)
{
    const struct gate_rule *rule = p->mixture ? &p->mixture->rule : NULL;

    if (!rule || rule->place != ROUTER_BASE || p->options.routing != ROUTE_ROUTER)
        return false;
    for (size_t i = 0; i < rule->n_reads; i++)
        if (rule->reads[i] == layer + 1)
            return true;
    return false;
}

/* Z (D) of one sequence: LAYER's output as the next layer, or the head, would read it. */
static void read_normed(struct decoder_pass *p, float *z, const struct pool *pool,
                        size_t layer)
{
    const struct model_config *c = &p->model->weights->config;
    const float *norm = layer + 1 < c->n_layers ? p->model->layers[layer + 1].attn_norm
                                                : p->model->final_norm;
    const size_t n = p->mixture->rule.pool == POOL_LAST && pool->n ? 1 : pool->n;
    const size_t end = pool->first + pool->n;

    memset(z, 0, c->dim * sizeof(*z));
    for (size_t t = end - n; t < end; t++) {
        rmsnorm_forward(p->logits_x, NULL, p->x[layer + 1] + t * p->pitch, norm,
                        c->norm_eps, 1, c->dim);
        kernels()->axpy(z, 1.0f / (float)n, p->logits_x, c->dim);
    }
}

void base_router_read(struct decoder_pass *p, size_t layer)
{
    const struct gate_rule *rule = &p->mixture->rule;
    const struct router *r = &p->mixture->routers[0];
    const size_t D = p->model->weights->config.dim;
    struct gates *g = &p->gates[0];

    for (size_t i = 0; i < rule->n_reads; i++)
        for (size_t s = 0; rule->reads[i] == layer + 1 && s < p->block->n_seqs; s++)
            read_normed(p, g->z + s * r->dim + i * D, &p->pools[s], layer);
    if (rule->reads[rule->n_reads - 1] != layer + 1)
        return;
    g->n_rows = p->T;
    g->n_units = p->block->n_seqs;
    g->unit_of_row = p->seq_of_row;
    gates_read_pooled(g, r);
    gates_decide(g, rule);
}

static void text_logits(struct decoder_pass *p, float *logits, const int32_t *ids,
                        size_t n)
{
    const struct router *r = &p->mixture->routers[0];

    ngrams_begin(&p->ngrams);
    ngrams_of_ids(&p->ngrams, p->model->tokenizer, ids, n);
    ngrams_end(&p->ngrams);
    ngrams_product(logits, &p->ngrams, r->w, r->n_experts);
}

void text_router_read(struct decoder_pass *p)
{
    const struct router *r = &p->mixture->routers[0];
    struct gates *g = &p->gates[0];

    g->n_rows = p->T;
    g->n_units = p->block->n_seqs;
    g->unit_of_row = p->seq_of_row;
    for (size_t s = 0; s < g->n_units; s++)
        text_logits(p, g->probs + s * r->n_experts, p->ids + p->pools[s].first,
                    p->pools[s].n);
    gates_read_logits(g, r, g->probs, r->n_experts);
    gates_decide(g, &p->mixture->rule);
}

int text_router_choose(struct decoder_pass *p, const int32_t *ids, size_t n)
{
    const struct router *r = &p->mixture->routers[0];
    struct gates *g = &p->gates[0];

    g->n_rows = 0;
    g->n_units = 1;
    text_logits(p, g->probs, ids, n);
    gates_read_logits(g, r, g->probs, r->n_experts);
    gates_decide(g, &p->mixture->rule);
    return (int)gates_argmax(g, 0);
}

struct gates_slope pass_gates_slope(const struct decoder_pass *p)
{
    const struct gate_rule *rule = &p->mixture->rule;

    return (struct gates_slope){
        .rule = p->options.routing == ROUTE_ROUTER ? rule : NULL,
        .straight = p->options.straight,
        .ce_weight = rule->decides == DECIDE_SEQUENCE ? p->options.router_ce : 0.0f,
        .label = p->labels,
        .pools = p->pools,
        .pool = rule->pool,
        .balance = rule->decides == DECIDE_TOKEN ? p->options.balance : 0.0f,
    };
}
