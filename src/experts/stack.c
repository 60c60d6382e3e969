/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments are placed by a walk over experts and sites that runs twice: to count, and
 * to write what it counted.
 */
#include "experts/stack.h"

#include <assert.h>

#define PLACES 32

/* Where a walk stands. What it counts is written where there is somewhere to. */
struct walk {
    const struct stack_range *ranges;
    enum tile_group group;
    struct stack_block *blocks;     /* or NULL */
    struct stack_segment *segments; /* or NULL */
    size_t n_blocks, n_segments, n_panels;
    size_t used; /* places of the last block */
    unsigned sites;
};

/* First panel and number of panels with outputs of SITES. */
static size_t panels_of(const struct stack_range *ranges, unsigned sites, size_t *first)
{
    size_t end = 0;

    *first = 0;
    for (size_t i = 0; i < STACK_RANGES && ranges[i].end; i++) {
        if (!(ranges[i].sites & sites))
            continue;
        if (!end && i)
            *first = ranges[i - 1].end;
        end = ranges[i].end;
    }
    return end - *first;
}

/* The last block is complete. */
static void close_block(struct walk *w)
{
    size_t first, n;

    if (!w->used)
        return;
    n = panels_of(w->ranges, w->sites, &first);
    w->n_panels += n;
    if (w->blocks) {
        struct stack_block *b = &w->blocks[w->n_blocks - 1];

        b->sites = w->sites;
        b->panel = first;
        b->n_panels = n;
    }
    w->used = 0;
}

static void put_segment(struct walk *w, struct stack_segment g)
{
    if (!w->used) {
        w->sites = 0;
        if (w->blocks)
            w->blocks[w->n_blocks] =
                (struct stack_block){.segments = w->segments + w->n_segments};
        w->n_blocks++;
    }
    g.first = (uint8_t)w->used;
    w->used += (g.n + 1u) / 2 * 2;
    w->sites |= 1u << g.site;
    if (w->blocks) {
        w->segments[w->n_segments] = g;
        w->blocks[w->n_blocks - 1].n_segments++;
    }
    w->n_segments++;
}

/* Places that a LoRA takes of its last block. */
static size_t places_of(size_t rank)
{
    return (rank + 1) / 2 * 2;
}

static void put_lora(struct walk *w, size_t expert, enum site site, size_t rank)
{
    if (rank && w->used + places_of(rank) > PLACES)
        close_block(w);
    for (size_t from = 0; from < rank; from += PLACES) {
        const size_t n = rank - from < PLACES ? rank - from : PLACES;

        put_segment(w, (struct stack_segment){.expert = (uint32_t)expert,
                                              .from = (uint32_t)from,
                                              .site = site,
                                              .n = (uint8_t)n});
        if (w->used >= PLACES)
            close_block(w);
    }
}

static size_t rank_of(const struct mixture *m, size_t layer, size_t expert, int site)
{
    return expert_lora(&m->experts[expert], layer, (enum site)site)->rank;
}

/* Several experts may serve a row, or neighbouring rows. */
static bool experts_meet(const struct mixture *m)
{
    const struct gate_rule *r = &m->rule;

    if (r->n_fixed)
        return true;
    return r->place != ROUTER_NONE &&
           (r->decides == DECIDE_TOKEN || r->kind != GATE_ONE_HOT);
}

static void walk_by_expert(struct walk *w, const struct mixture *m, size_t layer)
{
    for (size_t e = 0; e < m->n_experts; e++) {
        size_t places = 0;

        for (int s = 0; s < N_SITES; s++)
            if (tile_group_of((enum site)s) == w->group)
                places += places_of(rank_of(m, layer, e, s));
        /* an expert in one block rather than in parts of two */
        if (places && w->used + places > PLACES)
            close_block(w);
        for (int s = 0; s < N_SITES; s++)
            if (tile_group_of((enum site)s) == w->group)
                put_lora(w, e, (enum site)s, rank_of(m, layer, e, s));
    }
    close_block(w);
}

static void walk_by_site(struct walk *w, const struct mixture *m, size_t layer)
{
    size_t all = 0;

    for (int s = 0; s < N_SITES; s++)
        for (size_t e = 0; e < m->n_experts; e++)
            if (tile_group_of((enum site)s) == w->group)
                all += places_of(rank_of(m, layer, e, s));
    for (int s = 0; s < N_SITES; s++) {
        if (tile_group_of((enum site)s) != w->group)
            continue;
        for (size_t e = 0; e < m->n_experts; e++)
            put_lora(w, e, (enum site)s, rank_of(m, layer, e, s));
        /* gate and up share their panels: nothing is won by keeping them apart */
        if (w->group == TILE_QKV && all > PLACES)
            close_block(w);
    }
    close_block(w);
}

static struct walk walk(const struct expert_stack *s, size_t layer,
                        enum tile_group group, struct stack_block *blocks,
                        struct stack_segment *segments)
{
    struct walk w = {.ranges = s->ranges[group],
                     .group = group,
                     .blocks = blocks,
                     .segments = segments};

    if (experts_meet(s->mixture))
        walk_by_site(&w, s->mixture, layer);
    else
        walk_by_expert(&w, s->mixture, layer);
    assert(w.n_blocks <= UINT16_MAX);
    return w;
}

static uint16_t *take_packs(struct arena *a, size_t n)
{
    return arena_take(a, n * PACK_ELEMS * sizeof(uint16_t));
}

