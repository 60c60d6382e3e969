/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dropout thins out the input of every expert and linear in its own way, so that part
 * cannot share a product: h of such a segment comes from its own copy of x, and its
 * share of d_x goes through a buffer of floats. 1 / (1 - p) stays exact as a factor of
 * the scale.
 */
#include "experts/stacked.h"

#include <assert.h>

#define SHARED_ROWS ((size_t)64) /* rows that several blocks work on in turn */

struct stacked_active {
    const struct stack_block *block;
    size_t index;     /* of the block in its group */
    size_t row, rows; /* from the first row served to the last, in pairs of blocks */
    unsigned sites;   /* of what serves */
    uint32_t thinned; /* places with dropout */
    struct rank_rule rule;
    const struct stack_segment *segments[RANK_PARTS]; /* of the rule's parts */
};

void stacked_room_carve(struct stacked_room *r, struct arena *a,
                        const struct expert_stack *s, size_t max_rows, bool backward,
                        bool dropout)
{
    const size_t rows = tile_round(max_rows), most = s->most_blocks;
    const size_t tiles = rows * TILE_COLS * sizeof(uint16_t);
    size_t widest = 0;

    *r = (struct stacked_room){.stack = s, .max_rows = rows};
    for (int g = 0; g < N_TILE_GROUPS; g++)
        if (s->shape->in[g].blocks > widest)
            widest = s->shape->in[g].blocks;
    r->active = arena_take(a, most * sizeof(*r->active));
    r->stacked = arena_take(a, STACK_RANGES * most * sizeof(*r->stacked));
    r->h = arena_take(a, most * tiles);
    if (backward) {
        r->d_h = arena_take(a, most * tiles);
        r->turned = arena_take(a, most * tiles);
        r->blocks = arena_take(a, most * sizeof(*r->blocks));
        r->targets = arena_take(a, most * RANK_PARTS * sizeof(*r->targets));
        r->scratch = arena_take(a, s->set ? s->set->scratch(rows) : 0);
    }
    if (!dropout)
        return;
    r->kept_pitch = widest * TILE_COLS / 64 + 1;
    r->given = arena_f32(a, rows * TILE_COLS);
    r->thin = arena_take(a, widest * tiles);
    r->kept = arena_take(a, rows * r->kept_pitch * sizeof(*r->kept));
    if (backward) {
        r->alone = arena_take(a, tiles);
        r->plus = arena_f32(a, rows * widest * TILE_COLS);
    }
}

