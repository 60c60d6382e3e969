/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention forward on bf16 tiles, 32 queries at a time.
 *
 *     s = q k^T     p = 2^(c (s - m))     o = p v / sum(p)     c = log2(e) scale
 *
 * m is the largest score of the row so far: keys come in chunks of 256, and when a
 * chunk raises m, what was summed before fades by 2^(c (m_old - m_new)). Chunks and
 * blocks are counted from the sequence's first key, and a block that a row does not
 * see adds zeros to it, so a row's bits depend on its query and its keys alone.
 */
#include "tiles/tile_attention.h"

#if defined(TILE_BUILT)
#include <math.h>

#include "base/arena.h"
#include "tiles/tile_attention_bf16.h"

/* Floats from one row of scores to the next: 17 lines, so that rows fall on different
 * sets of the cache. */
#define PITCH (CHUNK * 32 + 16)

struct room {
    uint16_t *k;       /* [key block][qk_blocks][PACK_ELEMS] turned */
    uint16_t *v;       /* [v_blocks][key block][PACK_ELEMS] pairs */
    uint16_t *rows;    /* [2][TILE_ELEMS] of a cache */
    uint16_t *q;       /* [2][qk_blocks][TILE_ELEMS] */
    uint16_t *p;       /* [2][CHUNK][TILE_ELEMS] */
    float *s;          /* (32, PITCH) */
    float *o;          /* [v_blocks](32, 32) */
    float (*part)[16]; /* (32, 16) of each row's largest, of each row's sum */
    float *most, *sum; /* (32) */
    size_t key_blocks;
};

/* 32 queries of one head. */
struct queries {
    size_t head, first, n; /* rows of the sequence */
    size_t pos;            /* of the first: it sees keys 0 .. pos */
    __m512 c;
};

static void lay(struct room *r, struct arena *m, const struct tile_heads *h,
                size_t n_keys)
{
    r->key_blocks = tile_round(n_keys) / 32;
    r->k = arena_take(m, r->key_blocks * h->qk_blocks * PACK_ELEMS * 2);
    r->v = arena_take(m, r->key_blocks * h->v_blocks * PACK_ELEMS * 2);
    r->rows = arena_take(m, PACK_ELEMS * 2);
    r->q = arena_take(m, h->qk_blocks * PACK_ELEMS * 2);
    r->p = arena_take(m, CHUNK * PACK_ELEMS * 2);
    r->s = arena_f32(m, 32 * PITCH);
    r->o = arena_f32(m, h->v_blocks * 1024);
    r->part = arena_take(m, 32 * sizeof(*r->part));
    r->most = arena_f32(m, 32);
    r->sum = arena_f32(m, 32);
}

size_t TILE(attention_forward_bytes)(const struct tile_heads *h, size_t n_keys)
{
    struct arena m = {0};
    struct room r;

    lay(&r, &m, h, n_keys);
    return m.used;
}

size_t TILE(attention_scratch)(const struct tile_heads *h, size_t n_queries,
                               size_t n_keys)
{
    const size_t forward = TILE(attention_forward_bytes)(h, n_keys),
                 backward = TILE(attention_backward_bytes)(h, n_queries);

    return (forward > backward ? forward : backward) + ARENA_ALIGN;
}

/* N float rows from X to tiles, by the 32 places of INDEX. */
static void convert(uint16_t *out, const float *x, size_t pitch, size_t n,
                    const int32_t *index)
{
    const __m512i low = _mm512_loadu_si512(index),
                  high = _mm512_loadu_si512(index + 16);
    const __mmask16 low_there = _mm512_cmpge_epi32_mask(low, _mm512_setzero_si512()),
                    high_there = _mm512_cmpge_epi32_mask(high, _mm512_setzero_si512());
    const __m512 zero = _mm512_setzero_ps();

    for (size_t i = 0; i < n; i++) {
        const float *row = x + i * pitch;

        _mm512_store_si512(
            out + i * TILE_COLS,
            bf16_pair(_mm512_mask_i32gather_ps(zero, low_there, low, row, 4),
                      _mm512_mask_i32gather_ps(zero, high_there, high, row, 4)));
    }
}

