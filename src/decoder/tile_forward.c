/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's operations forward on tiles. The linears of a group are one product; rope,
 * SwiGLU and the residual are applied to its pieces on their way out. Rows behind the
 * last of the block are zero wherever somebody reads them.
 */
#include <string.h>

#include "decoder/tile_pass.h"

_Static_assert((int)GROUP_QKV == (int)TILE_QKV && (int)GROUP_O == (int)TILE_O &&
                   (int)GROUP_GATE_UP == (int)TILE_GATE_UP &&
                   (int)GROUP_DOWN == (int)TILE_DOWN,
               "groups of a step are groups of tiles");

void tile_norm(struct decoder_pass *p, const struct step_part *part, size_t layer,
               enum step_branch branch)
{
    const struct model_config *c = &p->model->weights->config;
    const struct tile_layer *w = &p->tiles->model->layers[layer];
    const struct tile_acts *a = tile_acts_of(p, layer);
    const bool attention = branch == BRANCH_ATTENTION;

    tile_set()->norm(attention ? a->xn_attn : a->xn_ffn,
                     attention ? a->inv_attn : a->inv_ffn,
                     attention ? p->x[layer] : p->x[layer + 1],
                     attention ? w->attn_gain : w->ffn_gain, c->norm_eps, c->dim,
                     p->pitch / TILE_COLS, part->row, part->rows);
}

/* What a product of group G needs: the frozen weights and the experts of these rows. */
static struct tile_product product_of(struct decoder_pass *p,
                                      const struct step_part *part, size_t layer,
                                      enum tile_group g, struct tiles x)
{
    struct tile_pass *t = p->tiles;
    const size_t k = t->model->shape.in[g].blocks;
    const struct stacked_place at = tile_place(p, layer, g);

    return (struct tile_product){
        .a = x,
        .k = k,
        .b = t->model->layers[layer].forward[g],
        .b_pitch = k * PACK_ELEMS,
        .panels = t->model->shape.out[g].blocks,
        .low = t->stack ? stacked_forward(&t->room[part->thread], &at, x, part->row,
                                          part->rows)
                        : NULL,
        .row = part->row,
        .rows = part->rows,
    };
}

/* Keys and values of N rows from ROW on to K and V (N, WIDTH), in natural order. */
static void spread_rows(const struct decoder_pass *p, float *k, float *v, size_t width,
                        struct tiles qkv, size_t row, size_t n)
{
    const struct tile_model *m = p->tiles->model;
    const struct tile_shape *s = &m->shape;
    const size_t n_k = s->n_kv_heads * s->qk_blocks, n_v = s->n_kv_heads * s->v_blocks;
    const size_t first = s->n_heads * s->qk_blocks;

    tile_set()->spread(k, width, tiles_from(qkv, first), n_k, m->k_index, row, n);
    tile_set()->spread(v, width, tiles_from(qkv, first + n_k), n_v, m->v_index, row, n);
}

/* Of the part's rows those that are not padding: up to here. */
static size_t end_of(const struct decoder_pass *p, const struct step_part *part)
{
    const size_t end = part->row + part->rows;

    return end < p->T ? end : p->T;
}

/* To the session's cache. */
static void keep_in_cache(struct decoder_pass *p, const struct step_part *part,
                          size_t layer, struct tiles qkv)
{
    const struct kv_cache *c = p->kv;
    const size_t end = end_of(p, part);

    for (size_t row = part->row, run; row < end; row += run) {
        run = kv_run(c, c->n + row, end - row);
        spread_rows(p, kv_keys(c, layer, c->n + row), kv_values(c, layer, c->n + row),
                    c->width, qkv, row, run);
    }
}

/* To where sequences that continue others find them. */
static void keep_for_others(struct decoder_pass *p, const struct step_part *part,
                            struct tiles qkv)
{
    const struct model_config *c = &p->model->weights->config;
    const size_t width = c->n_kv_heads * c->head_dim, end = end_of(p, part);

    if (part->row < end)
        spread_rows(p, p->joined.all_k + part->row * width,
                    p->joined.all_v + part->row * width, width, qkv, part->row,
                    end - part->row);
}

/* Sequence SEQ and what it continues as a cache, which holds the same numbers. */
static struct tile_cache cache_of(struct decoder_pass *p, size_t seq)
{
    const struct model_config *c = &p->model->weights->config;

