/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two thin products of a low-rank factor on bf16 tiles, and what gates make of
 * their rows.
 *
 * A pair of row blocks times a block of 32 ranks is one piece of 32 x 32; where only 16 of the ranks are asked for, two pairs are done at once. The
 * factors gate * scale of a row's 32 places are found anew only where its unit is not
 * that of the row before it: a sequence with its own expert pays for one row.
 */
#include "tiles/tile_rank_parts.h"

#if defined(TILE_BUILT)
#include <assert.h>

#include "tiles/tile_avx512bf16.h"
#include "tiles/tile_quad_bf16.h"

#define NOBODY    UINT32_MAX
#define AHEAD     4 /* steps of K that are fetched before they are needed */
#define ROWS_MOST 64

/* A piece's sums: [row block][half of the ranks][16][16], two pairs at most. */
struct sums {
    float at[ROWS_MOST / 16][2][256] __attribute__((aligned(64)));
};

/* gate * scale of the 32 places of a row. */
struct factors {
    __m512 low, high;
    uint32_t unit[3];
};

static unsigned halves_of(uint32_t places)
{
    return (places & 0xffff ? 1u : 0u) | (places >> 16 ? 2u : 0u);
}

static uint32_t places_of(const struct rank_rule *rule)
{
    uint32_t places = 0;

    for (size_t i = 0; i < rule->n_gates; i++)
        places |= rule->gates[i].places;
    return places;
}

static inline const uint16_t *rows_at(const struct rank_product *p, size_t row)
{
    return p->a.at + row / TILE_ROWS * p->a.pitch * TILE_ELEMS;
}

static inline void fetch(const uint16_t *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)b + i, _MM_HINT_T0);
}

/* Rows ROW .. ROW + 32 times all 32 ranks. COLD: B is not in the caches yet. */
static inline void piece(struct sums *out, const struct rank_product *p, size_t row,
                         bool cold)
{
    const uint16_t *top = rows_at(p, row), *bottom = top + p->a.pitch * TILE_ELEMS;
    const uint16_t *b = p->b;
    const struct quad c = {{out->at[0][0], out->at[0][1], out->at[1][0], out->at[1][1]},
                           16};

    quad_zero(&c);
    for (size_t k = 0; k < p->k; k++) {
        if (cold)
            fetch(b + AHEAD * PACK_ELEMS, PACK_ELEMS * sizeof(*b));
        quad_step(&c, top, bottom, b, b + TILE_ELEMS);
        top += TILE_ELEMS;
        bottom += TILE_ELEMS;
        b += PACK_ELEMS;
    }
    quad_store(&c);
}

/* Rows ROW .. ROW + 64, or + 32 where not TALL, times 16 ranks of HALF. */
static inline void half_piece(struct sums *out, const struct rank_product *p,
                              size_t row, size_t half, bool tall, bool cold)
{
    const size_t down = p->a.pitch * TILE_ELEMS;
    const uint16_t *a = rows_at(p, row), *b = p->b + half * TILE_ELEMS;
    const struct quad c = {
        {out->at[0][half], out->at[1][half], out->at[2][half], out->at[3][half]}, 16};

    quad_zero(&c);
    for (size_t k = 0; k < p->k; k++) {
        if (cold)
            fetch(b + AHEAD * PACK_ELEMS, TILE_ELEMS * sizeof(*b));
        quad_column(&c, a, down, b, tall ? 4 : 2);
        a += TILE_ELEMS;
        b += PACK_ELEMS;
    }
    quad_store(&c);
}

/* How many rows from ROW on one call takes, into OUT where not NULL. */
static inline size_t some_rows(struct sums *out, const struct rank_product *p,
                               size_t row, unsigned halves)
{
    const size_t left = p->row + p->rows - row;
    const bool tall = halves != 3 && left >= ROWS_MOST;

    if (out && halves == 3)
        piece(out, p, row, row == p->row);
    else if (out)
        half_piece(out, p, row, halves >> 1, tall, row == p->row);
    return tall ? ROWS_MOST : PAIR_ROWS;
}

static inline void rule_begin(struct factors *f)
{
    f->low = f->high = _mm512_setzero_ps();
    f->unit[0] = f->unit[1] = f->unit[2] = NOBODY;
}

static inline uint32_t unit_at(const struct rank_gates *g, size_t row)
{
    return row < g->n_rows ? g->unit_of_row[row] : NOBODY;
}

static inline bool same_units(const struct factors *f, const struct rank_rule *rule,
                              size_t row)
{
    for (size_t i = 0; i < rule->n_gates; i++)
        if (unit_at(&rule->gates[i], row) != f->unit[i])
            return false;
    return true;
}