/* Column block BLOCK of 32 keys, or of their values, from FIRST on. */
static struct piece key_piece(const struct tile_attention *a, const struct room *r,
                              size_t first, size_t block, bool value)
{
    const struct tile_heads *h = &a->heads;
    const struct tile_cache *c = a->cache;
    const size_t n = c ? c->n : a->n, left = n - first < 32 ? n - first : 32;
    size_t row = first;

    if (!c) {
        const size_t before =
            h->n_heads * h->qk_blocks + (value ? h->n_kv_heads * h->qk_blocks : 0);

        return (struct piece){a->qkv, a->row + first, left, before + block};
    }
    if (c->blocks)
        row = c->blocks[first / c->block] * c->block + first % c->block;
    convert(r->rows, (value ? c->v : c->k) + row * c->pitch, c->pitch, left,
            (value ? c->v_index : c->k_index) + block * 32);
    return (struct piece){{r->rows, 1}, 0, left, 0};
}

static void pack_keys(const struct room *r, const struct tile_attention *a,
                      size_t group)
{
    const size_t K = a->heads.qk_blocks, V = a->heads.v_blocks;

    for (size_t j = 0; j < r->key_blocks; j++) {
        for (size_t b = 0; b < K; b++) {
            const struct piece p = key_piece(a, r, j * 32, group * K + b, false);

            piece_turned(r->k + (j * K + b) * PACK_ELEMS, &p);
        }
        for (size_t b = 0; b < V; b++) {
            const struct piece p = key_piece(a, r, j * 32, group * V + b, true);

            piece_pairs(r->v + (b * r->key_blocks + j) * PACK_ELEMS, &p);
        }
    }
}

static void take_queries(const struct room *r, const struct tile_attention *a,
                         const struct queries *q)
{
    const size_t K = a->heads.qk_blocks;

    for (size_t b = 0; b < K; b++) {
        const struct piece p = {a->qkv, a->row + q->first, q->n, q->head * K + b};

        piece_rows(r->q + b * TILE_ELEMS, K * TILE_ELEMS, &p);
    }
}

/* How many of N key blocks from FIRST on all 32 queries see whole. */
static size_t n_clear(const struct queries *q, size_t first, size_t n)
{
    const size_t all = (q->pos + 1) / 32;

    return all <= first ? 0 : all - first < n ? all - first : n;
}

/* Of the 32 keys of BLOCK, those that query ROW sees. */
static uint32_t seen(const struct queries *q, size_t row, size_t block)
{
    const size_t n = q->pos + row + 1;

    return n <= block * 32 ? 0 : first_bits(n - block * 32);
}

/* Scores of N key blocks; what a query does not see is -inf. */
static void score(const struct room *r, const struct tile_heads *h,
                  const struct queries *q, size_t first, size_t n)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    const size_t K = h->qk_blocks;

    for (size_t j = 0; j < n; j++) {
        const struct quad s = quad_within(r->s + j * 32, PITCH);

        quad_zero(&s);
        quad_add(&s, r->q, r->q + K * TILE_ELEMS, r->k + (first + j) * K * PACK_ELEMS,
                 K);
        quad_store(&s);
    }
    for (size_t j = n_clear(q, first, n); j < n; j++)
        for (size_t i = 0; i < 32; i++) {
            const uint32_t hidden = ~seen(q, i, first + j);
            float *s = r->s + i * PITCH + j * 32;

            _mm512_mask_store_ps(s, (__mmask16)hidden, none);
            _mm512_mask_store_ps(s + 16, (__mmask16)(hidden >> 16), none);
        }
}

