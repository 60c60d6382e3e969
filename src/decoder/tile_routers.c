/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which routers read the input of a group of linears on tiles.
 */
#include "decoder/tile_parts.h"

/* Does the router of site S read the input of its group? */
static bool reads(enum router_place place, enum site s)
{
    return place == ROUTER_LINEAR || (place == ROUTER_LAYER && s == SITE_Q) ||
           (place == ROUTER_FFN && s == SITE_GATE);
}

/* Indexes of the routers that read there. */
static size_t readers(size_t routers[ROUTERS_MOST], const struct decoder_pass *p,
                      size_t layer, enum tile_group g)
{
    size_t n = 0;

    for (int s = 0; s < N_SITES && pass_routes(p); s++)
        if (tile_group_of((enum site)s) == g &&
            reads(p->mixture->rule.place, (enum site)s))
            routers[n++] = (size_t)mixture_router_of(p->mixture, layer, (enum site)s);
    return n;
}

static void add_router(struct tile_routers *rs, struct decoder_pass *p, size_t router)
{
    rs->router[rs->n] = &p->mixture->routers[router];
    rs->gates[rs->n++] = &p->gates[router];
}

bool tile_routed(const struct decoder_pass *p, size_t layer, enum tile_group g)
{
    size_t routers[ROUTERS_MOST];

    return readers(routers, p, layer, g) > 0;
}

void tile_route(struct decoder_pass *p, size_t layer, enum tile_group g, struct tiles x)
{
    struct tile_pass *t = p->tiles;
    struct tile_routers rs = {.map = &t->model->shape.in[g]};
    size_t routers[ROUTERS_MOST];
    const size_t n = readers(routers, p, layer, g);

    for (size_t i = 0; i < n; i++) {
        pass_route_begin(p, routers[i]);
        add_router(&rs, p, routers[i]);
    }
    if (!rs.n)
        return;
    routers_read(&t->routers, &rs, p->mixture->rule.pool, p->pools, x, t->rows);
    for (size_t i = 0; p->options.routing == ROUTE_ROUTER && i < rs.n; i++)
        gates_decide(rs.gates[i], &p->mixture->rule);
}

const struct tile_low *tile_routers_backward(struct decoder_pass *p,
                                             struct mixture_grads *grads, size_t layer,
                                             enum tile_group g, struct tiles x,
                                             bool wants_d_x)
{
    const struct mixture *m = p->mixture;
    struct tile_pass *t = p->tiles;
    struct tile_routers rs = {.map = &t->model->shape.in[g]};
    size_t routers[ROUTERS_MOST];
    const size_t n = readers(routers, p, layer, g);
    struct gates_slope slope;

    if (!n)
        return NULL;
    slope = pass_gates_slope(p);
    for (size_t i = 0; i < n; i++) {
        const struct router *r = &m->routers[routers[i]];

        if (grads->routers) {
            rs.d_w[i] = grads->routers + (r->w - m->router_params);
            rs.d_b[i] = r->b ? grads->routers + (r->b - m->router_params) : NULL;
        }
        add_router(&rs, p, routers[i]);
    }
    return routers_backward(&t->routers, &rs, &slope, x,
                            wants_d_x && !p->options.detach_router, t->rows);
}