/* Of the ascending ROW (n), how many are below LIMIT. */
static size_t rows_below(const uint32_t *row, size_t n, size_t limit)
{
    size_t low = 0;

    while (n) {
        const size_t half = n / 2;

        if (row[low + half] < limit) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

/* First and last row that an expert serves; false where it serves none. */
static bool served(const struct gates *g, size_t expert, size_t row, size_t rows,
                   size_t *first, size_t *last)
{
    const uint32_t *list;
    size_t n, from, end;

    if (!g)
        return false;
    list = g->row + g->first[expert];
    n = g->first[expert + 1] - g->first[expert];
    from = rows_below(list, n, row);
    end = rows_below(list, n, row + rows);
    if (from == end)
        return false;
    *first = list[from];
    *last = list[end - 1];
    return true;
}

static uint32_t places(size_t first, size_t n)
{
    return (uint32_t)(((1ull << n) - 1) << first);
}

/* The index of gates among the rule's. */
static uint8_t rule_gates(struct rank_rule *rule, const struct gates *g, bool backward)
{
    size_t i = 0;

    while (i < rule->n_gates && rule->gates[i].gate != g->gate)
        i++;
    if (i == rule->n_gates) {
        assert(i < sizeof(rule->gates) / sizeof(rule->gates[0]));
        rule->gates[rule->n_gates++] =
            (struct rank_gates){.gate = g->gate,
                                .d_gate = backward ? g->d_gate : NULL,
                                .unit_of_row = g->unit_of_row,
                                .n_owners = g->n_experts,
                                .n_rows = g->n_rows,
                                .by_row = g->n_units == g->n_rows};
    }
    return (uint8_t)i;
}

static float dropout_of(const struct stacked_room *r, const struct stacked_place *at,
                        size_t expert)
{
    return at->dropout ? r->stack->mixture->experts[expert].dropout : 0.0f;
}

/* A segment that serves rows joins the rule of its block. */
static void join(struct stacked_active *a, const struct stacked_room *r,
                 const struct stacked_place *at, const struct stack_segment *seg,
                 bool backward)
{
    struct rank_rule *rule = &a->rule;
    const struct lora *lora = segment_lora(r->stack, at->layer, seg);
    const float drop = dropout_of(r, at, seg->expert);
    const float slope = r->stack->mixture->experts[seg->expert].slope;
    const uint8_t gates = rule_gates(rule, at->gates[seg->site], backward);
    const uint32_t where = places(seg->first, seg->n);

    a->segments[rule->n_parts] = seg;
    rule->parts[rule->n_parts++] =
        (struct rank_part){seg->expert, gates, seg->first, seg->n};
    rule->gates[gates].places |= where;
    a->sites |= 1u << seg->site;
    if (drop > 0.0f)
        a->thinned |= where;
    if (slope != 1.0f)
        rule->bent |= where;
    for (size_t i = seg->first; i < (size_t)seg->first + seg->n; i++) {
        rule->owner[i] = (int32_t)seg->expert;
        rule->slope[i] = slope;
        rule->scale[i] =
            drop > 0.0f ? lora->scale * (1.0f / (1.0f - drop)) : lora->scale;
    }
}

/* The blocks that serve rows here. */
static void find_active(struct stacked_room *r, const struct stacked_place *at,
                        size_t row, size_t rows, bool backward)
{
    const struct stack_group *g = expert_stack_group(r->stack, at->layer, at->group);

    assert(row % PAIR_ROWS == 0 && rows % PAIR_ROWS == 0 && row + rows <= r->max_rows);
    r->n_active = 0;
    r->kept_expert = -1;
    for (size_t i = 0; i < g->n_blocks; i++) {
        struct stacked_active *a = &r->active[r->n_active];
        size_t from = row + rows, end = row;

        for (size_t j = 0; j < g->blocks[i].n_segments; j++) {
            const struct stack_segment *seg = &g->blocks[i].segments[j];
            size_t first, last;

            if (!served(at->gates[seg->site], seg->expert, row, rows, &first, &last))
                continue;
            if (end == row) {
                memset(a, 0, sizeof(*a));
                a->block = &g->blocks[i];
                a->index = i;
            }
            join(a, r, at, seg, backward);
            from = first < from ? first : from;
            end = last + 1 > end ? last + 1 : end;
        }
        if (end == row)
            continue;
        a->row = from / PAIR_ROWS * PAIR_ROWS;
        a->rows = tile_round(end) - a->row;
        r->n_active++;
    }
}

/* Rows ROW .. END of one column block become zero. */
static void clear(struct tiles t, size_t row, size_t end)
{
    for (; row < end; row += TILE_ROWS)
        memset(tile_at(t, row, 0), 0, TILE_ELEMS * sizeof(*t.at));
}

/* The rows of a block that nobody of it serves. */
static void clear_rest(struct tiles t, const struct stacked_active *a, size_t row,
                       size_t rows)
{
    clear(t, row, a->row);
    clear(t, a->row + a->rows, row + rows);
}

static struct rank_product product_of_x(const struct stacked_room *r,
                                        const struct stacked_place *at, struct tiles x,
                                        const struct stacked_active *a)
{
    const struct stack_group *g = expert_stack_group(r->stack, at->layer, at->group);
    const size_t in = r->stack->shape->in[at->group].blocks;

    return (struct rank_product){x, in, g->down + a->index * in * PACK_ELEMS, a->row,
                                 a->rows};
}

static struct rank_product product_of_d_y(struct tiles d_y,
                                          const struct stacked_active *a)
{
    return (struct rank_product){tiles_from(d_y, a->block->panel), a->block->n_panels,
                                 a->block->up_turned, a->row, a->rows};
}

/* X as an expert sees it at a linear, in R->THIN; which elements are left, in R->KEPT. */
static struct tiles thin_out(struct stacked_room *r, const struct stacked_place *at,
                             struct tiles x, const struct stack_segment *seg,
                             size_t row, size_t rows)
{
    const struct mixture *m = r->stack->mixture;
    const struct gates *g = at->gates[seg->site];
    const struct tile_map *in = &r->stack->shape->in[at->group];
    const struct tiles thin = {r->thin, in->blocks};
    const float drop = m->experts[seg->expert].dropout;
    const uint32_t limit = (uint32_t)((double)drop * 4294967296.0);

    if (r->kept_expert == (int)seg->expert && r->kept_site == seg->site)
        return thin;
    for (size_t t = row; t < row + rows; t++) {
        uint64_t *kept = r->kept + t * r->kept_pitch;

        if (t < g->n_rows &&
            g->gate[g->unit_of_row[t] * g->n_experts + seg->expert] != 0.0f)
            r->stack->set->draw_kept(
                kept, at->dropout_seed + t,
                (seg->expert * m->n_layers + at->layer) * N_SITES + seg->site, limit,
                segment_lora(r->stack, at->layer, seg)->n_in);
        else
            memset(kept, 0, r->kept_pitch * sizeof(*kept));
    }
    r->stack->set->thin(thin, x, in, r->kept, r->kept_pitch, row, rows);
    r->kept_expert = (int)seg->expert;
    r->kept_site = seg->site;
    return thin;
}

/* h of a block with dropout into R->GIVEN. */
static const float *thinned_h(struct stacked_room *r, const struct stacked_place *at,
                              struct tiles x, const struct stacked_active *a,
                              size_t row, size_t rows)
{
    struct rank_product p = product_of_x(r, at, x, a);

    r->stack->set->product(r->given, TILE_COLS, &p, UINT32_MAX);
    for (size_t i = 0; i < a->rule.n_parts; i++) {
        const struct stack_segment *seg = a->segments[i];

        if (!(a->thinned >> seg->first & 1))
            continue;
        p.a = thin_out(r, at, x, seg, row, rows);
        r->stack->set->product(r->given, TILE_COLS, &p, places(seg->first, seg->n));
    }
    return r->given;
}

/* Blocks of the active that ride in panels with SITES. */
static size_t share(struct tile_stacked *to, const struct stacked_room *r,
                    unsigned sites)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n_active; i++)
        if (r->active[i].sites & sites)
            to[n++] = (struct tile_stacked){(uint16_t)i, (uint16_t)r->active[i].index};
    return n;
}