/* Raises MOST to the chunk's largest scores; SUM and O fade accordingly. */
static void raise(const struct room *r, const struct tile_heads *h, __m512 c, size_t n,
                  bool fresh)
{
    float fade[32];

    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < 32; i++) {
            const float *s = r->s + i * PITCH + j * 32;
            __m512 x = _mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16));

            if (j > 0)
                x = _mm512_max_ps(x, _mm512_load_ps(r->part[i]));
            _mm512_store_ps(r->part[i], x);
        }
    for (size_t i = 0; i < 32; i += 16) {
        const __m512 most = largest_of_rows((const float(*)[16])r->part + i);
        const __m512 old = _mm512_load_ps(r->most + i);

        if (fresh) {
            _mm512_store_ps(r->most + i, most);
            _mm512_store_ps(r->sum + i, _mm512_setzero_ps());
        } else {
            const __m512 now = _mm512_max_ps(old, most);
            const __m512 f = exp2_fast(_mm512_mul_ps(c, _mm512_sub_ps(old, now)));

            _mm512_store_ps(r->most + i, now);
            _mm512_storeu_ps(fade + i, f);
            _mm512_store_ps(r->sum + i, _mm512_mul_ps(_mm512_load_ps(r->sum + i), f));
        }
    }
    for (size_t i = 0; !fresh && i < h->v_blocks * 32; i++) {
        const __m512 f = _mm512_set1_ps(fade[i % 32]);
        float *o = r->o + i * 32;

        _mm512_store_ps(o, _mm512_mul_ps(_mm512_load_ps(o), f));
        _mm512_store_ps(o + 16, _mm512_mul_ps(_mm512_load_ps(o + 16), f));
    }
}

/* P of block J of the chunk, each row's 16 sums added to PART; masked where HIDDEN. */
static inline void soften_block(const struct room *r, const struct queries *q,
                                const float *top, size_t first, size_t j, bool hidden)
{
    for (size_t i = 0; i < 32; i++) {
        const float *s = r->s + i * PITCH + j * 32;
        const __m512 t = _mm512_set1_ps(top[i]);
        __m512 x = exp2_fast(_mm512_fmsub_ps(_mm512_load_ps(s), q->c, t)),
               y = exp2_fast(_mm512_fmsub_ps(_mm512_load_ps(s + 16), q->c, t)), sum;

        if (hidden) {
            const uint32_t there = seen(q, i, first + j);

            x = _mm512_maskz_mov_ps((__mmask16)there, x);
            y = _mm512_maskz_mov_ps((__mmask16)(there >> 16), y);
        }
        sum = _mm512_add_ps(x, y);
        if (j > 0)
            sum = _mm512_add_ps(sum, _mm512_load_ps(r->part[i]));
        _mm512_store_ps(r->part[i], sum);
        _mm512_store_si512(r->p + (i / 16 * CHUNK + j) * TILE_ELEMS +
                               i % 16 * TILE_COLS,
                           bf16_pair(x, y));
    }
}

/* P of a chunk, and SUM. Blocks outside and rows inside: 32 rows are a loop whose end
 * the CPU can tell, the blocks of a row are not. */
static void soften(const struct room *r, const struct queries *q, size_t first,
                   size_t n)
{
    const size_t clear = n_clear(q, first, n);
    _Alignas(64) float top[32];

    for (size_t i = 0; i < 32; i += 16)
        _mm512_store_ps(top + i, _mm512_mul_ps(q->c, _mm512_load_ps(r->most + i)));
    for (size_t j = 0; j < clear; j++)
        soften_block(r, q, top, first, j, false);
    for (size_t j = clear; j < n; j++)
        soften_block(r, q, top, first, j, true);
    for (size_t i = 0; i < 32; i += 16)
        _mm512_store_ps(r->sum + i,
                        _mm512_add_ps(_mm512_load_ps(r->sum + i),
                                      sum_rows((const float(*)[16])r->part + i)));
}

static void gather_values(const struct room *r, const struct tile_heads *h,
                          size_t first, size_t n)
{
    for (size_t b = 0; b < h->v_blocks; b++) {
        const struct quad o = quad_within(r->o + b * 1024, 32);

        if (first == 0)
            quad_zero(&o);
        else
            quad_load(&o);
        quad_add(&o, r->p, r->p + CHUNK * TILE_ELEMS,
                 r->v + (b * r->key_blocks + first) * PACK_ELEMS, n);
        quad_store(&o);
    }
}