/* One layer's group; the number of its blocks. */
static size_t group_init(struct expert_stack *s, struct arena *a, size_t layer,
                         enum tile_group group)
{
    const struct tile_shape *shape = s->shape;
    const struct walk size = walk(s, layer, group, NULL, NULL);
    const size_t n = size.n_blocks, in = shape->in[group].blocks,
                 out = shape->out[group].blocks;
    struct stack_group g = {.n_blocks = n};
    struct stack_segment *segments;
    uint16_t *up_turned;

    g.blocks = arena_take(a, n * sizeof(*g.blocks));
    segments = arena_take(a, size.n_segments * sizeof(*segments));
    g.down = take_packs(a, n * in);
    g.up = take_packs(a, n * out);
    g.down_turned = s->training ? take_packs(a, n * in) : NULL;
    up_turned = s->training ? take_packs(a, size.n_panels) : NULL;
    if (!s->groups)
        return n; /* only measured */
    walk(s, layer, group, g.blocks, segments);
    for (size_t i = 0; up_turned && i < n; i++) {
        g.blocks[i].up_turned = up_turned;
        up_turned += g.blocks[i].n_panels * PACK_ELEMS;
    }
    s->groups[layer * N_TILE_GROUPS + group] = g;
    return n;
}

static unsigned sites_of_panel(const struct tile_map *out, size_t panel)
{
    unsigned sites = 0;

    for (size_t i = panel * PLACES; i < (panel + 1) * PLACES; i++)
        if (out->index[i] >= 0)
            sites |= 1u << out->site[i];
    return sites;
}

static void ranges_init(struct stack_range *ranges, const struct tile_map *out)
{
    size_t n = 0;

    for (size_t panel = 0; panel < out->blocks; panel++) {
        const unsigned sites = sites_of_panel(out, panel);

        if (!n || sites != ranges[n - 1].sites)
            n++;
        assert(n <= STACK_RANGES);
        ranges[n - 1] = (struct stack_range){panel + 1, sites};
    }
}

void expert_stack_init(struct expert_stack *s, struct arena *arena,
                       const struct mixture *m, const struct tile_shape *shape,
                       bool training)
{
    *s = (struct expert_stack){
        .mixture = m, .shape = shape, .set = tile_rank_set(), .training = training};
    s->groups = arena_take(arena, m->n_layers * N_TILE_GROUPS * sizeof(*s->groups));
    for (int g = 0; g < N_TILE_GROUPS; g++)
        ranges_init(s->ranges[g], &shape->out[g]);
    for (size_t l = 0; l < m->n_layers; l++)
        for (int g = 0; g < N_TILE_GROUPS; g++) {
            const size_t n = group_init(s, arena, l, (enum tile_group)g);

            s->most_blocks = n > s->most_blocks ? n : s->most_blocks;
        }
}

size_t expert_stack_bytes(const struct mixture *m, const struct tile_shape *shape,
                          bool training)
{
    struct expert_stack s;
    struct arena measure = {0};

    expert_stack_init(&s, &measure, m, shape, training);
    return measure.used;
}

/* An expert that reads the universal one changes with it. */
static bool block_changed(const struct expert_stack *s, const struct stack_block *b,
                          const bool *changed)
{
    for (size_t i = 0; i < b->n_segments; i++) {
        const size_t e = b->segments[i].expert;

        if (!changed || changed[e] ||
            (changed[0] && s->mixture->experts[e].kind == EXPERT_RES))
            return true;
    }
    return false;
}

static void pack_block(const struct expert_stack *s, size_t layer,
                       enum tile_group group, size_t block)
{
    const struct stack_group *g = expert_stack_group(s, layer, group);
    const struct stack_block *b = &g->blocks[block];
    const struct tile_map *in = &s->shape->in[group], *out = &s->shape->out[group];
    const size_t pitch = g->n_blocks * PACK_ELEMS;
    struct rank_rows a = {{NULL}};
    struct rank_columns columns[RANK_PARTS];

    assert(b->n_segments <= RANK_PARTS);
    for (size_t i = 0; i < b->n_segments; i++) {
        const struct stack_segment *seg = &b->segments[i];
        const struct lora *lora = segment_lora(s, layer, seg);

        for (size_t r = 0; r < seg->n; r++)
            a.row[seg->first + r] = lora->down + (seg->from + r) * lora->n_in;
        columns[i] = (struct rank_columns){lora->b + seg->from, lora->rank,
                                           (uint8_t)seg->site, seg->first, seg->n};
    }
    s->set->pack_rows(g->down + block * in->blocks * PACK_ELEMS,
                      g->down_turned ? g->down_turned + block * PACK_ELEMS : NULL,
                      pitch, &a, in);
    s->set->pack_columns(g->up + block * PACK_ELEMS, pitch, b->up_turned, columns,
                         b->n_segments, out, b->panel, b->n_panels);
}

void expert_stack_pack(struct expert_stack *s, const bool *changed)
{
    const size_t n = s->mixture->n_layers * N_TILE_GROUPS;

#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < n; i++)
        for (size_t block = 0; block < s->groups[i].n_blocks; block++)
            if (block_changed(s, &s->groups[i].blocks[block], changed))
                pack_block(s, i / N_TILE_GROUPS, (enum tile_group)(i % N_TILE_GROUPS),
                           block);
}