const struct tile_low *stacked_forward(struct stacked_room *r,
                                       const struct stacked_place *at, struct tiles x,
                                       size_t row, size_t rows)
{
    const struct expert_stack *s = r->stack;
    const struct stack_group *g = expert_stack_group(s, at->layer, at->group);
    struct tiles h;

    find_active(r, at, row, rows, false);
    if (!r->n_active)
        return NULL;
    h = (struct tiles){r->h, r->n_active};
    for (size_t i = 0; i < r->n_active; i++) {
        const struct stacked_active *a = &r->active[i];
        const struct rank_product p = product_of_x(r, at, x, a);

        clear_rest(tiles_from(h, i), a, row, rows);
        if (a->thinned)
            s->set->scale(tiles_from(h, i), thinned_h(r, at, x, a, row, rows), a->row,
                          a->rows, &a->rule);
        else
            s->set->forward(tiles_from(h, i), &p, &a->rule);
    }
    for (size_t i = 0; i < STACK_RANGES && s->ranges[at->group][i].end; i++) {
        struct tile_stacked *to = r->stacked + i * s->most_blocks;

        r->shares[i] =
            (struct tile_share){s->ranges[at->group][i].end,
                                share(to, r, s->ranges[at->group][i].sites), to};
    }
    r->low = (struct tile_low){h, g->up, g->n_blocks, r->shares};
    return &r->low;
}

/* Where the gradient of a segment begins in GRADS: of A, or of B. */
static struct rank_target target(const struct stacked_room *r,
                                 const struct mixture_grads *grads, size_t layer,
                                 const struct stack_segment *seg, bool of_b)
{
    const struct lora *lora = segment_lora(r->stack, layer, seg);
    struct rank_target t = {
        .site = (uint8_t)seg->site, .first = seg->first, .n = seg->n};

    if (of_b) {
        t.to = grads->expert[seg->expert] + lora->d_b + seg->from;
        t.pitch = lora->rank;
    } else {
        t.to = grads->expert[seg->expert] + lora->d_a + seg->from * lora->n_in;
        t.pitch = lora->n_in;
    }
    return t;
}

/* Which gradients a sweep over the rows finds. */
struct sweep {
    struct mixture_grads *grads;
    struct tiles left; /* (n_active) h~ or d_h */
    bool of_b;
    const struct stack_segment *only; /* A of this expert and site; NULL: no dropout */
};

static bool swept(const struct sweep *w, const struct stacked_active *a,
                  const struct stack_segment *seg)
{
    if (!w->grads->expert[seg->expert])
        return false;
    if (w->only)
        return seg->expert == w->only->expert && seg->site == w->only->site;
    return w->of_b || !(a->thinned >> seg->first & 1);
}