/* log2 of positive numbers, error below 2e-7. */
static __m512 log2_of(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 m = _mm512_getmant_ps(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    const __m512 whole = _mm512_getexp_ps(_mm512_div_ps(x, m));
    const __m512 t = _mm512_div_ps(_mm512_sub_ps(m, one), _mm512_add_ps(m, one));
    const __m512 u = _mm512_mul_ps(t, t);
    __m512 p = _mm512_set1_ps(2.0f / 9); /* ln m = 2 (t + t^3/3 + t^5/5 + ...) */

    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(2.0f / 7));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(2.0f / 5));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(2.0f / 3));
    p = _mm512_fmadd_ps(p, u, _mm512_set1_ps(2.0f));
    return _mm512_fmadd_ps(_mm512_mul_ps(p, t), _mm512_set1_ps(LOG2_E), whole);
}

static void finish(const struct room *r, const struct tile_attention *a,
                   const struct queries *q)
{
    const size_t V = a->heads.v_blocks;
    float share[32];

    for (size_t i = 0; i < 32; i += 16) {
        const __m512 sum = _mm512_load_ps(r->sum + i);
        const size_t left = q->n > i ? q->n - i : 0;

        _mm512_storeu_ps(share + i, _mm512_div_ps(_mm512_set1_ps(1.0f), sum));
        if (a->lse)
            _mm512_mask_storeu_ps(
                a->lse + q->head * a->lse_pitch + a->row + q->first + i,
                (__mmask16)first_bits(left),
                _mm512_fmadd_ps(_mm512_load_ps(r->most + i), q->c, log2_of(sum)));
    }
    for (size_t b = 0; b < V; b++)
        for (size_t i = 0; i < q->n; i++) {
            const __m512 f = _mm512_set1_ps(share[i]);
            const float *o = r->o + (b * 32 + i) * 32;

            _mm512_storeu_si512(tile_at(a->o, a->row + q->first + i, q->head * V + b),
                                bf16_pair(_mm512_mul_ps(_mm512_load_ps(o), f),
                                          _mm512_mul_ps(_mm512_load_ps(o + 16), f)));
        }
}

static void attend(const struct room *r, const struct tile_attention *a,
                   const struct queries *q)
{
    const size_t blocks = (q->pos + q->n - 1) / 32 + 1;

    take_queries(r, a, q);
    for (size_t first = 0; first < blocks; first += CHUNK) {
        const size_t n = blocks - first < CHUNK ? blocks - first : CHUNK;

        score(r, &a->heads, q, first, n);
        raise(r, &a->heads, q->c, n, first == 0);
        soften(r, q, first, n);
        gather_values(r, &a->heads, first, n);
    }
    finish(r, a, q);
}

void TILE(attention)(const struct tile_attention *a)
{
    const struct tile_heads *h = &a->heads;
    const size_t n_keys = a->cache ? a->cache->n : a->n,
                 shared = h->n_heads / h->n_kv_heads;
    struct arena m = {.base = a->scratch, .size = SIZE_MAX};
    struct room r;
    struct queries q = {.c = _mm512_set1_ps(h->scale * LOG2_E)};

    m.used = -(uintptr_t)a->scratch % ARENA_ALIGN;
    lay(&r, &m, h, n_keys);
    tiles_begin();
    for (size_t g = 0; g < h->n_kv_heads; g++) {
        pack_keys(&r, a, g);
        for (q.head = g * shared; q.head < (g + 1) * shared; q.head++)
            for (q.first = a->part * 32; q.first < a->n; q.first += a->n_parts * 32) {
                q.n = a->n - q.first < 32 ? a->n - q.first : 32;
                q.pos = n_keys - a->n + q.first;
                attend(&r, a, &q);
            }
    }
    tiles_end();
}
#endif