static inline void factors_at(struct factors *f, const struct rank_rule *rule,
                              size_t row)
{
    const __m512i owner_low = _mm512_loadu_si512(rule->owner),
                  owner_high = _mm512_loadu_si512(rule->owner + 16);
    __m512 low = _mm512_setzero_ps(), high = low;

    for (size_t i = 0; i < rule->n_gates; i++) {
        const struct rank_gates *g = &rule->gates[i];
        const __mmask16 m_low = (__mmask16)g->places,
                        m_high = (__mmask16)(g->places >> 16);
        const float *gate;

        f->unit[i] = unit_at(g, row);
        if (f->unit[i] == NOBODY)
            continue;
        gate = g->gate + f->unit[i] * g->n_owners;
        if (g->n_owners <= 16) {
            const __mmask16 there = (__mmask16)((1u << g->n_owners) - 1);
            const __m512 all = _mm512_maskz_loadu_ps(there, gate);

            low = _mm512_mask_permutexvar_ps(low, m_low, owner_low, all);
            high = _mm512_mask_permutexvar_ps(high, m_high, owner_high, all);
        } else {
            low = _mm512_mask_i32gather_ps(low, m_low, owner_low, gate, 4);
            high = _mm512_mask_i32gather_ps(high, m_high, owner_high, gate, 4);
        }
    }
    f->low = _mm512_mul_ps(low, _mm512_loadu_ps(rule->scale));
    f->high = _mm512_mul_ps(high, _mm512_loadu_ps(rule->scale + 16));
}

/* X * F, 0 where F is 0 whatever X is. */
static inline __m512 times(__m512 x, __m512 f)
{
    return _mm512_maskz_mul_ps(_mm512_cmp_ps_mask(f, _mm512_setzero_ps(), _CMP_NEQ_UQ),
                               x, f);
}

static inline void load_row(__m512 *low, __m512 *high, const struct sums *s, size_t r,
                            unsigned halves)
{
    const float *at = s->at[r / 16][0] + r % 16 * 16;

    *low = halves & 1 ? _mm512_load_ps(at) : _mm512_setzero_ps();
    *high = halves & 2 ? _mm512_load_ps(at + 256) : _mm512_setzero_ps();
}

/* phi of a row, and where it bends: times the slope there. */
struct bend {
    __mmask16 low, high;
};

static inline struct bend bend(__m512 *low, __m512 *high, const struct rank_rule *rule)
{
    const __m512 zero = _mm512_setzero_ps();
    struct bend b = {0, 0};

    if (!rule->bent)
        return b;
    b.low = _mm512_mask_cmp_ps_mask((__mmask16)rule->bent, *low, zero, _CMP_LT_OQ);
    b.high =
        _mm512_mask_cmp_ps_mask((__mmask16)(rule->bent >> 16), *high, zero, _CMP_LT_OQ);
    *low = _mm512_mask_mul_ps(*low, b.low, *low, _mm512_loadu_ps(rule->slope));
    *high = _mm512_mask_mul_ps(*high, b.high, *high, _mm512_loadu_ps(rule->slope + 16));
    return b;
}

static void forward(struct tiles h, const struct rank_product *x,
                    const struct rank_rule *rule)
{
    const unsigned halves = halves_of(places_of(rule));
    struct sums sums;
    struct factors f;

    tiles_begin();
    rule_begin(&f);
    for (size_t row = x->row; row < x->row + x->rows;) {
        const size_t n = some_rows(&sums, x, row, halves);

        for (size_t r = 0; r < n; r++) {
            __m512 low, high;

            load_row(&low, &high, &sums, r, halves);
            if (!same_units(&f, rule, row + r))
                factors_at(&f, rule, row + r);
            bend(&low, &high, rule);
            _mm512_store_si512(tile_at(h, row + r, 0),
                               bf16_pair(times(low, f.low), times(high, f.high)));
        }
        row += n;
    }
    tiles_end();
}

static void scale(struct tiles h, const float *given, size_t row, size_t rows,
                  const struct rank_rule *rule)
{
    struct factors f;

    rule_begin(&f);
    for (size_t r = row; r < row + rows; r++) {
        __m512 low = _mm512_loadu_ps(given + r * 32),
               high = _mm512_loadu_ps(given + r * 32 + 16);

        if (!same_units(&f, rule, r))
            factors_at(&f, rule, r);
        bend(&low, &high, rule);
        _mm512_store_si512(tile_at(h, r, 0),
                           bf16_pair(times(low, f.low), times(high, f.high)));
    }
}