/* The gradients of all active blocks whose right side is X (or d_y). */
static void find_gradients(struct stacked_room *r, const struct stacked_place *at,
                           const struct sweep *w, struct tiles x, size_t row,
                           size_t rows)
{
    const struct tile_shape *shape = r->stack->shape;
    const struct tile_map *map =
        w->of_b ? &shape->out[at->group] : &shape->in[at->group];
    size_t n = 0;

    for (size_t i = 0; i < r->n_active; i++) {
        const struct stacked_active *a = &r->active[i];
        uint16_t *turned = r->turned + i * r->max_rows * TILE_COLS;
        struct rank_block *b = &r->blocks[n];

        *b = (struct rank_block){turned, a->row, a->rows, r->targets + n * RANK_PARTS,
                                 0};
        for (size_t j = 0; j < a->rule.n_parts; j++)
            if (swept(w, a, a->segments[j])) {
                r->targets[n * RANK_PARTS + b->n_targets++] =
                    target(r, w->grads, at->layer, a->segments[j], w->of_b);
                w->grads->touched[a->segments[j]->expert] = true;
            }
        if (!b->n_targets)
            continue;
        r->stack->set->turn(turned, tiles_from(w->left, i), a->row, a->rows);
        n++;
    }
    if (n)
        r->stack->set->gradients(r->blocks, n, x, map->blocks, map, row, rows,
                                 r->scratch);
}

/* The places of a segment leave T (one column block) for R->ALONE. */
static struct tiles take_out(struct stacked_room *r, struct tiles t,
                             const struct stacked_active *a,
                             const struct stack_segment *seg)
{
    const struct tiles alone = {r->alone, 1};

    clear(alone, a->row, a->row + a->rows);
    for (size_t row = a->row; row < a->row + a->rows; row++) {
        uint16_t *from = tile_at(t, row, 0) + seg->first;

        memcpy(tile_at(alone, row, 0) + seg->first, from, seg->n * sizeof(*from));
        memset(from, 0, seg->n * sizeof(*from));
    }
    return alone;
}

/* What one expert with dropout at one linear gives to A and to D_X. */
static void thinned_slopes(struct stacked_room *r, const struct stacked_place *at,
                           struct tiles x, struct tiles d_h,
                           const struct stack_segment *only,
                           struct mixture_grads *grads, size_t row, size_t rows)
{
    const struct stack_group *g = expert_stack_group(r->stack, at->layer, at->group);
    const struct tile_map *in = &r->stack->shape->in[at->group];
    const struct sweep sweep = {grads, d_h, false, only};
    const struct tiles thin = thin_out(r, at, x, only, row, rows);

    if (grads)
        find_gradients(r, at, &sweep, thin, row, rows);
    for (size_t i = 0; at->wants_d_x && i < r->n_active; i++) {
        const struct stacked_active *a = &r->active[i];

        for (size_t j = 0; j < a->rule.n_parts; j++) {
            const struct stack_segment *seg = a->segments[j];

            if (seg->expert != only->expert || seg->site != only->site)
                continue;
            r->stack->set->add_kept(r->plus, take_out(r, tiles_from(d_h, i), a, seg),
                                    g->down_turned + a->index * PACK_ELEMS,
                                    g->n_blocks * PACK_ELEMS, in, r->kept,
                                    r->kept_pitch, a->row, a->rows);
        }
    }
}

/* All experts with dropout; true where R->PLUS has something. */
static bool dropout_slopes(struct stacked_room *r, const struct stacked_place *at,
                           struct tiles x, struct tiles d_h,
                           struct mixture_grads *grads, size_t row, size_t rows)
{
    const size_t wide = r->stack->shape->in[at->group].blocks * TILE_COLS;
    bool any = false;

    for (size_t i = 0; i < r->n_active; i++) {
        const struct stacked_active *a = &r->active[i];

        for (size_t j = 0; j < a->rule.n_parts; j++) {
            /* the first segment of a LoRA stands for all of it */
            if (!(a->thinned >> a->segments[j]->first & 1) || a->segments[j]->from)
                continue;
            if (!any && at->wants_d_x)
                memset(r->plus + row * wide, 0, rows * wide * sizeof(*r->plus));
            any = true;
            thinned_slopes(r, at, x, d_h, a->segments[j], grads, row, rows);
        }
    }
    return any;
}