    return (struct tile_cache){.k = p->joined.k,
                               .v = p->joined.v,
                               .pitch = c->n_kv_heads * c->head_dim,
                               .n = pass_join(p, seq, p->joined.all_k, p->joined.all_v),
                               .k_index = p->tiles->model->k_index,
                               .v_index = p->tiles->model->v_index};
}

void tile_qkv(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct tile_model *m = p->tiles->model;
    const struct tile_shape *s = &m->shape;
    const struct tile_acts *a = tile_acts_of(p, layer);
    const struct tile_product product =
        product_of(p, part, layer, TILE_QKV, a->xn_attn);
    struct tile_rope rope = m->rope;

    rope.pos = p->pos;
    tile_set()->product_rope(&product, a->qkv,
                             (s->n_heads + s->n_kv_heads) * s->qk_blocks, s->qk_blocks,
                             &rope);
    if (p->kv)
        keep_in_cache(p, part, layer, a->qkv);
}

void tile_attend(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct tile_acts *a = tile_acts_of(p, layer);
    struct tile_attention at = tile_attention_of(p, a, part->thread);
    struct tile_cache cache;

    at.part = part->thread;
    at.n_parts = part->n;
    if (p->kv && p->kv->n) { /* else all keys are here: the same numbers */
        cache = (struct tile_cache){.k = p->kv->k + layer * p->kv->layer,
                                    .v = p->kv->v + layer * p->kv->layer,
                                    .blocks = p->kv->blocks,
                                    .block = KV_BLOCK,
                                    .pitch = p->kv->width,
                                    .n = p->kv->n + p->T,
                                    .k_index = p->tiles->model->k_index,
                                    .v_index = p->tiles->model->v_index};
        at.cache = &cache;
    }
    if (p->options.continued)
        keep_for_others(p, part, a->qkv);
    for (size_t s = 0; s < p->block->n_seqs; s++) {
        at.n = p->block->seqs[s].n;
        if (p->options.continued) {
            cache = p->block->seqs[s].after ? cache_of(p, s) : (struct tile_cache){0};
            at.cache = p->block->seqs[s].after ? &cache : NULL;
        }
        tile_set()->attention(&at);
        at.row += at.n;
    }
    if (part->thread == 0) /* it writes the rows of sequences alone */
        tile_clear_behind(p, a->o);
}

void tile_output(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const size_t from = part->row * p->pitch, n = part->rows * p->pitch;
    const struct tile_product product =
        product_of(p, part, layer, TILE_O, tile_acts_of(p, layer)->o);
    float *x = p->x[layer + 1];

    if (x != p->x[layer])
        memcpy(x + from, p->x[layer] + from, n * sizeof(float));
    tile_set()->product_add(&product, x, p->pitch);
}

void tile_gate_up(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct tile_acts *a = tile_acts_of(p, layer);
    const struct tile_product product =
        product_of(p, part, layer, TILE_GATE_UP, a->xn_ffn);

    if (p->again)
        tile_set()->product_tiles(&product, a->gate_up);
    else
        tile_set()->product_swiglu(&product, a->gate_up, p->tiles->act);
}

void tile_down(struct decoder_pass *p, const struct step_part *part, size_t layer)
{
    const struct tile_product product =
        product_of(p, part, layer, TILE_DOWN, p->tiles->act);

    tile_set()->product_add(&product, p->x[layer + 1], p->pitch);
}

static struct tiles input_of(const struct decoder_pass *p, size_t layer,
                             enum step_group g)
{
    const struct tile_acts *a = tile_acts_of(p, layer);

    switch (g) {
    case GROUP_QKV:
        return a->xn_attn;
    case GROUP_O:
        return a->o;
    case GROUP_GATE_UP:
        return a->xn_ffn;
    default:
        return p->tiles->act;
    }
}

void tile_read_routers(struct decoder_pass *p, const struct step_routers *rs,
                       size_t layer, enum step_group g)
{
    const struct tile_routers routers = tile_routers_of(p, rs, (enum tile_group)g);

    routers_read(&p->tiles->routers, &routers, p->mixture->rule.pool, p->pools,
                 input_of(p, layer, g), p->rows);
}

void tile_read_pools(struct decoder_pass *p, float *mean, size_t dim, size_t layer,
                     enum step_group g)
{
    const struct tile_map *map = &p->tiles->model->shape.in[g];

    for (size_t s = 0; s < p->block->n_seqs; s++)
        routers_pool(mean + s * dim, &p->pools[s], POOL_MEAN, input_of(p, layer, g),
                     map, dim);
}