/* Sums scale <d_h~, h> of the rows of a unit, place by place, until the unit ends. */
struct dots {
    __m512 low, high;
};

static void dots_end(struct dots *dots, const struct factors *f,
                     const struct rank_rule *rule)
{
    for (size_t i = 0; i < rule->n_parts; i++) {
        const struct rank_part *part = &rule->parts[i];
        const struct rank_gates *g = &rule->gates[part->gates];
        const size_t unit = f->unit[part->gates], at = unit * g->n_owners + part->owner;
        const uint32_t places = (uint32_t)(((1ull << part->n) - 1) << part->first);

        if (!g->d_gate || unit == NOBODY || g->gate[at] == 0.0f)
            continue;
        if (places & 0xffff)
            g->d_gate[at] += _mm512_mask_reduce_add_ps((__mmask16)places, dots->low);
        if (places >> 16)
            g->d_gate[at] +=
                _mm512_mask_reduce_add_ps((__mmask16)(places >> 16), dots->high);
    }
    dots->low = dots->high = _mm512_setzero_ps();
}

/* The same where every row is a unit: 16 rows at once, turned so that a row is a lane. */
static void dots_by_row(float dots[16][32], const struct rank_rule *rule, size_t row)
{
    float turned[32][16] __attribute__((aligned(64)));

    for (size_t half = 0; half < 2; half++) {
        __m512i t[16];

        for (size_t r = 0; r < 16; r++)
            t[r] = _mm512_load_si512(dots[r] + half * 16);
        tile_transpose(t);
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(turned[half * 16 + i], t[i]);
    }
    for (size_t i = 0; i < rule->n_parts; i++) {
        const struct rank_part *part = &rule->parts[i];
        const struct rank_gates *g = &rule->gates[part->gates];
        const size_t left = row < g->n_rows ? g->n_rows - row : 0;
        const __mmask16 rows = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        const __m512i at = _mm512_add_epi32(
            _mm512_mullo_epi32(_mm512_maskz_loadu_epi32(rows, g->unit_of_row + row),
                               _mm512_set1_epi32((int)g->n_owners)),
            _mm512_set1_epi32((int)part->owner));
        const __m512 zero = _mm512_setzero_ps();
        __m512 sum = zero;
        __mmask16 served;

        if (!g->d_gate)
            continue;
        served = _mm512_mask_cmp_ps_mask(
            rows, _mm512_mask_i32gather_ps(zero, rows, at, g->gate, 4), zero,
            _CMP_NEQ_UQ);
        for (size_t k = 0; k < part->n; k++)
            sum = _mm512_add_ps(sum, _mm512_load_ps(turned[part->first + k]));
        sum = _mm512_add_ps(sum,
                            _mm512_mask_i32gather_ps(zero, served, at, g->d_gate, 4));
        _mm512_mask_i32scatter_ps(g->d_gate, served, at, sum, 4);
    }
}

/* How slopes of gates are found. */
enum dotted { NOT_DOTTED, BY_UNIT, BY_ROW };

static enum dotted dotted(const struct rank_rule *rule)
{
    enum dotted how = NOT_DOTTED;

    for (size_t i = 0; i < rule->n_gates; i++)
        if (rule->gates[i].d_gate)
            how = how != BY_UNIT && rule->gates[i].by_row ? BY_ROW : BY_UNIT;
    return how;
}

/* d_h of a row from that of phi(h). */
static inline void store_slopes(struct tiles d_h, size_t row, __m512 low, __m512 high,
                                struct bend bent, const struct rank_rule *rule)
{
    low = _mm512_mask_mul_ps(low, bent.low, low, _mm512_loadu_ps(rule->slope));
    high = _mm512_mask_mul_ps(high, bent.high, high, _mm512_loadu_ps(rule->slope + 16));
    _mm512_store_si512(tile_at(d_h, row, 0), bf16_pair(low, high));
}