/* h~ and d_h of the rows that a block serves among ROW .. ROW + ROWS. */
static void block_slopes(struct stacked_room *r, const struct stacked_place *at,
                         size_t index, struct tiles x, struct tiles d_y,
                         const float *given, size_t row, size_t rows)
{
    const struct stacked_active *a = &r->active[index];
    const size_t from = a->row > row ? a->row : row;
    const size_t end = a->row + a->rows < row + rows ? a->row + a->rows : row + rows;
    struct rank_product of_x = product_of_x(r, at, x, a),
                        of_d_y = product_of_d_y(d_y, a);

    if (from >= end)
        return;
    of_x.row = of_d_y.row = from;
    of_x.rows = of_d_y.rows = end - from;
    r->stack->set->backward(tiles_from((struct tiles){r->h, r->n_active}, index),
                            tiles_from((struct tiles){r->d_h, r->n_active}, index),
                            &of_x, given, &of_d_y, &a->rule);
}

/* Do gates of sequences get slopes here? */
static bool sums_units(const struct stacked_room *r)
{
    for (size_t i = 0; i < r->n_active; i++) {
        const struct rank_rule *rule = &r->active[i].rule;

        for (size_t j = 0; j < rule->n_gates; j++)
            if (rule->gates[j].d_gate && !rule->gates[j].by_row)
                return true;
    }
    return false;
}

/* Several blocks read the same rows: while they are in the caches. But a sequence's slope
 * is one sum over its rows: where it were cut would depend on the rows before it. */
static void find_slopes(struct stacked_room *r, const struct stacked_place *at,
                        struct tiles x, struct tiles d_y, size_t row, size_t rows)
{
    const size_t step = r->n_active > 1 && !sums_units(r) ? SHARED_ROWS : rows;

    for (size_t i = 0; i < r->n_active; i++) {
        const struct stacked_active *a = &r->active[i];

        clear_rest(tiles_from((struct tiles){r->d_h, r->n_active}, i), a, row, rows);
        if (a->thinned)
            block_slopes(r, at, i, x, d_y, thinned_h(r, at, x, a, row, rows), row,
                         rows);
    }
    for (size_t from = row; from < row + rows; from += step)
        for (size_t i = 0; i < r->n_active; i++)
            if (!r->active[i].thinned)
                block_slopes(r, at, i, x, d_y, NULL, from,
                             row + rows - from < step ? row + rows - from : step);
}

struct stacked_slopes stacked_backward(struct stacked_room *r,
                                       const struct stacked_place *at, struct tiles x,
                                       struct tiles d_y, struct mixture_grads *grads,
                                       size_t row, size_t rows)
{
    const struct expert_stack *s = r->stack;
    const struct stack_group *g = expert_stack_group(s, at->layer, at->group);
    const size_t in = s->shape->in[at->group].blocks;
    struct stacked_slopes slopes = {NULL, NULL, in * TILE_COLS};
    struct sweep sweep = {.grads = grads};
    struct tiles h, d_h;
    size_t n = 0;

    find_active(r, at, row, rows, true);
    h = (struct tiles){r->h, r->n_active};
    d_h = (struct tiles){r->d_h, r->n_active};
    find_slopes(r, at, x, d_y, row, rows);
    if (grads && r->n_active) {
        if (grads->relay)
            relay_wait(grads->relay, grads->item);
        sweep.left = h;
        sweep.of_b = true;
        find_gradients(r, at, &sweep, d_y, row, rows);
        sweep.left = d_h;
        sweep.of_b = false;
        find_gradients(r, at, &sweep, x, row, rows);
    }
    if (at->dropout && dropout_slopes(r, at, x, d_h, grads, row, rows) && at->wants_d_x)
        slopes.plus = r->plus;
    for (size_t i = 0; i < r->n_active; i++) {
        const struct stacked_active *a = &r->active[i];
        uint32_t rides = 0;

        for (size_t j = 0; j < a->rule.n_gates; j++)
            rides |= a->rule.gates[j].places;
        if (rides & ~a->thinned)
            r->stacked[n++] = (struct tile_stacked){(uint16_t)i, (uint16_t)a->index};
    }
    if (!n || !at->wants_d_x)
        return slopes;
    r->shares[0] = (struct tile_share){in, n, r->stacked};
    r->low = (struct tile_low){d_h, g->down_turned, g->n_blocks, r->shares};
    slopes.low = &r->low;
    return slopes;
}