static void backward(struct tiles h, struct tiles d_h, const struct rank_product *x,
                     const float *given, const struct rank_product *d_y,
                     const struct rank_rule *rule)
{
    const unsigned halves = halves_of(places_of(rule));
    const __m512 scale_low = _mm512_loadu_ps(rule->scale),
                 scale_high = _mm512_loadu_ps(rule->scale + 16);
    const enum dotted how = dotted(rule);
    float by_row[16][32] __attribute__((aligned(64)));
    struct dots dots = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    struct sums of_h, of_d;
    struct factors f;

    tiles_begin();
    rule_begin(&f);
    for (size_t row = d_y->row; row < d_y->row + d_y->rows;) {
        const size_t n = some_rows(&of_d, d_y, row, halves);

        if (!given)
            some_rows(&of_h, x, row, halves);
        for (size_t r = 0; r < n; r++) {
            __m512 low, high, d_low, d_high;
            struct bend bent;

            load_row(&d_low, &d_high, &of_d, r, halves);
            if (given) {
                low = _mm512_loadu_ps(given + (row + r) * 32);
                high = _mm512_loadu_ps(given + (row + r) * 32 + 16);
            } else {
                load_row(&low, &high, &of_h, r, halves);
            }
            if (!same_units(&f, rule, row + r)) {
                if (how == BY_UNIT)
                    dots_end(&dots, &f, rule);
                factors_at(&f, rule, row + r);
            }
            bent = bend(&low, &high, rule);
            _mm512_store_si512(tile_at(h, row + r, 0),
                               bf16_pair(times(low, f.low), times(high, f.high)));
            store_slopes(d_h, row + r, times(d_low, f.low), times(d_high, f.high), bent,
                         rule);
            d_low = _mm512_mul_ps(d_low, scale_low);
            d_high = _mm512_mul_ps(d_high, scale_high);
            if (how == BY_ROW) {
                _mm512_store_ps(by_row[r % 16], _mm512_mul_ps(d_low, low));
                _mm512_store_ps(by_row[r % 16] + 16, _mm512_mul_ps(d_high, high));
                if (r % 16 == 15)
                    dots_by_row(by_row, rule, row + r - 15);
            } else {
                dots.low = _mm512_fmadd_ps(d_low, low, dots.low);
                dots.high = _mm512_fmadd_ps(d_high, high, dots.high);
            }
        }
        row += n;
    }
    if (how == BY_UNIT)
        dots_end(&dots, &f, rule);
    tiles_end();
}

void TILE(rank_product)(float *out, size_t pitch, const struct rank_product *p,
                        uint32_t places)
{
    const unsigned halves = halves_of(places);
    struct sums sums;

    tiles_begin();
    for (size_t row = p->row; row < p->row + p->rows;) {
        const size_t n = some_rows(&sums, p, row, halves);

        for (size_t r = 0; r < n; r++) {
            float *to = out + (row + r) * pitch;
            __m512 low, high;

            load_row(&low, &high, &sums, r, halves);
            _mm512_mask_storeu_ps(to, (__mmask16)places, low);
            _mm512_mask_storeu_ps(to + 16, (__mmask16)(places >> 16), high);
        }
        row += n;
    }
    tiles_end();
}

static void add_kept(float *out, struct tiles h, const uint16_t *b, size_t b_pitch,
                     const struct tile_map *map, const uint64_t *kept, size_t pitch,
                     size_t row, size_t rows)
{
    const size_t wide = map->blocks * 32;

    for (size_t block = 0; block < map->blocks; block++) {
        const int32_t first = map->index[block * 32];
        float piece[PAIR_ROWS * 32] __attribute__((aligned(64)));

        for (size_t r = row; r < row + rows; r += PAIR_ROWS) {
            const struct rank_product p = {
                {tile_at(h, r, 0), h.pitch}, 1, b + block * b_pitch, 0, PAIR_ROWS};

            TILE(rank_product)(piece, 32, &p, UINT32_MAX);
            for (size_t i = 0; i < PAIR_ROWS; i++) {
                const uint32_t stay =
                    kept_at(kept + (r + i) * pitch, pitch, (size_t)first);
                float *to = out + (r + i) * wide + block * 32;
                const float *from = piece + i * 32;

                _mm512_storeu_ps(
                    to, _mm512_mask_add_ps(_mm512_loadu_ps(to), (__mmask16)stay,
                                           _mm512_loadu_ps(to), _mm512_load_ps(from)));
                _mm512_storeu_ps(
                    to + 16, _mm512_mask_add_ps(
                                 _mm512_loadu_ps(to + 16), (__mmask16)(stay >> 16),
                                 _mm512_loadu_ps(to + 16), _mm512_load_ps(from + 16)));
            }
        }
    }
}
static const struct tile_rank_set set = {
    .forward = forward,
    .backward = backward,
    .product = TILE(rank_product),
    .scale = scale,
    .turn = TILE(rank_turn),
    .gradients = TILE(rank_gradients),
    .scratch = TILE(rank_mixed),
    .pack_rows = bf16_pack_rows,
    .pack_columns = bf16_pack_columns,
    .draw_kept = bf16_draw_kept,
    .thin = bf16_thin,
    .add_kept = add_kept,
};

const struct tile_rank_set *TILE(tile_rank_set)(void)
{
    return &set;
}
#else
const struct tile_rank_set *TILE(tile_rank_set)(void)
{
    return NULL;
}
#endif
